//! The history: the last events of each partition and of the machine, for the panic's report and
//! for the notes of a dump.
//!
//! ```text
//!   slow paths ── record ──> rings of the partition ─┬─> a crash: the last ones become a note
//!                            rings of the machine   ─┴─> a panic: the last ones of all are printed
//! ```
//!
//! Each partition and the machine have two rings, one for rare events and one for frequent ones
//! ([`HistoryLane`]). So neither a busy neighbour nor a guest that causes many exceptions
//! displaces the events that explain a crash. All rings exist from the start; nothing here
//! allocates, waits or takes a lock. So any code may record, whatever locks it holds, and a panic
//! may read.
//!
//! Page-ins that end well and simple exits are not recorded: the cost of those paths is counted in
//! instructions (decision 0064).

mod entry;
mod kind;
mod latest;
mod ring;
pub mod words;

pub use entry::{ENTRY_BYTES, HistoryEntry, HistorySubject};
pub use kind::{CodeMeaning, HistoryKind, HistoryLane, KindShape};
pub use latest::{LatestEntries, RelativeEntry};

use crate::arch::{percpu, time};
use crate::partition_id::PartitionId;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};
use ring::HistoryRing;

/// Rare events that are kept of a subject.
const RARE: usize = 32;
/// Frequent events that are kept of a subject.
const FREQUENT: usize = 16;
/// Partitions with rings of their own; entries of further ones go to the machine's. A node has no
/// more partitions than memory objects, whose number `mm` bounds.
pub const SUBJECTS: usize = 64;
/// Entries that a dump's note has at most: the partition's and the machine's.
pub const NOTE_ENTRIES: usize = 2 * (RARE + FREQUENT);
/// Entries that a panic prints at most.
const PRINTED: usize = 40;

/// The rings of a subject.
struct SubjectRings {
    /// Entries before this time, in ns, are those of an earlier subject.
    since_ns: AtomicU64,
    rare: HistoryRing<RARE>,
    frequent: HistoryRing<FREQUENT>,
}

impl SubjectRings {
    const fn new() -> Self {
        Self { since_ns: AtomicU64::new(0), rare: HistoryRing::new(), frequent: HistoryRing::new() }
    }

    fn add_to<const MOST: usize>(&self, latest: &mut LatestEntries<MOST>) {
        let since_ns = self.since_ns.load(Ordering::Acquire);
        let mut add = |number, entry: HistoryEntry| {
            if entry.t_ns >= since_ns {
                latest.add(number, entry);
            }
        };
        self.rare.read(&mut add);
        self.frequent.read(&mut add);
        latest.add_gone(self.rare.gone() + self.frequent.gone());
    }
}

/// All rings.
struct HistoryTable {
    machine: SubjectRings,
    partitions: [SubjectRings; SUBJECTS],
}

impl HistoryTable {
    const fn new() -> Self {
        const {
            Self {
                machine: SubjectRings::new(),
                partitions: [const { SubjectRings::new() }; SUBJECTS],
            }
        }
    }

    fn rings(&self, of: HistorySubject) -> &SubjectRings {
        match of {
            HistorySubject::Machine => &self.machine,
            HistorySubject::Partition(number) => {
                self.partitions.get(usize::from(number)).unwrap_or(&self.machine)
            }
        }
    }

    fn record(&self, lane: HistoryLane, entry: &HistoryEntry) {
        let rings = self.rings(entry.of);
        match lane {
            HistoryLane::Rare => rings.rare.push(entry),
            HistoryLane::Frequent => rings.frequent.push(entry),
        }
    }

    fn of_partition(&self, number: usize) -> LatestEntries<NOTE_ENTRIES> {
        let mut latest = LatestEntries::new();
        self.machine.add_to(&mut latest);
        if let Some(rings) = self.partitions.get(number) {
            rings.add_to(&mut latest);
        }
        latest
    }

    fn print(&self, out: &mut impl Write, now_ns: u64) -> fmt::Result {
        let mut latest = LatestEntries::<PRINTED>::new();
        let rings = self.partitions.iter().chain([&self.machine]);
        rings.for_each(|rings| rings.add_to(&mut latest));
        writeln!(out, "history, oldest first ({} older entries are not shown):", latest.gone())?;
        for entry in latest.iter() {
            writeln!(out, "  {}", RelativeEntry { entry, zero_ns: now_ns })?;
        }
        Ok(())
    }
}

/// Records an event now. The kind says what `code` and `numbers` mean.
///
/// Never inlined: the caller's path stays as short as it was. A caller whose own path is hot calls
/// it from a function that is marked cold.
#[inline(never)]
pub fn record(of: HistorySubject, kind: HistoryKind, code: u32, numbers: [u64; 2]) {
    let (t_ns, cpu) = (time::now_ns().as_u64(), percpu::current().index() as u8);
    let entry = HistoryEntry { t_ns, kind: kind as u16, of, cpu, code, numbers };
    with(|history| history.record(kind.lane(), &entry));
}

/// Records an event about the machine.
#[inline(never)]
pub fn record_machine(kind: HistoryKind, code: u32, numbers: [u64; 2]) {
    record(HistorySubject::Machine, kind, code, numbers);
}

/// Records an event about a partition.
#[inline(never)]
pub fn record_partition(id: PartitionId, kind: HistoryKind, code: u32, numbers: [u64; 2]) {
    record(HistorySubject::partition(id.index()), kind, code, numbers);
}

/// Begins the history of a partition whose number another one may have had before.
pub fn begin_partition(id: PartitionId) {
    let now_ns = time::now_ns().as_u64();
    with(|history| {
        if let Some(rings) = history.partitions.get(id.index()) {
            rings.since_ns.store(now_ns, Ordering::Release);
        }
    });
}

/// Returns the last entries of a partition and of the machine.
pub fn of_partition(id: PartitionId) -> LatestEntries<NOTE_ENTRIES> {
    with(|history| history.of_partition(id.index()))
}

/// Prints the last entries of all, with times relative to `now_ns`.
///
/// # Errors
/// Those of `out`.
pub fn print(out: &mut impl Write, now_ns: u64) -> fmt::Result {
    with(|history| history.print(out, now_ns))
}

#[cfg(not(test))]
fn with<R>(f: impl FnOnce(&HistoryTable) -> R) -> R {
    static HISTORY: HistoryTable = HistoryTable::new();
    f(&HISTORY)
}

/// Each unit test has a history of its own.
#[cfg(test)]
fn with<R>(f: impl FnOnce(&HistoryTable) -> R) -> R {
    std::thread_local!(static HISTORY: Box<HistoryTable> = Box::new(HistoryTable::new()));
    HISTORY.with(|history| f(history))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(history: &HistoryTable, t_ns: u64, of: HistorySubject, kind: HistoryKind) {
        let numbers = [t_ns, 0];
        let entry = HistoryEntry { t_ns, kind: kind as u16, of, cpu: 0, code: 0, numbers };
        history.record(kind.lane(), &entry);
    }

    #[test]
    fn neither_neighbours_nor_frequent_events_displace_a_rare_one() {
        let history = HistoryTable::new();
        let (ours, other) = (HistorySubject::Partition(1), HistorySubject::Partition(0));
        put(&history, 1, ours, HistoryKind::PageLost);
        put(&history, 2, HistorySubject::Machine, HistoryKind::DiskDead);
        for t_ns in 3..1000 {
            put(&history, t_ns, ours, HistoryKind::BatchLaunched);
            put(&history, t_ns, other, HistoryKind::Crashed);
        }
        let latest = history.of_partition(1);
        let kinds: Vec<_> = latest.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds[..2], [HistoryKind::PageLost as u16, HistoryKind::DiskDead as u16]);
        assert_eq!(kinds[2..], [HistoryKind::BatchLaunched as u16; FREQUENT]);
        assert_eq!(latest.gone(), 997 - FREQUENT as u64);
    }

    #[test]
    fn a_panic_prints_a_bounded_number_oldest_first() {
        let history = HistoryTable::new();
        let mut text = String::new();
        history.print(&mut text, 5).unwrap();
        assert_eq!(text, "history, oldest first (0 older entries are not shown):\n");
        for n in 0..200 {
            let of = HistorySubject::partition(n as usize % SUBJECTS);
            put(&history, n * 1_000_000, of, HistoryKind::GuestEntered);
        }
        text.clear();
        history.print(&mut text, 200_000_000).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 1 + PRINTED);
        assert!(lines[0].contains("(160 older"), "{}", lines[0]);
        assert!(lines[1].starts_with("  -    0.040000 s  partition 32"), "{}", lines[1]);
        assert!(lines[40].starts_with("  -    0.001000 s  partition 7 "), "{}", lines[40]);
        assert!(lines[40].ends_with("guest entered        incarnation=199000000"), "{}", lines[40]);
    }

    #[test]
    fn a_partition_has_no_history_of_another_with_its_number() {
        let history = HistoryTable::new();
        let of = HistorySubject::Partition(1);
        put(&history, 10, of, HistoryKind::Crashed);
        put(&history, 20, HistorySubject::Machine, HistoryKind::DiskDead);
        history.partitions[1].since_ns.store(30, Ordering::Release);
        put(&history, 30, of, HistoryKind::GuestEntered);
        let times = |entries: LatestEntries<NOTE_ENTRIES>| {
            entries.iter().map(|entry| entry.t_ns).collect::<Vec<_>>()
        };
        assert_eq!(times(history.of_partition(1)), [20, 30]);
    }

    #[test]
    fn what_is_recorded_is_found_with_time_and_subject() {
        record_partition(PartitionId::new(2), HistoryKind::Crashed, 1, [3, 4]);
        record_machine(HistoryKind::DiskBroken, 5, [0, 0]);
        record_partition(PartitionId::new(1000), HistoryKind::Crashed, 2, [0, 0]);
        let latest = of_partition(PartitionId::new(2));
        let found: Vec<_> = latest.iter().map(|entry| (entry.of, entry.code)).collect();
        let machine = HistorySubject::Machine;
        assert_eq!(found.len(), 3);
        for expected in [(HistorySubject::Partition(2), 1), (machine, 5), (machine, 2)] {
            assert!(found.contains(&expected), "{found:?}");
        }
        assert_eq!(of_partition(PartitionId::new(3)).iter().len(), 2, "the machine's");
    }
}
