//! The drain of a dump image: every page reaches its final place, in ascending order, and its frame
//! is freed.
//!
//! ```text
//!  0 ........ cursor ........ next ............................ pages
//!  | all final | in batches   | not visited yet                 |
//! ```
//!
//! The sweep takes pages in ascending order into batches of as many whole requests as fit. Dirty
//! pages are written straight from their frames; clean pages are just freed; zero pages are
//! described by their leaves; paged pages are left alone. The sweep waits at a page whose page-in
//! or cleaning from before the crash is still in flight. A page whose write fails pulls the sweep
//! back. After eight failures without a success the drain stops and reports the error,
//! until [`ImageDrain::retry`].
//!
//! Reclaim uses the same sweep: a dump image's pages are the pool's preferred victims.

use super::Pager;
use super::bad_pages::BadPages;
use super::batch::{BATCH_PAGES, Batch, BatchPurpose};
use super::counters::bump;
use super::drain_state::DrainState;
use super::slots::PagedObject;
use super::state::PagerState;
use super::work::{PollBudget, PollOutcome, PollTurn};
use crate::addr::PageIndex;
use crate::arch::percpu::CpuId;
use crate::block::{Disk, DiskError};
use crate::mm::crc::Crc32c;
use crate::mm::leaf::{LeafState, PageMapping};
use crate::mm::object::{MemoryObject, ObjectId, RegionState};
use crate::mm::page::{Page, TransitionError};
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use alloc::sync::Arc;
use core::ops::ControlFlow;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

/// Progress of a drain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrainProgress {
    /// All pages below are final.
    pub cursor: PageIndex,
    /// Pages that still hold a frame.
    pub remaining: u32,
    /// Frames freed.
    pub freed: u64,
    /// Pages written.
    pub written: u64,
    /// Pages that turned out to be zero.
    pub zero: u64,
    /// Pages freed because their blocks were current.
    pub clean: u64,
    /// Everything is final and no frame is left.
    pub done: bool,
    /// The error that the drain has stopped at.
    pub failed: Option<DiskError>,
}

/// How a final page is represented in the dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageFinal {
    /// Its block holds the content, with this checksum.
    Block(Crc32c),
    /// All zeros; the block's content is meaningless.
    Zero,
}

/// The drain of one dump image.
#[derive(Debug)]
pub struct ImageDrain {
    image: Arc<MemoryObject>,
    /// Of a crashed child: inherited pages below have a copy in their own blocks.
    copied: AtomicU32,
}

impl ImageDrain {
    /// Starts the drain of `image`, which must be attached. Frames freed from now on count as freed
    /// from the image.
    ///
    /// # Panics
    /// If the object is not attached, or is no dump image (our bug).
    pub fn new<M: FrameMemory, D: Disk, P: ReclaimPolicy>(
        pager: &Pager<'_, M, D, P>,
        image: Arc<MemoryObject>,
    ) -> Self {
        let mut state = pager.locked();
        let slot = state.slots.get_mut(image.id()).expect("a dump image that drains is attached");
        assert!(slot.is_image(), "only a dump image drains");
        slot.drain = DrainState::default();
        drop(state);
        Self { image, copied: AtomicU32::new(0) }
    }

    /// Notes that every inherited page below `end` has a copy of the base's block in its own,
    /// except those that the dump lists as missing.
    pub fn note_copied(&self, end: PageIndex) {
        self.copied.store(end.0, Relaxed);
    }

    /// Returns the image.
    pub fn image(&self) -> &Arc<MemoryObject> {
        &self.image
    }

    /// Visits at most `visits` pages, starts the writes that fit, and reports. [`Pager::poll`]
    /// completes the writes.
    pub fn step<M: FrameMemory, D: Disk, P: ReclaimPolicy>(
        &self,
        pager: &Pager<'_, M, D, P>,
        me: CpuId,
        visits: u32,
    ) -> (DrainProgress, PollOutcome) {
        let mut turn = PollTurn::begin(me, pager.clock.load(Relaxed));
        turn.budget.visits = visits;
        let mut state = pager.locked();
        // As many batches as one object may have.
        while pager.sweep(&mut state, self.image.id(), &mut turn) > 0 {}
        // A batch in limbo or in scan waits for the next poll, not for a disk: the caller must not
        // idle.
        if !turn.work.poll_again {
            let wants = state.batches.wants();
            turn.work.poll_again = wants.a_cpu || wants.a_flush;
        }
        (progress(&state, self.image.id()), turn.work)
    }

    /// Reports progress without starting any work.
    #[cfg(test)]
    pub fn progress<M: FrameMemory, D: Disk, P: ReclaimPolicy>(
        &self,
        pager: &Pager<'_, M, D, P>,
    ) -> DrainProgress {
        progress(&pager.locked(), self.image.id())
    }

    /// Resumes a drain that has stopped after failures.
    pub fn retry<M: FrameMemory, D: Disk, P: ReclaimPolicy>(&self, pager: &Pager<'_, M, D, P>) {
        if let Some(slot) = pager.locked().slots.get_mut(self.image.id()) {
            slot.drain.failures = 0;
            slot.revive();
        }
    }

    /// Notes that the block of page `index` is wrong.
    pub fn note_bad<M: FrameMemory, D: Disk, P: ReclaimPolicy>(
        &self,
        pager: &Pager<'_, M, D, P>,
        index: PageIndex,
    ) {
        if let Some(slot) = pager.locked().slots.get_mut(self.image.id()) {
            slot.bad.note(index);
        }
    }

    /// Returns the pages whose blocks were unreadable or wrong, before the crash or since. The list
    /// may include intact pages.
    pub fn suspects<M: FrameMemory, D: Disk, P: ReclaimPolicy>(
        &self,
        pager: &Pager<'_, M, D, P>,
    ) -> BadPages {
        pager.locked().slots.get(self.image.id()).map(|slot| slot.bad.clone()).unwrap_or_default()
    }

    /// Returns how page `index` is represented in the dump, or `None` while it is not final.
    pub fn final_kind<M: FrameMemory, D: Disk, P: ReclaimPolicy>(
        &self,
        pager: &Pager<'_, M, D, P>,
        index: PageIndex,
    ) -> Option<PageFinal> {
        self.final_run(pager, index).0
    }

    /// Like [`Self::final_kind`]; also returns the length (at least 1) of the run from `index`
    /// whose pages one lookup shows to be the same.
    pub fn final_run<M: FrameMemory, D: Disk, P: ReclaimPolicy>(
        &self,
        pager: &Pager<'_, M, D, P>,
        index: PageIndex,
    ) -> (Option<PageFinal>, u32) {
        if self.image.base().is_some() {
            return (self.final_of_child(pager, index), 1);
        }
        match self.image.existing(index) {
            Some(page) => (Self::kind_of(pager, page.leaf()), 1),
            None => match self.image.region_of(index) {
                Some((RegionState::Unread | RegionState::Lost, pages)) => (None, pages),
                Some((RegionState::Read, pages)) => {
                    (Some(PageFinal::Zero), self.image.without_table(index).clamp(1, pages))
                }
                None => (Some(PageFinal::Zero), self.image.without_table(index).max(1)),
            },
        }
    }

    /// The same for a page of a crashed child. An inherited page is final when it is zero, or when
    /// the base's block was copied ([`Self::note_copied`]).
    fn final_of_child<M: FrameMemory, D: Disk, P: ReclaimPolicy>(
        &self,
        pager: &Pager<'_, M, D, P>,
        index: PageIndex,
    ) -> Option<PageFinal> {
        if let Some(crc) = pager.inherited(&self.image, index) {
            let is_copied = index.0 < self.copied.load(Relaxed);
            return is_copied.then_some(PageFinal::Block(crc));
        }
        match self.image.existing(index).map(|page| page.leaf()) {
            Some(LeafState::Shared(_)) => None,
            Some(leaf) => Self::kind_of(pager, leaf),
            None => Some(PageFinal::Zero),
        }
    }

    fn kind_of<M: FrameMemory, D: Disk, P: ReclaimPolicy>(
        pager: &Pager<'_, M, D, P>,
        leaf: LeafState,
    ) -> Option<PageFinal> {
        match leaf {
            LeafState::Paged(crc) => Some(PageFinal::Block(crc)),
            LeafState::Untouched | LeafState::Zero => Some(PageFinal::Zero),
            LeafState::Present(PageMapping { dirty: false, has_block: true, hfn, .. }) => {
                Some(PageFinal::Block(pager.env.frames.checksum(hfn)))
            }
            _ => None,
        }
    }
}

fn progress<P>(state: &PagerState<P>, id: ObjectId) -> DrainProgress {
    let slot = state.slots.get(id).expect("a dump image that drains is attached");
    let counts = slot.object.counts();
    let remaining = counts.resident + counts.going_out + counts.coming_in;
    let lowest =
        state.batches.of(id).filter_map(|batch| batch.lines.lowest()).map(|index| index.0).min();
    let cursor = lowest.unwrap_or(slot.drain.next).min(slot.drain.next).max(slot.drain.floor);
    let busy = state.batches.of(id).next().is_some()
        || state.transfers.of(id).next().is_some()
        || state.copies.is_any_of(id);
    let DrainState { freed, written, zero, clean, error, .. } = slot.drain;
    let dead = slot.is_dead().then_some(DiskError::Dead);
    DrainProgress {
        cursor: PageIndex(cursor),
        remaining,
        freed,
        written,
        zero,
        clean,
        done: cursor == slot.pages() && remaining == 0 && !busy,
        // Not before the last completion: writes in flight may still succeed.
        failed: error
            .filter(|_| slot.drain.stands_still())
            .or(dead.filter(|_| remaining > 0))
            .filter(|_| !busy),
    }
}

/// Result of a sweep's visit to a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SweepStep {
    /// Nothing more to do with this page.
    Next,
    /// The page is busy, or the batch is full: visit the page again later.
    Wait,
}

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Starts one batch of an image's pages. Returns how many pages are in it.
    pub(super) fn sweep(
        &self,
        state: &mut PagerState<P>,
        id: ObjectId,
        turn: &mut PollTurn,
    ) -> usize {
        let Some(number) = state.vacant_batch_for(id) else { return 0 };
        let PagerState { batches, slots, notices, .. } = state;
        let slot = slots.busy(id);
        let is_through = slot.drain.next >= slot.pages() && batches.of(id).next().is_none();
        let batch = batches.get(number);
        self.look_at_disk(slot, notices);
        if slot.drain.stands_still()
            || slot.closing
            || slot.writable(self.clock.load(Relaxed)).is_none()
        {
            return 0;
        }
        if is_through && slot.object.counts().resident > 0 {
            slot.drain.sweep_again();
        }
        self.fill(slot, batch, &mut turn.budget);
        let (object, found) = (slot.object.clone(), batch.len());
        turn.work.kick(self.launch(state, number, &object, BatchPurpose::Evict, turn.me));
        found
    }

    /// Fills a batch from the sweep's place on. A function of its own, so that the loop of visits
    /// has all of the CPU's registers.
    #[inline(never)]
    fn fill(&self, slot: &mut PagedObject, batch: &mut Batch, budget: &mut PollBudget) {
        let most = slot.pages_in_batch();
        let start = slot.object.skip_untouched(slot.drain.next);
        let end = slot.pages().min(start.saturating_add(budget.visits));
        let mut without_io = WithoutIo::default();
        let stopped = slot.object.pages(start..end).visit(|page| {
            if batch.lines.len() >= most || leave(page, batch, &mut without_io) == SweepStep::Wait {
                return ControlFlow::Break(page.index().0);
            }
            ControlFlow::Continue(())
        });
        let at = stopped.break_value().unwrap_or(end);
        bump(&self.counters.clean_evictions, without_io.clean);
        bump(&self.counters.zero_evictions, without_io.zero);
        slot.drain.clean += without_io.clean;
        slot.drain.zero += without_io.zero;
        budget.visits -= at - start;
        slot.drain.next = at;
    }
}

/// Counts of pages that were freed without a write.
#[derive(Default)]
struct WithoutIo {
    clean: u64,
    zero: u64,
}

/// Takes a page, if it is resident, out of its leaf and into the batch.
#[inline]
fn leave(page: Page<'_>, batch: &mut Batch, without_io: &mut WithoutIo) -> SweepStep {
    // Most pages of an image are dirty, so try the write-out first and look at the state only on
    // refusal.
    match batch.lines.write_out(page) {
        Ok(()) => SweepStep::Next,
        Err(TransitionError::Clean) if page.is_shared() => SweepStep::Next,
        Err(TransitionError::Clean) => leave_clean(page, batch, without_io),
        Err(
            TransitionError::State(LeafState::ComingIn(_))
            | TransitionError::Pinned
            | TransitionError::Dirty,
        ) => SweepStep::Wait,
        Err(TransitionError::State(_)) => SweepStep::Next,
    }
}

fn leave_clean(page: Page<'_>, batch: &mut Batch, without_io: &mut WithoutIo) -> SweepStep {
    if batch.unmapped.len() >= BATCH_PAGES {
        return SweepStep::Wait;
    }
    let LeafState::Present(PageMapping { has_block, .. }) = page.leaf() else {
        return SweepStep::Wait;
    };
    let Ok(unmapped) = page.evict_clean() else { return SweepStep::Wait };
    batch.unmapped.push(unmapped);
    *(if has_block { &mut without_io.clean } else { &mut without_io.zero }) += 1;
    SweepStep::Next
}
