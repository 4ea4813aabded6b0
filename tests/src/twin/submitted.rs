//! The requests that a node has submitted to its disk: those that its QEMU took from the disk's
//! queue, according to QEMU's own trace.
//!
//! ```text
//!   node ── ring, doorbell ──> QEMU takes it (here) ── its NBD client, 16 at a time ──> server (`nbd::RequestLogEntry`)
//! ```
//!
//! QEMU takes all requests from the ring as soon as it sees the doorbell. The server may receive
//! them much later: while 16 requests are unanswered QEMU holds the others back. So only this trace
//! shows what the node itself did.

use crate::nbd::{RequestKind, RequestLogEntry};
use anyhow::{Context, Result, ensure};
use std::collections::HashSet;
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// QEMU's trace events: requests taken from a queue, and the ranges of reads and writes. (QEMU has
/// no such event for other requests.)
pub const EVENTS: &[&str] = &["virtqueue_pop", "virtio_blk_handle_read", "virtio_blk_handle_write"];
const SECTOR: u64 = 512;

/// A request that a node has submitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submitted {
    /// The node.
    pub node: &'static str,
    /// Time at which its emulator took it, by the server's clock.
    pub at: Duration,
    /// Read or write; `None` for all other requests (flushes, zeroes).
    pub kind: Option<RequestKind>,
    /// Bytes of the disk that it reads or writes.
    pub bytes: Range<u64>,
}

/// Reads the trace of `node`, whose lines are `PID@SECONDS.MICROSECONDS:EVENT NAME VALUE …`.
///
/// # Errors
/// Names a line of another form.
pub fn read(node: &'static str, trace: &str, started: SystemTime) -> Result<Vec<Submitted>> {
    let started = started.duration_since(SystemTime::UNIX_EPOCH)?;
    let mut list: Vec<Submitted> = Vec::new();
    for line in trace.lines() {
        let wrong = || format!("no line of a trace: {line}");
        let (time, event) =
            line.split_once('@').and_then(|(_, rest)| rest.split_once(':')).with_context(wrong)?;
        let kind = match event.split(' ').next() {
            Some("virtqueue_pop") => {
                let at = clock(time).with_context(wrong)?.saturating_sub(started);
                list.push(Submitted { node, at, kind: None, bytes: 0..0 });
                continue;
            }
            Some("virtio_blk_handle_read") => RequestKind::Read,
            Some("virtio_blk_handle_write") => RequestKind::Write,
            _ => continue,
        };
        let number = |name| value(event, name).with_context(wrong);
        let (start, len) = (number("sector")? * SECTOR, number("nsectors")? * SECTOR);
        let last = list.last_mut().with_context(wrong)?;
        (last.kind, last.bytes) = (Some(kind), start..start + len);
    }
    Ok(list)
}

/// Checks that every write the server received from a node lies within the bytes that the node had
/// submitted for writing by then. Otherwise the trace is incomplete and proves nothing.
///
/// # Errors
/// Names the first write that does not.
pub fn covers(submitted: &[Submitted], log: &[RequestLogEntry]) -> Result<()> {
    /// What the two clocks may differ by.
    const CLOCKS: Duration = Duration::from_millis(100);
    let mut writes: Vec<_> =
        submitted.iter().filter(|by| by.kind == Some(RequestKind::Write)).collect();
    writes.sort_by_key(|by| by.at);
    let mut writes = writes.into_iter().peekable();
    let mut known: HashSet<(&str, u64)> = HashSet::new();
    // The log is in the order of arrival.
    for entry in log.iter().filter(|entry| entry.kind == RequestKind::Write) {
        while let Some(by) = writes.next_if(|by| by.at <= entry.arrived + CLOCKS) {
            known.extend(sectors(&by.bytes).map(|sector| (by.node, sector)));
        }
        let (node, bytes) = (entry.node, &entry.bytes);
        ensure!(
            sectors(bytes).all(|sector| known.contains(&(node, sector))),
            "{node} has a write of {bytes:?} at {:?} of which its emulator's trace knows nothing",
            entry.arrived
        );
    }
    Ok(())
}

fn sectors(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / SECTOR..bytes.end.div_ceil(SECTOR)
}

fn clock(text: &str) -> Option<Duration> {
    let (seconds, micros) = text.split_once('.')?;
    Some(Duration::new(seconds.parse().ok()?, 0) + Duration::from_micros(micros.parse().ok()?))
}

fn value(event: &str, name: &str) -> Option<u64> {
    let mut words = event.split(' ').skip_while(|word| *word != name);
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
74@1000.250000:virtqueue_pop vq 0x7f elem 0x55 in_num 2 out_num 1
74@1000.250009:virtio_blk_handle_read vdev 0x55 req 0x56 sector 3 nsectors 1
74@1000.500000:virtqueue_pop vq 0x7f elem 0x55 in_num 1 out_num 1
74@1000.750000:virtqueue_pop vq 0x7f elem 0x55 in_num 1 out_num 2
74@1000.750001:virtio_blk_handle_write vdev 0x55 req 0x56 sector 8 nsectors 8
";

    fn submitted() -> Vec<Submitted> {
        read("a", TRACE, SystemTime::UNIX_EPOCH + Duration::from_secs(1000)).expect("a trace")
    }

    #[test]
    fn a_trace_is_a_list_of_requests() {
        let of =
            |ms, kind, bytes| Submitted { node: "a", at: Duration::from_millis(ms), kind, bytes };
        let expected = [
            of(250, Some(RequestKind::Read), 1536..2048),
            of(500, None, 0..0),
            of(750, Some(RequestKind::Write), 4096..8192),
        ];
        assert_eq!(submitted(), expected);
        for wrong in [
            "no time",
            "74@1.5:virtio_blk_handle_read vdev 0x55 req 0x56 sector 3 nsectors 1",
            "74@x:virtqueue_pop vq",
        ] {
            assert!(read("a", wrong, SystemTime::UNIX_EPOCH).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_write_that_no_trace_knows_is_found() {
        let write = |start, end, ms| RequestLogEntry {
            node: "a",
            kind: RequestKind::Write,
            bytes: start..end,
            arrived: Duration::from_millis(ms),
            answered: None,
            action: None,
            failure: None,
            data: None,
        };
        assert!(covers(&submitted(), &[write(4096, 8192, 751), write(5120, 6144, 9000)]).is_ok());
        assert!(
            covers(&submitted(), &[write(4096, 8704, 751)]).is_err(),
            "more than was submitted"
        );
        assert!(covers(&submitted(), &[write(1536, 2048, 751)]).is_err(), "a read");
        assert!(covers(&submitted(), &[write(4096, 8192, 600)]).is_err(), "before");
    }
}
