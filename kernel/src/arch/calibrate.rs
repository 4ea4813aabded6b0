//! Measures the frequencies of the counter and the APIC's timer against a yardstick. Pure.
//!
//! ```text
//!   before          begin  ...  asked, not over   asked   over   timer   end
//!     │───────│──────│────────────│────────────────│───────│──────│───────│──> counter
//!             └─ the window begins somewhere between `before` and `begin`
//!                             and ends between the last `asked` before `over`, and `end`
//! ```
//!
//! An emulator may stop its CPU between any two of these steps, for longer than the window. So each
//! reading of the counter is taken on the side of its poll where a pause widens the bounds. The
//! bounds therefore always hold, and a pause is visible.

use crate::time::{Ns, Ticks};

/// A window of known length, and the clocks to measure.
pub(super) trait Yardstick {
    /// Prepares a window of `ticks` ticks.
    fn prepare(&mut self, ticks: u16);
    /// Begins the window, and lets the timer count from 0.
    fn begin(&mut self, ticks: u16);
    /// Returns whether the window is over.
    fn is_over(&mut self) -> bool;
    /// Returns the counter.
    fn counter(&mut self) -> Ticks;
    /// Returns the timer's count.
    fn timer(&mut self) -> u64;
    /// Returns the length of a window of `ticks` ticks.
    fn window_ns(&self, ticks: u16) -> Ns;
}

/// Measured frequencies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ClockFrequencies {
    /// Frequency of the counter, in Hz.
    pub counter: u64,
    /// Frequency of the timer, in Hz.
    pub timer: u64,
}

/// One measurement of a window.
#[derive(Clone, Copy)]
struct Measurement {
    /// Length of the window.
    ns: Ns,
    counter: Ticks,
    timer: u64,
    /// Least and most ticks of the counter that the window can have taken.
    bounds: (Ticks, Ticks),
}

impl Measurement {
    const fn hz(&self, ticks: Ticks) -> u64 {
        (ticks.as_u64() as u128 * 1_000_000_000 / self.ns.as_u64() as u128) as u64
    }

    fn unknown(&self) -> u64 {
        self.hz(self.bounds.1 - self.bounds.0)
    }
}

/// Measures the frequencies. Polls at most `patience` times for the end of a window; `None` if
/// there is no yardstick.
///
/// Every measurement bounds the frequency from both sides, and the best one is clamped to the
/// bounds of all. Short windows fit between two pauses of a very busy machine.
pub(super) fn frequencies(
    yardstick: &mut impl Yardstick,
    patience: u32,
) -> Option<ClockFrequencies> {
    /// Windows of 10, 2 and 0.25 ms, and how often each is tried.
    const ATTEMPTS: [(u16, usize); 3] = [(11_932, 10), (2_386, 50), (298, 100)];
    const GOOD_ENOUGH: u64 = 2_000;
    let (mut best, mut least, mut most): (Option<Measurement>, u64, u64) = (None, 1, u64::MAX);
    for ticks in ATTEMPTS.into_iter().flat_map(|(ticks, count)| core::iter::repeat_n(ticks, count))
    {
        let new = measure(yardstick, ticks, patience)?;
        best = best.filter(|best| best.unknown() <= new.unknown()).or(Some(new));
        (least, most) = (least.max(new.hz(new.bounds.0)), most.min(new.hz(new.bounds.1)));
        if new.bounds.1 - new.bounds.0 < new.counter / GOOD_ENOUGH {
            break;
        }
    }
    let best = best?;
    // Contradictory bounds mean that the counter is not steady.
    let measured = best.hz(best.counter);
    let counter = if least <= most { measured.clamp(least, most) } else { measured };
    let timer = u64::try_from(
        u128::from(counter) * u128::from(best.timer) / u128::from(best.counter.as_u64().max(1)),
    )
    .ok()?;
    (counter > 0 && timer > 0).then_some(ClockFrequencies { counter, timer })
}

fn measure(yardstick: &mut impl Yardstick, ticks: u16, patience: u32) -> Option<Measurement> {
    yardstick.prepare(ticks);
    let before = yardstick.counter();
    yardstick.begin(ticks);
    let begin = yardstick.counter();
    let mut not_over = begin;
    for _ in 0..patience {
        let asked = yardstick.counter();
        if yardstick.is_over() {
            let timer = yardstick.timer();
            let end = yardstick.counter();
            let bounds = (not_over - begin, end - before);
            return Some(Measurement {
                ns: yardstick.window_ns(ticks),
                counter: end - begin,
                timer,
                bounds,
            });
        }
        not_over = asked;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK_NS: u64 = 838;
    const COUNTER_HZ: u64 = 2_600_000_000;
    const TIMER_HZ: u64 = 62_500_000;

    /// A machine whose steps take 500 ns each, except for some that are paused.
    struct FakeYardstick {
        now_ns: u64,
        steps: u64,
        begin_ns: u64,
        ticks: u16,
        /// Length of the pause at the step with this number.
        pause: fn(u64) -> u64,
    }

    impl FakeYardstick {
        fn new(pause: fn(u64) -> u64) -> Self {
            Self { now_ns: 1_000, steps: 0, begin_ns: 0, ticks: 0, pause }
        }

        fn step(&mut self) -> u64 {
            self.steps += 1;
            self.now_ns += 500 + (self.pause)(self.steps);
            self.now_ns
        }
    }

    impl Yardstick for FakeYardstick {
        fn prepare(&mut self, _ticks: u16) {
            self.step();
        }
        fn begin(&mut self, ticks: u16) {
            self.begin_ns = self.step();
            self.ticks = ticks;
        }
        fn is_over(&mut self) -> bool {
            self.step() - self.begin_ns >= self.window_ns(self.ticks).as_u64()
        }
        fn counter(&mut self) -> Ticks {
            Ticks::new(self.step() * COUNTER_HZ / 1_000_000_000)
        }
        fn timer(&mut self) -> u64 {
            (self.step() - self.begin_ns) * TIMER_HZ / 1_000_000_000
        }
        fn window_ns(&self, ticks: u16) -> Ns {
            Ns::new(u64::from(ticks) * TICK_NS)
        }
    }

    fn is_right(found: ClockFrequencies) -> bool {
        found.counter.abs_diff(COUNTER_HZ) < COUNTER_HZ / 100
            && found.timer.abs_diff(TIMER_HZ) < TIMER_HZ / 100
    }

    #[test]
    fn a_quiet_machine_is_measured_at_once() {
        let mut quiet = FakeYardstick::new(|_| 0);
        assert!(is_right(frequencies(&mut quiet, 1 << 20).expect("a yardstick")));
        assert!(quiet.now_ns < 12_000_000);
    }

    /// A pause between a poll and the reading beside it must not make a short window look long, or
    /// a long one short.
    #[test]
    fn a_pause_at_any_step_changes_nothing() {
        const PAUSES: [fn(u64) -> u64; 4] = [
            // Longer than one and a half windows, once in each window, at a different place each
            // time.
            |step| if step % 19_998 == 19_990 { 16_000_000 } else { 0 },
            |step| if step.is_multiple_of(6_661) { 16_000_000 } else { 0 },
            |step| if step.is_multiple_of(1_009) { 4_000_000 } else { 0 },
            |step| if step.is_multiple_of(4_003) { 30_000_000 } else { 0 },
        ];
        for (number, pause) in PAUSES.into_iter().enumerate() {
            let found = frequencies(&mut FakeYardstick::new(pause), 1 << 20).expect("a yardstick");
            assert!(is_right(found), "{number}: {found:?}");
        }
    }

    /// A single pause, at each step around the end of the only window that is measured.
    #[test]
    fn bounds_hold_wherever_the_pause_is() {
        static AT: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
        let ticks = 2_386;
        for at in 1..4_100 {
            AT.store(at, core::sync::atomic::Ordering::Relaxed);
            let pause = |step| {
                if step == AT.load(core::sync::atomic::Ordering::Relaxed) { 5_000_000 } else { 0 }
            };
            let found =
                measure(&mut FakeYardstick::new(pause), ticks, 1 << 20).expect("a yardstick");
            let (least, most) = (found.hz(found.bounds.0), found.hz(found.bounds.1));
            assert!(
                least <= COUNTER_HZ + 1_000 && COUNTER_HZ - 1_000 <= most,
                "pause at {at}: {least} to {most}"
            );
        }
    }

    #[test]
    fn a_window_that_never_ends_is_no_yardstick() {
        assert_eq!(frequencies(&mut FakeYardstick::new(|_| 0), 100), None);
    }
}
