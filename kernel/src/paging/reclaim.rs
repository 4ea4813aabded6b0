//! Taking frames back: the clock hand over an object's pages, between the pool's watermarks.
//!
//! ```text
//!  free < low, or somebody waits ──> active ──free + leaving >= high──> idle
//!                                      │
//!                  policy.victim ── live object ──> clock: batch of up to 64, at the hand
//!                                └─ dump image ───> sweep (`drain`): batch of up to 256, ascending
//! ```
//!
//! Objects that give nothing although the hand has been round twice are left out for a while. Where all are and somebody still waits after
//! a second, nothing will ever come, and waiting would be a hang: the faulter gets [`Loss::NoFrames`](super::Loss::NoFrames).
//!
//! Where a disk is dead, a clean page has become the only copy of itself, and stays.

use super::batch::{Batch, Purpose};
use super::counters::bump;
use super::poll::{Budget, Work};
use super::slots::Slot;
use super::state::{Notice, Notices, State};
use super::{Pager, holder};
use crate::addr::PageIndex;
use crate::arch::percpu::CpuId;
use crate::block::Disk;
use crate::mm::leaf::{Leaf, Mapping};
use crate::mm::object::{ObjectId, ObjectTable};
use crate::mm::page::{Age, Page};
use crate::mm::phys::FrameMemory;
use crate::pool::policy::{CandidateKind, PageView};
use crate::pool::{Candidate, Policy, Verdict};
use arrayvec::ArrayVec;
use core::ops::ControlFlow;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Most victims in one batch of a live object.
const VICTIMS: usize = 64;
/// How long objects that gave nothing are left out.
const LOOK_AGAIN_NS: u64 = 10_000_000;
/// How long nobody may have anything to give before waiting is called a hang.
const STARVED_NS: u64 = 1_000_000_000;

impl<M: FrameMemory, D: Disk, P: Policy> Pager<'_, M, D, P> {
    /// Starts batches until enough frames are on their way.
    pub(super) fn reclaim(&self, state: &mut State<P>, me: CpuId, now: u64, budget: &mut Budget, work: &mut Work) {
        if state.reclaim.asked {
            self.serve_asked(state, me, now, budget, work);
        }
        if !state.reclaim.active && !self.marks_now(state).is_low(self.free_for_all(state)) && self.hungry.load(Relaxed) == 0 {
            return;
        }
        state.reclaim.active = true;
        if now >= state.reclaim.look_again_at {
            state.reclaim.look_again_at = now + LOOK_AGAIN_NS;
            state.slots.iter_mut().for_each(|slot| slot.fruitless = 0);
        }
        let mut tried = 0_u64;
        while budget.visits > 0 {
            let wanted = self.marks_now(state).shortage(self.free_for_all(state), self.leaving_for_all(state, now));
            if wanted == 0 {
                state.reclaim.active = false;
                break;
            }
            let Some(id) = self.pick_victim(state, tried) else { break };
            if self.take_from(state, id, wanted, me, now, budget, work) == 0 {
                tried |= super::hungry_bit(id);
            }
        }
        self.watch_for_starvation(state, now);
    }

    /// Lets pages go that somebody has asked for; the hand ages a page at its first visit and takes it at the next.
    fn serve_asked(&self, state: &mut State<P>, me: CpuId, now: u64, budget: &mut Budget, work: &mut Work) {
        let asked = state.slots.iter().find(|slot| slot.asked > 0 && !slot.closing && !slot.is_image());
        let Some((id, wanted)) = asked.map(|slot| (slot.object.id(), slot.asked)) else {
            state.reclaim.asked = false;
            return;
        };
        let found = self.take_from(state, id, wanted, me, now, budget, work) as u32;
        let slot = state.slots.busy(id);
        // Twice round without a find: what is left is pinned, or dirty without a place to go.
        let nothing_left = slot.object.counts().resident == 0 || slot.fruitless >= slot.pages().saturating_mul(2);
        slot.asked = if nothing_left { 0 } else { wanted.saturating_sub(found) };
        work.busy |= slot.asked > 0;
    }

    fn pick_victim(&self, state: &mut State<P>, tried: u64) -> Option<ObjectId> {
        let spent = |slot: &Slot| slot.fruitless >= slot.pages().saturating_mul(2);
        let (candidates, ids) =
            self.candidates(state, |slot| !slot.closing && !spent(slot) && tried & super::hungry_bit(slot.object.id()) == 0);
        ids[state.policy.victim(self.ground.frames.total(), self.marks.high, &candidates)?]
    }

    /// Describes the objects that are `wanted` to the policy; also returns them by number.
    pub(super) fn candidates(&self, state: &State<P>, wanted: impl Fn(&Slot) -> bool) -> (Candidates, Ids) {
        let mut ids = [None; ObjectTable::CAPACITY];
        let mut candidates = Candidates::new();
        for slot in state.slots.iter().filter(|slot| wanted(slot)) {
            let id = slot.object.id();
            ids[holder(id)] = Some(id);
            let kind = if slot.is_image() { CandidateKind::Image } else { CandidateKind::Live };
            candidates.push(Candidate {
                holder: holder(id),
                kind,
                logical: slot.pages(),
                // What is on its way out is given already.
                resident: slot.object.counts().resident,
                minimum: slot.terms.minimum,
                used: slot.usage.used,
            });
        }
        (candidates, ids)
    }

    /// Starts one batch of an object's pages; returns how many pages are in it.
    #[allow(clippy::too_many_arguments)]
    fn take_from(
        &self,
        state: &mut State<P>,
        id: ObjectId,
        wanted: u32,
        me: CpuId,
        now: u64,
        budget: &mut Budget,
        work: &mut Work,
    ) -> usize {
        if state.slots.busy(id).is_image() {
            return self.sweep(state, id, me, budget, work);
        }
        let Some(number) = state.vacant_batch_for(id) else { return 0 };
        let State { batches, slots, policy, notices, .. } = state;
        let (batch, slot) = (batches.get(number), slots.busy(id));
        self.look_at_disk(slot, notices);
        // One that is asked to leave page by page keeps no minimum: that is an operator's wish.
        let minimum = if slot.asked > 0 { 0 } else { slot.terms.minimum };
        let most = wanted.min(slot.object.counts().resident.saturating_sub(minimum));
        let hand = Hand { pager: self, policy, can_write: slot.writable(now).is_some(), can_read: !slot.is_dead() };
        hand.go_round(slot, batch, (most as usize).min(VICTIMS), budget);
        let (object, found) = (slot.object.clone(), batch.len());
        work.kick(self.launch(state, number, &object, Purpose::Evict, me));
        found
    }

    /// Notes, before pages leave for a disk, that it is dead.
    pub(super) fn look_at_disk(&self, slot: &mut Slot, notices: &mut Notices) {
        let is_dead = slot.store.is_some_and(|store| self.disks[store.store.disk].is_dead());
        if is_dead {
            note_dead(slot, notices);
        }
    }

    /// Notices that somebody waits for frames that nobody will ever give.
    fn watch_for_starvation(&self, state: &mut State<P>, now: u64) {
        let waits = self.hungry.load(Relaxed) != 0 && self.free_for_all(state) == 0;
        if !waits || state.batches.leaving(now) > 0 || state.transfers.in_use() > 0 {
            state.reclaim.starving_since = None;
            return;
        }
        let since = *state.reclaim.starving_since.get_or_insert(now);
        if now.saturating_sub(since) >= STARVED_NS {
            // Rather no promise than nobody who goes on.
            if state.credits.total() > 0 {
                self.end_all_promises(state);
            } else if self.end_unwritable(state) || self.frames_may_come(state) {
                // Its frames come free when it has crashed.
                state.reclaim.starving_since = None;
                return;
            } else {
                state.reclaim.exhausted = true;
            }
            self.wake_hungry(state, |_| true);
        }
    }

    /// Wakes those who wait for frames and `may` have some; returns whether there were any.
    pub(super) fn wake_hungry(&self, state: &State<P>, may: impl Fn(ObjectId) -> bool) -> bool {
        let hungry = self.hungry.load(Acquire);
        let waits = |slot: &&Slot| hungry & super::hungry_bit(slot.object.id()) != 0 && may(slot.object.id());
        let mut any = false;
        for slot in state.slots.iter().filter(waits) {
            self.hungry.fetch_and(!super::hungry_bit(slot.object.id()), AcqRel);
            slot.object.wake();
            any = true;
        }
        any
    }
}

/// Notes that an object's disk is dead, and says so once.
pub(super) fn note_dead(slot: &mut Slot, notices: &mut Notices) {
    if slot.note_dead() {
        notices.push(Notice::DiskDead { object: slot.object.id() });
    }
}

type Candidates = ArrayVec<Candidate, { ObjectTable::CAPACITY }>;
type Ids = [Option<ObjectId>; ObjectTable::CAPACITY];

/// The clock hand while it moves.
struct Hand<'p, 'a, M: FrameMemory, D: Disk, P: Policy> {
    pager: &'p Pager<'a, M, D, P>,
    policy: &'p P,
    /// Whether dirty pages have a place to go now.
    can_write: bool,
    /// Whether a page that leaves without a write could come back from its block.
    can_read: bool,
}

impl<M: FrameMemory, D: Disk, P: Policy> Hand<'_, '_, M, D, P> {
    /// Moves on, over the end at most once, until the batch has `most` pages or the budget is used up.
    fn go_round(&self, slot: &mut Slot, batch: &mut Batch, most: usize, budget: &mut Budget) {
        let pages = slot.pages();
        let (mut left, mut ends) = (pages.min(budget.visits), 0);
        while left > 0 && batch.len() < most && ends < 2 {
            let before = slot.hand;
            let visited = self.go(slot, batch, left, most);
            left = left.saturating_sub(visited.max(1));
            budget.visits = budget.visits.saturating_sub(visited);
            ends += u32::from(slot.hand <= before);
        }
    }

    /// Visits `left` pages at most, behind memory that is not touched; returns how many it has visited.
    fn go(&self, slot: &mut Slot, batch: &mut Batch, left: u32, most: usize) -> u32 {
        let (hand, start) = (slot.hand, slot.object.skip_untouched(slot.hand));
        let end = slot.pages().min(start.saturating_add(left));
        let object = slot.object.clone();
        let before = batch.len();
        let mut aged = 0_u32;
        let stopped = object.pages(start..end).visit(|page| {
            match page.age() {
                Age::Absent => {}
                Age::Referenced => {
                    // Never more than there are pages.
                    aged = aged.wrapping_add(1);
                    self.note_used(slot, page.index());
                }
                Age::Idle => {
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
        slot.fruitless = if batch.len() > before { 0 } else { slot.fruitless.saturating_add(at.saturating_sub(hand)) };
        slot.hand = if at >= slot.pages() { 0 } else { at };
        at.saturating_sub(start)
    }

    #[inline]
    fn note_used(&self, slot: &mut Slot, page: PageIndex) {
        if slot.ahead.take(page) {
            slot.around.note_used(page.0);
            bump(&self.pager.counters.read_around_used, 1);
        }
    }

    /// Takes a page that was not touched out of its leaf and into the batch, if the policy says so and nothing is in the way.
    ///
    /// Kept apart, so that the visits, most of which only age a page, have all of the CPU's registers for themselves.
    #[inline(never)]
    fn collect(&self, batch: &mut Batch, page: Page<'_>) -> bool {
        let Leaf::Present(mapping) = page.leaf() else { return false };
        match self.policy.judge(PageView { clean: !mapping.dirty }) {
            Verdict::Skip => false,
            Verdict::EvictClean => self.collect_clean(batch, page, mapping),
            Verdict::WriteOut => self.collect_dirty(batch, page, mapping),
        }
    }

    fn collect_clean(&self, batch: &mut Batch, page: Page<'_>, mapping: Mapping) -> bool {
        // The only copy that is left.
        if mapping.has_block && !self.can_read {
            return false;
        }
        let Ok(unmapped) = page.evict_clean() else { return false };
        batch.unmapped.push(unmapped);
        let counters = &self.pager.counters;
        bump(if mapping.has_block { &counters.clean_evictions } else { &counters.zero_evictions }, 1);
        true
    }

    fn collect_dirty(&self, batch: &mut Batch, page: Page<'_>, mapping: Mapping) -> bool {
        // Where a dirty page has no place to go only a zero page can leave; the look without a flush is a
        // hint, the scan after it decides.
        if !self.can_write && !self.pager.ground.memory.is_zero(mapping.hfn) {
            return false;
        }
        batch.lines.write_out(page).is_ok()
    }
}
