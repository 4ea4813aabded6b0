//! The pager's turn: everything that is not a guest's fault happens here, a bounded piece at a time.

use super::batch::{BATCHES, Batch};
use super::cookie::{Class, Tag};
use super::state::State;
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
    /// [`Pager::take_notice`] has something.
    pub told: bool,
}

impl Default for Work {
    fn default() -> Self {
        Self { kicks: Kicks(0), woke: false, busy: false, told: false }
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
    /// `me` is the calling CPU; it holds no translation of any guest's page. Where another CPU has the pager, that one may have been
    /// past what has just happened, so there is more to do.
    pub fn poll(&self, me: CpuId, now: u64) -> Work {
        self.clock.store(now, Relaxed);
        let Some(mut state) = self.state.try_lock() else { return Work { busy: true, ..Work::default() } };
        let mut work = Work::default();
        self.wants_poll.store(false, Relaxed);
        for disk in 0..self.disks.len().min(MAX_DISKS) {
            self.take_completions(&mut state, disk, now, &mut work);
        }
        work.told = !state.notices.is_empty();
        if self.is_quiet(&state, now) {
            return work;
        }
        let mut budget = Budget::for_poll();
        self.turn(&mut state, me, now, &mut budget, &mut work);
        let to_scan = state.batches.to_scan().is_some();
        drop(state);
        if to_scan {
            self.scan(&mut budget, now);
        }
        work
    }

    /// Does what is to be done besides taking answers.
    #[inline(never)]
    fn turn(&self, state: &mut State<P>, me: CpuId, now: u64, budget: &mut Budget, work: &mut Work) {
        self.sample(state, now);
        self.reclaim(state, me, now, budget, work);
        self.clean(state, me, now, budget, work);
        if state.batches.any() {
            for number in 0..BATCHES {
                self.advance(state, number, now);
            }
        }
        self.resubmit_transfers(state);
        let free = self.ground.frames.free_count();
        if free > 0 && self.hungry.load(Relaxed) != 0 {
            state.reclaim.exhausted = false;
            work.woke |= self.wake_hungry(state, |id| state.credits.available(state.account(id), free) > 0);
        }
        // Who waits while no disk is at work waits for time to pass (a pause after failed writes): nothing would wake the CPU.
        work.busy |= self.hungry.load(Relaxed) != 0 && !state.batches.any() && state.transfers.in_use() == 0;
        work.busy |= budget.visits == 0 || state.batches.any() && state.batches.iter().any(Batch::needs_no_disk);
    }

    /// Returns whether nothing is to be done beside taking answers: as often as not a faulter polls for its own page.
    #[inline]
    fn is_quiet(&self, state: &State<P>, now: u64) -> bool {
        !state.batches.any()
            && !state.transfers.any_queued()
            && !state.reclaim.is_due(now)
            && self.hungry.load(Relaxed) == 0
            && !self.marks.is_scarce(self.free_for_all(state))
    }

    fn take_completions(&self, state: &mut State<P>, disk: usize, now: u64, work: &mut Work) {
        for _ in 0..ROUNDS {
            let count = self.disks[disk].poll(now, &mut state.answers);
            for n in 0..count {
                self.route(state, state.answers[n], now);
            }
            work.woke |= count > 0;
            if count < AT_A_TIME {
                return;
            }
        }
        work.busy = true;
    }

    fn route(&self, state: &mut State<P>, completion: Completion, now: u64) {
        let tag = Tag::of(completion.cookie).expect("every request's cookie has a class");
        match tag.class {
            Class::Transfer => self.complete_transfer(state, tag, completion.result, now),
            Class::WriteOut => self.complete_run(state, tag, completion.result, now),
            foreign => {
                let mailbox = foreign.mailbox().expect("what is not the pager's is foreign");
                state.mail.keep(mailbox, completion);
            }
        }
    }
}
