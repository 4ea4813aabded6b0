//! Reclaims frames: the clock hand over an object's pages, between the pool's watermarks.
//!
//! ```text
//!  free < low, or a faulter waits ─> active ──free + leaving >= high──> idle
//!                                      │
//!                  policy.victim ── live object ──> clock: batch of up to 64, at the hand
//!                                └─ dump image ───> sweep (`drain`): batch of up to 256, ascending
//! ```
//!
//! An object whose pages yield nothing in two rounds of the hand is left out for a while. If all
//! objects are left out and a faulter still waits after a second, no frame will ever come, and
//! waiting longer would be a hang: the faulter gets
//! [`PageLossError::NoFrames`](super::PageLossError::NoFrames).
//!
//! If a disk is dead, a clean page in memory is the only copy left, so it is not evicted.

use super::Pager;
use super::batch::{Batch, BatchPurpose};
use super::counters::bump;
use super::slots::PagedObject;
use super::state::{NoticeQueue, PagerNotice, PagerState};
use super::work::{PollBudget, PollTurn};
use crate::addr::PageIndex;
use crate::block::Disk;
use crate::log::history::{self, HistoryKind};
use crate::mm::leaf::PageMapping;
use crate::mm::object::{ObjectId, ObjectTable};
use crate::mm::page::{Page, PageAge};
use crate::mm::phys::FrameMemory;
use crate::pool::policy::{CandidateKind, PageView};
use crate::pool::{PageVerdict, ReclaimCandidate, ReclaimPolicy};
use crate::time::Ns;
use arrayvec::ArrayVec;
use core::ops::ControlFlow;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Most victims in one batch of a live object.
const VICTIMS: usize = 64;
/// How long objects that yielded nothing are left out.
const LOOK_AGAIN_NS: Ns = Ns::from_ms(10);
/// How long reclaim may yield nothing before waiting counts as a hang.
const STARVED_NS: Ns = Ns::from_secs(1);

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Starts batches until enough frames are on their way to the free list.
    pub(super) fn reclaim(&self, state: &mut PagerState<P>, turn: &mut PollTurn) {
        let now = turn.now;
        if state.reclaim.asked {
            self.serve_asked(state, turn);
        }
        if !state.reclaim.active
            && !self.marks_now(state).is_low(self.free_for_all(state))
            && self.hungry.load(Relaxed) == 0
        {
            return;
        }
        if !core::mem::replace(&mut state.reclaim.active, true) {
            self.record_scarcity(state);
        }
        if now >= state.reclaim.look_again_at {
            state.reclaim.look_again_at = now + LOOK_AGAIN_NS;
            state.slots.iter_mut().for_each(|slot| slot.fruitless = 0);
        }
        let mut tried = 0_u64;
        while turn.budget.visits > 0 {
            let wanted = self
                .marks_now(state)
                .shortage(self.free_for_all(state), self.leaving_for_all(state, now));
            if wanted == 0 {
                state.reclaim.active = false;
                break;
            }
            let Some(id) = self.pick_victim(state, tried) else { break };
            if self.take_from(state, id, wanted, turn) == 0 {
                tried |= super::hungry_bit(id);
            }
        }
        self.watch_for_starvation(state, now);
    }

    #[cold]
    #[inline(never)]
    fn record_scarcity(&self, state: &PagerState<P>) {
        let (free, promised) = (self.env.frames.free_count(), state.credits.total());
        history::record_machine(HistoryKind::PoolScarce, 0, [free.into(), promised.into()]);
    }

    /// Serves [`Pager::ask_evict`]. The hand ages a page at its first visit and takes it at the
    /// next.
    fn serve_asked(&self, state: &mut PagerState<P>, turn: &mut PollTurn) {
        let asked =
            state.slots.iter().find(|slot| slot.asked > 0 && !slot.closing && !slot.is_image());
        let Some((id, wanted)) = asked.map(|slot| (slot.object.id(), slot.asked)) else {
            // With a base no poll is quiet: see `base`.
            state.reclaim.asked = state.slots.bases > 0;
            return;
        };
        let found = self.take_from(state, id, wanted, turn) as u32;
        let slot = state.slots.busy(id);
        // Two rounds without a find: the remaining pages are pinned, or dirty and unwritable.
        let nothing_left =
            slot.object.counts().resident == 0 || slot.fruitless >= slot.pages().saturating_mul(2);
        slot.asked = if nothing_left { 0 } else { wanted.saturating_sub(found) };
        turn.work.poll_again |= slot.asked > 0;
    }

    fn pick_victim(&self, state: &mut PagerState<P>, tried: u64) -> Option<ObjectId> {
        let spent = |slot: &PagedObject| slot.fruitless >= slot.pages().saturating_mul(2);
        let candidates = self.candidates(state, |slot| {
            !slot.closing && !spent(slot) && tried & super::hungry_bit(slot.object.id()) == 0
        });
        state.policy.victim(self.env.frames.total(), self.marks.high, &candidates)
    }

    /// Describes the objects that are `wanted` to the policy.
    pub(super) fn candidates(
        &self,
        state: &PagerState<P>,
        wanted: impl Fn(&PagedObject) -> bool,
    ) -> Candidates {
        let mut candidates = Candidates::new();
        for slot in state.slots.iter().filter(|slot| wanted(slot)) {
            let kind = if slot.is_image() { CandidateKind::Image } else { CandidateKind::Live };
            if slot.is_base() {
                candidates.push(self.base_candidate(state, slot));
                continue;
            }
            candidates.push(ReclaimCandidate {
                object: slot.object.id(),
                kind,
                logical: slot.pages(),
                // Pages on their way out no longer count as resident.
                resident: slot.object.counts().resident,
                minimum: slot.terms.minimum,
                used: slot.usage.used,
            });
        }
        candidates
    }

    /// Starts one batch of an object's pages. Returns how many pages are in it.
    fn take_from(
        &self,
        state: &mut PagerState<P>,
        id: ObjectId,
        wanted: u32,
        turn: &mut PollTurn,
    ) -> usize {
        if state.slots.busy(id).is_image() {
            return self.sweep(state, id, turn);
        }
        if state.slots.busy(id).is_base() {
            return self.take_from_base(state, id, wanted, turn);
        }
        let Some(number) = state.vacant_batch_for(id) else { return 0 };
        let PagerState { batches, slots, policy, notices, .. } = state;
        let (batch, slot) = (batches.get(number), slots.busy(id));
        self.look_at_disk(slot, notices);
        // An eviction on request ignores the object's minimum: the operator wants it.
        let minimum = if slot.asked > 0 { 0 } else { slot.terms.minimum };
        let most = wanted.min(slot.object.counts().resident.saturating_sub(minimum));
        let hand = Hand {
            pager: self,
            policy,
            can_write: slot.writable(turn.now).is_some(),
            can_read: !slot.is_dead(),
        };
        hand.go_round(slot, batch, (most as usize).min(VICTIMS), &mut turn.budget);
        let (object, found) = (slot.object.clone(), batch.len());
        turn.work.kick(self.launch(state, number, &object, BatchPurpose::Evict, turn.me));
        found
    }

    /// Notes a dead disk before pages are evicted to it.
    pub(super) fn look_at_disk(&self, slot: &mut PagedObject, notices: &mut NoticeQueue) {
        let is_dead = slot.store.is_some_and(|store| self.disks[store.store.disk].is_dead());
        if is_dead {
            note_dead(slot, notices);
        }
    }

    /// Detects faulters that wait for frames that will never come.
    fn watch_for_starvation(&self, state: &mut PagerState<P>, now: Ns) {
        let waits = self.hungry.load(Relaxed) != 0 && self.free_for_all(state) == 0;
        if !waits || state.batches.leaving(now) > 0 || state.transfers.in_use() > 0 {
            state.reclaim.starving_since = None;
            return;
        }
        let since = *state.reclaim.starving_since.get_or_insert(now);
        if now.saturating_sub(since) >= STARVED_NS {
            // Breaking a promise is better than a hang.
            if state.credits.total() > 0 {
                self.end_all_promises(state);
            } else if self.end_unwritable(state) || self.frames_may_come(state) {
                // The unwritable object's frames are freed when its partition has crashed.
                state.reclaim.starving_since = None;
                return;
            } else {
                let promised = u64::from(state.credits.total());
                history::record_machine(HistoryKind::PoolExhausted, 0, [promised, 0]);
                state.reclaim.exhausted = true;
            }
            self.wake_hungry(state, |_| true);
        }
    }

    /// Wakes the faulters of objects that wait for frames and for which `may` returns true. Returns
    /// whether there were any.
    pub(super) fn wake_hungry(
        &self,
        state: &PagerState<P>,
        may: impl Fn(ObjectId) -> bool,
    ) -> bool {
        let hungry = self.hungry.load(Acquire);
        let waits = |slot: &&PagedObject| {
            hungry & super::hungry_bit(slot.object.id()) != 0 && may(slot.object.id())
        };
        let mut any = false;
        for slot in state.slots.iter().filter(waits) {
            self.hungry.fetch_and(!super::hungry_bit(slot.object.id()), AcqRel);
            slot.object.wake();
            any = true;
        }
        any
    }
}

/// Notes that an object's disk is dead; queues one notice.
pub(super) fn note_dead(slot: &mut PagedObject, notices: &mut NoticeQueue) {
    if slot.note_dead() {
        slot.record_at_disk(HistoryKind::StoreDown);
        notices.push(PagerNotice::DiskDead { object: slot.object.id() });
    }
}

type Candidates = ArrayVec<ReclaimCandidate, { ObjectTable::CAPACITY }>;
/// The clock hand during a round.
struct Hand<'p, 'a, M: FrameMemory, D: Disk, P: ReclaimPolicy> {
    pager: &'p Pager<'a, M, D, P>,
    policy: &'p P,
    /// Whether dirty pages can be written now.
    can_write: bool,
    /// Whether a page that is evicted without a write could be read back from its block.
    can_read: bool,
}

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Hand<'_, '_, M, D, P> {
    /// Advances, wrapping at most once, until the batch has `most` pages or the budget is spent.
    ///
    /// A function of its own, so that the loop of visits has all of the CPU's registers.
    #[inline(never)]
    fn go_round(
        &self,
        slot: &mut PagedObject,
        batch: &mut Batch,
        most: usize,
        budget: &mut PollBudget,
    ) {
        let is_child = slot.object.base().is_some();
        let pages = slot.pages();
        let (mut left, mut ends) = (pages.min(budget.visits), 0);
        while left > 0 && batch.len() < most && ends < 2 {
            let before = slot.hand;
            let visited = if is_child {
                self.go::<true>(slot, batch, left, most)
            } else {
                self.go::<false>(slot, batch, left, most)
            };
            left = left.saturating_sub(visited.max(1));
            budget.visits = budget.visits.saturating_sub(visited);
            ends += u32::from(slot.hand <= before);
        }
    }

    /// Skips untouched memory, then visits up to `left` pages. Returns how many pages were visited.
    ///
    /// The leaves of a `CHILD` that show the base's frames are left to the base's own hand.
    fn go<const CHILD: bool>(
        &self,
        slot: &mut PagedObject,
        batch: &mut Batch,
        left: u32,
        most: usize,
    ) -> u32 {
        let (hand, start) = (slot.hand, slot.object.skip_untouched(slot.hand));
        let end = slot.pages().min(start.saturating_add(left));
        let object = slot.object.clone();
        let before = batch.len();
        let mut aged = 0_u32;
        let stopped = object.pages(start..end).visit(|page| {
            if CHILD && page.is_shared() {
                return ControlFlow::Continue(());
            }
            match page.age() {
                PageAge::Absent => {}
                PageAge::Referenced => {
                    // Bounded by the number of pages.
                    aged = aged.wrapping_add(1);
                    self.note_used(slot, page.index());
                }
                PageAge::Idle => {
                    if self.collect(batch, page) {
                        slot.ahead.take(page.index());
                        if batch.len() >= most {
                            return ControlFlow::Break(page.index().0 + 1);
                        }
                    }
                }
            }
            ControlFlow::Continue(())
        });
        let at = stopped.break_value().unwrap_or(end);
        bump(&self.pager.counters.aged, u64::from(aged));
        slot.fruitless = if batch.len() > before {
            0
        } else {
            slot.fruitless.saturating_add(at.saturating_sub(hand))
        };
        slot.hand = if at >= slot.pages() { 0 } else { at };
        at.saturating_sub(start)
    }

    #[inline]
    fn note_used(&self, slot: &mut PagedObject, page: PageIndex) {
        if slot.ahead.take(page) {
            slot.around.note_used(page.0);
            bump(&self.pager.counters.read_around_used, 1);
        }
    }

    /// Takes an idle page out of its leaf and into the batch, unless the policy or the page's state
    /// forbids it.
    ///
    /// A function of its own, so that the loop of visits, most of which only age a page, has all of
    /// the CPU's registers.
    #[inline(never)]
    fn collect(&self, batch: &mut Batch, page: Page<'_>) -> bool {
        let Some(mapping) = page.mapping() else { return false };
        match self.policy.judge(PageView { clean: !mapping.dirty }) {
            PageVerdict::Skip => false,
            PageVerdict::EvictClean => self.collect_clean(batch, page, mapping),
            PageVerdict::WriteOut => self.collect_dirty(batch, page, mapping),
        }
    }

    fn collect_clean(&self, batch: &mut Batch, page: Page<'_>, mapping: PageMapping) -> bool {
        // The disk is dead: this is the only copy left.
        if mapping.has_block && !self.can_read {
            return false;
        }
        let Ok(unmapped) = page.evict_clean() else { return false };
        batch.unmapped.push(unmapped);
        let counters = &self.pager.counters;
        bump(
            if mapping.has_block { &counters.clean_evictions } else { &counters.zero_evictions },
            1,
        );
        true
    }

    fn collect_dirty(&self, batch: &mut Batch, page: Page<'_>, mapping: PageMapping) -> bool {
        // While dirty pages cannot be written, only a zero page can be evicted. This check before
        // the flush is a hint; the scan after the flush decides.
        if !self.can_write && !self.pager.env.memory.is_zero(mapping.hfn) {
            return false;
        }
        batch.lines.write_out(page).is_ok()
    }
}
