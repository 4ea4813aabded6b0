//! The machine's time of day, read once at start from the CMOS clock (MC146818; ACPI 6.5 "System
//! and Device").
// UNSAFETY: port I/O to the CMOS index and data ports.
#![expect(unsafe_code)]

use super::instr;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
/// Reads of a clock that reports an update in progress; an update takes at most 2 ms.
const PATIENCE: u32 = 100_000;
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const PM: u8 = 1 << 7;

fn cmos(register: u8) -> u8 {
    // SAFETY: the CMOS belongs to the hypervisor, and its index register has no other effect.
    unsafe { instr::out8(INDEX, register) };
    // SAFETY: as above.
    unsafe { instr::in8(DATA) }
}

/// Returns nanoseconds since 1970, with a resolution of a second; assumes the 21st century.
pub fn unix_ns() -> u64 {
    for _ in 0..PATIENCE {
        if cmos(0xa) & UPDATE_IN_PROGRESS == 0 {
            break;
        }
    }
    let status = cmos(0xb);
    let fields = [0, 2, 4, 7, 8, 9].map(cmos);
    seconds(fields, status) * 1_000_000_000
}

/// Converts the clock's second, minute, hour, day, month and year.
fn seconds(fields: [u8; 6], status: u8) -> u64 {
    let number =
        |raw: u8| u64::from(if status & BINARY != 0 { raw } else { (raw >> 4) * 10 + (raw & 15) });
    let [second, minute, hour, day, month, year] = fields;
    let hours = match (status & HOURS_24 != 0, hour & PM != 0) {
        (true, _) => number(hour),
        (false, pm) => number(hour & !PM) % 12 + if pm { 12 } else { 0 },
    };
    let days = days_before(2000 + number(year), number(month)) + number(day).max(1) - 1;
    days * 86_400 + hours * 3600 + number(minute) * 60 + number(second)
}

/// Returns the days from 1970 to the first of a month.
fn days_before(year: u64, month: u64) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_days = |y: u64| y / 4 - y / 100 + y / 400;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let month = month.clamp(1, 12);
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
        + BEFORE[month as usize - 1]
        + u64::from(leap && month > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_and_decimal_clocks_tell_the_same_time() {
        let expected = 1_772_368_245;
        assert_eq!(seconds([0x45, 0x30, 0x12, 0x01, 0x03, 0x26], HOURS_24), expected);
        assert_eq!(seconds([45, 30, 12, 1, 3, 26], HOURS_24 | BINARY), expected);
        assert_eq!(seconds([0x45, 0x30, 0x92, 0x01, 0x03, 0x26], 0), expected);
    }

    #[test]
    fn leap_days_count_from_march_on() {
        assert_eq!(days_before(2024, 3) - days_before(2024, 2), 29);
        assert_eq!(days_before(1970, 1), 0);
    }
}
