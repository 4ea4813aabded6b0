//! The calendar, and the time of day for people: `2026-11-28 17:12:03 UTC`.

/// Nanoseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UtcTime(pub u64);

impl core::fmt::Display for UtcTime {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let seconds = self.0 / 1_000_000_000;
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

/// Returns year, month and day of the date `days` days after 1 January 1970.
///
/// Years are counted from March on, so that a leap day is the last day of a year.
pub const fn date(days: u64) -> (u64, u64, u64) {
    // 1 January 1970 is day 719,468 after 1 March of year 0.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, five months have 153 days: 31, 30, 31, 30, 31.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let text = |seconds: u64| UtcTime(seconds * 1_000_000_000).to_string();
        assert_eq!(text(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(text(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(text(1_700_000_000), "2023-11-14 22:13:20 UTC");
        assert_eq!(text(1_772_368_245), "2026-03-01 12:30:45 UTC");
        assert_eq!(text(4_107_542_399), "2100-02-28 23:59:59 UTC");
        assert_eq!(text(4_107_542_400), "2100-03-01 00:00:00 UTC");
        assert!(!UtcTime(u64::MAX).to_string().is_empty());
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = date(0);
        for day in 1..80_000 {
            let next = date(day);
            let same_month = next == (last.0, last.1, last.2 + 1);
            let next_month =
                next.2 == 1 && (next.1 == last.1 + 1 || (next.0, next.1) == (last.0 + 1, 1));
            assert!(
                (same_month && next.2 <= 31) || (next_month && last.2 >= 28),
                "{last:?} {next:?}"
            );
            last = next;
        }
    }
}
