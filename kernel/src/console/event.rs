//! The event stream: what happened, one JSON object a line on the second serial port.
//!
//! Test harnesses and dashboards wait on these and never on time. Every line has `t`, nanoseconds since the
//! start, and `event`, the kind in snake case; `docs/events.md` lists the fields. Counts are pages of 4 KiB, sizes bytes,
//! times nanoseconds. Nothing here allocates: a crash is reported from where it happens.

use serde::Serialize;

/// Longest line; longer text inside an event is cut by its maker.
pub const MAX_LINE: usize = 2048;

/// What happened.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Event<'a> {
    /// The hypervisor runs.
    Boot {
        version: &'a str,
        backend: &'a str,
        /// Who keeps A and D bits of guests' pages.
        accessed_dirty: &'a str,
        cpus: u32,
        /// How many of them run guests.
        guest_cpus: u32,
        memory_bytes: u64,
        pool_pages: u64,
        tsc_hz: u64,
    },
    /// Something the operator has to mend; `place` names file, key or device.
    Error { place: &'a str, message: &'a str },
    /// A disk was found.
    Disk { index: u8, bytes: u64, base: Option<u64>, serial: &'a str },
    /// A paging space was looked at or changed its state.
    Space { disk: u8, space: u32, state: &'a str, partition: &'a str, epoch: u64 },
    /// A space is claimed by another node, and watched before it is used.
    Watching { disk: u8, space: u32, node: &'a str },
    /// A partition starts an incarnation.
    Start { partition: &'a str, incarnation: u64 },
    /// The incarnation's first entry into the guest.
    Entered { partition: &'a str, incarnation: u64, tsc: u64 },
    /// A line that a test kernel reported by its protocol.
    Guest { partition: &'a str, incarnation: u64, kind: &'a str, text: &'a str },
    /// A partition waits for something before it can start.
    Waiting { partition: &'a str, what: &'a str },
    /// A partition crashed.
    Crash {
        partition: &'a str,
        incarnation: u64,
        reason: &'a str,
        detail: u64,
        rip: u64,
        resident: u64,
        paged: u64,
        zero: u64,
        tsc: u64,
    },
    /// A crashed partition may run again.
    Restart {
        partition: &'a str,
        incarnation: u64,
        gate: &'a str,
        drain_remaining: u64,
        freed_from_image: u64,
        freed_from_neighbours: u64,
        reserved: u64,
        boot_memory: u64,
        since_crash_ns: u64,
    },
    /// The drain of a dump goes on.
    Drain { partition: &'a str, incarnation: u64, done: u64, remaining: u64, freed: u64 },
    /// A dump is sealed.
    DumpComplete {
        partition: &'a str,
        incarnation: u64,
        disk: u8,
        space: u32,
        pages_written: u64,
        pages_clean: u64,
        pages_zero: u64,
        pages_paged_before: u64,
        bytes_written: u64,
        metadata_bytes: u64,
        program_headers: u32,
        vmcoreinfo: bool,
        drain_ns: u64,
        since_crash_ns: u64,
    },
    /// A dump could not be finished; what was written remains as a partial dump.
    DumpFailed { partition: &'a str, incarnation: u64, disk: u8, space: u32, message: &'a str },
    /// A dump was given back.
    Released { disk: u8, space: u32, partition: &'a str, incarnation: u64 },
    /// A guest asked for power off or reset, or was stopped.
    Stopped { partition: &'a str, incarnation: u64, how: &'a str, code: u64 },
    /// Counters of a partition.
    Stats(PartitionStats<'a>),
    /// Counters of the pool.
    Pool(PoolStats),
    /// One measurement.
    Bench { id: &'a str, minimum: u64, average: u64, count: u64, unit: &'a str },
    /// A self-test's verdict.
    SelfTest { name: &'a str, passed: bool, detail: &'a str },
    /// The answer to the command with this id.
    Reply { id: u64, ok: bool, error: Option<&'a str> },
    /// Lines that did not fit into the buffer before this one.
    Lost { lines: u64 },
    /// Nothing runs any more; the machine stops with this status.
    End { status: u32 },
}

/// Counters of one partition: AMS's `hpi`, `hpit`, `pmem` and their like (`lparstat -m`), and ours.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct PartitionStats<'a> {
    pub id: Option<u64>,
    pub partition: &'a str,
    pub incarnation: u64,
    pub state: &'a str,
    pub logical: u64,
    pub resident: u64,
    pub paged: u64,
    pub zero: u64,
    pub untouched: u64,
    pub page_ins: u64,
    pub page_outs: u64,
    pub exits: u64,
}

/// Counters of the pool and of the pager, since the start.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct PoolStats {
    pub id: Option<u64>,
    pub pages: u64,
    pub free: u64,
    /// Frames of dump images that still drain.
    pub image: u64,
    pub metadata_bytes: u64,
    pub guest_pages: u64,
    pub metadata_per_page_milli: u64,
    pub page_ins: u64,
    pub page_outs: u64,
    pub read_around: u64,
    pub clean_evictions: u64,
    pub zero_evictions: u64,
    pub rescues: u64,
    pub demand_zero: u64,
    pub resident_faults: u64,
    pub waits: u64,
    pub lost: u64,
    /// Memory objects, pages of second-level tables and TLB tags in use.
    pub objects: u64,
    pub tables: u64,
    pub tags: u64,
}

/// Writes `event` as one line into `out`; returns its length.
///
/// # Errors
/// `None` if the line is longer than `out`.
pub fn encode(event: &Event<'_>, t_ns: u64, out: &mut [u8]) -> Option<usize> {
    use core::fmt::Write;
    let mut head = arrayvec::ArrayString::<32>::new();
    write!(head, "{{\"t\":{t_ns},").ok()?;
    let prefix = head.len();
    // The event's own opening brace lands on the prefix's last byte and is then put right.
    let body = serde_json_core::to_slice(event, out.get_mut(prefix - 1..)?).ok()?;
    out[..prefix].copy_from_slice(head.as_bytes());
    let end = prefix - 1 + body;
    *out.get_mut(end)? = b'\n';
    Some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &Event<'_>) -> String {
        let mut out = [0; MAX_LINE];
        let len = encode(event, 5, &mut out).unwrap();
        String::from_utf8(out[..len].to_vec()).unwrap()
    }

    #[test]
    fn an_event_is_one_line_with_time_and_kind() {
        assert_eq!(
            line(&Event::Start { partition: "a", incarnation: 2 }),
            "{\"t\":5,\"event\":\"start\",\"partition\":\"a\",\"incarnation\":2}\n"
        );
        assert_eq!(
            line(&Event::Reply { id: 1, ok: true, error: None }),
            "{\"t\":5,\"event\":\"reply\",\"id\":1,\"ok\":true,\"error\":null}\n"
        );
    }

    #[test]
    fn a_newtype_variant_carries_its_kind_too() {
        assert!(
            line(&Event::Stats(PartitionStats::default()))
                .starts_with("{\"t\":5,\"event\":\"stats\",\"id\":null,\"partition\":\"\"")
        );
    }

    #[test]
    fn quotes_and_control_characters_stay_inside_the_string() {
        let text = line(&Event::Error { place: "x", message: "a\"b\n\u{1}" });
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.contains("a\\\"b\\n\\u0001"), "{text}");
    }

    #[test]
    fn a_line_that_does_not_fit_is_refused() {
        assert_eq!(encode(&Event::Lost { lines: 1 }, 5, &mut [0; 20]), None);
    }
}
