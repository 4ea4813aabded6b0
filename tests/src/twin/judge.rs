//! Compares the requests of two nodes with the log of their disk's server: which node had the space
//! when, and whether the other kept away.
//!
//! A node *has* the space from its first request outside the ending (claims and records): before
//! that it only reads and claims. From then on the previous owner submits nothing, with two
//! exceptions:
//!
//! * a read of the ending is harmless;
//! * a process that continues after a stop may have rung a doorbell before the stop: [`GRACE`].

use super::submitted::Submitted;
use crate::nbd::{RequestKind, RequestLogEntry};
use anyhow::{Result, ensure};
use std::ops::Range;
use std::time::Duration;

/// Time in which requests behind an earlier doorbell are submitted after a process continues.
pub const GRACE: Duration = Duration::from_millis(300);

/// Facts that the test knows besides the logs.
#[derive(Clone, Debug)]
pub struct Known {
    /// Bytes of claims and records.
    pub ending: Range<u64>,
    /// Time at which `a` continued, by the log's clock.
    pub resumed: Option<Duration>,
}

/// A node's ownership of the space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tenure {
    /// The node.
    pub node: &'static str,
    /// Time at which its first request outside the ending arrived.
    pub since: Duration,
}

/// Returns whether a start may submit this before it has the space: it reads, and writes claims.
fn is_beginning(entry: &RequestLogEntry, claims: &Range<u64>) -> bool {
    let is_claim = claims.start <= entry.bytes.start && entry.bytes.end <= claims.end;
    entry.kind == RequestKind::Read || is_claim && entry.kind == RequestKind::Write
}

/// Returns the owners of the space in order, each node once.
pub fn tenures(log: &[RequestLogEntry], known: &Known) -> Vec<Tenure> {
    let claims = known.ending.start..known.ending.start + 4096;
    let mut tenures: Vec<Tenure> = Vec::new();
    for entry in log.iter().filter(|entry| !is_beginning(entry, &claims)) {
        if tenures.iter().all(|tenure| tenure.node != entry.node) {
            tenures.push(Tenure { node: entry.node, since: entry.arrived });
        }
    }
    tenures
}

/// Checks that no node submits a request to a disk after another node has taken it over.
///
/// # Errors
/// Names the first request that came too late.
pub fn old_owners_keep_away(
    tenures: &[Tenure],
    submitted: &[Submitted],
    known: &Known,
) -> Result<()> {
    for request in submitted {
        let Some(had) = tenures.iter().position(|tenure| tenure.node == request.node) else {
            continue;
        };
        let Some(next) = tenures.get(had + 1).filter(|next| next.since < request.at) else {
            continue;
        };
        let is_look =
            request.kind == Some(RequestKind::Read) && known.ending.start <= request.bytes.start;
        let had_rung = known.resumed.is_some_and(|at| request.at >= at && request.at < at + GRACE);
        let Submitted { node, at, kind, bytes } = request;
        ensure!(
            is_look || had_rung,
            "{node} submits {kind:?} of {bytes:?} at {at:?}: {} has the space since {:?}",
            next.node,
            next.since
        );
    }
    Ok(())
}

/// Compares the last writes of `node`, byte for byte within `range`, with the disk's contents.
///
/// # Errors
/// Names the first write of which a byte is missing.
pub fn nothing_is_overtaken(
    log: &[RequestLogEntry],
    node: &str,
    range: &Range<u64>,
    on_disk: &[u8],
) -> Result<()> {
    let mut is_written = vec![false; on_disk.len()];
    for entry in log
        .iter()
        .rev()
        .filter(|entry| entry.node == node && entry.writes() && entry.answered.is_some())
    {
        let Some(data) = &entry.data else { continue };
        for (byte, at) in data.iter().zip(entry.bytes.clone()) {
            let Some(place) =
                at.checked_sub(range.start).filter(|place| (*place as usize) < on_disk.len())
            else {
                continue;
            };
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
    const KNOWN: Known =
        Known { ending: 100_000..112_288, resumed: Some(Duration::from_millis(500)) };

    fn entry(node: &'static str, kind: RequestKind, start: u64, ms: u64) -> RequestLogEntry {
        let bytes = start..start + 512;
        let (arrived, answered) = (MS(ms), Some(MS(ms)));
        RequestLogEntry {
            node,
            kind,
            bytes,
            arrived,
            answered,
            action: None,
            failure: None,
            data: None,
        }
    }

    /// Judges a log without delays: the server sees each request when it is submitted.
    fn judge(entries: &[(&'static str, RequestKind, u64, u64)]) -> Result<Vec<&'static str>> {
        let log: Vec<_> =
            entries.iter().map(|&(node, kind, start, ms)| entry(node, kind, start, ms)).collect();
        let submitted = |by: &RequestLogEntry| Submitted {
            node: by.node,
            at: by.arrived,
            kind: Some(by.kind),
            bytes: by.bytes.clone(),
        };
        let tenures = tenures(&log, &KNOWN);
        old_owners_keep_away(&tenures, &log.iter().map(submitted).collect::<Vec<_>>(), &KNOWN)?;
        Ok(tenures.iter().map(|tenure| tenure.node).collect())
    }

    #[test]
    fn looks_and_claims_are_no_tenure() {
        use RequestKind::{Read, Write};
        assert_eq!(
            judge(&[("a", Read, 0, 1), ("a", Write, 100_000, 2), ("b", Read, 100_000, 3)])
                .expect("apart")
                .len(),
            0
        );
        assert_eq!(
            judge(&[("a", Write, 104_096, 1), ("b", Write, 102_048, 2), ("a", Write, 0, 3)])
                .expect("apart"),
            ["a"]
        );
        assert_eq!(
            judge(&[("a", Write, 0, 1), ("b", Write, 0, 2), ("b", Write, 0, 3)]).expect("apart"),
            ["a", "b"]
        );
    }

    #[test]
    fn a_node_that_goes_on_beside_another_one_is_found() {
        use RequestKind::{Flush, Read, Write};
        let [before, after] = [("a", Write, 0, 1), ("b", Write, 104_096, 600)];
        assert!(judge(&[before, after, ("a", Write, 0, 700)]).is_ok(), "its doorbell had rung");
        assert!(judge(&[before, after, ("a", Read, 100_000, 2000)]).is_ok(), "it looks");
        assert!(judge(&[before, after, ("a", Read, 0, 2000)]).is_err());
        assert!(judge(&[before, after, ("a", Write, 0, 2000)]).is_err());
        assert!(judge(&[before, after, ("a", Flush, 0, 2000)]).is_err());
        assert!(judge(&[before, after, ("a", Write, 100_000, 2000)]).is_err(), "it beats");
    }

    #[test]
    fn what_was_submitted_before_may_arrive_at_any_time() {
        let log = [
            entry("a", RequestKind::Write, 0, 1),
            entry("b", RequestKind::Write, 0, 2000),
            entry("a", RequestKind::Write, 0, 9000),
        ];
        let submitted = |ms| {
            [Submitted { node: "a", at: MS(ms), kind: Some(RequestKind::Write), bytes: 0..512 }]
        };
        let tenures = tenures(&log, &KNOWN);
        assert!(old_owners_keep_away(&tenures, &submitted(1999), &KNOWN).is_ok());
        assert!(old_owners_keep_away(&tenures, &submitted(2001), &KNOWN).is_err());
    }

    #[test]
    fn a_write_that_was_overtaken_is_found() {
        let data = |bytes: &[u8]| Some(bytes.into());
        let log = [
            RequestLogEntry { data: data(&[1; 512]), ..entry("b", RequestKind::Write, 0, 1) },
            RequestLogEntry { data: data(&[9; 512]), ..entry("a", RequestKind::Write, 0, 2) },
            RequestLogEntry { data: data(&[2; 512]), ..entry("b", RequestKind::Write, 256, 3) },
        ];
        let disk: Vec<u8> = [[1; 256], [2; 256]].concat();
        assert!(nothing_is_overtaken(&log, "b", &(0..512), &disk).is_ok());
        assert!(nothing_is_overtaken(&log, "b", &(0..512), &[9; 512]).is_err());
    }
}
