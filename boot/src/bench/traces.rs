//! Access traces in a guest whose memory exceeds the pool: pages read compared with LRU,
//! instructions an access, the longest stall.
//!
//! ```text
//!  guest `trace`: fill 192 MiB in order ─ "trace start" ─ (stats, a key) ─ the trace ─ "trace done" ─ (stats)
//!  host:          the same trace through a cache of as many pages under exact LRU, fill included
//! ```
//!
//! The pool has 128 MiB, the machine one CPU. With memory-backed disks the clock counts
//! instructions, so a run repeats exactly and a stall is the number of instructions of one access.
//! With virtio disks of 100 MiB/s the clock follows the host's time, and a stall is a time.

use super::BenchImages;
use super::scale::DiskBacking;
use super::scratch::Scratch;
use crate::bed::{Bed, BedMachine, ClockBase, RunningMachine};
use crate::config;
use crate::events::Event;
use crate::report::TextTable;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use worker::trace::{Trace, Workload, fill_ranks};

/// Time limit for one trace, on a busy machine.
const LIMIT: Duration = Duration::from_secs(1200);
/// Pages of the array, MiB of the pool and of the partition.
const PAGES: u32 = 49_152;
const POOL_MIB: u64 = 128;
const MIB: u64 = 200;
/// Bytes that KVM wrote for M3, and the time of its longest access of M1, on a disk of 100 MiB/s.
const KVM_M3_BYTES: u64 = 74_000_000;
const KVM_M1_STALL_NS: u64 = 292_000_000;
/// Maximum of pages read, relative to LRU: for M2 and M3, and for M1.
const BAR_READ: f64 = 1.15;
const BAR_WALK: f64 = 1.02;
/// Maximum instructions of the longest access: a tenth more than M1's at the time of writing, the
/// longest of the four.
const BAR_STALL: u64 = 1_100_000;

/// A trace and its identification.
#[derive(Clone, Copy, Debug)]
pub struct TraceJob {
    /// Its id, as in `docs/benchmarks.md`.
    pub id: &'static str,
    /// Its number for the guest.
    number: u64,
    /// Accesses.
    pub accesses: u64,
}

/// The traces.
pub const JOBS: [TraceJob; 4] = [
    TraceJob { id: "M1", number: 1, accesses: 98_304 },
    TraceJob { id: "M2", number: 2, accesses: 80_000 },
    TraceJob { id: "M3", number: 3, accesses: 500_000 },
    TraceJob { id: "M4", number: 4, accesses: 300_000 },
];

/// The cost of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceCost {
    /// Pages read, on demand or not.
    pub read: u64,
    /// Faults that had to read.
    pub page_ins: u64,
    /// Bytes written.
    pub written: u64,
    /// Ticks of all accesses together; see `p99` and `worst`.
    pub ticks: u64,
    /// Ticks that 99 of 100 accesses do not exceed.
    pub p99: u64,
    /// Ticks of the longest access.
    pub worst: u64,
    /// Pages of the guest that were resident when its array was filled; LRU gets the same number.
    pub frames: u64,
}

/// Runs a trace on QEMU.
///
/// # Errors
/// Names the step that did not finish in time, or the failure in the machine.
pub fn measure(images: &BenchImages<'_>, job: &TraceJob, disks: DiskBacking) -> Result<TraceCost> {
    let folder = Scratch::new("trace")?;
    let machine = machine(images, folder.path(), job, disks)?;
    let mut running = machine.start()?;
    wait_for(&mut running, "trace start")?;
    let before = traffic(&mut running)?;
    running.console.typist()?.write_all(b" ")?;
    let done = wait_for(&mut running, "trace done")?;
    let after = traffic(&mut running)?;
    let number =
        |name: &str| word_after(&done, name).with_context(|| format!("no {name} in {done}"));
    let cost = TraceCost {
        read: after.read - before.read,
        page_ins: after.page_ins - before.page_ins,
        written: after.written - before.written,
        ticks: number("ticks")?,
        p99: number("p99")?,
        worst: number("worst")?,
        frames: before.frames,
    };
    running.passed();
    Ok(cost)
}

fn machine(
    images: &BenchImages<'_>,
    folder: &Path,
    job: &TraceJob,
    disks: DiskBacking,
) -> Result<BedMachine> {
    let device = match disks {
        DiskBacking::Memory => format!("[[paging_device]]\nmemory = \"{} MiB\"\n", MIB + 24),
        DiskBacking::Virtio => {
            format!("[[paging_device]]\nimage = \"0.img\"\nsize = \"{} MiB\"\n", MIB + 24)
        }
    };
    let bandwidth =
        if disks == DiskBacking::Virtio { "disk_bandwidth = \"100 MiB\"\n" } else { "" };
    let toml = format!(
        "[pool]\nmemory = \"{POOL_MIB} MiB\"\n[machine]\ncpus = \
         1\n{bandwidth}{device}[[partition]]\nname = \"guest\"\nmemory = \"{MIB} MiB\"\nkernel = \
         \"{}\"\ncmdline = \"trace={} pages={PAGES} ops={}\"\ndump = \"off\"\nrestart = \
         \"never\"\n",
        images.kernel.display(),
        job.number,
        job.accesses
    );
    let name = format!("trace-{}-{}", job.id, disks.name());
    let mut machine = BedMachine::new(Bed::Qemu, &name, images.hypervisor.to_owned());
    machine.apply(config::read(&name, &toml, folder, Bed::Qemu)?);
    machine.clock =
        if disks == DiskBacking::Memory { ClockBase::Instructions(0) } else { ClockBase::Host };
    Ok(machine)
}

/// Waits for a line of the guest's log that begins with `begin`.
fn wait_for(running: &mut RunningMachine, begin: &str) -> Result<String> {
    let found = running
        .events
        .wait_for(LIMIT, begin, |event| is_bad(event) || text_of(event).starts_with(begin))?;
    if is_bad(&found) {
        bail!("{}; transcript in {}", found.0, running.folder().display());
    }
    Ok(text_of(&found).to_owned())
}

fn is_bad(event: &Event) -> bool {
    matches!(event.name(), "error" | "crash" | "end")
        || event.name() == "guest" && event.0["kind"] == "fail"
}

fn text_of(event: &Event) -> &str {
    event.0["text"].as_str().unwrap_or("")
}

/// Returns the number behind a word.
fn word_after(line: &str, word: &str) -> Option<u64> {
    line.split(' ').skip_while(|w| *w != word).nth(1)?.parse().ok()
}

/// The pager's counters.
#[derive(Clone, Copy)]
struct Traffic {
    read: u64,
    page_ins: u64,
    written: u64,
    frames: u64,
}

fn traffic(running: &mut RunningMachine) -> Result<Traffic> {
    running.events.command(LIMIT, json!({"command": "stats"}))?;
    let (pool, stats) = (
        running.events.newest("pool").context("no counters of the pool")?,
        running.events.newest("stats").context("no counters of the guest")?,
    );
    let page_ins = pool.number("page_ins")?;
    Ok(Traffic {
        read: page_ins + pool.number("read_around")?,
        page_ins,
        // Older hypervisors do not report write-back of pages that stay.
        written: pool
            .number("bytes_written")
            .or_else(|_| pool.number("page_outs").map(|pages| pages * 4096))?,
        frames: stats.number("resident")?,
    })
}

/// Returns the pages that a cache of `frames` pages under exact LRU reads for the trace, after the
/// array was filled in order.
pub fn lru(job: &TraceJob, frames: u64) -> u64 {
    let mut ranks = vec![0; PAGES as usize];
    fill_ranks(&mut ranks);
    let workload = Workload::numbered(job.number).expect("the jobs have the workloads' numbers");
    let mut trace = Trace::new(workload, 1, &ranks);
    let mut cache = Lru { frames: frames as usize, ..Lru::default() };
    for page in 0..PAGES {
        let _ = cache.access(page);
    }
    (0..job.accesses).filter(|_| cache.access(trace.step().page) == Met::Absent).count() as u64
}

/// The result of an access to the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Met {
    Present,
    Absent,
}

#[derive(Default)]
struct Lru {
    frames: usize,
    at: u64,
    last: BTreeMap<u32, u64>,
    order: BTreeMap<u64, u32>,
}

impl Lru {
    fn access(&mut self, page: u32) -> Met {
        self.at += 1;
        let before = self.last.insert(page, self.at);
        before.map(|before| self.order.remove(&before));
        self.order.insert(self.at, page);
        if self.order.len() > self.frames
            && let Some((_, victim)) = self.order.pop_first()
        {
            self.last.remove(&victim);
        }
        if before.is_some() { Met::Present } else { Met::Absent }
    }
}

/// Returns the table to print, and the figures above their bars.
pub fn judge(costs: &[(TraceJob, TraceCost)], disks: DiskBacking) -> (TextTable, Vec<String>) {
    let head = ["id", "read", "LRU", "of LRU", "faults", "written MB", "an access", "p99", "worst"];
    let (mut table, mut above) = (TextTable::new(&head), Vec::new());
    for (job, cost) in costs {
        let lru = lru(job, cost.frames);
        let ratio = cost.read as f64 / lru.max(1) as f64;
        table.row(&[
            job.id.to_owned(),
            cost.read.to_string(),
            lru.to_string(),
            format!("{ratio:.3}"),
            cost.page_ins.to_string(),
            format!("{:.1}", cost.written as f64 / 1e6),
            (cost.ticks / job.accesses).to_string(),
            cost.p99.to_string(),
            cost.worst.to_string(),
        ]);
        above.extend(above_the_bar(job, cost, (ratio, disks)));
    }
    (table, above)
}

fn above_the_bar(
    job: &TraceJob,
    cost: &TraceCost,
    (ratio, disks): (f64, DiskBacking),
) -> Vec<String> {
    let mut above = Vec::new();
    let mut check =
        |holds: bool, what: &str| (!holds).then(|| above.push(format!("{}: {what}", job.id)));
    check(
        !matches!(job.id, "M2" | "M3") || ratio <= BAR_READ,
        "more pages are read than 1.15 times LRU's",
    );
    check(job.id != "M1" || ratio <= BAR_WALK, "more pages are read than 1.02 times LRU's");
    check(
        disks == DiskBacking::Virtio || cost.worst <= BAR_STALL,
        "the worst stall is longer than it was",
    );
    check(job.id != "M3" || cost.written <= KVM_M3_BYTES, "more is written than by KVM");
    check(
        disks == DiskBacking::Memory || job.id != "M1" || cost.worst <= KVM_M1_STALL_NS,
        "the worst stall is longer than KVM's",
    );
    above
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_line_are_found_by_their_words() {
        let line = "trace done ops 5 ticks 70 median 1 p99 2 worst 3 wrong 0";
        assert_eq!(
            (word_after(line, "ticks"), word_after(line, "worst"), word_after(line, "nothing")),
            (Some(70), Some(3), None)
        );
        assert_eq!(word_after("worst", "worst"), None);
    }

    /// The expected numbers come from an independent model in C, which computes powers where this
    /// one has a table.
    #[test]
    fn lru_reads_what_an_independent_model_reads() {
        for (job, expected) in JOBS.iter().zip([98_304_u64, 34_306, 17_581, 49_024]) {
            let found = lru(job, 28_000);
            assert!(found.abs_diff(expected) <= 1, "{}: {found}, not {expected}", job.id);
        }
    }

    #[test]
    fn each_bar_is_looked_at() {
        let cost = TraceCost {
            read: 100,
            page_ins: 1,
            written: 0,
            ticks: 1,
            p99: 1,
            worst: BAR_STALL,
            frames: 1,
        };
        let above = |n: usize, cost: TraceCost, ratio: f64, disks| {
            above_the_bar(&JOBS[n], &cost, (ratio, disks)).len()
        };
        for n in 1..4 {
            assert_eq!(above(n, cost, 1.15, DiskBacking::Memory), 0);
        }
        assert_eq!(above(1, cost, 1.16, DiskBacking::Memory), 1);
        assert_eq!(
            (above(0, cost, 1.02, DiskBacking::Memory), above(0, cost, 1.03, DiskBacking::Memory)),
            (0, 1)
        );
        assert_eq!(
            above(3, TraceCost { worst: BAR_STALL + 1, ..cost }, 1.0, DiskBacking::Memory),
            1
        );
        assert_eq!(
            above(2, TraceCost { written: KVM_M3_BYTES + 1, ..cost }, 1.0, DiskBacking::Virtio),
            1
        );
        assert_eq!(
            above(0, TraceCost { worst: KVM_M1_STALL_NS + 1, ..cost }, 1.0, DiskBacking::Virtio),
            1
        );
    }
}
