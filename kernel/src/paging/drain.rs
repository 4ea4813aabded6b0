//! The drain of a dump image: every page reaches its final place, ascending, and its frame comes free.
//!
//! ```text
//!  0 ........ cursor ........ next ............................ pages
//!  | all final | in batches   | not looked at yet               |
//! ```
//!
//! The sweep takes pages in ascending order into batches of as many whole requests as fit: dirty ones are written straight from
//! their frames, clean ones just freed, zero ones described by their leaves, paged ones left alone. It waits at a page that is still coming
//! in or being cleaned from before the crash. A page whose write fails pulls the sweep back; after
//! [`MAX_FAILURES`] failures without a success the drain stands still and says why, until [`Drain::retry`].
//!
//! The same sweep serves reclaim: a dump image's pages are the pool's preferred victims.

use super::Pager;
use super::bad_pages::BadPages;
use super::batch::{BATCH_PAGES, Batch, Purpose};
use super::counters::bump;
use super::poll::{Budget, Work};
use super::slots::Slot;
use super::state::State;
use crate::addr::PageIndex;
use crate::arch::percpu::CpuId;
use crate::block::{Disk, DiskError};
use crate::mm::crc::Crc32c;
use crate::mm::leaf::{Leaf, Mapping};
use crate::mm::object::{MemoryObject, ObjectId};
use crate::mm::page::{Page, Refused};
use crate::mm::phys::FrameMemory;
use crate::pool::Policy;
use alloc::sync::Arc;
use core::ops::ControlFlow;
use core::sync::atomic::Ordering::Relaxed;

/// Failed writes in a row after which a drain stands still until it is told to go on.
pub const MAX_FAILURES: u32 = 8;

/// How far a drain is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// All pages below are final.
    pub cursor: PageIndex,
    /// Pages that still hold a frame.
    pub remaining: u32,
    /// Frames that came free.
    pub freed: u64,
    /// Pages written.
    pub written: u64,
    /// Pages that turned out to be zero.
    pub zero: u64,
    /// Pages freed because their blocks were current.
    pub clean: u64,
    /// Everything is final and no frame is left.
    pub done: bool,
    /// The drain stands still because of this.
    pub failed: Option<DiskError>,
}

/// What a final page is in the dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageFinal {
    /// Its block holds it, with this checksum.
    Block(Crc32c),
    /// Zeros; the block says nothing.
    Zero,
}

/// What the pager remembers of a drain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DrainState {
    /// Where the sweep goes on.
    pub next: u32,
    /// All below are final although a later sweep has not passed them yet.
    floor: u32,
    pub freed: u64,
    pub written: u64,
    pub zero: u64,
    pub clean: u64,
    /// Failed writes since the last success.
    pub failures: u32,
    pub error: Option<DiskError>,
}

impl DrainState {
    /// Pulls the sweep back to a page that was not written.
    pub fn pull_back(&mut self, first: PageIndex) {
        self.next = self.next.min(first.0);
        self.floor = self.floor.min(first.0);
    }

    /// Notes that a page could not be written; returns whether the write before went well.
    pub fn note_failure(&mut self, first: PageIndex, error: DiskError) -> bool {
        self.pull_back(first);
        self.failures = self.failures.saturating_add(1);
        self.error = Some(error);
        self.failures == 1
    }

    /// Starts over, because somebody read a final page back behind the sweep: its frame has to go too.
    fn sweep_again(&mut self) {
        (self.floor, self.next) = (self.next, 0);
    }

    fn stands_still(&self) -> bool {
        self.failures >= MAX_FAILURES
    }
}

/// The drain of one dump image.
#[derive(Debug)]
pub struct Drain {
    image: Arc<MemoryObject>,
}

impl Drain {
    /// Starts the drain of `image`, which is attached; what was freed from now on counts as freed from the image.
    ///
    /// # Panics
    /// If the object is not attached, or is no dump image (our bug).
    pub fn new<M: FrameMemory, D: Disk, P: Policy>(pager: &Pager<'_, M, D, P>, image: Arc<MemoryObject>) -> Self {
        let mut state = pager.locked();
        let slot = state.slots.get_mut(image.id()).expect("a dump image that drains is attached");
        assert!(slot.is_image(), "only a dump image drains");
        slot.drain = DrainState::default();
        drop(state);
        Self { image }
    }

    /// Returns the image.
    pub fn image(&self) -> &Arc<MemoryObject> {
        &self.image
    }

    /// Looks at no more than `visits` pages, starts what writes fit, and reports. [`Pager::poll`] brings the writes home.
    pub fn step<M: FrameMemory, D: Disk, P: Policy>(
        &self,
        pager: &Pager<'_, M, D, P>,
        me: CpuId,
        visits: u32,
    ) -> (Progress, Work) {
        let mut work = Work::default();
        let mut budget = Budget { visits, ..Budget::for_poll() };
        let mut state = pager.locked();
        // As many batches as one object may have.
        while pager.sweep(&mut state, self.image.id(), me, &mut budget, &mut work) > 0 {}
        // A batch in limbo, or not yet scanned, waits for the next poll and for no disk.
        if !work.busy {
            let wants = state.batches.wants();
            work.busy = wants.a_cpu || wants.a_flush;
        }
        (progress(&state, self.image.id()), work)
    }

    /// Reports without doing anything.
    pub fn progress<M: FrameMemory, D: Disk, P: Policy>(&self, pager: &Pager<'_, M, D, P>) -> Progress {
        progress(&pager.locked(), self.image.id())
    }

    /// Goes on after failures.
    pub fn retry<M: FrameMemory, D: Disk, P: Policy>(&self, pager: &Pager<'_, M, D, P>) {
        if let Some(slot) = pager.locked().slots.get_mut(self.image.id()) {
            slot.drain.failures = 0;
            slot.revive();
        }
    }

    /// Returns the pages whose blocks were found unreadable or wrong, before the crash or since; they may include some that are right.
    pub fn suspects<M: FrameMemory, D: Disk, P: Policy>(&self, pager: &Pager<'_, M, D, P>) -> BadPages {
        pager.locked().slots.get(self.image.id()).map(|slot| slot.bad.clone()).unwrap_or_default()
    }

    /// Returns what page `index` is in the dump, or `None` while it is not final.
    pub fn final_kind<M: FrameMemory, D: Disk, P: Policy>(
        &self,
        pager: &Pager<'_, M, D, P>,
        index: PageIndex,
    ) -> Option<PageFinal> {
        self.final_run(pager, index).0
    }

    /// As [`Self::final_kind`]; also returns how many pages from `index` on are seen to be the same at one look, at least 1.
    pub fn final_run<M: FrameMemory, D: Disk, P: Policy>(
        &self,
        pager: &Pager<'_, M, D, P>,
        index: PageIndex,
    ) -> (Option<PageFinal>, u32) {
        match self.image.existing(index) {
            Some(page) => (Self::kind_of(pager, page.leaf()), 1),
            None => (Some(PageFinal::Zero), self.image.without_table(index).max(1)),
        }
    }

    fn kind_of<M: FrameMemory, D: Disk, P: Policy>(pager: &Pager<'_, M, D, P>, leaf: Leaf) -> Option<PageFinal> {
        match leaf {
            Leaf::Paged(crc) => Some(PageFinal::Block(crc)),
            Leaf::Untouched | Leaf::Zero | Leaf::Loaned => Some(PageFinal::Zero),
            Leaf::Present(Mapping { dirty: false, has_block: true, hfn, .. }) => {
                Some(PageFinal::Block(pager.ground.frames.checksum(hfn)))
            }
            _ => None,
        }
    }
}

fn progress<P>(state: &State<P>, id: ObjectId) -> Progress {
    let slot = state.slots.get(id).expect("a dump image that drains is attached");
    let counts = slot.object.counts();
    let remaining = counts.resident + counts.going_out + counts.coming_in;
    let lowest = state.batches.of(id).filter_map(|batch| batch.lines.lowest()).map(|index| index.0).min();
    let cursor = lowest.unwrap_or(slot.drain.next).min(slot.drain.next).max(slot.drain.floor);
    let busy = state.batches.of(id).next().is_some() || state.transfers.of(id).next().is_some();
    let DrainState { freed, written, zero, clean, error, .. } = slot.drain;
    let dead = slot.is_dead().then_some(DiskError::Dead);
    Progress {
        cursor: PageIndex(cursor),
        remaining,
        freed,
        written,
        zero,
        clean,
        done: cursor == slot.pages() && remaining == 0 && !busy,
        // Not before the last answer: what is still at the disk may be written yet.
        failed: error.filter(|_| slot.drain.stands_still()).or(dead.filter(|_| remaining > 0)).filter(|_| !busy),
    }
}

/// Why a sweep ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Nothing (more) to do with this page.
    Next,
    /// The page is busy, or the batch is full; come back to it.
    Wait,
}

impl<M: FrameMemory, D: Disk, P: Policy> Pager<'_, M, D, P> {
    /// Starts one batch of an image's pages; returns how many are in it.
    pub(super) fn sweep(&self, state: &mut State<P>, id: ObjectId, me: CpuId, budget: &mut Budget, work: &mut Work) -> usize {
        let Some(number) = state.vacant_batch_for(id) else { return 0 };
        let State { batches, slots, notices, .. } = state;
        let slot = slots.busy(id);
        let is_through = slot.drain.next >= slot.pages() && batches.of(id).next().is_none();
        let batch = batches.get(number);
        self.look_at_disk(slot, notices);
        if slot.drain.stands_still() || slot.closing || slot.writable(self.clock.load(Relaxed)).is_none() {
            return 0;
        }
        if is_through && slot.object.counts().resident > 0 {
            slot.drain.sweep_again();
        }
        self.fill(slot, batch, budget);
        let (object, found) = (slot.object.clone(), batch.len());
        work.kick(self.launch(state, number, &object, Purpose::Evict, me));
        found
    }

    fn fill(&self, slot: &mut Slot, batch: &mut Batch, budget: &mut Budget) {
        let most = slot.pages_in_batch();
        let start = slot.object.skip_untouched(slot.drain.next);
        let end = slot.pages().min(start.saturating_add(budget.visits));
        let mut without_io = WithoutIo::default();
        let stopped = slot.object.pages(start..end).visit(|page| {
            if batch.lines.len() >= most || leave(page, batch, &mut without_io) == Step::Wait {
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

/// Pages that left without a write.
#[derive(Default)]
struct WithoutIo {
    clean: u64,
    zero: u64,
}

/// Takes a page, if it is resident, out of its leaf and into the batch.
#[inline]
fn leave(page: Page<'_>, batch: &mut Batch, without_io: &mut WithoutIo) -> Step {
    // Most pages of an image are dirty; what else they are is asked only where this is refused.
    match batch.lines.write_out(page) {
        Ok(()) => Step::Next,
        Err(Refused::Clean) => leave_clean(page, batch, without_io),
        Err(Refused::State(Leaf::ComingIn(_)) | Refused::Pinned | Refused::Dirty) => Step::Wait,
        Err(Refused::State(_)) => Step::Next,
    }
}

fn leave_clean(page: Page<'_>, batch: &mut Batch, without_io: &mut WithoutIo) -> Step {
    if batch.unmapped.len() >= BATCH_PAGES {
        return Step::Wait;
    }
    let Leaf::Present(Mapping { has_block, .. }) = page.leaf() else { return Step::Wait };
    let Ok(unmapped) = page.evict_clean() else { return Step::Wait };
    batch.unmapped.push(unmapped);
    *(if has_block { &mut without_io.clean } else { &mut without_io.zero }) += 1;
    Step::Next
}
