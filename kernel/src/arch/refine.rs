//! Measures the counter's frequency more precisely than one window can: over a longer time, against
//! the running count of the interval timer. Pure.
//!
//! ```text
//!   counter   low │ high                                     low │ high
//!                 └ count latched between the two                └ again
//!   interval timer   65536 ... 1 | 65536 ... 1 | 65536 ... (the number of rounds follows from the
//!                                                           frequency that is known roughly)
//! ```
//!
//! Each latch lies between two readings of the counter. So two latches bound the frequency from
//! both sides, whatever pause the emulator makes between them: a pause only widens the bounds of
//! its own sample. The bounds of all samples are intersected, and narrow as the time grows.

use super::pit::{FREQUENCY_HZ, RUNNING_PERIOD};
use crate::time::Ticks;

/// A running count, and the counter to measure.
pub(super) trait RunningCount {
    /// Starts the count.
    fn start(&mut self);
    /// Keeps the count of this moment.
    fn latch(&mut self);
    /// Returns the count that was kept.
    fn latched(&mut self) -> u16;
    /// Returns the counter.
    fn counter(&mut self) -> Ticks;
}

/// A frequency, and how far it may be from the true one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RefinedFrequency {
    pub hz: u64,
    /// Most parts of a million.
    pub doubt_ppm: u64,
}

/// A doubt that is small enough.
pub(super) const GOOD_PPM: u64 = 50;
/// Samples from which the first one is chosen.
const FIRST_SAMPLES: usize = 24;
/// Longest measurement, in counts: half a second. A quiet machine needs a tenth.
const LONGEST: u64 = FREQUENCY_HZ / 2;
/// Most samples: an end for a count that stands still.
const MOST_SAMPLES: u32 = 400_000;
/// Counts by which a reading may be late or early. Emulators count in microseconds.
const SLACK: u64 = 2;

/// A count, and the readings of the counter before and after it was kept.
#[derive(Clone, Copy)]
struct CountSample {
    low: u64,
    high: u64,
    count: u16,
}

impl CountSample {
    fn take(count: &mut impl RunningCount) -> Self {
        let low = count.counter().as_u64();
        count.latch();
        let high = count.counter().as_u64();
        Self { low, high, count: count.latched() }
    }

    const fn width(&self) -> u64 {
        self.high.saturating_sub(self.low)
    }
}

/// Refines a frequency that is known to a few parts of a hundred. `None` if the count does not run,
/// or contradicts the counter.
pub(super) fn refine(rough_hz: u64, count: &mut impl RunningCount) -> Option<RefinedFrequency> {
    count.start();
    let first =
        (0..FIRST_SAMPLES).map(|_| CountSample::take(count)).min_by_key(CountSample::width)?;
    let (mut least, mut most) = (0_u64, u64::MAX);
    for _ in 0..MOST_SAMPLES {
        let sample = CountSample::take(count);
        let Some(counts) = counts_between(rough_hz, &first, &sample) else { continue };
        let shortest = sample.low.saturating_sub(first.high);
        let longest = sample.high.saturating_sub(first.low);
        least = least.max(hz(shortest, counts + SLACK)?);
        if counts > SLACK {
            most = most.min(hz(longest, counts - SLACK)?);
        }
        if least > most {
            return None;
        }
        if least == 0 || most == u64::MAX {
            continue;
        }
        let (middle, half) = (least.midpoint(most), (most - least).div_ceil(2));
        let doubt_ppm = u64::try_from(u128::from(half) * 1_000_000 / u128::from(middle)).ok()? + 1;
        if doubt_ppm <= GOOD_PPM || counts >= LONGEST {
            return Some(RefinedFrequency { hz: middle, doubt_ppm });
        }
    }
    None
}

/// Returns the counts from one sample to a later one. `None` if a pause or a count that jumps makes
/// the number of rounds uncertain.
fn counts_between(rough_hz: u64, first: &CountSample, later: &CountSample) -> Option<u64> {
    let ticks = later.low.midpoint(later.high).checked_sub(first.low.midpoint(first.high))?;
    let expected = u128::from(ticks) * u128::from(FREQUENCY_HZ) / u128::from(rough_hz.max(1));
    let expected = u64::try_from(expected).ok()?;
    // The count goes down.
    let part = u64::from(first.count.wrapping_sub(later.count));
    let rounds = (expected + RUNNING_PERIOD / 2).checked_sub(part)? / RUNNING_PERIOD;
    let counts = rounds * RUNNING_PERIOD + part;
    (counts.abs_diff(expected) < RUNNING_PERIOD / 4).then_some(counts)
}

fn hz(ticks: u64, counts: u64) -> Option<u64> {
    u64::try_from(u128::from(ticks) * u128::from(FREQUENCY_HZ) / u128::from(counts)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 2_600_000_000;

    /// A machine whose steps take a microsecond each, except for some that are paused.
    struct FakeCount {
        now_ns: u64,
        steps: u64,
        kept: u16,
        pause: fn(u64) -> u64,
        /// The count stands still.
        is_dead: bool,
    }

    impl FakeCount {
        fn new(start_ns: u64, pause: fn(u64) -> u64) -> Self {
            Self { now_ns: start_ns, steps: 0, kept: 0, pause, is_dead: false }
        }

        fn step(&mut self) {
            self.steps += 1;
            self.now_ns += 1_000 + (self.pause)(self.steps);
        }
    }

    impl RunningCount for FakeCount {
        fn start(&mut self) {
            self.step();
        }
        fn latch(&mut self) {
            self.step();
            let counts = self.now_ns * (FREQUENCY_HZ / 2) / 500_000_000;
            self.kept = if self.is_dead { 7 } else { (counts as u16).wrapping_neg() };
        }
        fn latched(&mut self) -> u16 {
            self.step();
            self.step();
            self.kept
        }
        fn counter(&mut self) -> Ticks {
            self.step();
            Ticks::new(self.now_ns * (HZ / 1_000_000) / 1_000)
        }
    }

    const PAUSES: [fn(u64) -> u64; 5] = [
        |_| 0,
        // A busy machine: some pause in every few samples, longer than the count's period or not.
        |step| if step.is_multiple_of(7) { 3_000_000 } else { 0 },
        |step| if step % 1_009 == 13 { 80_000_000 } else { 0 },
        |step| step % 13 * 400,
        |step| if step.is_multiple_of(23) { 20_000_000 } else { step % 3 * 700 },
    ];

    #[test]
    fn two_measurements_of_a_busy_machine_agree() {
        for (number, pause) in PAUSES.into_iter().enumerate() {
            for start_ns in [1_000, 30_000_000, 54_900_000] {
                // The rough frequency is wrong by two parts of a hundred.
                for rough in [HZ - HZ / 50, HZ + HZ / 50] {
                    let mut fake = FakeCount::new(start_ns, pause);
                    let found = refine(rough, &mut fake).expect("a count");
                    let off = found.hz.abs_diff(HZ) * 1_000_000 / HZ;
                    assert!(off <= found.doubt_ppm, "{number}: {found:?}");
                    assert!(found.doubt_ppm <= GOOD_PPM, "{number}: {found:?}");
                    assert!(fake.now_ns < start_ns + 700_000_000, "{number}: {}", fake.now_ns);
                }
            }
        }
    }

    #[test]
    fn a_quiet_machine_is_measured_in_a_tenth_of_a_second() {
        let mut fake = FakeCount::new(1_000, PAUSES[0]);
        refine(HZ, &mut fake).expect("a count");
        assert!(fake.now_ns < 100_000_000, "{}", fake.now_ns);
    }

    #[test]
    fn a_count_that_stands_still_or_contradicts_is_no_measure() {
        let mut dead = FakeCount { is_dead: true, ..FakeCount::new(1_000, PAUSES[0]) };
        assert_eq!(refine(HZ, &mut dead), None);
        // The rough frequency is wrong by a half: the number of rounds is not certain.
        let found = refine(HZ * 3 / 2, &mut FakeCount::new(1_000, PAUSES[0]));
        assert!(
            found.is_none_or(|found| found.hz.abs_diff(HZ) * 1_000_000 / HZ <= found.doubt_ppm)
        );
    }
}
