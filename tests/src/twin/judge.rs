//! Reads the log of the disk's server: who had the space when, and whether the other one kept away.
//!
//! A node *has* the space from its first request for anything but the ending (claims and records): before that it only looks and
//! claims. From then on no other node may ask for anything, except that
//!
//! * a look at the ending is no harm;
//! * a process that goes on after standing still sends what it had been told to send before: [`GRACE`];
//! * QEMU's NBD client has [`IN_FLIGHT`] requests under way and keeps the rest of the queue back, so that requests of a slow path may
//!   arrive late: as many as the queue holds, if that many were unanswered.

use crate::nbd::{Entry, Kind};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// How long a process that goes on needs for what its doorbell had rung for.
pub const GRACE: Duration = Duration::from_millis(300);
/// Requests that QEMU's NBD client sends before it waits for an answer (`MAX_NBD_REQUESTS`).
const IN_FLIGHT: usize = 16;
/// Entries of a disk's queue.
const QUEUE: usize = 256;

/// What the test knows beside the log.
#[derive(Clone, Debug)]
pub struct Known {
    /// Bytes of claims and records.
    pub ending: Range<u64>,
    /// When `a` went on, by the log's clock.
    pub resumed: Option<Duration>,
}

/// The change of hands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tenure {
    /// The node.
    pub node: &'static str,
    /// When it first asked for more than the ending.
    pub since: Duration,
}

fn is_look(entry: &Entry, ending: &Range<u64>) -> bool {
    entry.kind == Kind::Read && ending.start <= entry.bytes.start
}

/// Whether a start may do this before it has the space: it looks and claims, and looks for its own partitions.
fn is_beginning(entry: &Entry, claims: &Range<u64>) -> bool {
    entry.kind == Kind::Read || claims.start <= entry.bytes.start && entry.bytes.end <= claims.end && entry.kind == Kind::Write
}

/// Returns who had the space, in order. A node that comes back has it twice.
///
/// # Errors
/// Where two nodes had it at a time.
pub fn tenures(log: &[Entry], known: &Known) -> Result<Vec<Tenure>> {
    let claims = known.ending.start..known.ending.start + 4096;
    let mut tenures: Vec<Tenure> = Vec::new();
    let mut late: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, entry) in log.iter().enumerate() {
        let has_had = tenures.iter().any(|tenure| tenure.node == entry.node);
        let last = tenures.last().map(|tenure| tenure.node);
        if last == Some(entry.node) || is_look(entry, &known.ending) {
            continue;
        }
        if !has_had {
            if !is_beginning(entry, &claims) {
                tenures.push(Tenure { node: entry.node, since: entry.arrived });
            }
            continue;
        }
        let rung_for = known.resumed.is_some_and(|at| entry.arrived >= at && entry.arrived < at + GRACE);
        let count = late.entry(entry.node).or_default();
        *count += 1;
        let is_queued = *count <= QUEUE && was_full(&log[..index], entry.node);
        ensure!(
            rung_for || is_queued,
            "{} asks for {:?} of {:?} at {:?}, although {:?} has the space since {:?}",
            entry.node,
            entry.kind,
            entry.bytes,
            entry.arrived,
            last,
            tenures.last().map(|tenure| tenure.since)
        );
    }
    Ok(tenures)
}

/// Returns whether a node's client was at its limit when the last of these had arrived.
fn was_full(log: &[Entry], node: &str) -> bool {
    let Some(now) = log.last().map(|entry| entry.arrived) else { return false };
    let open = |entry: &&Entry| entry.node == node && entry.answered.is_none_or(|at| at + GRACE > now);
    log.iter().filter(open).count() >= IN_FLIGHT
}

/// Compares what `node` wrote last, byte for byte within `range`, with what is on the disk.
///
/// # Errors
/// Names the first write of which something is missing.
pub fn nothing_is_overtaken(log: &[Entry], node: &str, range: &Range<u64>, on_disk: &[u8]) -> Result<()> {
    let mut is_written = vec![false; on_disk.len()];
    for entry in log.iter().rev().filter(|entry| entry.node == node && entry.writes() && entry.answered.is_some()) {
        let Some(data) = &entry.data else { continue };
        for (byte, at) in data.iter().zip(entry.bytes.clone()) {
            let Some(place) = at.checked_sub(range.start).filter(|place| (*place as usize) < on_disk.len()) else { continue };
            let place = place as usize;
            ensure!(
                is_written[place] || on_disk[place] == *byte,
                "byte {at} is {:#x}; {node} wrote {byte:#x} at {:?}",
                on_disk[place],
                entry.arrived
            );
            is_written[place] = true;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const KNOWN: Known = Known { ending: 100_000..112_288, resumed: Some(Duration::from_millis(500)) };

    fn entry(node: &'static str, kind: Kind, start: u64, ms: u64) -> Entry {
        let bytes = start..start + 512;
        let (arrived, answered) = (MS(ms), Some(MS(ms)));
        Entry { node, kind, bytes, arrived, answered, action: None, failure: None, data: None }
    }

    fn judge(entries: &[(&'static str, Kind, u64, u64)]) -> Result<Vec<&'static str>> {
        let log: Vec<_> = entries.iter().map(|&(node, kind, start, ms)| entry(node, kind, start, ms)).collect();
        Ok(tenures(&log, &KNOWN)?.iter().map(|tenure| tenure.node).collect())
    }

    #[test]
    fn looks_and_claims_are_no_tenure() {
        use Kind::{Read, Write};
        assert_eq!(judge(&[("a", Read, 0, 1), ("a", Write, 100_000, 2), ("b", Read, 100_000, 3)]).expect("apart").len(), 0);
        assert_eq!(judge(&[("a", Write, 104_096, 1), ("b", Write, 102_048, 2), ("a", Write, 0, 3)]).expect("apart"), ["a"]);
    }

    #[test]
    fn a_node_that_goes_on_beside_another_one_is_found() {
        use Kind::{Read, Write};
        let [before, after] = [("a", Write, 0, 1), ("b", Write, 104_096, 600)];
        assert!(judge(&[before, after, ("a", Write, 0, 700)]).is_ok(), "its doorbell had rung");
        assert!(judge(&[before, after, ("a", Read, 100_000, 2000)]).is_ok(), "it looks");
        assert!(judge(&[before, after, ("a", Read, 0, 2000)]).is_err());
        assert!(judge(&[before, after, ("a", Write, 0, 2000)]).is_err());
        assert!(judge(&[before, after, ("a", Write, 100_000, 2000)]).is_err(), "it beats");
    }

    #[test]
    fn a_write_that_was_overtaken_is_found() {
        let data = |bytes: &[u8]| Some(bytes.into());
        let log = [
            Entry { data: data(&[1; 512]), ..entry("b", Kind::Write, 0, 1) },
            Entry { data: data(&[9; 512]), ..entry("a", Kind::Write, 0, 2) },
            Entry { data: data(&[2; 512]), ..entry("b", Kind::Write, 256, 3) },
        ];
        let disk: Vec<u8> = [[1; 256], [2; 256]].concat();
        assert!(nothing_is_overtaken(&log, "b", &(0..512), &disk).is_ok());
        assert!(nothing_is_overtaken(&log, "b", &(0..512), &[9; 512]).is_err());
    }
}
