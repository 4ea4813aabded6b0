//! Serves guest accesses to pages that are not resident.

use super::Pager;
use super::counters::bump;
use super::loss::PageLossError;
use super::state::{PagerNotice, PagerState};
use crate::addr::{Gpa, PageIndex};
use crate::block::Disk;
use crate::log::history::HistoryKind;
use crate::mm::guest_bytes::{FaultInError, Faulter};
use crate::mm::leaf::LeafState;
use crate::mm::object::{MemoryObject, ObjectId, RegionState, WaitTicket};
use crate::mm::page::{Page, PriorMapping};
use crate::mm::phys::FrameMemory;
use crate::mm::table::OutOfTablesError;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;
use crate::virt::PageAccess;
use core::sync::atomic::Ordering::Relaxed;

/// Outcome of an access.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessOutcome {
    /// The page is resident: repeat the access.
    Resolved,
    /// Park; repeat the access when the ticket is ready.
    Wait(WaitTicket),
    /// No RAM there.
    NotRam,
    /// The page is lost: the partition crashes with this reason.
    Lost(PageLossError),
}

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Makes the page of `gpa` resident, or starts to. A read of a page without a frame maps the
    /// shared zeros instead.
    ///
    /// Otherwise all kinds of access are served alike. On a CPU without A and D bits the access is
    /// noted in the leaf here.
    pub fn fault(
        &self,
        object: &MemoryObject,
        gpa: Gpa,
        access: PageAccess,
        now: Ns,
    ) -> AccessOutcome {
        match object.layout().index_of(gpa.number()) {
            Some(index) => self.fault_page(object, index, access, now),
            None => AccessOutcome::NotRam,
        }
    }

    /// Makes a page resident and open to `access`, or starts to.
    pub fn fault_page(
        &self,
        object: &MemoryObject,
        index: PageIndex,
        access: PageAccess,
        now: Ns,
    ) -> AccessOutcome {
        // Taken before the first look at the leaf, so any change after that look makes the ticket
        // ready.
        let ticket = object.wait_ticket();
        let Some((near, page)) = object.locate(index) else {
            return self.fault_first_of_table(object, index, access, now);
        };
        let leaf = page.leaf();
        // First: the path whose length counts most.
        if let LeafState::Paged(_) = leaf {
            let answer = self.begin_page_in((near, page), access, ticket, now);
            return answer.unwrap_or(AccessOutcome::Resolved);
        }
        let answer = match leaf {
            LeafState::Present(_) => self.admit(page, access),
            LeafState::Untouched if object.base().is_some() && self.inherits(object, page) => {
                return self.fault_inherited((object, page), access, ticket, now);
            }
            LeafState::Shared(_) => {
                return self.fault_inherited((object, page), access, ticket, now);
            }
            LeafState::Untouched | LeafState::Zero if self.show_zeros(page, access) => {
                Some(AccessOutcome::Resolved)
            }
            LeafState::Untouched | LeafState::Zero => {
                self.demand_zero(object, page, access, ticket)
            }
            LeafState::GoingOut(_) => self.rescue(page),
            LeafState::ComingIn(_) => {
                bump(&self.counters.joined_waits, 1);
                Some(AccessOutcome::Wait(ticket))
            }
            LeafState::Paged(_) => None,
        };
        // A leaf that has changed meanwhile is examined again when the guest repeats the access. No
        // loop here: the compiler would hoist every iteration's set-up before the first one.
        answer.unwrap_or(AccessOutcome::Resolved)
    }

    /// Like [`Self::fault_page`], for the first access to a page whose table does not exist yet.
    #[cold]
    fn fault_first_of_table(
        &self,
        object: &MemoryObject,
        index: PageIndex,
        access: PageAccess,
        now: Ns,
    ) -> AccessOutcome {
        let ticket = object.wait_ticket();
        match object.want(index) {
            RegionState::Read => {}
            RegionState::Unread => return AccessOutcome::Wait(ticket),
            RegionState::Lost => {
                let loss = PageLossError::Checksum;
                self.lose(&mut self.locked(), object.id(), index, loss);
                return AccessOutcome::Lost(loss);
            }
        }
        match object.page(index) {
            Ok(_) => self.fault_page(object, index, access, now),
            Err(OutOfTablesError) => self.wait_for_frames(object.id(), ticket),
        }
    }

    fn admit(&self, page: Page<'_>, access: PageAccess) -> Option<AccessOutcome> {
        page.admit(access).ok()?;
        bump(&self.counters.resident_faults, 1);
        Some(AccessOutcome::Resolved)
    }

    /// Maps the shared zeros for a read; returns whether it did.
    ///
    /// A page that maps them already and faults again gets its own frame. So a CPU that reports a
    /// write as a read does not fault forever.
    #[inline(always)]
    pub(super) fn show_zeros(&self, page: Page<'_>, access: PageAccess) -> bool {
        let is_shown = access == PageAccess::Read && page.show_zeros(self.env.zeros).is_ok();
        if is_shown {
            bump(&self.counters.zeros_shown, 1);
        }
        is_shown
    }

    /// Asserts the invariant on which [`Page::install_zero`] over the shared zeros relies.
    #[cold]
    fn check_upgrade(&self, id: ObjectId) {
        let is_alone = !self.env.quiescent_states.is_any_in(id);
        assert!(
            is_alone,
            "no CPU runs a guest whose page gets a frame instead of the shared zeros"
        );
    }

    /// Maps a zeroed frame. Returns `None` if the page's state has changed meanwhile.
    fn demand_zero(
        &self,
        object: &MemoryObject,
        page: Page<'_>,
        access: PageAccess,
        ticket: WaitTicket,
    ) -> Option<AccessOutcome> {
        let frame = match self.gate.load(Relaxed) {
            false => self.env.frames.alloc(),
            true => self.take_frame(&mut self.locked(), object.id()),
        };
        let Some(frame) = frame else {
            return Some(self.wait_for_frames(object.id(), ticket));
        };
        self.env.memory.zero(frame.hfn());
        match page.install_zero(frame) {
            Ok(before) => {
                if before == PriorMapping::SharedZeros {
                    self.check_upgrade(object.id());
                }
                // If the page was evicted again already, the access faults again.
                let _ = page.admit(access);
                bump(&self.counters.demand_zero, 1);
                Some(AccessOutcome::Resolved)
            }
            Err(frame) => {
                self.env.frames.free(frame);
                None
            }
        }
    }

    pub(super) fn rescue(&self, page: Page<'_>) -> Option<AccessOutcome> {
        page.rescue().ok()?;
        bump(&self.counters.rescues, 1);
        Some(AccessOutcome::Resolved)
    }

    /// Parks the faulter until frames are free, unless none ever will be.
    pub(super) fn wait_for_frames(&self, id: ObjectId, ticket: WaitTicket) -> AccessOutcome {
        self.wait_for_frames_locked(&mut self.locked(), id, ticket)
    }

    pub(super) fn wait_for_frames_locked(
        &self,
        state: &mut PagerState<P>,
        id: ObjectId,
        ticket: WaitTicket,
    ) -> AccessOutcome {
        if state.reclaim.exhausted {
            return AccessOutcome::Lost(PageLossError::NoFrames);
        }
        if let Some(loss) = self.loss_by_guard(state, id) {
            return AccessOutcome::Lost(loss);
        }
        self.note_hungry(id);
        AccessOutcome::Wait(ticket)
    }

    /// Declares a page lost: its faulters crash with the reason.
    pub(super) fn lose(
        &self,
        state: &mut PagerState<P>,
        id: ObjectId,
        index: PageIndex,
        loss: PageLossError,
    ) {
        bump(&self.counters.lost_pages, 1);
        let slot = state.slots.busy(id);
        slot.note_loss(index, loss);
        slot.record_loss(HistoryKind::PageLost, index, loss, 0);
        state.notices.push(PagerNotice::PageLost { object: id, index, loss });
    }
}

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy + Send> Faulter for Pager<'_, M, D, P> {
    fn fault(
        &self,
        object: &MemoryObject,
        index: PageIndex,
        access: PageAccess,
    ) -> Result<(), FaultInError> {
        match self.fault_page(object, index, access, self.clock.load(Relaxed)) {
            AccessOutcome::Resolved => Ok(()),
            AccessOutcome::Wait(_) => Err(FaultInError::Wait),
            AccessOutcome::Lost(PageLossError::Unwritable(_) | PageLossError::NoFrames) => {
                Err(FaultInError::Unwritable)
            }
            AccessOutcome::NotRam | AccessOutcome::Lost(_) => Err(FaultInError::Lost),
        }
    }
}
