//! The answer to a guest's access to a page that is not there.

use super::Pager;
use super::counters::bump;
use super::state::{Notice, State};
use crate::addr::{Gpa, PageIndex};
use crate::block::{Disk, DiskError};
use crate::mm::guest_bytes::{Faulter, NotNow};
use crate::mm::leaf::Leaf;
use crate::mm::object::{MemoryObject, ObjectId, WaitTicket};
use crate::mm::page::Page;
use crate::mm::phys::FrameMemory;
use crate::pool::Policy;
use crate::virt::Access;
use core::sync::atomic::Ordering::Relaxed;

/// Looks at a leaf that changes under our hands before the guest simply tries again.
const LOOKS: usize = 4;

/// What becomes of the access.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The page is resident: repeat the access.
    Resolved,
    /// Park; repeat the access when the ticket is ready.
    Wait(WaitTicket),
    /// No RAM there.
    NotRam,
    /// The page cannot be had: the partition crashes with this reason.
    Lost(Loss),
}

/// Why a page cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The disk could not read its block.
    Io(DiskError),
    /// The block holds something else than what was written.
    Checksum,
    /// No frame is free, and nobody can give one: every page of the pool is pinned, or dirty without a place to go.
    NoFrames,
}

impl<M: FrameMemory, D: Disk, P: Policy> Pager<'_, M, D, P> {
    /// Makes the page of `gpa` resident, or starts to.
    ///
    /// All kinds of access are served alike, but where the CPU does not note them in A and D: there it is done here.
    pub fn fault(&self, object: &MemoryObject, gpa: Gpa, access: Access, now: u64) -> Fault {
        match object.layout().index_of(gpa.number()) {
            Some(index) => self.fault_page(object, index, access, now),
            None => Fault::NotRam,
        }
    }

    /// Makes a page resident and open to `access`, or starts to.
    pub fn fault_page(&self, object: &MemoryObject, index: PageIndex, access: Access, now: u64) -> Fault {
        // Taken before the first look: whatever happens after the look makes it ready.
        let ticket = object.wait_ticket();
        let Ok(page) = object.page(index) else {
            return self.wait_for_frames(object.id(), ticket);
        };
        for _ in 0..LOOKS {
            let answer = match page.leaf() {
                Leaf::Present(_) => self.admit(page, access),
                Leaf::Untouched | Leaf::Zero | Leaf::Loaned => self.demand_zero(object, page, access, ticket),
                Leaf::GoingOut(_) => self.rescue(page),
                Leaf::ComingIn(_) => {
                    bump(&self.counters.joined_waits, 1);
                    Some(Fault::Wait(ticket))
                }
                Leaf::Paged(_) => self.begin_page_in(object, page, access, ticket, now),
            };
            if let Some(answer) = answer {
                return answer;
            }
        }
        Fault::Resolved
    }

    fn admit(&self, page: Page<'_>, access: Access) -> Option<Fault> {
        page.admit(access).ok()?;
        bump(&self.counters.resident_faults, 1);
        Some(Fault::Resolved)
    }

    /// Maps a zeroed frame; `None` if the page is in another state by now.
    fn demand_zero(&self, object: &MemoryObject, page: Page<'_>, access: Access, ticket: WaitTicket) -> Option<Fault> {
        let frame = match self.promised.load(Relaxed) {
            0 => self.ground.frames.alloc(),
            _ => self.take_frame(&mut self.state.lock(), object.id()),
        };
        let Some(frame) = frame else {
            return Some(self.wait_for_frames(object.id(), ticket));
        };
        self.ground.memory.zero(frame.hfn());
        match page.install_zero(frame) {
            Ok(()) => {
                // Where it has left already, the access faults again.
                let _ = page.admit(access);
                bump(&self.counters.demand_zero, 1);
                Some(Fault::Resolved)
            }
            Err(frame) => {
                self.ground.frames.free(frame);
                None
            }
        }
    }

    fn rescue(&self, page: Page<'_>) -> Option<Fault> {
        page.rescue().ok()?;
        bump(&self.counters.rescues, 1);
        Some(Fault::Resolved)
    }

    /// Parks a faulter until frames come free, unless none ever will.
    fn wait_for_frames(&self, id: ObjectId, ticket: WaitTicket) -> Fault {
        self.wait_for_frames_locked(&mut self.state.lock(), id, ticket)
    }

    pub(super) fn wait_for_frames_locked(&self, state: &mut State<P>, id: ObjectId, ticket: WaitTicket) -> Fault {
        if state.reclaim.exhausted {
            return Fault::Lost(Loss::NoFrames);
        }
        self.note_hungry(id);
        Fault::Wait(ticket)
    }

    /// Gives a page up: its faulters crash with the reason.
    pub(super) fn lose(&self, state: &mut State<P>, id: ObjectId, index: PageIndex, loss: Loss) {
        bump(&self.counters.lost_pages, 1);
        state.slots.busy(id).note_loss(index, loss);
        state.notices.push(Notice::PageLost { object: id, index, loss });
    }
}

impl<M: FrameMemory, D: Disk, P: Policy + Send> Faulter for Pager<'_, M, D, P> {
    fn fault(&self, object: &MemoryObject, index: PageIndex, access: Access) -> Result<(), NotNow> {
        match self.fault_page(object, index, access, self.clock.load(Relaxed)) {
            Fault::Resolved => Ok(()),
            Fault::Wait(_) => Err(NotNow::Wait),
            Fault::NotRam | Fault::Lost(_) => Err(NotNow::Lost),
        }
    }
}
