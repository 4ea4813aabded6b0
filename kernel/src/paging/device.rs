//! Accesses of a partition's devices to its memory: on any CPU, while the guest may run on another.
//!
//! ```text
//!   touched, own frame ──> resolved
//!   paged, going out, inherited ──> as a fault of the vCPU
//!   reads as zeros ── read ──> shared zeros
//!                  └─ write ─> a cleared frame ── the guest may still see the shared zeros ──> flush
//! ```
//!
//! A fault of the vCPU happens on the CPU that runs the guest, which is not in the guest then. So
//! no CPU sees the shared zeros when a frame takes their place. For a device that does not hold: it
//! waits for a flush before it writes, and so before the guest can be told of it.

use super::Pager;
use super::fault::AccessOutcome;
use super::loss::PageLossError;
use crate::addr::PageIndex;
use crate::arch::percpu;
use crate::block::Disk;
use crate::mm::flush::{FlushTicket, Kicks};
use crate::mm::leaf::LeafState;
use crate::mm::object::{MemoryObject, RegionState};
use crate::mm::page::{Page, PriorMapping};
use crate::mm::phys::FrameMemory;
use crate::mm::table::OutOfTablesError;
use crate::pool::ReclaimPolicy;
use crate::virt::PageAccess;
use core::sync::atomic::Ordering::Relaxed;

/// Outcome of a device's access.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub enum DeviceAccess {
    /// Repeat the access.
    Resolved,
    /// Repeat it when the object was woken.
    Waits,
    /// Make these CPUs leave the guest, and repeat the access when the flush has passed.
    Flushes(FlushTicket, Kicks),
    /// The page cannot be had.
    Lost(PageLossError),
}

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Makes a page resident for a device, or starts to. The caller holds no frame of the object.
    pub fn fault_for_device(
        &self,
        object: &MemoryObject,
        index: PageIndex,
        access: PageAccess,
    ) -> DeviceAccess {
        let (ticket, now) = (object.wait_ticket(), self.clock.load(Relaxed));
        let Some((near, page)) = object.locate(index) else {
            return self.begin_table(object, index);
        };
        let answer = match page.leaf() {
            LeafState::Present(_) => None,
            LeafState::Paged(_) => self.begin_page_in((near, page), access, ticket, now),
            LeafState::GoingOut(_) => self.rescue(page),
            LeafState::ComingIn(_) => Some(AccessOutcome::Wait(ticket)),
            LeafState::Shared(_) => Some(self.fault_inherited((object, page), access, ticket, now)),
            LeafState::Untouched if object.base().is_some() && self.inherits(object, page) => {
                Some(self.fault_inherited((object, page), access, ticket, now))
            }
            LeafState::Untouched | LeafState::Zero if access == PageAccess::Read => {
                self.show_zeros(page, access);
                None
            }
            LeafState::Untouched | LeafState::Zero => return self.clear_for_device(object, page),
        };
        match answer {
            None | Some(AccessOutcome::Resolved) => DeviceAccess::Resolved,
            Some(AccessOutcome::Wait(_)) => DeviceAccess::Waits,
            Some(AccessOutcome::Lost(loss)) => DeviceAccess::Lost(loss),
            Some(AccessOutcome::NotRam) => DeviceAccess::Lost(PageLossError::Checksum),
        }
    }

    #[cold]
    fn begin_table(&self, object: &MemoryObject, index: PageIndex) -> DeviceAccess {
        let ticket = object.wait_ticket();
        match object.want(index) {
            RegionState::Read => {}
            RegionState::Unread => return DeviceAccess::Waits,
            RegionState::Lost => {
                let loss = PageLossError::Checksum;
                self.lose(&mut self.locked(), object.id(), index, loss);
                return DeviceAccess::Lost(loss);
            }
        }
        match object.page(index) {
            Ok(_) => DeviceAccess::Resolved,
            Err(OutOfTablesError) => match self.wait_for_frames(object.id(), ticket) {
                AccessOutcome::Lost(loss) => DeviceAccess::Lost(loss),
                _ => DeviceAccess::Waits,
            },
        }
    }

    /// Gives a page that reads as zeros a cleared frame of its own.
    fn clear_for_device(&self, object: &MemoryObject, page: Page<'_>) -> DeviceAccess {
        let ticket = object.wait_ticket();
        let frame = match self.gate.load(Relaxed) {
            false => self.env.frames.alloc(),
            true => self.take_frame(&mut self.locked(), object.id()),
        };
        let Some(frame) = frame else {
            return match self.wait_for_frames(object.id(), ticket) {
                AccessOutcome::Lost(loss) => DeviceAccess::Lost(loss),
                _ => DeviceAccess::Waits,
            };
        };
        self.env.memory.zero(frame.hfn());
        match page.install_zero(frame) {
            Ok(PriorMapping::Absent) => DeviceAccess::Resolved,
            Ok(PriorMapping::SharedZeros) => {
                let words = self.env.quiescent_states;
                let (mut flush, kicks) = object.flush(words, percpu::current());
                match flush.poll(words) {
                    Some(_) => DeviceAccess::Resolved,
                    None => DeviceAccess::Flushes(flush, kicks),
                }
            }
            Err(frame) => {
                self.env.frames.free(frame);
                DeviceAccess::Resolved
            }
        }
    }
}
