//! Measures the pager's lock: how often it is taken, how often a CPU waits for it, how long it is
//! held at most.
//!
//! ```text
//!   locked ── taken + 1, waits + 1 where another CPU had it
//!   a turn of the pager: begin_hold ── [held] ── end_hold: longest = max(longest, now - since)
//! ```
//!
//! The lock itself guards the counters, so counting needs no atomic instruction. On a machine of
//! one CPU no lock is contended, so holds are not timed there and the measured paths stay short.
//! Long holds occur in turns; a fault's hold is bounded by one request.

use super::Pager;
use super::counters::LockUse;
use super::state::PagerState;
use crate::arch::instr;
use crate::block::Disk;
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::sync::{RankedGuard, rank};
use crate::time::Ticks;

/// The pager's tables, locked.
pub(super) type PagerGuard<'a, P> = RankedGuard<'a, PagerState<P>, { rank::PAGER }>;

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Takes the pager's lock, waiting for it if necessary.
    #[inline(always)]
    pub(super) fn locked(&self) -> PagerGuard<'_, P> {
        match self.state.try_lock() {
            Some(state) => self.guard(state),
            None => self.locked_by_another(),
        }
    }

    /// Takes the pager's lock if no other CPU has it.
    #[inline(always)]
    pub(super) fn try_locked(&self) -> Option<PagerGuard<'_, P>> {
        self.state.try_lock().map(|state| self.guard(state))
    }

    #[cold]
    #[inline(never)]
    fn locked_by_another(&self) -> PagerGuard<'_, P> {
        let mut guard = self.guard(self.state.lock());
        guard.lock_use.waits += 1;
        guard
    }

    #[inline(always)]
    fn guard<'a>(&self, mut state: PagerGuard<'a, P>) -> PagerGuard<'a, P> {
        // Does not overflow in practice.
        state.lock_use.taken = state.lock_use.taken.wrapping_add(1);
        state
    }

    /// Returns the start time of a timed hold, or zero if holds are not timed.
    #[inline(always)]
    pub(super) fn begin_hold(&self) -> Ticks {
        if self.turns.is_alone() { Ticks::ZERO } else { instr::rdtsc() }
    }

    /// Returns how the lock was used.
    pub fn lock_use(&self) -> LockUse {
        self.locked().lock_use
    }
}

impl LockUse {
    /// Notes the end of a hold that began at `since`.
    #[inline(always)]
    pub(super) fn end_hold(&mut self, since: Ticks) {
        if since != Ticks::ZERO {
            self.longest_ticks = self.longest_ticks.max(instr::rdtsc().saturating_sub(since));
        }
    }
}
