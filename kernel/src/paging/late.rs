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
use super::slots::PagedObject;
use super::state::PagerState;
use crate::addr::PageIndex;
use crate::block::{Completion, Cookie, Disk};
use crate::log::history::HistoryKind;
use crate::mm::frames::FrameChain;
use crate::mm::object::{MemoryObject, ObjectId};
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// Memory that a disk may still access for a timed-out request.
#[derive(Debug)]
pub(super) enum HeldMemory {
    /// The disk may still read these pages; they are pinned.
    Pages(Arc<MemoryObject>, Range<u32>),
    /// The disk may still write these frames; they belong to no object.
    Frames(FrameChain),
}

#[derive(Debug)]
struct LateRequest {
    disk: usize,
    cookie: Cookie,
    held: HeldMemory,
}

/// All timed-out requests.
#[derive(Debug)]
pub(super) struct LateRequests {
    all: Vec<LateRequest>,
}

impl LateRequests {
    /// Makes room for as many requests as all disks together accept.
    pub(super) fn with_capacity(requests: usize) -> Self {
        Self { all: Vec::with_capacity(requests) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Records memory that a disk may still access.
    ///
    /// # Panics
    /// If the disk has accepted more requests than its depth (our bug: its driver bounds them).
    pub(super) fn keep(&mut self, disk: usize, cookie: Cookie, held: HeldMemory) {
        assert!(
            self.all.len() < self.all.capacity(),
            "a disk has no more requests in flight than its depth"
        );
        self.all.push(LateRequest { disk, cookie, held });
    }

    pub(super) fn take(&mut self, disk: usize, cookie: Cookie) -> Option<HeldMemory> {
        let at = self.all.iter().position(|late| late.disk == disk && late.cookie == cookie)?;
        Some(self.all.swap_remove(at).held)
    }

    /// Returns whether a disk may still access pages of an object.
    pub(super) fn holds(&self, id: ObjectId) -> bool {
        self.all
            .iter()
            .any(|late| matches!(&late.held, HeldMemory::Pages(object, _) if object.id() == id))
    }
}

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
