//! Requests that timed out: the memory that their disk may still access, until the late completion
//! releases it.
//!
//! ```text
//!   write: pages mapped again and pinned ──────┐ late completion: unpinned
//!                                              ├───────────────────────────────>
//!   read:  pages paged again, frames kept ─────┘ late completion: frames freed
//! ```
//!
//! A disk that has such requests accepts no new ones, so disk and cookie identify a request.

use super::Pager;
use super::late_requests::HeldMemory;
use super::slots::PagedObject;
use super::state::PagerState;
use crate::addr::PageIndex;
use crate::block::{Completion, Disk};
use crate::log::history::HistoryKind;
use crate::mm::object::ObjectId;
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use core::ops::Range;

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Handles a late completion. Returns whether the completion was late.
    #[cold]
    pub(super) fn take_late(
        &self,
        state: &mut PagerState<P>,
        disk: usize,
        completion: Completion,
    ) -> bool {
        match state.late.take(disk, completion.cookie) {
            None => return false,
            Some(HeldMemory::Frames(chain)) => self.env.frames.free_chain(chain),
            Some(HeldMemory::Pages(object, pages)) => {
                object.pages(pages).for_each(|page| page.unpin())
            }
        }
        true
    }

    /// Notes that a disk has stopped or resumed taking requests, for all objects on it.
    #[cold]
    #[inline(never)]
    pub(super) fn note_turn_of(&self, state: &mut PagerState<P>, disk: usize, is_down: bool) {
        state.down[disk] = is_down;
        let PagerState { slots, notices, .. } = state;
        let on_it =
            |slot: &&mut PagedObject| slot.store.is_some_and(|store| store.store.disk == disk);
        for slot in slots.iter_mut().filter(on_it) {
            if is_down {
                super::reclaim::note_dead(slot, notices);
            } else {
                slot.record_at_disk(HistoryKind::StoreUp);
                slot.come_back();
            }
            slot.object.wake();
        }
        self.count_guarded(state);
    }

    /// Returns whether a disk that does not answer may still access pages of an object. Its memory
    /// cannot be taken apart while that is so.
    pub fn is_held_by_disk(&self, id: ObjectId) -> bool {
        self.locked().late.holds(id)
    }
}

/// Returns the page numbers of a run.
pub(super) fn range_of(first: PageIndex, count: usize) -> Range<u32> {
    first.0..first.0 + count as u32
}
