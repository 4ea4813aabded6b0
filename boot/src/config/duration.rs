//! Times in their readable form: `2 s`.

use crate::quantity;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Milliseconds of each unit.
const UNITS: &[(&str, u64)] = &[("min", 60_000), ("s", 1_000), ("ms", 1)];

/// Parses a whole number and a unit.
///
/// # Errors
/// The fault as text, to be placed behind the key.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let Some((number, scale)) = quantity::split(text, UNITS) else {
        return Err(format!("“{text}” is no time: write a whole number and ms, s or min"));
    };
    number
        .checked_mul(scale)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("“{text}” is beyond 64 bits"))
}

/// Formats a time of whole milliseconds in the largest unit that needs no fraction.
pub(super) fn format(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let fits = |scale: u64| millis != 0 && millis.is_multiple_of(scale);
    let (unit, scale) = UNITS.iter().find(|(_, scale)| fits(*scale)).unwrap_or(&("ms", 1));
    format!("{} {unit}", millis / scale)
}

/// Returns a range of nanoseconds as durations.
pub(super) const fn range(ns: RangeInclusive<u64>) -> RangeInclusive<Duration> {
    Duration::from_nanos(*ns.start())..=Duration::from_nanos(*ns.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for millis in [0, 1, 999, 1000, 1500, 60_000, 90_000, 600_000] {
            let time = Duration::from_millis(millis);
            assert_eq!(parse(&format(time)), Ok(time));
        }
        assert_eq!(
            (parse("2s"), parse("2 min")),
            (Ok(Duration::from_secs(2)), Ok(Duration::from_secs(120)))
        );
    }

    #[test]
    fn what_is_no_time_says_so() {
        for text in ["", "s", "2", "2 sec", "-1 s", "1.5 s", "2 s please", "2 h"] {
            assert!(parse(text).unwrap_err().contains("is no time"), "{text}");
        }
        assert!(parse("18446744073709551615 min").unwrap_err().contains("beyond 64 bits"));
    }
}
