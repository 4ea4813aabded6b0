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

use crate::time::Ticks;
/// The lead, and the deadline that is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerLead {
    ticks: Ticks,
    /// The deadline that was treated as expired ahead of its time.
    awaited: Option<Ticks>,
}

impl TimerLead {
    /// Longest lead. A way that took longer was delayed by something else.
    const MOST: Ticks = Ticks::new(4096);
    /// Ticks that the wait should take.
    const SLACK: Ticks = Ticks::new(64);
    /// Least time from the end of the wait to the guest's next instruction. Instructions are
    /// executed in between, and none is faster than a tick.
    const ENTRY: Ticks = Ticks::new(64);

    /// Begins without a lead.
    pub const fn new() -> Self {
        Self { ticks: Ticks::ZERO, awaited: None }
    }

    /// Returns the moment to be woken for `deadline`.
    pub const fn ahead_of(&self, deadline: Ticks) -> Ticks {
        deadline.saturating_sub(self.ticks)
    }

    /// Takes note of the next deadline; returns the moment up to which timers expire.
    #[inline]
    pub fn look(&mut self, now: Ticks, deadline: Option<Ticks>) -> Ticks {
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
    pub fn wait(&mut self, now: impl Fn() -> Ticks) {
        if let Some(deadline) = self.awaited.take() {
            self.wait_for(deadline.saturating_sub(Self::ENTRY), now);
        }
    }

    #[cold]
    fn wait_for(&mut self, end: Ticks, now: impl Fn() -> Ticks) {
        let at = now();
        let (late, spare) = (at.saturating_sub(end), end.saturating_sub(at));
        self.ticks = match (late, spare) {
            // Something else has delayed the way.
            _ if late >= Self::MOST => self.ticks,
            _ if spare < Self::SLACK => (self.ticks + late + Self::SLACK - spare).min(Self::MOST),
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
        let (way, clock) = (Ticks::new(1_500), Cell::new(Ticks::ZERO));
        for round in 1..20 {
            let deadline = Ticks::new(round * 1_000_000);
            let woken = lead.ahead_of(deadline);
            assert_eq!(lead.look(woken, Some(deadline)), deadline);
            clock.set(woken + way);
            lead.wait(|| clock.replace(clock.get() + Ticks::new(10)));
            assert!(clock.get() + TimerLead::ENTRY >= deadline, "never early");
        }
        assert!((way..way + Ticks::new(200)).contains(&lead.ticks), "{lead:?}");
    }

    #[test]
    fn a_way_that_was_held_up_teaches_nothing_and_a_shorter_one_slowly() {
        let mut lead = TimerLead { ticks: Ticks::new(1_000), awaited: Some(Ticks::new(1_000_000)) };
        lead.wait(|| Ticks::new(1_900_000));
        assert_eq!(lead.ticks, Ticks::new(1_000));
        lead.awaited = Some(Ticks::new(2_000_000));
        let clock = Cell::new(Ticks::new(1_999_200));
        lead.wait(|| clock.replace(clock.get() + Ticks::new(10)));
        assert!((Ticks::new(801)..Ticks::new(1_000)).contains(&lead.ticks), "{lead:?}");
    }

    #[test]
    fn only_a_deadline_within_the_lead_is_waited_for_and_once() {
        let mut lead = TimerLead { ticks: Ticks::new(1_000), awaited: None };
        assert_eq!(
            lead.look(Ticks::new(998_999), Some(Ticks::new(1_000_000))),
            Ticks::new(998_999),
            "not yet"
        );
        assert_eq!(lead.look(Ticks::new(998_999), None), Ticks::new(998_999));
        assert_eq!(
            lead.look(Ticks::new(999_500), Some(Ticks::new(1_000_000))),
            Ticks::new(1_000_000)
        );
        assert_eq!(
            lead.look(Ticks::new(1_000_007), Some(Ticks::new(1_000_000))),
            Ticks::new(1_000_007),
            "late"
        );
        let looks = Cell::new(0);
        let tick = || {
            looks.set(looks.get() + 1);
            Ticks::new(999_500 + looks.get() * 100)
        };
        lead.wait(tick);
        assert!(looks.get() > 3);
        looks.set(0);
        lead.wait(tick);
        assert_eq!(looks.get(), 0);
    }
}
