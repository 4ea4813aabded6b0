//! Time as a partition sees it: TSC ticks, nanoseconds since its start, and the time of day.
//!
//! Devices own no clock: the vCPU loop passes a [`Ticks`] to every call that needs the time. So
//! devices are pure and their tests choose the time. The guest's TSC runs at a constant
//! [`TscRate`]; both are fixed for an incarnation.

use crate::time::{Ns, Ticks};

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// The frequency of the guest's TSC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TscRate {
    hz: u64,
}

impl TscRate {
    /// Wraps a frequency.
    ///
    /// # Panics
    /// If `hz` is below 1 MHz: the TSC was calibrated wrongly (our bug, no guest's).
    pub const fn new(hz: u64) -> Self {
        assert!(hz >= 1_000_000, "a TSC slower than 1 MHz");
        Self { hz }
    }
    /// Returns the frequency.
    pub const fn hz(self) -> u64 {
        self.hz
    }
    /// Returns the frequency in kHz, rounded to the nearest.
    pub const fn khz(self) -> u64 {
        self.hz.saturating_add(500) / 1000
    }
    /// Converts ticks to nanoseconds, rounding down.
    pub const fn ns_of(self, ticks: Ticks) -> Ns {
        Ns::new(saturate(ticks.as_u64() as u128 * NS_PER_S as u128 / self.hz as u128))
    }
    /// Converts nanoseconds to ticks, rounding up, so that a deadline is never early.
    pub const fn ticks_of(self, ns: Ns) -> Ticks {
        Ticks::new(saturate((ns.as_u64() as u128 * self.hz as u128).div_ceil(NS_PER_S as u128)))
    }
}

const fn saturate(wide: u128) -> u64 {
    if wide > u64::MAX as u128 { u64::MAX } else { wide as u64 }
}

/// The clock of one incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestClock {
    /// The frequency of the guest's TSC.
    pub rate: TscRate,
    /// The TSC when the incarnation started.
    pub start: Ticks,
    /// Time of day at `start`: nanoseconds since 1970, UTC.
    pub unix_ns_at_start: u64,
}

impl GuestClock {
    /// Returns the nanoseconds since the incarnation started.
    pub const fn uptime_ns(&self, now: Ticks) -> Ns {
        self.rate.ns_of(now.saturating_sub(self.start))
    }
    /// Returns the time of day in nanoseconds since 1970, UTC.
    pub const fn unix_ns(&self, now: Ticks) -> u64 {
        self.unix_ns_at_start.saturating_add(self.uptime_ns(now).as_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early() {
        let rate = TscRate::new(2_999_999_999);
        for ns in [0, 1, 999, 1_000_000_007, u64::MAX / 4] {
            let ticks = rate.ticks_of(Ns::new(ns));
            assert!(rate.ns_of(ticks).as_u64() >= ns, "{ns}");
        }
    }

    #[test]
    fn the_end_of_time_saturates() {
        assert_eq!(TscRate::new(1_000_000).ns_of(Ticks::MAX), Ns::MAX);
    }
}
