//! Limits for a partition that crashes again and again.

use super::document::{ConfigError, Section};
use super::duration;
use kernel::config::{DumpBound, DumpOverflow, MAX_RESTARTS, RestartLimit};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Range of the time in a `restart_limit`. No guest boots in less than a second; crashes more than
/// a day apart are unrelated.
const TIME: RangeInclusive<Duration> = duration::range(kernel::config::TIMES_NS);

/// Reads `restart_limit = "5 in 10 min"`.
pub(super) fn restart_limit(section: &Section<'_>) -> Result<Option<RestartLimit>, ConfigError> {
    let Some(text) = section.text("restart_limit")? else { return Ok(None) };
    let error = |message: &str| section.error("restart_limit", message);
    let form = || format!("“{text}” is no limit: write restarts and a time, as in \"5 in 10 min\"");
    let (restarts, time) = text.split_once(" in ").ok_or_else(|| error(&form()))?;
    let restarts = restarts.trim().parse::<u32>().map_err(|_| error(&form()))?;
    let time = duration::parse(time.trim()).map_err(|message| error(&message))?;
    if !(1..=MAX_RESTARTS).contains(&(restarts as usize)) {
        return Err(error(&format!(
            "{restarts} restarts are not within 1 and {MAX_RESTARTS}; none is `restart = \
             \"never\"`"
        )));
    }
    if !TIME.contains(&time) {
        let (least, most) = (duration::format(*TIME.start()), duration::format(*TIME.end()));
        return Err(error(&format!("“{text}”: the time is not within {least} and {most}")));
    }
    Ok(Some(RestartLimit { restarts, time_ns: time.as_nanos() as u64 }))
}

/// Reads `dumps` and `when_full`.
pub(super) fn dumps(section: &Section<'_>) -> Result<Option<DumpBound>, ConfigError> {
    let when_full = section.choice(
        "when_full",
        &[("skip", DumpOverflow::Skip), ("drop-oldest", DumpOverflow::DropOldest)],
    )?;
    let Some(most) = section.number("dumps")? else {
        let unused = || {
            Err(section
                .error("when_full", "says what happens when `dumps` are kept, which is missing"))
        };
        return if when_full.is_some() { unused() } else { Ok(None) };
    };
    match u32::try_from(most) {
        Ok(most) if most > 0 => {
            Ok(Some(DumpBound { most, when_full: when_full.unwrap_or(DumpOverflow::Skip) }))
        }
        Ok(_) => {
            Err(section
                .error("dumps", "0 is no bound: a partition without dumps has `dump = \"off\"`"))
        }
        Err(_) => {
            Err(section.error("dumps", &format!("{most} are more than there can be paging spaces")))
        }
    }
}
