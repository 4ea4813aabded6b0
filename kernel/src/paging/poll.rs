//! The pager's turn: everything that is not a guest's fault happens here, a bounded piece at a time.

use super::cookie::{Class, Tag};
use super::counters::bump;
use super::state::State;
use super::turns::Came;
use super::verify::Arrived;
use super::{MAX_DISKS, Pager};
use crate::arch::percpu::CpuId;
use crate::block::{Completion, Disk};
use crate::mm::flush::Kicks;
use crate::mm::phys::FrameMemory;
use crate::pool::Policy;
use core::sync::atomic::Ordering::Relaxed;

/// Completions taken from a disk at a time.
pub(super) const AT_A_TIME: usize = 8;
/// Rounds of completions of one disk in a poll.
const ROUNDS: usize = 8;

/// Looks that one poll takes at most: for a CPU that has come meanwhile, and for what its own writes have brought.
const LOOKS: usize = 2;

/// What a poll has done, and what it needs from its caller.
#[must_use = "CPUs that are not kicked may stay in the guest for ever"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// CPUs that must leave guest mode.
    pub kicks: Kicks,
    /// Somebody who waited may go on: parked vCPUs are worth a look.
    pub woke: bool,
    /// There is more to do at once: do not idle.
    pub busy: bool,
    /// A flush is awaited, which passes in microseconds: idle no longer than that.
    pub soon: bool,
    /// [`Pager::take_notice`] has something.
    pub told: bool,
}

impl Default for Work {
    fn default() -> Self {
        Self { kicks: Kicks(0), woke: false, busy: false, soon: false, told: false }
    }
}

impl Work {
    pub(super) fn kick(&mut self, kicks: Kicks) {
        self.kicks.0 |= kicks.0;
    }
}

/// How much one call may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Leaves to look at.
    pub visits: u32,
    /// Frames to scan and checksum.
    pub scans: u32,
}

impl Budget {
    /// Returns what a poll may do: some hundred microseconds.
    pub fn for_poll() -> Self {
        Self { visits: 4096, scans: 128 }
    }

    /// Takes up to `most` scans; returns how many there were.
    pub fn take_scans(&mut self, most: usize) -> usize {
        let taken = most.min(self.scans as usize);
        self.scans -= taken as u32;
        taken
    }
}

impl<M: FrameMemory, D: Disk, P: Policy> Pager<'_, M, D, P> {
    /// Brings home what the disks have finished, moves batches on, takes frames back where the pool is short, wakes who waited.
    ///
    /// `me` is the calling CPU; it holds no translation of any guest's page. One CPU polls at a time. A CPU that comes meanwhile goes
    /// on with its own work: the polling CPU notices that it has come, and looks once more.
    pub fn poll(&self, me: CpuId, now: u64) -> Work {
        self.clock.store(now, Relaxed);
        if !self.turns.is_alone() {
            return self.poll_beside_others(me, now);
        }
        let (mut work, mut budget) = (Work::default(), Budget::for_poll());
        if self.poll_alone(me, now, &mut budget, &mut work) {
            self.scan(&mut budget, now);
        }
        work
    }

    #[inline(never)]
    fn poll_beside_others(&self, me: CpuId, now: u64) -> Work {
        // No flush waits for a CPU that reads checksums or copies blocks: it holds no translation all that time.
        self.ground.words.idle(me);
        let work = if self.turns.begin() {
            self.take_turns(me, now)
        } else {
            bump(&self.counters.polls_left_to_others, 1);
            Work::default()
        };
        self.ground.words.leave(me);
        work
    }

    /// Has a turn, and another one where something has come meanwhile. The caller has the turn.
    fn take_turns(&self, me: CpuId, now: u64) -> Work {
        let mut work = Work::default();
        for looks_left in (0..LOOKS).rev() {
            let mut budget = Budget::for_poll();
            (work.busy, work.soon) = (false, false);
            let to_scan = self.poll_alone(me, now, &mut budget, &mut work);
            // Before pages are scanned: every CPU that comes by scans.
            let came = self.turns.end();
            if to_scan {
                self.scan(&mut budget, now);
            }
            if came == Came::None && !(to_scan && self.has_answers()) {
                break;
            }
            // Where that goes on, the caller decides when to poll again.
            work.busy |= looks_left == 0;
            if looks_left == 0 || !self.turns.begin() {
                break;
            }
        }
        work
    }

    /// Takes all batches as far as they go without a look at their pages.
    fn advance_all(&self, state: &mut State<P>, now: u64) {
        if state.batches.any() {
            for number in 0..state.batches.count() {
                self.advance(state, number, now);
            }
        }
    }

    /// Returns whether a disk that does not interrupt has answers.
    fn has_answers(&self) -> bool {
        self.disks.iter().any(|disk| disk.has_answers())
    }

    /// Does what one CPU does at a time; returns whether there are pages to scan.
    #[inline(always)]
    fn poll_alone(&self, me: CpuId, now: u64, budget: &mut Budget, work: &mut Work) -> bool {
        let mut state = self.locked();
        let mut since = self.begin_hold();
        let moves = state.begin_turn();
        self.wants_poll.store(false, Relaxed);
        let mut arrived = Arrived::new();
        for disk in 0..self.disks.len().min(MAX_DISKS) {
            if self.disks[disk].is_dead() != state.down[disk] {
                let is_down = self.disks[disk].is_dead();
                self.note_turn_of(&mut state, disk, is_down);
                work.woke = true;
            }
            self.take_completions(&mut state, (disk, now), &mut arrived, work);
        }
        if !arrived.is_empty() {
            state.lock_use.end_hold(since);
            drop(state);
            self.verify_all(&arrived, now);
            state = self.locked();
            since = self.begin_hold();
        }
        work.told = !state.notices.is_empty();
        if self.is_quiet(&state, now) {
            state.note_turn_without_work_since(moves);
            state.lock_use.end_hold(since);
            return false;
        }
        let visits = budget.visits;
        self.turn(&mut state, me, now, budget, work);
        let has_pages_to_scan = state.batches.to_scan().is_some();
        if budget.visits == visits && !has_pages_to_scan {
            state.note_turn_without_work_since(moves);
        }
        state.lock_use.end_hold(since);
        has_pages_to_scan
    }

    /// Does what is to be done besides taking answers.
    #[inline(never)]
    fn turn(&self, state: &mut State<P>, me: CpuId, now: u64, budget: &mut Budget, work: &mut Work) {
        self.sample(state, now);
        self.ask_along(state, now);
        self.reclaim(state, me, now, budget, work);
        self.clean(state, me, now, budget, work);
        self.watch_writes(state, now);
        self.advance_all(state, now);
        self.resubmit_transfers(state);
        let free = self.ground.frames.free_count();
        if free > 0 && self.hungry.load(Relaxed) != 0 {
            state.reclaim.exhausted = false;
            work.woke |= self
                .wake_hungry(state, |id| state.credits.available(state.account(id), free) > 0 && self.may_go_on(state, id, now));
        }
        // Who waits while no disk is at work waits for time to pass (a pause after failed writes): nothing would wake the CPU.
        work.busy |= self.hungry.load(Relaxed) != 0 && !state.batches.any() && state.transfers.in_use() == 0;
        let wants = state.batches.wants();
        work.busy |= budget.visits == 0 || wants.a_cpu;
        work.soon |= wants.a_flush;
    }

    /// Returns whether nothing is to be done beside taking answers: as often as not a faulter polls for its own page.
    #[inline]
    fn is_quiet(&self, state: &State<P>, now: u64) -> bool {
        !state.batches.any()
            && !state.transfers.any_queued()
            && !state.reclaim.is_due(now)
            && self.hungry.load(Relaxed) == 0
            && !self.marks_now(state).is_scarce(self.free_for_all(state))
    }

    #[inline(always)]
    fn take_completions(&self, state: &mut State<P>, (disk, now): (usize, u64), arrived: &mut Arrived, work: &mut Work) {
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
                work.woke = true;
            }
            if count < AT_A_TIME {
                return;
            }
        }
        work.busy = true;
    }

    #[inline(always)]
    fn route(&self, state: &mut State<P>, (disk, now): (usize, u64), completion: Completion, arrived: &mut Arrived) {
        if !state.late.is_empty() && self.take_late(state, disk, completion) {
            return;
        }
        // What was asked before there was a pager may be answered late.
        let Some(tag) = Tag::of(completion.cookie) else { return };
        match tag.class {
            Class::Transfer => self.complete_transfer(state, tag, (completion.result, now), arrived),
            Class::WriteOut => self.complete_run(state, disk, tag, completion.result, now),
            foreign => {
                let mailbox = foreign.mailbox().expect("what is not the pager's is foreign");
                state.mail.keep(mailbox, completion);
            }
        }
    }
}
