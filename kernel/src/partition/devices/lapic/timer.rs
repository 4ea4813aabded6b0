//! The local APIC's timer: one-shot, periodic and TSC-deadline.
//!
//! ```text
//!            write initial count            expires
//!   idle ──────────────────────> counting ──────────> idle         one-shot, TSC-deadline
//!    ^  <── write 0, mode change ──┘  ^ └──────────┘ next period    periodic
//! ```
//!
//! The count runs at 1 GHz (one tick a nanosecond) before the divider. Only the moment of the next
//! expiry is kept, in [`Ticks`]; the current count is computed from it.

use crate::arch::apic_words::timer_mode;
use crate::dump::state_note::{StateError, StateReader, StateWriter};
use crate::partition::devices::clock::TscRate;
use crate::time::{Ns, Ticks};

/// Shortest period. A shorter one is stretched to it: else the guest's ticks would take the whole
/// CPU.
const MIN_PERIOD_NS: Ns = Ns::from_us(20);

/// The timer's mode. LVT timer register, bits 18:17.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerMode {
    /// Counts down once.
    OneShot,
    /// Counts down again and again.
    Periodic,
    /// Expires when the TSC reaches a value.
    TscDeadline,
}

impl TimerMode {
    /// Decodes the field of the LVT timer register; the reserved encoding counts as one-shot.
    pub const fn of(bits: u8) -> Self {
        match bits {
            timer_mode::PERIODIC => TimerMode::Periodic,
            timer_mode::TSC_DEADLINE => TimerMode::TscDeadline,
            _ => TimerMode::OneShot,
        }
    }
}

/// The timer's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ApicTimer {
    initial: u32,
    divide_config: u32,
    /// The moment of the next expiry.
    next: Option<Ticks>,
}

impl ApicTimer {
    /// Returns when the timer expires.
    pub const fn deadline(&self) -> Option<Ticks> {
        self.next
    }
    /// Stops the timer, as a change of mode does.
    pub const fn disarm(&mut self) {
        self.next = None;
    }
    /// Returns the initial-count register.
    pub const fn initial(&self) -> u32 {
        self.initial
    }
    /// Returns the divide-configuration register.
    pub const fn divide_config(&self) -> u32 {
        self.divide_config
    }
    /// Writes the divide-configuration register; a running count keeps its deadline.
    pub const fn set_divide_config(&mut self, value: u32) {
        self.divide_config = value & 0b1011;
    }

    /// Writes the initial count: starts the count, or stops it with zero.
    pub fn set_initial(&mut self, count: u32, mode: TimerMode, now: Ticks, rate: TscRate) {
        if mode == TimerMode::TscDeadline {
            return;
        }
        self.initial = count;
        self.next = (count != 0).then(|| now.saturating_add(self.span(mode, rate)));
    }

    /// Returns the current count.
    pub fn current(&self, mode: TimerMode, now: Ticks, rate: TscRate) -> u32 {
        match (mode, self.next) {
            (TimerMode::TscDeadline, _) | (_, None) => 0,
            (_, Some(next)) => {
                let left = rate.ns_of(next.saturating_sub(now)).as_u64() / self.divisor();
                left.min(u64::from(self.initial)) as u32
            }
        }
    }

    /// Writes the TSC-deadline register; zero disarms. Ignored in the other modes.
    pub fn set_tsc_deadline(&mut self, deadline: Ticks, mode: TimerMode) {
        if mode == TimerMode::TscDeadline {
            self.next = (deadline != Ticks::ZERO).then_some(deadline);
        }
    }

    /// Reads the TSC-deadline register.
    pub fn tsc_deadline(&self, mode: TimerMode) -> Ticks {
        match (mode, self.next) {
            (TimerMode::TscDeadline, Some(next)) => next,
            _ => Ticks::ZERO,
        }
    }

    /// Tells whether the timer has expired by `now`, and if so starts the next period. Missed
    /// periods count once.
    pub fn expire(&mut self, mode: TimerMode, now: Ticks, rate: TscRate) -> bool {
        let Some(next) = self.next.filter(|&next| next <= now) else { return false };
        self.next = match mode {
            TimerMode::Periodic => {
                let span = self.span(mode, rate).max(Ticks::new(1));
                let behind = now.saturating_sub(next).as_u64() / span.as_u64();
                Some(next.saturating_add(span.saturating_mul(behind.saturating_add(1))))
            }
            TimerMode::OneShot | TimerMode::TscDeadline => None,
        };
        true
    }

    /// Appends the registers, and the time until the next expiry.
    pub(super) fn save(&self, out: &mut StateWriter, now: Ticks, rate: TscRate) {
        out.u32(self.initial);
        out.u32(self.divide_config);
        out.bool(self.next.is_some());
        let left = self.next.map_or(Ns::ZERO, |next| rate.ns_of(next.saturating_sub(now)));
        out.u64(left.as_u64());
    }

    /// Takes them over; what was due is due at once.
    pub(super) fn restore(
        &mut self,
        from: &mut StateReader<'_>,
        now: Ticks,
        rate: TscRate,
    ) -> Result<(), StateError> {
        self.initial = from.u32()?;
        self.set_divide_config(from.u32()?);
        let (is_armed, left) = (from.bool()?, rate.ticks_of(Ns::new(from.u64()?)));
        self.next = is_armed.then(|| now.saturating_add(left).max(Ticks::new(1)));
        Ok(())
    }

    fn span(&self, mode: TimerMode, rate: TscRate) -> Ticks {
        let ns = Ns::new(u64::from(self.initial) * self.divisor());
        rate.ticks_of(if mode == TimerMode::Periodic { ns.max(MIN_PERIOD_NS) } else { ns })
    }

    /// Bits 3, 1 and 0 of the divide configuration encode 2, 4, 8, ... 128, 1.
    const fn divisor(&self) -> u64 {
        let code = (self.divide_config & 3) | ((self.divide_config >> 1) & 4);
        1 << ((code + 1) % 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: TscRate = TscRate::new(2_000_000_000);

    fn running(count: u32, divide_config: u32, mode: TimerMode) -> ApicTimer {
        let mut timer = ApicTimer::default();
        timer.set_divide_config(divide_config);
        timer.set_initial(count, mode, Ticks::ZERO, RATE);
        timer
    }

    #[test]
    fn the_divider_follows_the_manuals_table() {
        for (config, divisor) in [
            (0b0000, 2),
            (0b0001, 4),
            (0b0010, 8),
            (0b0011, 16),
            (0b1000, 32),
            (0b1010, 128),
            (0b1011, 1),
        ] {
            assert_eq!(running(1, config, TimerMode::OneShot).divisor(), divisor, "{config:#b}");
        }
    }

    #[test]
    fn one_shot_expires_once_at_its_count() {
        let mut timer = running(1000, 0b1011, TimerMode::OneShot);
        assert_eq!(timer.deadline(), Some(Ticks::new(2000)));
        assert_eq!(timer.current(TimerMode::OneShot, Ticks::new(500), RATE), 750);
        assert!(!timer.expire(TimerMode::OneShot, Ticks::new(1999), RATE));
        assert!(timer.expire(TimerMode::OneShot, Ticks::new(2000), RATE));
        assert!(!timer.expire(TimerMode::OneShot, Ticks::new(9000), RATE));
        assert_eq!(timer.current(TimerMode::OneShot, Ticks::new(9000), RATE), 0);
    }

    #[test]
    fn missed_periods_are_one_tick_and_keep_the_phase() {
        let mut timer = running(100_000, 0b1011, TimerMode::Periodic);
        assert!(timer.expire(TimerMode::Periodic, Ticks::new(200_000 * 5 + 7), RATE));
        assert_eq!(timer.deadline(), Some(Ticks::new(200_000 * 6)));
    }

    #[test]
    fn a_hostile_period_is_stretched() {
        let timer = running(1, 0b1011, TimerMode::Periodic);
        assert_eq!(timer.deadline(), Some(RATE.ticks_of(MIN_PERIOD_NS)));
    }

    #[test]
    fn tsc_deadline_works_only_in_its_mode() {
        let mut timer = ApicTimer::default();
        timer.set_tsc_deadline(Ticks::new(77), TimerMode::OneShot);
        assert_eq!(timer.deadline(), None);
        timer.set_tsc_deadline(Ticks::new(77), TimerMode::TscDeadline);
        assert_eq!(
            (timer.tsc_deadline(TimerMode::TscDeadline), timer.tsc_deadline(TimerMode::OneShot)),
            (Ticks::new(77), Ticks::ZERO)
        );
        assert!(timer.expire(TimerMode::TscDeadline, Ticks::new(77), RATE));
        assert_eq!(timer.tsc_deadline(TimerMode::TscDeadline), Ticks::ZERO);
    }
}
