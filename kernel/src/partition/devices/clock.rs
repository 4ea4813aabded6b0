//! Time as a partition sees it: TSC ticks, nanoseconds since its start, and the time of day.
//!
//! Devices own no clock: the vCPU loop passes a [`Ticks`] to every call that needs the time. So
//! devices are pure and their tests choose the time. The guest's TSC runs at a constant
//! [`TscRate`]; both are fixed for an incarnation.

use crate::dump::state_note::{StateError, StateNote, StatePart, StateWriter};
use crate::time::{Ns, Ticks};

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// The frequency of the guest's TSC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TscRate {
    hz: u64,
}

impl TscRate {
    /// Lowest frequency: no CPU with virtualisation is slower.
    pub const LEAST_HZ: u64 = 1_000_000;

    /// Wraps a frequency.
    ///
    /// # Panics
    /// If `hz` is below 1 MHz: the TSC was calibrated wrongly (our bug, no guest's).
    pub const fn new(hz: u64) -> Self {
        assert!(hz >= Self::LEAST_HZ, "a TSC slower than 1 MHz");
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
    /// The TSC when the incarnation started; [`Ticks::since`] says what it is after a resume.
    pub start: Ticks,
    /// Time of day at `start`: nanoseconds since 1970, UTC.
    pub unix_ns_at_start: u64,
}

impl GuestClock {
    /// Returns the nanoseconds since the incarnation started.
    pub const fn uptime_ns(&self, now: Ticks) -> Ns {
        self.rate.ns_of(self.elapsed(now))
    }
    /// Returns the ticks since the incarnation started. The time in which it was suspended is left
    /// out.
    #[inline]
    pub const fn elapsed(&self, now: Ticks) -> Ticks {
        now.since(self.start)
    }
    /// Returns the time of day in nanoseconds since 1970, UTC.
    pub const fn unix_ns(&self, now: Ticks) -> u64 {
        self.unix_ns_at_start.saturating_add(self.uptime_ns(now).as_u64())
    }
}

/// The clock of a guest that was suspended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SavedClock {
    /// The frequency of the TSC that the guest had.
    pub rate: TscRate,
    /// The time since the incarnation started, suspensions left out.
    pub uptime: Ns,
}

impl GuestClock {
    /// Appends what goes on after a resume.
    pub fn save(&self, note: &mut StateWriter, now: Ticks) {
        note.part(StatePart::Clock, 1, |part| {
            part.u64(self.rate.hz());
            part.u64(self.uptime_ns(now).as_u64());
        });
    }

    /// Makes the clock of a guest that goes on at `now`, when the time of day is `unix_ns`.
    pub fn resumed(saved: SavedClock, rate: TscRate, now: Ticks, unix_ns: u64) -> Self {
        let ticks = rate.ticks_of(saved.uptime).as_u64();
        Self {
            rate,
            start: Ticks::new(now.as_u64().wrapping_sub(ticks)),
            unix_ns_at_start: unix_ns.saturating_sub(saved.uptime.as_u64()),
        }
    }
}

impl SavedClock {
    /// Reads the part of the note.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn read(note: &StateNote<'_>) -> Result<Self, StateError> {
        note.part(StatePart::Clock, 1, |part| {
            let (hz, uptime) = (part.u64()?, Ns::new(part.u64()?));
            part.check(hz >= TscRate::LEAST_HZ && uptime < LONGEST_UPTIME)?;
            Ok(Self { rate: TscRate::new(hz), uptime })
        })
    }
}

/// No guest is older: the ticks of its clock stay far below 2^63.
const LONGEST_UPTIME: Ns = Ns::from_secs(50 * 365 * 86_400);

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
    fn a_resumed_guests_time_goes_on_and_its_clock_shows_the_time_of_day() {
        let rate = TscRate::new(2_000_000_000);
        let before = GuestClock { rate, start: Ticks::new(5_000), unix_ns_at_start: 1_000 };
        let mut writer = StateWriter::default();
        let kind = crate::dump::state_note::StateNoteKind::Devices;
        writer.note(kind, 1, |note| before.save(note, Ticks::new(2_000_005_000)));
        let notes = writer.finish().unwrap();
        let note = StateNote::read(StateNote::all(&notes, kind).next().unwrap()).unwrap();
        let saved = SavedClock::read(&note).unwrap();
        assert_eq!(saved, SavedClock { rate, uptime: Ns::from_secs(1) });
        // The other machine has run for less time than the guest, at another frequency.
        let rate = TscRate::new(1_000_000_000);
        let clock = GuestClock::resumed(saved, rate, Ticks::new(77), 9_000_000_000);
        assert_eq!(clock.uptime_ns(Ticks::new(77)), Ns::from_secs(1));
        assert_eq!(clock.uptime_ns(Ticks::new(1_000_000_077)), Ns::from_secs(2));
        assert_eq!(clock.unix_ns(Ticks::new(1_000_000_077)), 10_000_000_000);
    }

    #[test]
    fn the_end_of_time_saturates() {
        assert_eq!(TscRate::new(1_000_000).ns_of(Ticks::MAX), Ns::MAX);
    }
}
