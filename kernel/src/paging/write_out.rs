//! A batch's way from limbo to its blocks.
//!
//! The step between limbo and the writes that reads the pages is in [`super::scan`]. A page can be
//! rescued at any time before its last transition. Only that transition (`Page::finish_write_out`,
//! `Page::evict_zero`) detects a rescue, so no step here checks for one earlier.

use super::Pager;
use super::batch::{Batch, BatchPhase, BatchProspect, BatchPurpose};
use super::counters::bump;
use super::late::range_of;
use super::late_requests::HeldMemory;
use super::reclaim::note_dead;
use super::segments::SegmentBuffer;
use super::slots::GuardCause;
use super::slots::{PagedObject, StoreState};
use super::state::{NoticeQueue, PagerNotice, PagerState};
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::arch::percpu::CpuId;
use crate::block::cookie::{CompletionOwner, CookieFields};
use crate::block::{Disk, DiskError, DiskOperation, DiskRequest, QueueLane, SubmitError};
use crate::mm::crc::Crc32c;
use crate::mm::flush::{FlushProof, FlushTicket, Kicks};
use crate::mm::frames::FrameChain;
use crate::mm::object::MemoryObject;
use crate::mm::page::{Page, SettledPage, WriteOutEnd};
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;
use alloc::sync::Arc;
use core::ops::{ControlFlow, Range};
use core::sync::atomic::Ordering::Relaxed;

/// Width of the count and of the first line in a cookie's detail.
const COUNT_BITS: u32 = 14;

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Sends a filled batch into limbo; an empty one stays free.
    pub(super) fn launch(
        &self,
        state: &mut PagerState<P>,
        number: usize,
        object: &MemoryObject,
        purpose: BatchPurpose,
        me: CpuId,
    ) -> Kicks {
        if state.batches.get(number).len() == 0 {
            return Kicks(0);
        }
        let flush = object.flush(self.env.quiescent_states, me);
        self.launch_with(state, number, object, purpose, flush)
    }

    /// The same for a batch whose flush has begun.
    #[inline(always)]
    pub(super) fn launch_with(
        &self,
        state: &mut PagerState<P>,
        number: usize,
        object: &MemoryObject,
        purpose: BatchPurpose,
        (ticket, kicks): (FlushTicket, Kicks),
    ) -> Kicks {
        let pages = state.batches.get(number).len();
        let slot = state.slots.get(object.id());
        slot.inspect(|slot| slot.record_launch(purpose, pages));
        let disk = slot.and_then(|slot| slot.store).map(|store| store.store.disk);
        let is_guarded = slot.is_some_and(|slot| slot.guard.is_some());
        let batch = state.batches.launch(number, (object.id(), disk), purpose, ticket);
        (batch.launched_at, batch.is_late) = (self.clock.load(Relaxed), false);
        if is_guarded {
            batch.prospect = BatchProspect::Doubtful;
        }
        state.note_move();
        kicks
    }

    /// Advances a batch as far as possible without reading its pages.
    pub(super) fn advance(&self, state: &mut PagerState<P>, number: usize, now: Ns) {
        let PagerState { batches, slots, credits, freed, segments, notices, .. } = state;
        let batch = batches.get(number);
        let Some(id) = batch.object else { return };
        let slot = slots.busy(id);
        let before = (batch.phase, batch.cursor);
        if batch.phase == BatchPhase::Limbo {
            let Some(passed) =
                batch.ticket.as_mut().and_then(|ticket| ticket.poll(self.env.quiescent_states))
            else {
                slot.look_at_late_flush(batch, now);
                return;
            };
            if batch.is_late {
                slot.record_late_pass(batch, now);
            }
            self.free_unmapped(batch, &passed, freed);
            batch.lines.settle(&passed);
            (batch.ticket, batch.cursor, batch.phase) = (None, 0, BatchPhase::Scan);
        }
        if batch.phase == BatchPhase::Write {
            self.write(batch, slot, segments, notices, now);
        }
        let has_moved = before != (batch.phase, batch.cursor);
        let is_guarded = slot.guard.is_some();
        batches.retire_if_done(number);
        self.give_back(credits, slot, freed);
        if has_moved {
            state.note_move();
        }
        if is_guarded {
            self.count_guarded(state);
        }
    }

    /// Frees the clean pages, now that the flush has passed.
    fn free_unmapped(&self, batch: &mut Batch, passed: &FlushProof, freed: &mut FrameChain) {
        batch.unmapped.drain(..).for_each(|page| self.env.frames.link(freed, page.reclaim(passed)));
    }

    /// Submits one request for each run of neighbours, until the disk is full.
    fn write(
        &self,
        batch: &mut Batch,
        slot: &mut PagedObject,
        segments: &mut SegmentBuffer,
        notices: &mut NoticeQueue,
        now: Ns,
    ) {
        while batch.cursor < batch.lines.len() {
            let Some(first) = batch.lines.index(batch.cursor) else {
                batch.cursor += 1;
                continue;
            };
            let mut store = *slot.store.as_ref().expect("only an object with a store writes");
            if slot.drain.failures > 0 {
                // After a failure: one page at a time, each after the completion of the last,
                // because QEMU merges neighbouring requests that it finds in its queue. So a bad
                // block fails none of its neighbours.
                if batch.outstanding > 0 {
                    return;
                }
                store.max_pages = 1;
            }
            let run = self.gather_run(batch, &store, segments);
            let request = DiskRequest {
                operation: DiskOperation::Write,
                sectors: store.store.blocks.sectors(first, run.len() as u32),
                segments: segments.as_slice(),
                lane: QueueLane::Common,
                cookie: run_tag(batch.number, &run).cookie(),
            };
            let error = match self.disks[store.store.disk].submit(&request) {
                Ok(()) => None,
                // The lease of a failing disk may stay expired for long. An object that is being
                // detached does not wait for it.
                Err(SubmitError::Full)
                    if slot.closing && self.disks[store.store.disk].is_suspended() =>
                {
                    Some(DiskError::Io)
                }
                Err(SubmitError::Full) => {
                    if batch.outstanding == 0 && batch.refused_since.is_none() {
                        slot.record_refusal(batch, first, store.store.disk);
                        batch.refused_since = Some(now);
                    }
                    return;
                }
                Err(SubmitError::Invalid) => Some(DiskError::Io),
                Err(SubmitError::Failed) => Some(DiskError::Dead),
            };
            (batch.cursor, batch.refused_since) = (run.end, None);
            match error {
                None => {
                    if batch.outstanding == 0 {
                        batch.answered_at = now;
                    }
                    batch.outstanding += 1;
                    bump(&self.counters.write_requests, 1);
                }
                Some(error) => self.fail_run(batch, slot, notices, FailedRun { run, error, now }),
            }
        }
    }

    /// Collects the segments of the run of neighbours at the cursor; returns the run's lines.
    fn gather_run(
        &self,
        batch: &Batch,
        store: &StoreState,
        segments: &mut SegmentBuffer,
    ) -> Range<usize> {
        // A slow disk gets smaller requests, so that other requests need not wait long behind one.
        let room = (self.disks[store.store.disk].write_room() / PAGE_SIZE).max(1);
        let most = store.max_pages.min(usize::try_from(room).unwrap_or(usize::MAX));
        let frames = batch.lines.run(batch.cursor, most);
        let count =
            segments.gather(frames.map(|hfn| self.env.memory.hpa(hfn)), store.max_segment_len);
        batch.cursor..batch.cursor + count
    }

    /// Handles a write's completion. A function of its own: the latency-critical completions are
    /// those of reads.
    #[inline(never)]
    pub(super) fn complete_run(
        &self,
        state: &mut PagerState<P>,
        disk: usize,
        tag: CookieFields,
        result: Result<(), DiskError>,
        now: Ns,
    ) {
        let PagerState { batches, slots, credits, freed, notices, late, .. } = state;
        let number = tag.slot as usize;
        let batch = batches.get(number);
        let id = batch.object.expect("a batch waits for its requests");
        let slot = slots.busy(id);
        let run = run_of(tag);
        batch.outstanding -= 1;
        batch.answered_at = now;
        match result {
            Ok(()) => self.finish_run(batch, slot, run, freed),
            Err(error) => {
                let pages = range_of(
                    batch.lines.index(run.start).expect("a run is ready until its answer comes"),
                    run.len(),
                );
                self.fail_run(batch, slot, notices, FailedRun { run, error, now });
                if error == DiskError::TimedOut {
                    late.keep(disk, tag.cookie(), pin(&slot.object, pages));
                }
            }
        }
        let is_guarded = slot.guard.is_some();
        batches.retire_if_done(number);
        self.give_back(credits, slot, freed);
        if is_guarded || state.guarded > 0 {
            self.count_guarded(state);
        }
    }

    fn finish_run(
        &self,
        batch: &mut Batch,
        slot: &mut PagedObject,
        run: Range<usize>,
        freed: &mut FrameChain,
    ) {
        let count = run.len() as u32;
        // A local variable while it grows.
        let mut chain = core::mem::take(freed);
        let (before, mut cleaned) = (chain.len(), 0_u64);
        for_each_page(batch, slot, run, |page, ready, crc| match ready {
            SettledPage::Out(settled) => {
                if let WriteOutEnd::Out(frame) = page.finish_write_out(settled, crc) {
                    self.env.frames.link(&mut chain, frame);
                }
            }
            SettledPage::Clean(settled) => cleaned += u64::from(page.finish_clean(settled, crc)),
        });
        let out = u64::from(chain.len() - before);
        *freed = chain;
        bump(&self.counters.cleaned, cleaned);
        slot.drain.failures = 0;
        slot.guard = None;
        slot.flow.page_outs += out;
        slot.drain.written += u64::from(count);
        bump(&self.counters.page_outs, out);
        bump(&self.counters.bytes_written, u64::from(count) * PAGE_SIZE);
    }

    /// Handles a failed write: maps the pages of the run again. They are dirty, and written later.
    fn fail_run(
        &self,
        batch: &mut Batch,
        slot: &mut PagedObject,
        notices: &mut NoticeQueue,
        failed: FailedRun,
    ) {
        let FailedRun { run, error, now } = failed;
        let count = run.len() as u32;
        let first = for_each_page(batch, slot, run, |page, ready, _| abort(page, ready));
        bump(&self.counters.write_errors, 1);
        let object = slot.object.id();
        if slot.drain.note_failure(first, error) {
            slot.record_write_failed(first, count, error);
            notices.push(PagerNotice::WriteFailed { object, first, count, error });
        }
        slot.back_off(now);
        slot.guard = Some(GuardCause::Failing(error));
        if error == DiskError::Dead {
            note_dead(slot, notices);
        }
    }
}

/// A run of a batch whose write has failed.
struct FailedRun {
    /// The batch's lines.
    run: Range<usize>,
    error: DiskError,
    /// The time of the failure.
    now: Ns,
}

/// Takes the pages of a run out of their batch and calls `deal` on each with its leaf. Returns the
/// first page.
#[inline(always)]
fn for_each_page(
    batch: &mut Batch,
    slot: &PagedObject,
    run: Range<usize>,
    mut deal: impl FnMut(Page<'_>, SettledPage, Crc32c),
) -> PageIndex {
    let first = batch.lines.index(run.start).expect("a run is ready until its answer comes");
    let mut lines = batch.lines.take_run(run.clone());
    let all =
        slot.object.pages(first.0..first.0 + run.len() as u32).visit(|page| match lines.next() {
            Some((ready, crc)) => {
                deal(page, ready, crc);
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        });
    assert!(all.is_continue() && lines.next().is_none(), "a page that is under way has a table");
    first
}

/// Pins the pages of a run that are mapped again, because the disk may still read their frames.
#[cold]
fn pin(object: &Arc<MemoryObject>, pages: Range<u32>) -> HeldMemory {
    for page in object.pages(pages.clone()) {
        // The pin is tracked by its page number from here on.
        let _ = page.pin().expect("a page whose write was given up is mapped and unclaimed");
    }
    HeldMemory::Pages(object.clone(), pages)
}

/// Maps a page again whose write-out or cleaning is given up.
pub(super) fn abort(page: Page<'_>, ready: SettledPage) {
    match ready {
        SettledPage::Out(settled) => page.abort_write_out(settled),
        SettledPage::Clean(settled) => page.abort_clean(settled),
    }
}

fn run_tag(batch: usize, run: &Range<usize>) -> CookieFields {
    let detail = (run.start as u32) << COUNT_BITS | run.len() as u32;
    CookieFields { class: CompletionOwner::WriteOut, detail, slot: batch as u32 }
}

fn run_of(tag: CookieFields) -> Range<usize> {
    let (start, len) = (tag.detail >> COUNT_BITS, tag.detail & ((1 << COUNT_BITS) - 1));
    start as usize..(start + len) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_lines_survive_in_the_cookie() {
        for run in [0..1, 255..256, 0..256] {
            assert_eq!(run_of(CookieFields::of(run_tag(15, &run).cookie()).unwrap()), run);
        }
    }
}
