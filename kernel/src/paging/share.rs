//! Ownership of frames as they are freed: promises to partitions that restart.
//!
//! ```text
//!   crash: promise(image, boot memory) ─> image's frames freed ─> credited, up to the promise
//!                                                                     │
//!   next incarnation, same account: its faults spend the credit <─────┘ end_promise: free for all
//! ```
//!
//! A frame is credited under the pager's lock before it is on the free list. So no other partition
//! ever sees it free and unpromised.

use super::counters::bump;
use super::slots::{AttachError, PagedObject};
use super::state::PagerState;
use super::{PageStore, Pager};
use crate::block::Disk;
use crate::block::MAX_DISKS;
use crate::log::history::{self, HistoryKind};
use crate::mm::frames::FrameChain;
use crate::mm::object::{MemoryObject, ObjectId};
use crate::mm::phys::FrameMemory;
use crate::pool::Watermarks;
use crate::pool::{AccountId, FrameCredits, PoolTerms, ReclaimPolicy};
use crate::time::Ns;
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering::{Relaxed, Release};

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Attaches an object on a partition's terms. Without a store only its zero pages can be
    /// evicted.
    ///
    /// # Errors
    /// [`AttachError`]: the store does not fit the object, or the object is attached already.
    pub fn attach_on(
        &self,
        object: Arc<MemoryObject>,
        store: Option<PageStore>,
        terms: PoolTerms,
    ) -> Result<(), AttachError> {
        let infos: ArrayVec<_, MAX_DISKS> = self.disks.iter().map(|disk| disk.info()).collect();
        let id = object.id();
        let mut state = self.locked();
        state.slots.attach(object, store, &infos)?;
        state.reclaim.asked |= state.slots.bases > 0;
        state.slots.busy(id).terms = terms;
        state.policy.forget(id);
        Ok(())
    }

    /// Promises the next `frames` frames freed from a dump image to the image's account.
    pub fn promise(&self, image: ObjectId, frames: u32) {
        if let Some(slot) = self.locked().slots.get_mut(image) {
            slot.record(HistoryKind::FramesPromised, 0, [u64::from(frames), 0]);
            slot.promise = frames;
        }
    }

    /// Returns how many free frames are reserved for an account.
    pub fn reserved(&self, account: AccountId) -> u32 {
        self.locked().credits.of(account)
    }

    /// Ends all promises to an account.
    pub fn end_promise(&self, account: AccountId) {
        let mut state = self.locked();
        let state = &mut *state;
        state
            .slots
            .iter_mut()
            .filter(|slot| slot.terms.account == account)
            .for_each(|slot| slot.promise = 0);
        let unused = state.credits.of(account);
        if unused > 0 {
            history::record_partition(
                account.partition(),
                HistoryKind::PromiseEnded,
                0,
                [unused.into(), 0],
            );
        }
        self.set_credit(state, account, 0);
    }

    pub(super) fn set_credit(&self, state: &mut PagerState<P>, account: AccountId, frames: u32) {
        state.credits.set(account, frames);
        self.promised.store(state.credits.total(), Release);
        self.set_gate(state);
    }

    /// Returns an object's collected frames to the free list, under one lock. Promised ones are
    /// credited first.
    pub(super) fn give_back(
        &self,
        credits: &mut FrameCredits,
        slot: &mut PagedObject,
        freed: &mut FrameChain,
    ) {
        if freed.is_empty() {
            return;
        }
        let count = freed.len();
        slot.drain.freed += u64::from(count);
        if !slot.is_image() {
            bump(&self.counters.freed_from_live, u64::from(count));
        }
        let kept = count.min(slot.promise);
        if kept > 0 {
            slot.promise -= kept;
            credits.add(slot.terms.account, kept);
            self.promised.store(credits.total(), Release);
            self.gate.store(true, Release);
        }
        self.env.frames.free_chain(core::mem::take(freed));
    }

    pub(super) fn end_all_promises(&self, state: &mut PagerState<P>) {
        let promised = u64::from(state.credits.total());
        history::record_machine(HistoryKind::PromisesBroken, 0, [promised, 0]);
        state.slots.iter_mut().for_each(|slot| slot.promise = 0);
        state.credits = FrameCredits::new();
        self.promised.store(0, Release);
        self.set_gate(state);
    }

    /// Returns how many frames are on their way to the free list and not promised.
    pub(super) fn leaving_for_all(&self, state: &PagerState<P>, now: Ns) -> u32 {
        let promised = state.slots.iter().map(|slot| slot.promise).fold(0, u32::saturating_add);
        state.batches.leaving(now).saturating_sub(promised)
    }

    /// Returns whether free frames have become few; true at most once between two polls. A CPU
    /// should then poll, before a faulter has to wait.
    #[inline]
    pub fn wants_poll(&self) -> bool {
        let free = self.env.frames.free_count().saturating_sub(self.promised.load(Relaxed));
        self.marks.is_low(free) && !self.wants_poll.swap(true, Relaxed)
    }

    /// Returns how many free frames are not promised.
    pub(super) fn free_for_all(&self, state: &PagerState<P>) -> u32 {
        self.env.frames.free_count().saturating_sub(state.credits.total())
    }

    /// Returns the pool's marks, raised by the frames kept free for walks.
    #[inline]
    pub(super) fn marks_now(&self, state: &PagerState<P>) -> Watermarks {
        self.marks.raised_by(state.reclaim.for_walks)
    }
}
