//! Time since the start, from the time-stamp counter; and the one-shot timer.
//!
//! [`calibrate`] measures both clocks once, against CPUID's value or the interval timer; after
//! that, time is a multiplication. The counters of all CPUs are treated as one; `smp` checks that
//! as each CPU starts.
// UNSAFETY: arms the timer in TSC-deadline mode, for CPUs that have it.
#![expect(unsafe_code)]

#[cfg(test)]
pub mod test_clock;

use super::apic::Countdown;
use super::calibrate::{ClockFrequencies, Yardstick, frequencies};
use super::refine::{self, RunningCount, refine};
use super::{apic, instr, pit, quirks, repeats, vectors};
use crate::time::{Ns, Ticks};
use spin::Once;

/// A clock's frequency, prepared for conversions without division.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TickScale {
    hz: u64,
    /// Nanoseconds per tick, with 32 fractional bits.
    ns_per_tick: u64,
}

impl TickScale {
    /// Makes a scale.
    ///
    /// # Panics
    /// If `hz` is 0 (our bug: measured values are checked first).
    pub const fn new(hz: u64) -> Self {
        assert!(hz > 0, "a clock that stands still");
        Self { hz, ns_per_tick: ((1_000_000_000_u128 << 32) / hz as u128) as u64 }
    }

    /// Returns the frequency.
    pub const fn hz(self) -> u64 {
        self.hz
    }

    /// Returns the duration of `ticks`, saturated at the range of nanoseconds (for a guest's
    /// deadline).
    pub const fn ns(self, ticks: Ticks) -> Ns {
        let ns = (ticks.as_u64() as u128 * self.ns_per_tick as u128) >> 32;
        if ns > u64::MAX as u128 { Ns::MAX } else { Ns::new(ns as u64) }
    }

    /// Returns the number of ticks in `ns`, rounded up.
    pub const fn ticks(self, ns: Ns) -> Ticks {
        let ticks = (ns.as_u64() as u128 * self.hz as u128).div_ceil(1_000_000_000);
        if ticks > u64::MAX as u128 { Ticks::MAX } else { Ticks::new(ticks as u64) }
    }
}

/// Speed of a timer relative to the counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ratio {
    /// Timer ticks per tick of the counter, with 32 fractional bits.
    per_tick: u64,
}

impl Ratio {
    /// Makes the ratio of two frequencies; the counter's must not be 0.
    const fn new(timer_hz: u64, counter_hz: u64) -> Self {
        let per_tick = ((timer_hz as u128) << 32) / counter_hz as u128;
        Self { per_tick: if per_tick > u64::MAX as u128 { u64::MAX } else { per_tick as u64 } }
    }

    /// Returns the initial count for `ticks` ticks of the counter: at least one, at most the
    /// register's maximum.
    const fn count(self, ticks: Ticks) -> u32 {
        let count = ((ticks.as_u64() as u128 * self.per_tick as u128) >> 32) + 1;
        if count > u32::MAX as u128 { u32::MAX } else { count as u32 }
    }

    /// Returns the ticks of the counter that a count takes.
    const fn ticks(self, count: u32) -> Ticks {
        let per_tick = if self.per_tick == 0 { 1 } else { self.per_tick as u128 };
        Ticks::new((((count as u128) << 32) / per_tick) as u64)
    }
}

struct Clocks {
    tsc: TickScale,
    /// `None`: the timer compares with the time-stamp counter.
    timer: Option<Ratio>,
    /// Whether its interrupt can be lost, so that a count must repeat.
    losses: Losses,
    /// The counter's value at time 0.
    start: Ticks,
}

/// Whether a timer's interrupt can be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Losses {
    Never,
    Possible,
}

impl Losses {
    /// Returns the count and mode to program for a count. If an interrupt can be lost, the count
    /// repeats; otherwise a guest that never exits for another reason would keep the CPU for good.
    /// A repeated count has a minimum, so that an emulator can keep up.
    fn program(self, count: u32) -> (u32, Countdown) {
        const LEAST: u32 = 2_000;
        match self {
            Losses::Possible => (count.max(LEAST), Countdown::Repeated),
            Losses::Never => (count, Countdown::Once),
        }
    }
}

static CLOCKS: Once<Clocks> = Once::new();

/// Measures the clocks; once, on the boot CPU, with its APIC enabled.
pub fn calibrate() {
    const ASSUMED: ClockFrequencies =
        ClockFrequencies { counter: 1_000_000_000, timer: 1_000_000_000 };
    CLOCKS.call_once(|| {
        let ClockFrequencies { counter, timer } = frequencies(&mut IntervalTimer, pit::PATIENCE)
            .unwrap_or_else(|| {
                log::warn!("no interval timer: the clocks are taken to run at 1 GHz");
                ASSUMED
            });
        let tsc = tsc_hz_by_cpuid().unwrap_or_else(|| refined(counter));
        let timer = u64::try_from(u128::from(timer) * u128::from(tsc) / u128::from(counter))
            .map_or(timer, |timer| timer.max(1));
        let timer = (!has_deadline_timer()).then(|| Ratio::new(timer, tsc));
        let losses = if quirks::requests_get_lost() { Losses::Possible } else { Losses::Never };
        Clocks { tsc: TickScale::new(tsc), timer, losses, start: instr::rdtsc() }
    });
}

/// Returns the counter's frequency, measured again over a longer time. Guests are promised it, and
/// a suspended guest compares it with the next machine's, so it is measured once and to the end
/// before anything else runs.
fn refined(rough_hz: u64) -> u64 {
    match refine(rough_hz, &mut IntervalTimer) {
        Some(found) => {
            if found.doubt_ppm > refine::GOOD_PPM {
                let (hz, doubt) = (found.hz, found.doubt_ppm);
                log::warn!("the TSC's frequency, {hz} Hz, may be wrong by {doubt} ppm");
            }
            log::debug!("TSC {} Hz, within {} ppm", found.hz, found.doubt_ppm);
            found.hz
        }
        None => {
            log::warn!("the TSC's frequency is known roughly only: {rough_hz} Hz");
            rough_hz
        }
    }
}

impl RunningCount for IntervalTimer {
    fn start(&mut self) {
        pit::start_running();
    }
    fn latch(&mut self) {
        pit::latch();
    }
    fn latched(&mut self) -> u16 {
        pit::latched()
    }
    fn counter(&mut self) -> Ticks {
        instr::rdtsc()
    }
}

/// The interval timer's window, with this CPU's clocks.
struct IntervalTimer;

impl Yardstick for IntervalTimer {
    fn prepare(&mut self, ticks: u16) {
        pit::prepare_window(ticks);
    }
    fn begin(&mut self, ticks: u16) {
        pit::begin_window(ticks);
        apic::start_silent_timer();
    }
    fn is_over(&mut self) -> bool {
        pit::window_is_over()
    }
    fn counter(&mut self) -> Ticks {
        instr::rdtsc()
    }
    fn timer(&mut self) -> u64 {
        u64::from(u32::MAX - apic::timer_count())
    }
    fn window_ns(&self, ticks: u16) -> Ns {
        pit::window_ns(ticks)
    }
}

/// Returns the counter's frequency from CPUID leaf 15h: crystal * EBX / EAX. SDM 2A "CPUID".
fn tsc_hz_by_cpuid() -> Option<u64> {
    if instr::cpuid(0, 0).eax < 0x15 {
        return None;
    }
    let leaf = instr::cpuid(0x15, 0);
    let hz = u64::from(leaf.ecx) * u64::from(leaf.ebx);
    hz.checked_div(u64::from(leaf.eax)).filter(|&hz| hz > 0)
}

fn has_deadline_timer() -> bool {
    instr::cpuid(1, 0).ecx & 1 << 24 != 0
}

/// Returns the counter's frequency; 1 GHz before [`calibrate`].
pub fn tsc_hz() -> u64 {
    tsc_scale().hz()
}

/// Returns the counter's scale; that of 1 GHz before [`calibrate`].
pub fn tsc_scale() -> TickScale {
    const BEFORE: TickScale = TickScale::new(1_000_000_000);
    CLOCKS.get().map_or(BEFORE, |clocks| clocks.tsc)
}

/// Returns nanoseconds since [`calibrate`]; 0 before.
pub fn now_ns() -> Ns {
    #[cfg(test)]
    if let Some(ns) = test_clock::read() {
        return ns;
    }
    CLOCKS
        .get()
        .map_or(Ns::ZERO, |clocks| clocks.tsc.ns(instr::rdtsc().saturating_sub(clocks.start)))
}

/// Returns the counter's value at `ns` since [`calibrate`].
pub fn tsc_at(ns: Ns) -> Ticks {
    #[cfg(test)]
    if test_clock::read().is_some() {
        return Ticks::new(ns.as_u64());
    }
    CLOCKS.get().map_or(Ticks::MAX, |clocks| clocks.start.saturating_add(clocks.tsc.ticks(ns)))
}

/// Returns the time since [`calibrate`] for a value of the counter.
pub fn ns_at(tsc: Ticks) -> Ns {
    #[cfg(test)]
    if test_clock::read().is_some() {
        return Ns::new(tsc.as_u64());
    }
    CLOCKS.get().map_or(Ns::MAX, |clocks| clocks.tsc.ns(tsc.saturating_sub(clocks.start)))
}

/// Waits in a busy loop; for start-up only.
pub fn spin_ns(ns: Ns) {
    let end = now_ns().saturating_add(ns);
    while now_ns() < end {
        instr::pause();
    }
}

/// Sets this CPU's timer to interrupt at `deadline_ns`, or earlier if that is beyond its range.
pub fn arm(deadline_ns: Ns) {
    arm_at(tsc_at(deadline_ns));
}

/// As [`arm`], for a value of the counter: needs no conversion.
pub fn arm_at(deadline: Ticks) {
    #[cfg(test)]
    if test_clock::arm_at(deadline) {
        return;
    }
    let Some(clocks) = CLOCKS.get() else { return };
    match clocks.timer {
        // SAFETY: only a CPU with this mode has no ratio. Zero would disarm the timer.
        None => unsafe { apic::start_deadline_timer(vectors::TIMER, deadline.max(Ticks::new(1))) },
        Some(timer) => {
            let count = timer.count(deadline.saturating_sub(instr::rdtsc()));
            let (count, countdown) = clocks.losses.program(count);
            apic::start_timer(vectors::TIMER, count, countdown);
        }
    }
}

/// Records when this CPU noticed the end of a count of its timer; [`repeats::counts`] has the late
/// ones.
#[inline]
pub fn note_end(deadline: Ticks, now: Ticks) {
    /// Below this, lateness cannot be distinguished from the time the code takes to get here.
    const LATE: Ticks = Ticks::new(50_000);
    if now.saturating_sub(deadline) > LATE {
        note_late(now - deadline);
    }
}

#[cold]
fn note_late(late: Ticks) {
    let Some(Clocks { timer: Some(timer), losses: Losses::Possible, .. }) = CLOCKS.get() else {
        return;
    };
    let (count, left) = (apic::timer_initial_count(), apic::timer_count());
    repeats::note(timer.ticks(count), late, timer.ticks(count.saturating_sub(left)));
}

/// Stops this CPU's timer. A pending interrupt still arrives.
pub fn disarm() {
    match CLOCKS.get().map(|clocks| clocks.timer) {
        None => {}
        // SAFETY: as in `arm`.
        Some(None) => unsafe { apic::start_deadline_timer(vectors::TIMER, Ticks::ZERO) },
        Some(Some(_)) => apic::start_timer(vectors::TIMER, 0, Countdown::Once),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_converts_both_ways() {
        let scale = TickScale::new(2_500_000_000);
        assert_eq!(
            (scale.ns(Ticks::new(2_500_000_000)), scale.ticks(Ns::from_secs(1))),
            (Ns::new(999_999_999), Ticks::new(2_500_000_000))
        );
        assert!(scale.ticks(scale.ns(Ticks::new(1_000_000))).as_u64().abs_diff(1_000_000) <= 3);
    }

    #[test]
    fn a_slow_clock_does_not_lose_years() {
        let (scale, year_ns) = (TickScale::new(50_000_000), Ns::from_secs(365 * 86_400));
        assert!(scale.ns(scale.ticks(year_ns)).as_u64().abs_diff(year_ns.as_u64()) < 1_000);
    }

    #[test]
    fn a_timer_is_never_set_to_zero_nor_beyond_its_register() {
        let timer = Ratio::new(1_000_000_000, 3_000_000_000);
        assert_eq!(
            [0, 2, 3, 3_000_000].map(|ticks| timer.count(Ticks::new(ticks))),
            [1, 1, 1, 1_000_000]
        );
        assert_eq!(timer.count(Ticks::MAX), u32::MAX);
        assert_eq!(Ratio::new(u64::MAX, 1).count(Ticks::MAX), u32::MAX);
        assert_eq!([0, 1, 1_000_000].map(|count| timer.ticks(count).as_u64()), [0, 3, 3_000_000]);
        assert_eq!(Ratio::new(0, 1).ticks(1), Ticks::new(1 << 32), "no division by zero");
    }

    #[test]
    fn a_count_whose_end_can_get_lost_is_repeated_however_short_it_is() {
        assert_eq!(Losses::Never.program(3), (3, Countdown::Once));
        assert_eq!(Losses::Never.program(1 << 30), (1 << 30, Countdown::Once));
        assert_eq!(
            [1, 1_999, 2_000, 1 << 30].map(|count| Losses::Possible.program(count)),
            [
                (2_000, Countdown::Repeated),
                (2_000, Countdown::Repeated),
                (2_000, Countdown::Repeated),
                (1 << 30, Countdown::Repeated),
            ]
        );
    }

    #[test]
    fn a_time_beyond_the_counter_saturates() {
        assert_eq!(TickScale::new(4_000_000_000).ticks(Ns::MAX), Ticks::MAX);
    }
}
