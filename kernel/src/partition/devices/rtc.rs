//! The CMOS clock and its 128 bytes of memory (MC146818A): the time of day, no alarm and no
//! interrupt.
//!
//! The time comes from the incarnation's [`GuestClock`]. A guest's write to a time register only
//! changes memory that is never read. Without this device Linux polls its ports some 40,000 times.

use super::clock::{GuestClock, NS_PER_S};
use super::saved::SavedDevice;
use crate::console::utc::date;
use crate::dump::state_note::{StateError, StatePart, StateReader, StateWriter};
use crate::time::Ticks;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;
/// The index where PC firmware keeps the century.
const CENTURY: u8 = 0x32;

const UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// 32,768 Hz time base, default rate.
const STATUS_A_VALUE: u8 = 0x26;
const STATUS_B_24_HOURS: u8 = 1 << 1;
const STATUS_B_BINARY: u8 = 1 << 2;
const STATUS_D_VALID: u8 = 1 << 7;

/// The update flag is set for this long before the end of each second. MC146818A data sheet,
/// "Update Cycle".
const UPDATE_NS: u64 = 244_000;

/// The clock chip.
#[derive(Clone, Debug)]
pub struct Rtc {
    index: u8,
    memory: [u8; 128],
}

/// A calendar date and time, UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct DateTime {
    year: u64,
    month: u8,
    day: u8,
    /// 1 is Sunday.
    weekday: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Rtc {
    /// Makes the chip as firmware leaves it.
    pub const fn new() -> Self {
        let mut memory = [0; 128];
        memory[STATUS_B as usize] = STATUS_B_24_HOURS;
        Self { index: 0, memory }
    }

    /// Writes the index port; bit 7 masks the NMI on a PC and is ignored.
    pub const fn select(&mut self, value: u8) {
        self.index = value & 0x7f;
    }

    /// Reads the data port.
    pub fn read(&self, clock: &GuestClock, now: Ticks) -> u8 {
        let unix_ns = clock.unix_ns(now);
        let time = DateTime::from_unix(unix_ns / NS_PER_S);
        match self.index {
            SECONDS => self.number(time.second),
            MINUTES => self.number(time.minute),
            HOURS => self.hours(time.hour),
            WEEKDAY => self.number(time.weekday),
            DAY => self.number(time.day),
            MONTH => self.number(time.month),
            YEAR => self.number((time.year % 100) as u8),
            CENTURY => self.number((time.year / 100 % 100) as u8),
            STATUS_A if unix_ns % NS_PER_S >= NS_PER_S - UPDATE_NS => {
                STATUS_A_VALUE | UPDATE_IN_PROGRESS
            }
            STATUS_A => STATUS_A_VALUE,
            STATUS_C => 0,
            STATUS_D => STATUS_D_VALID,
            index => self.memory[usize::from(index)],
        }
    }

    /// Writes the data port.
    pub fn write(&mut self, value: u8) {
        self.memory[usize::from(self.index)] = value;
    }

    const fn number(&self, value: u8) -> u8 {
        if self.memory[STATUS_B as usize] & STATUS_B_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    /// Hours in 24-hour form, or 1 to 12 with bit 7 for the afternoon.
    const fn hours(&self, hour: u8) -> u8 {
        if self.memory[STATUS_B as usize] & STATUS_B_24_HOURS != 0 {
            return self.number(hour);
        }
        let twelve = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.number(twelve) | if hour >= 12 { 0x80 } else { 0 }
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}

impl DateTime {
    /// Converts seconds since 1970.
    const fn from_unix(seconds: u64) -> Self {
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        Self {
            year,
            month: month as u8,
            day: day as u8,
            weekday: ((days + 4) % 7 + 1) as u8,
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }
}

impl SavedDevice for Rtc {
    const PART: StatePart = StatePart::Rtc;

    fn save(&self, out: &mut StateWriter, _: Ticks) {
        out.u8(self.index);
        out.bytes(&self.memory);
    }

    fn restore(&mut self, from: &mut StateReader<'_>, _: Ticks) -> Result<(), StateError> {
        self.select(from.u8()?);
        self.memory = from.array()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::TscRate;
    use super::*;

    fn clock(unix_s: u64) -> GuestClock {
        GuestClock {
            rate: TscRate::new(NS_PER_S),
            start: Ticks::ZERO,
            unix_ns_at_start: unix_s * NS_PER_S,
        }
    }

    fn read(rtc: &mut Rtc, index: u8, unix_s: u64) -> u8 {
        rtc.select(index);
        rtc.read(&clock(unix_s), Ticks::ZERO)
    }

    #[test]
    fn dates_at_the_edges_of_the_calendar() {
        for (unix, year, month, day, weekday) in [
            (0, 1970, 1, 1, 5),
            (951_782_400, 2000, 2, 29, 3),
            (951_868_800, 2000, 3, 1, 4),
            (4_107_542_400, 2100, 3, 1, 2),
            (1_798_761_599, 2026, 12, 31, 5),
        ] {
            let t = DateTime::from_unix(unix);
            assert_eq!((t.year, t.month, t.day, t.weekday), (year, month, day, weekday), "{unix}");
        }
    }

    #[test]
    fn registers_are_bcd_in_24_hour_form() {
        let mut rtc = Rtc::new();
        let got = [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR, CENTURY]
            .map(|i| read(&mut rtc, i, 1_798_761_599));
        assert_eq!(got, [0x59, 0x59, 0x23, 0x31, 0x12, 0x26, 0x20]);
        rtc.select(STATUS_B);
        rtc.write(STATUS_B_BINARY);
        assert_eq!(read(&mut rtc, HOURS, 1_798_761_599), 11 | 0x80);
    }

    #[test]
    fn the_update_flag_is_up_before_the_second_changes() {
        let mut rtc = Rtc::new();
        rtc.select(STATUS_A);
        let at = |ns| rtc.read(&clock(0), Ticks::new(ns)) & UPDATE_IN_PROGRESS != 0;
        assert_eq!(
            [at(0), at(999_755_999), at(999_756_000), at(999_999_999), at(1_000_000_000)],
            [false, false, true, true, false]
        );
    }

    #[test]
    fn memory_keeps_what_was_written_and_the_top_bit_of_the_index_is_ignored() {
        let mut rtc = Rtc::new();
        rtc.select(0xff);
        rtc.write(0x5a);
        assert_eq!(read(&mut rtc, 0x7f, 0), 0x5a);
    }
}
