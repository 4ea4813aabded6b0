//! Arms the host's timer ahead of a guest's deadline, so that the way back into the guest is over
//! when the deadline comes.
//!
//! ```text
//!             armed for            looked at           entered
//!  ──────────────┼─────────────────────┼───────────────────┼─────────> TSC
//!                │<─ way through the hypervisor ─>│<─ wait ─>│ deadline
//!                │<─────────────────── lead ──────────────>│
//! ```
//!
//! The lead follows the recent length of that way. Linux's KVM does the same
//! (`lapic_timer_advance`). Pure.
//!
//! Invariant: a guest never runs before a deadline whose interrupt it already has:
//! [`TimerLead::wait`] comes before each entry.

use super::devices::clock::Tsc;

/// The lead, and the deadline that is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerLead {
    ticks: u64,
    /// The deadline that was treated as expired ahead of its time.
    awaited: Option<Tsc>,
}

impl TimerLead {
    /// Longest lead. A way that took longer was delayed by something else.
    const MOST: u64 = 4096;
    /// Ticks that the wait should take.
    const SLACK: u64 = 64;
    /// Least time from the end of the wait to the guest's next instruction. Instructions are
    /// executed in between, and none is faster than a tick.
    const ENTRY: u64 = 64;

    /// Begins without a lead.
    pub const fn new() -> Self {
        Self { ticks: 0, awaited: None }
    }

    /// Returns the moment to be woken for `deadline`.
    pub const fn ahead_of(&self, deadline: Tsc) -> Tsc {
        Tsc(deadline.0.saturating_sub(self.ticks))
    }

    /// Takes note of the next deadline; returns the moment up to which timers expire.
    #[inline]
    pub fn look(&mut self, now: Tsc, deadline: Option<Tsc>) -> Tsc {
        match deadline {
            Some(deadline) if self.ahead_of(deadline) <= now => {
                self.awaited = Some(deadline);
                now.max(deadline)
            }
            _ => now,
        }
    }

    /// Waits until the guest may be entered, and adapts the lead. Never waits longer than the
    /// longest lead.
    #[inline]
    pub fn wait(&mut self, now: impl Fn() -> Tsc) {
        if let Some(deadline) = self.awaited.take() {
            self.wait_for(Tsc(deadline.0.saturating_sub(Self::ENTRY)), now);
        }
    }

    #[cold]
    fn wait_for(&mut self, end: Tsc, now: impl Fn() -> Tsc) {
        let at = now();
        let (late, spare) = (at.since(end), end.since(at));
        self.ticks = match (late, spare) {
            // Something else has delayed the way.
            (Self::MOST.., _) => self.ticks,
            (_, 0..Self::SLACK) => (self.ticks + late + Self::SLACK - spare).min(Self::MOST),
            _ => self.ticks - ((spare - Self::SLACK) / 8).min(self.ticks),
        };
        while now() < end {
            core::hint::spin_loop();
        }
    }
}

impl Default for TimerLead {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn the_lead_becomes_what_the_way_takes() {
        let mut lead = TimerLead::new();
        let (way, clock) = (1_500, Cell::new(0));
        for round in 1..20 {
            let deadline = Tsc(round * 1_000_000);
            let woken = lead.ahead_of(deadline);
            assert_eq!(lead.look(woken, Some(deadline)), deadline);
            clock.set(woken.0 + way);
            lead.wait(|| Tsc(clock.replace(clock.get() + 10)));
            assert!(clock.get() + TimerLead::ENTRY >= deadline.0, "never early");
        }
        assert!((way..way + 200).contains(&lead.ticks), "{}", lead.ticks);
    }

    #[test]
    fn a_way_that_was_held_up_teaches_nothing_and_a_shorter_one_slowly() {
        let mut lead = TimerLead { ticks: 1_000, awaited: Some(Tsc(1_000_000)) };
        lead.wait(|| Tsc(1_900_000));
        assert_eq!(lead.ticks, 1_000);
        lead.awaited = Some(Tsc(2_000_000));
        let clock = Cell::new(1_999_200);
        lead.wait(|| Tsc(clock.replace(clock.get() + 10)));
        assert!(lead.ticks < 1_000 && lead.ticks > 800, "{}", lead.ticks);
    }

    #[test]
    fn only_a_deadline_within_the_lead_is_waited_for_and_once() {
        let mut lead = TimerLead { ticks: 1_000, awaited: None };
        assert_eq!(lead.look(Tsc(998_999), Some(Tsc(1_000_000))), Tsc(998_999), "not yet");
        assert_eq!(lead.look(Tsc(998_999), None), Tsc(998_999));
        assert_eq!(lead.look(Tsc(999_500), Some(Tsc(1_000_000))), Tsc(1_000_000));
        assert_eq!(lead.look(Tsc(1_000_007), Some(Tsc(1_000_000))), Tsc(1_000_007), "late");
        let looks = Cell::new(0);
        let tick = || {
            looks.set(looks.get() + 1);
            Tsc(999_500 + looks.get() * 100)
        };
        lead.wait(tick);
        assert!(looks.get() > 3);
        looks.set(0);
        lead.wait(tick);
        assert_eq!(looks.get(), 0);
    }
}
