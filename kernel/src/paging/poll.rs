//! The pager's turn: all work other than serving faults happens here, a bounded piece at a time.

use super::Pager;
use super::counters::bump;
use super::state::PagerState;
use super::turns::TurnVisitor;
use super::verify::ArrivedTransfers;
use super::work::{AT_A_TIME, PollBudget, PollOutcome, PollTurn};
use crate::arch::percpu::CpuId;
use crate::block::MAX_DISKS;
use crate::block::cookie::{CompletionOwner, CookieFields};
use crate::block::{Completion, Disk};
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;
use core::sync::atomic::Ordering::Relaxed;

/// Rounds of completions of one disk in a poll.
const ROUNDS: usize = 8;

/// Most turns in one poll. A second one serves CPUs that came meanwhile, and completions of the
/// poll's own writes.
const LOOKS: usize = 2;

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Handles the disks' completions, advances batches, reclaims frames if the pool is short, and
    /// wakes waiting faulters.
    ///
    /// `me` is the calling CPU; it must hold no translation of any guest's page. One CPU polls at a
    /// time. Another CPU that calls meanwhile returns at once and continues its own work: the
    /// polling CPU notices the call and takes another turn.
    pub fn poll(&self, me: CpuId, now: Ns) -> PollOutcome {
        self.clock.store(now, Relaxed);
        if !self.turns.is_alone() {
            return self.poll_beside_others(me, now);
        }
        let mut turn = PollTurn::begin(me, now);
        if self.poll_alone(&mut turn) {
            self.scan(&mut turn.budget, now);
        }
        turn.work
    }

    #[inline(never)]
    fn poll_beside_others(&self, me: CpuId, now: Ns) -> PollOutcome {
        // Publish *idle*: this CPU holds no translation while it computes checksums or copies
        // blocks, so no flush has to wait for it.
        self.env.quiescent_states.idle(me);
        let work = if self.turns.begin() {
            self.take_turns(me, now)
        } else {
            bump(&self.counters.polls_left_to_others, 1);
            PollOutcome::default()
        };
        self.env.quiescent_states.leave(me);
        work
    }

    /// Takes a turn, and another one if more work has come meanwhile. The caller has won
    /// `turns.begin`.
    fn take_turns(&self, me: CpuId, now: Ns) -> PollOutcome {
        let mut turn = PollTurn::begin(me, now);
        for looks_left in (0..LOOKS).rev() {
            turn.budget = PollBudget::for_poll();
            (turn.work.poll_again, turn.work.awaits_flush) = (false, false);
            let to_scan = self.poll_alone(&mut turn);
            // End the turn before the scan: every polling CPU may scan.
            let came = self.turns.end();
            if to_scan {
                self.scan(&mut turn.budget, now);
            }
            if came == TurnVisitor::None && !(to_scan && self.has_answers()) {
                break;
            }
            // More work than this: the caller decides when to poll again.
            turn.work.poll_again |= looks_left == 0;
            if looks_left == 0 || !self.turns.begin() {
                break;
            }
        }
        turn.work
    }

    /// Advances all batches as far as possible without reading their pages.
    fn advance_all(&self, state: &mut PagerState<P>, now: Ns) {
        if state.batches.any() {
            for number in 0..state.batches.count() {
                self.advance(state, number, now);
            }
        }
    }

    /// Returns whether a disk that does not interrupt has completions.
    fn has_answers(&self) -> bool {
        self.disks.iter().any(|disk| disk.has_answers())
    }

    /// Does the part that only one CPU does at a time. Returns whether there are pages to scan.
    #[inline(always)]
    fn poll_alone(&self, turn: &mut PollTurn) -> bool {
        let now = turn.now;
        let mut state = self.locked();
        let mut since = self.begin_hold();
        let moves = state.begin_turn();
        self.wants_poll.store(false, Relaxed);
        let mut arrived = ArrivedTransfers::new();
        for disk in 0..self.disks.len().min(MAX_DISKS) {
            if self.disks[disk].is_dead() != state.down[disk] {
                let is_down = self.disks[disk].is_dead();
                self.note_turn_of(&mut state, disk, is_down);
                turn.work.woke_waiters = true;
            }
            self.take_completions(&mut state, (disk, now), &mut arrived, &mut turn.work);
        }
        if !arrived.is_empty() {
            state.lock_use.end_hold(since);
            drop(state);
            self.verify_all(&arrived, now);
            state = self.locked();
            since = self.begin_hold();
        }
        turn.work.has_notices = !state.notices.is_empty();
        if self.is_quiet(&state, now) {
            state.note_turn_without_work_since(moves);
            state.lock_use.end_hold(since);
            return false;
        }
        let visits = turn.budget.visits;
        self.turn(&mut state, turn);
        let has_pages_to_scan = state.batches.to_scan().is_some();
        if turn.budget.visits == visits && !has_pages_to_scan {
            state.note_turn_without_work_since(moves);
        }
        state.lock_use.end_hold(since);
        has_pages_to_scan
    }

    /// Does all work of a turn other than handling completions.
    #[inline(never)]
    fn turn(&self, state: &mut PagerState<P>, turn: &mut PollTurn) {
        let now = turn.now;
        if state.slots.bases > 0 {
            self.look_at_bases(state, turn);
        }
        self.sample(state, now);
        self.ask_along(state, now);
        self.reclaim(state, turn);
        self.clean(state, turn);
        self.watch_writes(state, now);
        self.advance_all(state, now);
        self.resubmit_transfers(state);
        let free = self.env.frames.free_count();
        if free > 0 && self.hungry.load(Relaxed) != 0 {
            state.reclaim.exhausted = false;
            turn.work.woke_waiters |= self.wake_hungry(state, |id| {
                state.credits.available(state.account(id), free) > 0
                    && self.may_go_on(state, id, now)
            });
        }
        // A faulter that waits while no disk works waits for time to pass (the pause after failed
        // writes). No interrupt would wake the CPU then, so it must not idle.
        turn.work.poll_again |=
            self.hungry.load(Relaxed) != 0 && !state.batches.any() && state.transfers.in_use() == 0;
        let wants = state.batches.wants();
        turn.work.poll_again |= turn.budget.visits == 0 || wants.a_cpu;
        turn.work.awaits_flush |= wants.a_flush || state.copies.any();
    }

    /// Returns whether there is no work other than handling completions. That is common: faulters
    /// poll for their own pages.
    #[inline]
    fn is_quiet(&self, state: &PagerState<P>, now: Ns) -> bool {
        !state.batches.any()
            && !state.transfers.any_queued()
            && !state.reclaim.is_due(now)
            && self.hungry.load(Relaxed) == 0
            && !self.marks_now(state).is_scarce(self.free_for_all(state))
    }

    #[inline(always)]
    fn take_completions(
        &self,
        state: &mut PagerState<P>,
        (disk, now): (usize, Ns),
        arrived: &mut ArrivedTransfers,
        work: &mut PollOutcome,
    ) {
        for _ in 0..ROUNDS {
            if arrived.remaining_capacity() < AT_A_TIME {
                break;
            }
            let count = self.disks[disk].poll(now, &mut state.answers);
            for n in 0..count {
                self.route(state, (disk, now), state.answers[n], arrived);
            }
            if count > 0 {
                state.note_move();
                work.woke_waiters = true;
            }
            if count < AT_A_TIME {
                return;
            }
        }
        work.poll_again = true;
    }

    #[inline(always)]
    fn route(
        &self,
        state: &mut PagerState<P>,
        (disk, now): (usize, Ns),
        completion: Completion,
        arrived: &mut ArrivedTransfers,
    ) {
        if !state.late.is_empty() && self.take_late(state, disk, completion) {
            return;
        }
        // A request submitted before the pager existed may complete late.
        let Some(tag) = CookieFields::of(completion.cookie) else { return };
        match tag.class {
            CompletionOwner::Transfer => {
                self.complete_transfer(state, tag, (completion.result, now), arrived)
            }
            CompletionOwner::WriteOut => {
                self.complete_run(state, disk, tag, completion.result, now)
            }
            CompletionOwner::Task => state.mail.keep(completion),
        }
    }
}
