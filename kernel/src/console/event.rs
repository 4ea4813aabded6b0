//! The event stream: one JSON object per line on the second serial port.
//!
//! Test harnesses and dashboards wait for these events and never for a time. Every line has `t`,
//! nanoseconds since the start, and `event`, the kind in snake case; `docs/events.md` lists the
//! fields. Counts are pages of 4 KiB, sizes bytes, times nanoseconds. Nothing here allocates, so a
//! crash can be reported where it happens.

use crate::space::Uuid;
use serde::Serialize;

/// Longest line; the maker of an event must cut longer text.
pub const MAX_LINE: usize = 2048;

/// An event.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "docs/events.md describes each field")]
pub enum ConsoleEvent<'a> {
    /// The hypervisor runs.
    Boot {
        version: &'a str,
        backend: &'a str,
        /// Whether the CPU or software keeps A and D bits of guests' pages.
        accessed_dirty: &'a str,
        cpus: u32,
        /// Number of CPUs that run guests.
        guest_cpus: u32,
        memory_bytes: u64,
        pool_pages: u64,
        tsc_hz: u64,
    },
    /// A problem that the operator has to solve; `place` names file, key or device.
    Error { place: &'a str, message: &'a str },
    /// A disk was found.
    Disk { index: u8, bytes: u64, base: Option<u64>, serial: &'a str },
    /// A paging space was opened or changed its state.
    Space {
        disk: u8,
        space: u32,
        state: &'a str,
        partition: &'a str,
        epoch: u64,
        /// The fenced node whose writes may still land there.
        waits_for: Option<&'a str>,
    },
    /// Answer to `list`: a dump, or the record of a crash whose dump was interrupted before it
    /// began.
    Dump {
        dump: Uuid,
        partition: &'a str,
        incarnation: u64,
        disk: u8,
        space: u32,
        state: &'a str,
        reason: &'a str,
        detail: u64,
        text: &'a str,
        unix_ns: u64,
        /// Why it is partial.
        cause: Option<&'a str>,
        /// The fenced node that has left it, and whose writes may still land.
        waits_for: Option<&'a str>,
    },
    /// Another node has claimed a space; the claim is watched before the space is used.
    Watching { disk: u8, space: u32, node: &'a str },
    /// Answer to `store`, and at the start: an image store that can be used.
    Store {
        id: Option<u64>,
        store: u8,
        uuid: Uuid,
        disk: u8,
        /// GPT entry; 0 if the store is the whole disk.
        space: u32,
        bytes: u64,
        free_bytes: u64,
        images: u32,
        /// Slots for definitions.
        slots: u32,
    },
    /// Answer to `store`: an image.
    StoredImage {
        id: u64,
        store: u8,
        digest: &'a str,
        kind: &'a str,
        state: &'a str,
        bytes: u64,
        label: &'a str,
        kept: bool,
    },
    /// Answer to `store`: a definition.
    StoredDefinition {
        id: u64,
        store: u8,
        slot: u32,
        partition: &'a str,
        generation: u64,
        kernel: &'a str,
        initrd: Option<&'a str>,
        /// `None` if this program cannot decode the definition.
        memory_bytes: Option<u64>,
    },
    /// A partition is defined; it starts when it is told to.
    Defined { partition: &'a str },
    /// A definition is gone: its name and its place can be used again.
    Undefined { partition: &'a str },
    /// A partition starts an incarnation.
    Start { partition: &'a str, incarnation: u64 },
    /// The incarnation's first entry into the guest.
    Entered { partition: &'a str, incarnation: u64, tsc: u64 },
    /// A line that a test kernel has reported by its protocol.
    Guest { partition: &'a str, incarnation: u64, kind: &'a str, text: &'a str },
    /// A partition cannot start yet; `what` names the reason.
    Waiting { partition: &'a str, what: &'a str },
    /// A partition crashed.
    Crash {
        partition: &'a str,
        incarnation: u64,
        reason: &'a str,
        detail: u64,
        text: &'a str,
        rip: u64,
        resident: u64,
        paged: u64,
        zero: u64,
        tsc: u64,
    },
    /// A guest shows no sign of life: it gets an NMI, and if that does not help it is crashed.
    Hang { partition: &'a str, incarnation: u64, rip: u64 },
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
    /// A crashed partition has reached its limit of restarts: it stops when its dump is sealed.
    RestartLimit { partition: &'a str, incarnation: u64, restarts: u32, time_ns: u64 },
    /// Progress of a dump's drain.
    Drain { partition: &'a str, incarnation: u64, done: u64, remaining: u64, freed: u64 },
    /// A dump is sealed.
    DumpComplete {
        partition: &'a str,
        incarnation: u64,
        dump: Uuid,
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
        /// Time from the crash until its record was durable, and from there until the dump's
        /// description was durable.
        crashed_ns: u64,
        described_ns: u64,
        since_crash_ns: u64,
    },
    /// A pass over the memory of a partition that runs and is about to be suspended.
    Precopy {
        partition: &'a str,
        incarnation: u64,
        /// Dirty pages that the pass has written.
        pages: u64,
        pass_ns: u64,
        /// How long as many pages will take when the vCPU has stopped.
        expected_pause_ns: Option<u64>,
    },
    /// A partition is being suspended; its vCPU has stopped.
    Suspending {
        partition: &'a str,
        incarnation: u64,
        /// Pages that still have a frame.
        remaining: u64,
        /// At the beginning: pages to write, and how long that will take as far as is known.
        dirty: Option<u64>,
        expected_pause_ns: Option<u64>,
    },
    /// A partition is suspended: its space holds all of it.
    Suspended {
        partition: &'a str,
        incarnation: u64,
        dump: Uuid,
        disk: u8,
        space: u32,
        pages_written: u64,
        pages_clean: u64,
        pages_zero: u64,
        pages_paged_before: u64,
        /// Pages written before the vCPU's stop.
        pages_precopied: u64,
        /// Bytes written since, tables included.
        bytes: u64,
        /// Time from the vCPU's stop.
        pause_ns: u64,
    },
    /// A partition was not suspended, and goes on unless another event tells its end.
    SuspendFailed { partition: &'a str, incarnation: u64, message: &'a str },
    /// A suspended partition goes on.
    Resumed {
        partition: &'a str,
        incarnation: u64,
        disk: u8,
        space: u32,
        /// Pages in their blocks.
        paged: u64,
        /// Time from the command.
        resume_ns: u64,
        /// Time of day since the suspension.
        away_ns: u64,
    },
    /// A suspended partition has become a base.
    Sealed { partition: &'a str, incarnation: u64, dump: Uuid, disk: u8, space: u32 },
    /// A suspended partition was not sealed, and can be resumed.
    SealFailed { partition: &'a str, message: &'a str },
    /// A clone begins an incarnation from its base.
    Cloned {
        partition: &'a str,
        incarnation: u64,
        base: &'a str,
        /// Name of the base's state.
        dump: Uuid,
        /// Time that it took.
        clone_ns: u64,
    },
    /// A clone was not made, or not started.
    CloneFailed { partition: &'a str, message: &'a str },
    /// Answer to `list`: a base, and the number of its children.
    Base {
        partition: &'a str,
        incarnation: u64,
        dump: Uuid,
        disk: u8,
        space: u32,
        /// Partitions that are clones of it.
        children: u32,
        /// Spaces of children that depend on it.
        held_by: u32,
        /// Frames of its pages; 0 while it is not in memory.
        resident: u32,
    },
    /// A suspended partition was not resumed: nothing has changed.
    ResumeFailed { partition: &'a str, message: &'a str },
    /// A dump could not be finished; the pages written so far remain as a partial dump.
    DumpFailed {
        partition: &'a str,
        incarnation: u64,
        dump: Uuid,
        disk: u8,
        space: u32,
        message: &'a str,
    },
    /// A crash leaves no dump, because the limit of kept dumps is reached.
    DumpSkipped { partition: &'a str, incarnation: u64, kept: u32, bound: u32 },
    /// The oldest dump is dropped, because a newer one is promised and the limit of kept dumps is
    /// reached.
    DumpDropped {
        partition: &'a str,
        incarnation: u64,
        dump: Uuid,
        disk: u8,
        space: u32,
        newer: Uuid,
    },
    /// A dump was released.
    Released { disk: u8, space: u32, partition: &'a str, incarnation: u64, dump: Option<Uuid> },
    /// A guest's power button was pressed: it has this time to end.
    Stopping { partition: &'a str, incarnation: u64, timeout_ns: u64 },
    /// A guest asked for power off or reset, or was stopped.
    Stopped { partition: &'a str, incarnation: u64, how: &'a str, code: u64 },
    /// Console output of a partition whose console goes to programs: two hexadecimal digits per
    /// byte.
    Output { partition: &'a str, bytes: &'a str },
    /// The keys of the first line go to another partition, or its console is shown in another way.
    Console { partition: &'a str, mode: &'a str },
    /// Counters of a partition.
    Stats(PartitionStats<'a>),
    /// Counters of the pool.
    Pool(PoolStats),
    /// One measurement.
    Bench { id: &'a str, minimum: u64, average: u64, count: u64, unit: &'a str },
    /// The answer to the command with this id.
    Reply { id: u64, ok: bool, error: Option<&'a str> },
    /// A request of the registration in a cluster was sent again.
    Register { step: &'a str, area: u8, request: &'a str, resend: u8 },
    /// The areas do not answer: this node runs on outside the cluster.
    JoinFailed { step: &'a str, tries: u8 },
    /// All slots of the cluster were used: this node runs on outside the cluster.
    NoSlot { slots: u16 },
    /// This node is a member.
    Joined { slot: u16, members: u32 },
    /// A member, and what has become of it.
    Member(MemberReport<'a>),
    /// Answer to `nodes`: where this node and its cluster stand.
    Cluster {
        id: u64,
        cluster: Uuid,
        state: &'a str,
        slot: Option<u16>,
        decree: u64,
        used: u32,
        slots: u16,
        /// Age of the local copy, where the answer is from there.
        copy_age_ms: Option<u64>,
    },
    /// What became of this node's local copy of its cluster's state.
    LocalCopy { state: &'a str, decree: u64 },
    /// The lease in the cluster has ended, or goes on.
    Lease { state: &'a str },
    /// The cluster has fenced this node.
    Fenced { slot: u16 },
    /// This node has signed off.
    Left { slot: u16 },
    /// Most slots are used: a sweep is due.
    SlotsLow { used: u32, slots: u32 },
    /// A cluster area that this node leaves alone.
    ClusterForeign { cluster: Uuid, reason: &'a str },
    /// A paging space whose record names a cluster that this node is no member of.
    SpaceClosed { disk: u8, space: u32, cluster: Uuid },
    /// This member starts a partition of the fenced member in this slot.
    Inherited { partition: &'a str, slot: u16 },
    /// A partition of a fenced member is not started here.
    NotInherited { partition: &'a str, reason: &'a str },
    /// A partition begins to move to a member.
    MoveBegun { partition: &'a str, incarnation: u64, node: &'a str, slot: u16, resident: u64 },
    /// A partition belongs to another member.
    Moved {
        partition: &'a str,
        incarnation: u64,
        node: &'a str,
        slot: u16,
        /// The decree.
        epoch: u64,
        /// The member has told that it runs.
        confirmed: bool,
        /// From the suspension to the decree, and to the member's word.
        decree_ns: u64,
        away_ns: u64,
    },
    /// A move has ended before the partition ran elsewhere.
    MoveFailed { partition: &'a str, node: &'a str, reason: &'a str },
    /// A partition that has come here cannot go on, and is given back.
    MoveRefused { partition: &'a str, reason: &'a str },
    /// A partition that was suspended elsewhere goes on here.
    Arrived { partition: &'a str, incarnation: u64, from: Option<u16>, disk: u8, space: u32 },
    /// A suspended partition has no owner: any member may resume it.
    Cold { partition: &'a str, incarnation: u64 },
    /// This node gives its partitions away: so many are left.
    Drained { state: &'a str, left: u32 },
    /// A partition stays here although the node gives its partitions away.
    DrainLeft { partition: &'a str, reason: &'a str },
    /// A member has written this to the operator.
    Mail { node: &'a str, slot: u16, text: &'a str },
    /// A member has read a message of this node.
    MailRead { node: &'a str, slot: u16, number: u64, latency_ms: u64 },
    /// A member was fenced, or has left, before it had read a message of this node.
    MailLost { node: &'a str, slot: u16, number: u64 },
    /// The cluster's state has no room for another partition or space.
    StateFull { partition: &'a str },
    /// For tests: a word with the cluster's state machine (`members::trace`).
    ClusterTrace { step: &'a str, numbers: &'a [u64], data: &'a str },
    /// Number of earlier lines that did not fit into the buffer.
    Lost { lines: u64 },
    /// No partition runs any more; the machine stops with this status.
    End { status: u32 },
}

/// A member of the cluster.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/events.md describes each field")]
pub struct MemberReport<'a> {
    pub id: Option<u64>,
    pub node: &'a str,
    pub slot: u16,
    pub incarnation: Uuid,
    pub state: &'a str,
    pub own: bool,
    pub age_ms: Option<u64>,
    pub decree: Option<u64>,
    pub free_mib: u32,
    pub free_spaces: u32,
    /// Areas that it reaches, one a bit.
    pub areas: u64,
    /// Milliseconds until it had read the last message of this node.
    pub mail_ms: Option<u64>,
}

/// Counters of one partition: AMS's `hpi`, `hpit`, `pmem` and similar ones (`lparstat -m`), and our
/// own.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "docs/events.md describes each field")]
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
    /// Pages of a clone that show a frame of its base.
    pub shared: u64,
    pub page_ins: u64,
    pub page_outs: u64,
    pub exits: u64,
    /// `exits` by kind.
    pub exits_by: ExitTally,
    /// Crashes since the start that left no dump, because the limit of kept dumps was reached.
    pub dumps_skipped: u64,
}

/// The counters' values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ExitTally {
    /// CPUID, IN, OUT, RDMSR and WRMSR that were answered at once.
    pub quick: u64,
    /// See `ExitKind::Cpuid`.
    pub cpuid: u64,
    /// See `ExitKind::Port`.
    pub port: u64,
    /// See `ExitKind::Msr`.
    pub msr: u64,
    /// See `ExitKind::Halt`.
    pub halt: u64,
    /// See `ExitKind::Page`.
    pub page: u64,
    /// See `ExitKind::Device`.
    pub device: u64,
    /// See `ExitKind::Interrupt`.
    pub interrupt: u64,
    /// See `ExitKind::Window`.
    pub window: u64,
    /// See `ExitKind::Other`.
    pub other: u64,
}

/// Counters of the pool and of the pager, since the start.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "docs/events.md describes each field")]
pub struct PoolStats {
    pub id: Option<u64>,
    pub pages: u64,
    pub free: u64,
    /// Frames of dump images that are still draining.
    pub image: u64,
    pub metadata_bytes: u64,
    pub guest_pages: u64,
    pub metadata_per_page_milli: u64,
    pub page_ins: u64,
    pub page_outs: u64,
    pub read_around: u64,
    /// Pages written while they stayed mapped; bytes that the pager has read and written.
    pub cleaned: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub clean_evictions: u64,
    pub zero_evictions: u64,
    pub rescues: u64,
    pub demand_zero: u64,
    pub zeros_shown: u64,
    pub resident_faults: u64,
    pub waits: u64,
    pub lost: u64,
    /// How often the pager's lock was taken, and how often a CPU waited for it; the longest hold.
    pub lock_taken: u64,
    pub lock_waits: u64,
    pub lock_longest_ns: u64,
    /// Turns of the pager, turns that found no work, and polls skipped because another CPU was
    /// polling.
    pub turns: u64,
    pub turns_without_work: u64,
    pub polls_left: u64,
    /// Ends of the host's timer that a CPU noticed late by a whole count or more, and how many of
    /// them a repeat reported.
    pub timers_late: u64,
    pub timers_repeated: u64,
    /// Memory objects, pages of second-level tables and TLB tags in use.
    pub objects: u64,
    pub tables: u64,
    pub tags: u64,
    /// Bytes of the hypervisor's own heap: size, in use, most in use at one time since the start.
    pub heap_size: u64,
    pub heap_used: u64,
    pub heap_peak: u64,
}

/// Writes `event` as one line to `out`; returns its length.
///
/// # Errors
/// `None` if the line is longer than `out`.
pub fn encode(event: &ConsoleEvent<'_>, t_ns: u64, out: &mut [u8]) -> Option<usize> {
    use core::fmt::Write;
    let mut head = arrayvec::ArrayString::<32>::new();
    write!(head, "{{\"t\":{t_ns},").ok()?;
    let prefix = head.len();
    // The event's opening brace overwrites the prefix's last byte, which is then restored.
    let body = serde_json_core::to_slice(event, out.get_mut(prefix - 1..)?).ok()?;
    out[..prefix].copy_from_slice(head.as_bytes());
    let end = prefix - 1 + body;
    *out.get_mut(end)? = b'\n';
    Some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &ConsoleEvent<'_>) -> String {
        let mut out = [0; MAX_LINE];
        let len = encode(event, 5, &mut out).unwrap();
        String::from_utf8(out[..len].to_vec()).unwrap()
    }

    #[test]
    fn an_event_is_one_line_with_time_and_kind() {
        assert_eq!(
            line(&ConsoleEvent::Start { partition: "a", incarnation: 2 }),
            "{\"t\":5,\"event\":\"start\",\"partition\":\"a\",\"incarnation\":2}\n"
        );
        assert_eq!(
            line(&ConsoleEvent::Reply { id: 1, ok: true, error: None }),
            "{\"t\":5,\"event\":\"reply\",\"id\":1,\"ok\":true,\"error\":null}\n"
        );
    }

    #[test]
    fn a_newtype_variant_carries_its_kind_too() {
        assert!(
            line(&ConsoleEvent::Stats(PartitionStats::default()))
                .starts_with("{\"t\":5,\"event\":\"stats\",\"id\":null,\"partition\":\"\"")
        );
    }

    #[test]
    fn the_largest_counters_fit_into_a_line() {
        let most = u64::MAX;
        let pool = PoolStats {
            id: Some(most),
            pages: most,
            free: most,
            image: most,
            metadata_bytes: most,
            guest_pages: most,
            metadata_per_page_milli: most,
            page_ins: most,
            page_outs: most,
            read_around: most,
            cleaned: most,
            bytes_read: most,
            bytes_written: most,
            clean_evictions: most,
            zero_evictions: most,
            rescues: most,
            demand_zero: most,
            zeros_shown: most,
            resident_faults: most,
            waits: most,
            lost: most,
            lock_taken: most,
            lock_waits: most,
            lock_longest_ns: most,
            turns: most,
            turns_without_work: most,
            polls_left: most,
            timers_late: most,
            timers_repeated: most,
            objects: most,
            tables: most,
            tags: most,
            heap_size: most,
            heap_used: most,
            heap_peak: most,
        };
        assert!(line(&ConsoleEvent::Pool(pool)).ends_with("}\n"));
    }

    #[test]
    fn quotes_and_control_characters_stay_inside_the_string() {
        let text = line(&ConsoleEvent::Error { place: "x", message: "a\"b\n\u{1}" });
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.contains("a\\\"b\\n\\u0001"), "{text}");
    }

    #[test]
    fn a_line_that_does_not_fit_is_refused() {
        assert_eq!(encode(&ConsoleEvent::Lost { lines: 1 }, 5, &mut [0; 20]), None);
    }
}
