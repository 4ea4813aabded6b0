//! The interval timer (8254): three readable counters, and the output of the third; no interrupt.
//!
//! Kernels without KVM's clock measure the TSC against counter 2; its gate and output are in port
//! B. Only the moment of the last load is kept, in [`Ticks`]; the count is computed from it.
//! 82C54 data sheet, "Programming the 82C54", "Mode Definitions".
//!
//! | mode | count | output |
//! |---|---|---|
//! | 0, 1, 4, 5 | down through 0 and on from 0xffff | low until 0 was reached (0), else high |
//! | 2, 3 | down to 1, then from the start value again | high (2), high in the first half (3) |

use super::clock::{NS_PER_S, TscRate};
use super::saved::SavedDevice;
use crate::dump::state_note::{StateError, StatePart, StateReader, StateWriter};
use crate::time::{Ns, Ticks};

/// Ticks a second.
const HZ: u64 = 1_193_182;
const COUNTERS: usize = 3;
/// The counter that port B gates.
const GATED: usize = 2;

/// The bytes of a count that an access moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CountBytes {
    Low,
    High,
    Both,
}

/// One counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Counter {
    mode: u8,
    bytes: CountBytes,
    /// The low byte has been written or read; the high byte is next.
    is_high_next: bool,
    low: u8,
    /// The start value, 0 for 65536; `None` until one is written.
    start: Option<u16>,
    loaded: Ticks,
    latched: Option<u16>,
}

/// The timer.
#[derive(Clone, Copy, Debug)]
pub struct Pit {
    rate: TscRate,
    counters: [Counter; COUNTERS],
    /// The gate of counter 2, which counts while this is set.
    is_gated_in: bool,
}

impl Counter {
    /// Makes a counter whose output is high, so that no kernel waits for a counter it has not
    /// started.
    const fn new() -> Self {
        Self {
            mode: 2,
            bytes: CountBytes::Both,
            is_high_next: false,
            low: 0,
            start: None,
            loaded: Ticks::ZERO,
            latched: None,
        }
    }

    /// Returns ticks since the start.
    fn ticks(&self, now: Ticks, rate: TscRate) -> u64 {
        let ns = u128::from(rate.ns_of(now.since(self.loaded)).as_u64());
        u64::try_from(ns * u128::from(HZ) / u128::from(NS_PER_S)).unwrap_or(u64::MAX)
    }

    fn span(&self) -> u64 {
        self.start.map_or(0x1_0000, |start| if start == 0 { 0x1_0000 } else { u64::from(start) })
    }

    fn is_periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    fn count(&self, now: Ticks, rate: TscRate) -> u16 {
        if self.start.is_none() {
            return 0;
        }
        let ticks = self.ticks(now, rate);
        if self.is_periodic() {
            return (self.span() - ticks % self.span()) as u16;
        }
        self.span().wrapping_sub(ticks) as u16
    }

    fn is_output_high(&self, now: Ticks, rate: TscRate) -> bool {
        let ticks = self.ticks(now, rate);
        match (self.mode, self.start) {
            (0, start) => start.is_some() && ticks >= self.span(),
            (3, Some(_)) => ticks % self.span() < self.span().div_ceil(2),
            _ => true,
        }
    }

    fn control(&mut self, value: u8) {
        self.bytes = match (value >> 4) & 3 {
            1 => CountBytes::Low,
            2 => CountBytes::High,
            _ => CountBytes::Both,
        };
        // Modes 6 and 7 are aliases of 2 and 3.
        let mode = (value >> 1) & 7;
        self.mode = if mode > 5 { mode & 3 } else { mode };
        (self.start, self.latched, self.is_high_next) = (None, None, false);
    }

    fn write(&mut self, value: u8, now: Ticks) {
        let start = match self.bytes {
            CountBytes::Low => u16::from(value),
            CountBytes::High => u16::from(value) << 8,
            CountBytes::Both if !self.is_high_next => {
                (self.low, self.is_high_next) = (value, true);
                return;
            }
            CountBytes::Both => u16::from_le_bytes([self.low, value]),
        };
        self.is_high_next = false;
        (self.start, self.loaded) = (Some(start), now);
    }

    fn read(&mut self, now: Ticks, rate: TscRate) -> u8 {
        let [low, high] = self.latched.unwrap_or_else(|| self.count(now, rate)).to_le_bytes();
        let (value, is_last) = match self.bytes {
            CountBytes::Low => (low, true),
            CountBytes::High => (high, true),
            CountBytes::Both if self.is_high_next => (high, true),
            CountBytes::Both => (low, false),
        };
        self.is_high_next = !is_last;
        if is_last {
            self.latched = None;
        }
        value
    }
}

impl Pit {
    /// Makes the timer in its state before any programming.
    pub const fn new(rate: TscRate) -> Self {
        Self { rate, counters: [Counter::new(); COUNTERS], is_gated_in: false }
    }

    /// Reads counter `number`; its control register, 3, cannot be read.
    pub fn read(&mut self, number: u16, now: Ticks) -> u8 {
        let rate = self.rate;
        self.counters.get_mut(usize::from(number)).map_or(0xff, |counter| counter.read(now, rate))
    }

    /// Writes counter `number`, or the control register, 3.
    pub fn write(&mut self, number: u16, value: u8, now: Ticks) {
        if let Some(counter) = self.counters.get_mut(usize::from(number)) {
            counter.write(value, now);
            return;
        }
        // The read-back command, 3, is not offered; the first PCs lacked it, too.
        let rate = self.rate;
        let Some(counter) = self.counters.get_mut(usize::from(value >> 6)) else { return };
        if (value >> 4) & 3 == 0 {
            let count = counter.count(now, rate);
            counter.latched.get_or_insert(count);
        } else {
            counter.control(value);
        }
    }

    /// Sets the gate of counter 2: a rise starts its count anew.
    pub const fn set_gate(&mut self, is_in: bool, now: Ticks) {
        if is_in && !self.is_gated_in {
            self.counters[GATED].loaded = now;
        }
        self.is_gated_in = is_in;
    }

    /// Returns the output of counter 2.
    pub fn output(&self, now: Ticks) -> bool {
        let counter = &self.counters[GATED];
        counter.is_output_high(now, self.rate) && (self.is_gated_in || counter.mode != 0)
    }
}

impl Counter {
    /// Returns the time since the last load as far as it matters: modulo the period, or little
    /// more than the time to zero. So it lies within the time for which any machine runs.
    fn age(&self, now: Ticks, rate: TscRate) -> Ticks {
        let age = now.since(self.loaded);
        let ns = |ticks: u64| Ns::new((ticks * NS_PER_S).div_ceil(HZ));
        let wrap = rate.ticks_of(ns(if self.is_periodic() { self.span() } else { 0x1_0000 }));
        if age < wrap || wrap == Ticks::ZERO {
            return age;
        }
        // A one-shot count that has passed zero runs on through 0xffff.
        let past = if self.is_periodic() { Ticks::ZERO } else { wrap };
        Ticks::new(age.as_u64() % wrap.as_u64()) + past
    }

    fn save(&self, out: &mut StateWriter, now: Ticks, rate: TscRate) {
        out.u8(self.mode);
        out.u8(self.bytes as u8);
        out.bool(self.is_high_next);
        out.u8(self.low);
        for value in [self.start, self.latched] {
            out.bool(value.is_some());
            out.u16(value.unwrap_or(0));
        }
        out.u64(rate.ns_of(self.age(now, rate)).as_u64());
    }

    fn restored(from: &mut StateReader<'_>, now: Ticks, rate: TscRate) -> Result<Self, StateError> {
        let mode = from.u8()?;
        from.check(mode <= 5)?;
        let bytes = match from.u8()? {
            0 => CountBytes::Low,
            1 => CountBytes::High,
            2 => CountBytes::Both,
            _ => return Err(from.impossible()),
        };
        let (is_high_next, low) = (from.bool()?, from.u8()?);
        let mut value = || Ok((from.bool()?, from.u16()?));
        let [start, latched] = [value()?, value()?].map(|(is, value)| is.then_some(value));
        let age = Ns::new(from.u64()?);
        from.check(age <= LONGEST_AGE)?;
        let loaded = Ticks::new(now.as_u64().wrapping_sub(rate.ticks_of(age).as_u64()));
        Ok(Self { mode, bytes, is_high_next, low, start, loaded, latched })
    }
}

/// A saved counter was loaded this long ago at most: two rounds of 65536 ticks, and a little more.
const LONGEST_AGE: Ns = Ns::from_ms(111);

impl SavedDevice for Pit {
    const PART: StatePart = StatePart::Pit;

    fn save(&self, out: &mut StateWriter, now: Ticks) {
        self.counters.iter().for_each(|counter| counter.save(out, now, self.rate));
        out.bool(self.is_gated_in);
    }

    fn restore(&mut self, from: &mut StateReader<'_>, now: Ticks) -> Result<(), StateError> {
        for counter in &mut self.counters {
            *counter = Counter::restored(from, now, self.rate)?;
        }
        self.is_gated_in = from.bool()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TSC of one tick a nanosecond.
    const RATE: TscRate = TscRate::new(NS_PER_S);
    const CONTROL: u16 = 3;

    /// The moment `ticks` of the timer after the start, a little later.
    fn after(ticks: u64) -> Ticks {
        Ticks::new((ticks * NS_PER_S).div_ceil(HZ))
    }

    fn started(control: u8, start: u16) -> Pit {
        let mut pit = Pit::new(RATE);
        pit.set_gate(true, Ticks::ZERO);
        pit.write(CONTROL, control, Ticks::ZERO);
        let [low, high] = start.to_le_bytes();
        pit.write(2, low, Ticks::ZERO);
        pit.write(2, high, Ticks::ZERO);
        pit
    }

    fn count(pit: &mut Pit, now: Ticks) -> u16 {
        u16::from_le_bytes([pit.read(2, now), pit.read(2, now)])
    }

    #[test]
    fn linux_measures_by_the_high_byte_in_mode_0() {
        // `quick_pit_calibrate`.
        let mut pit = started(0xb0, 0xffff);
        for high in 1..0xff_u64 {
            assert_eq!(u64::from(count(&mut pit, after(0x100 * high)) >> 8), 0xff - high);
        }
    }

    #[test]
    fn the_output_rises_when_the_count_is_over() {
        let pit = started(0xb0, 1000);
        assert_eq!(
            [0, 999, 1000, 100_000].map(|ticks| pit.output(after(ticks))),
            [false, false, true, true]
        );
        let mut closed = pit;
        closed.set_gate(false, after(2000));
        assert!(!closed.output(after(2000)));
        closed.set_gate(true, after(5000));
        assert_eq!(
            [5500, 6001].map(|ticks| closed.output(after(ticks))),
            [false, true],
            "from the rise on"
        );
    }

    #[test]
    fn a_latched_count_stays_until_it_is_read() {
        let mut pit = started(0xb4, 0);
        pit.write(CONTROL, 0x80, after(10));
        pit.write(CONTROL, 0x80, after(20));
        assert_eq!([after(30), after(40)].map(|now| count(&mut pit, now)), [0xfff6, 0xffd8]);
    }

    #[test]
    fn a_rate_generator_begins_again_and_a_square_wave_has_two_halves() {
        let mut pit = started(0xb4, 100);
        assert_eq!(
            [0, 1, 99, 100, 101].map(|ticks| count(&mut pit, after(ticks))),
            [100, 99, 1, 100, 99]
        );
        let pit = started(0xb6, 100);
        assert_eq!(
            [0, 49, 50, 99, 100].map(|ticks| pit.output(after(ticks))),
            [true, true, false, false, true]
        );
    }

    #[test]
    fn single_bytes_and_what_is_not_there() {
        let mut pit = Pit::new(RATE);
        pit.write(CONTROL, 0x50, Ticks::ZERO);
        pit.write(1, 18, Ticks::ZERO);
        assert_eq!((pit.read(1, after(8)), pit.read(1, after(9))), (10, 9));
        assert_eq!((pit.read(CONTROL, Ticks::ZERO), pit.read(0, Ticks::ZERO)), (0xff, 0));
        pit.write(CONTROL, 0xff, Ticks::ZERO);
    }
}
