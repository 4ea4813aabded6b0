//! A piece of the pager's work: its limits, and what its caller has to do.

use crate::arch::percpu::CpuId;
use crate::mm::flush::Kicks;
use crate::time::Ns;

/// Completions taken from a disk at a time.
pub(super) const AT_A_TIME: usize = 8;

/// Result of a poll, and what the caller has to do.
#[must_use = "CPUs that are not kicked may stay in the guest for ever"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PollOutcome {
    /// CPUs that must leave guest mode.
    pub kicks: Kicks,
    /// A wait has ended: check the parked vCPUs.
    pub woke_waiters: bool,
    /// There is more work now: do not idle.
    pub poll_again: bool,
    /// A batch waits for a flush, which passes within microseconds: idle no longer than that.
    pub awaits_flush: bool,
    /// [`Pager::take_notice`](super::Pager::take_notice) has a notice.
    pub has_notices: bool,
}

impl Default for PollOutcome {
    fn default() -> Self {
        Self {
            kicks: Kicks(0),
            woke_waiters: false,
            poll_again: false,
            awaits_flush: false,
            has_notices: false,
        }
    }
}

impl PollOutcome {
    pub(super) fn kick(&mut self, kicks: Kicks) {
        self.kicks.0 |= kicks.0;
    }
}

/// Limits of the work in one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct PollBudget {
    /// Leaves to visit.
    pub visits: u32,
    /// Frames to scan and checksum.
    pub scans: u32,
}

impl PollBudget {
    /// Returns the limits of a poll: some hundred microseconds.
    pub(super) fn for_poll() -> Self {
        Self { visits: 4096, scans: 128 }
    }

    /// Takes up to `most` scans from the budget; returns how many it took.
    pub(super) fn take_scans(&mut self, most: usize) -> usize {
        let taken = most.min(self.scans as usize);
        self.scans -= taken as u32;
        taken
    }
}

/// The state of a poll.
#[derive(Debug)]
pub(super) struct PollTurn {
    /// The CPU that polls.
    pub me: CpuId,
    /// The time.
    pub now: Ns,
    /// What it may still do.
    pub budget: PollBudget,
    /// What its caller has to do.
    pub work: PollOutcome,
}

impl PollTurn {
    /// Begins a poll.
    pub(super) fn begin(me: CpuId, now: Ns) -> Self {
        Self { me, now, budget: PollBudget::for_poll(), work: PollOutcome::default() }
    }
}
