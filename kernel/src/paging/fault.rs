//! The answer to a guest's access to a page that is not there.

use super::Pager;
use super::counters::bump;
use super::state::{Notice, State};
use crate::addr::{Gpa, PageIndex};
use crate::block::{Disk, DiskError};
use crate::mm::guest_bytes::{Faulter, NotNow};
use crate::mm::leaf::Leaf;
use crate::mm::object::{MemoryObject, ObjectId, WaitTicket};
use crate::mm::page::{Before, Page};
use crate::mm::phys::FrameMemory;
use crate::mm::table::OutOfTables;
use crate::pool::Policy;
use crate::virt::Access;
use core::sync::atomic::Ordering::Relaxed;

/// What becomes of the access.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The page is there: repeat the access.
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
    /// The disk does not take the object's pages, which hold all the frames that are its share.
    Unwritable(DiskError),
    /// No frame is free, and nobody can give one: every page of the pool is pinned, or dirty without a place to go.
    NoFrames,
}

impl core::fmt::Display for Loss {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Checksum => f.write_str("its block holds something else than what was written"),
            Self::Unwritable(error) => write!(f, "no frame is left in its share, and its pages cannot be written: {error}"),
            Self::NoFrames => f.write_str("no frame is free, and none can be freed"),
        }
    }
}

impl<M: FrameMemory, D: Disk, P: Policy> Pager<'_, M, D, P> {
    /// Makes the page of `gpa` resident, or starts to. For a read, zeros are shown where there is no frame.
    ///
    /// Else all kinds of access are served alike, but where the CPU does not note them in A and D: there it is done here.
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
        let Some((near, page)) = object.locate(index) else {
            return self.fault_first_of_table(object, index, access, now);
        };
        let answer = match page.leaf() {
            Leaf::Present(_) => self.admit(page, access),
            Leaf::Untouched | Leaf::Zero | Leaf::Loaned if self.show_zeros(page, access) => Some(Fault::Resolved),
            Leaf::Untouched | Leaf::Zero | Leaf::Loaned => self.demand_zero(object, page, access, ticket),
            Leaf::GoingOut(_) => self.rescue(page),
            Leaf::ComingIn(_) => {
                bump(&self.counters.joined_waits, 1);
                Some(Fault::Wait(ticket))
            }
            Leaf::Paged(_) => self.begin_page_in((near, page), access, ticket, now),
        };
        // A leaf that has changed under our hands is looked at again when the access is repeated. No loop here: the compiler would
        // prepare every turn's work before the first one.
        answer.unwrap_or(Fault::Resolved)
    }

    /// The same for the first access to a page of a table that is not there yet.
    #[cold]
    fn fault_first_of_table(&self, object: &MemoryObject, index: PageIndex, access: Access, now: u64) -> Fault {
        let ticket = object.wait_ticket();
        match object.page(index) {
            Ok(_) => self.fault_page(object, index, access, now),
            Err(OutOfTables) => self.wait_for_frames(object.id(), ticket),
        }
    }

    fn admit(&self, page: Page<'_>, access: Access) -> Option<Fault> {
        page.admit(access).ok()?;
        bump(&self.counters.resident_faults, 1);
        Some(Fault::Resolved)
    }

    /// Lets the guest read zeros without a frame of its own; returns whether it can now.
    ///
    /// A page that shows them already and faults again gets a frame. So a CPU that calls a write a
    /// read does not fault for ever.
    #[inline(always)]
    fn show_zeros(&self, page: Page<'_>, access: Access) -> bool {
        let is_shown = access == Access::Read && page.show_zeros(self.ground.zeros).is_ok();
        if is_shown {
            bump(&self.counters.zeros_shown, 1);
        }
        is_shown
    }

    /// Looks after the invariant on which [`Page::install_zero`] over the shared zeros relies.
    #[cold]
    fn check_upgrade(&self, id: ObjectId) {
        let is_alone = !self.ground.words.is_any_in(id);
        assert!(is_alone, "no CPU runs a guest whose page gets a frame instead of the shared zeros");
    }

    /// Maps a zeroed frame; `None` if the page is in another state by now.
    fn demand_zero(&self, object: &MemoryObject, page: Page<'_>, access: Access, ticket: WaitTicket) -> Option<Fault> {
        let frame = match self.gate.load(Relaxed) {
            false => self.ground.frames.alloc(),
            true => self.take_frame(&mut self.locked(), object.id()),
        };
        let Some(frame) = frame else {
            return Some(self.wait_for_frames(object.id(), ticket));
        };
        self.ground.memory.zero(frame.hfn());
        match page.install_zero(frame) {
            Ok(before) => {
                if before == Before::SharedZeros {
                    self.check_upgrade(object.id());
                }
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
        self.wait_for_frames_locked(&mut self.locked(), id, ticket)
    }

    pub(super) fn wait_for_frames_locked(&self, state: &mut State<P>, id: ObjectId, ticket: WaitTicket) -> Fault {
        if state.reclaim.exhausted {
            return Fault::Lost(Loss::NoFrames);
        }
        if let Some(loss) = self.loss_by_guard(state, id) {
            return Fault::Lost(loss);
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
            Fault::Lost(Loss::Unwritable(_) | Loss::NoFrames) => Err(NotNow::Unwritable),
            Fault::NotRam | Fault::Lost(_) => Err(NotNow::Lost),
        }
    }
}
