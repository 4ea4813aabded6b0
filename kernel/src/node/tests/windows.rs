//! Measures for how long a power cut would lose the crash's record, or the dump. The disk is slow
//! and busy with pages when the crash comes.

use super::cycle::DISK_BYTES;
use super::disk::SimDisk;
use super::guest::{SimGuest, Truth};
use super::machine::{SimMachine, SimRam, number};
use crate::addr::Hpa;
use crate::arch::time::test_clock;
use crate::block::any::{AnyDisk, FoundDisk};
use crate::block::cookie::{CompletionOwner, CookieFields};
use crate::block::{
    Completion, Cookie, Disk, DiskOperation, DiskRequest, DmaSegment, QueueLane, SectorRange,
    SubmitError,
};
use crate::storage::NodeDisk;
use crate::time::Ns;

const SECOND_NS: Ns = Ns::from_secs(1);
/// Longest wait of a new request: for the writes that are already in flight.
const IN_FLIGHT_NS: Ns = Ns::from_ms(500);
/// Time for the turns of the clock that a task's steps take beside the disk's time.
const SLACK_NS: Ns = Ns::from_ms(60);
/// Bytes of one copy of a record.
const RECORD_BYTES: u64 = 4096;

/// Milestones of a dump.
struct DumpWindows {
    crashed_ns: Ns,
    described_ns: Ns,
    metadata_bytes: u64,
}

/// Crashes a guest while its pages are being written to a disk of `speed` bytes per second.
fn crash(speed: u64, seed: u64) -> DumpWindows {
    let ram = SimRam::new(400);
    let disk: &'static SimDisk = Box::leak(Box::new(SimDisk::new(0, DISK_BYTES, ram.map(), seed)));
    let mut machine = SimMachine::new(&ram, vec![disk], seed);
    let spaces = machine.node.host.spaces;
    machine.block_on("open", 60, spaces.open());
    let (mut guest, mut truth) = (SimGuest::new("p", 0, seed), Truth::new());
    machine.until("a start", 60, |machine| guest.start(machine).then_some(()));
    disk.state().speed = Some(speed);
    // By then the limit on writes in flight has adapted to the disk's speed, and nearly all pages
    // are being written.
    for turn in 0..30_000 {
        guest.step(&machine).expect("no page is lost");
        if turn % 6_000 == 5_950 {
            guest.evict(&machine);
        }
        machine.turn();
    }
    let _ = guest.crash(&machine, &mut truth);
    let told = machine.until("the dump", 120, |machine| {
        machine.told.iter().find(|event| event.starts_with("DumpComplete")).cloned()
    });
    let take = |word| number(&told, word).expect(word);
    DumpWindows {
        crashed_ns: Ns::new(take("crashed_ns: ")),
        described_ns: Ns::new(take("described_ns: ")),
        metadata_bytes: take("metadata_bytes: "),
    }
}

#[test]
fn no_page_is_written_before_the_tables_of_a_crash() {
    let (first, count) = (super::seed(), if super::is_long() { 20 } else { 1 });
    for speed in [128 << 10, 256 << 10, 1 << 20] {
        for seed in first..first + count {
            let DumpWindows { crashed_ns, described_ns, metadata_bytes } = crash(speed, seed);
            let bytes_ns = |bytes: u64| bytes * SECOND_NS / speed;
            println!(
                "{speed} bytes/s: CRASHED after {crashed_ns:?}, DRAINING {described_ns:?} later, \
                 {metadata_bytes} bytes"
            );
            let most = IN_FLIGHT_NS + bytes_ns(2 * RECORD_BYTES) + SLACK_NS;
            assert!(
                crashed_ns <= most,
                "seed {seed}, {speed} bytes/s: CRASHED after {crashed_ns:?}, not {most:?}"
            );
            let most = bytes_ns(metadata_bytes) + SLACK_NS;
            assert!(
                described_ns <= most,
                "seed {seed}, {speed} bytes/s: DRAINING {described_ns:?} later, not {most:?}"
            );
        }
    }
}

/// Submits a request of one sector, or a flush.
fn submit(
    disk: &NodeDisk,
    operation: DiskOperation,
    class: CompletionOwner,
    slot: u32,
) -> Result<(), SubmitError> {
    let one = [DmaSegment { base: Hpa::new(0x10_0000), len: 512 }];
    let segments: &[DmaSegment] = if operation == DiskOperation::Flush { &[] } else { &one };
    let (sectors, cookie) =
        (SectorRange { first: 0, count: 1 }, CookieFields { class, detail: 0, slot }.cookie());
    disk.submit(&DiskRequest { operation, sectors, segments, lane: QueueLane::Common, cookie })
}

#[test]
fn a_flush_that_finds_the_queue_full_of_pages_goes_before_the_next_one() {
    let ram = SimRam::new(1);
    let sim: &'static SimDisk = Box::leak(Box::new(SimDisk::new(0, DISK_BYTES, ram.map(), 1)));
    let disk =
        NodeDisk::new(FoundDisk { disk: Box::leak(Box::new(AnyDisk::Host(sim))), base: None });
    test_clock::set(SECOND_NS);
    disk.open_until(Ns::MAX);
    let page = |slot| submit(&disk, DiskOperation::Write, CompletionOwner::WriteOut, slot);
    let flush = || submit(&disk, DiskOperation::Flush, CompletionOwner::Task, 0);
    assert_eq!(
        (0..100).find(|slot| page(*slot).is_err()),
        Some(17),
        "the queue's depth decides here, not the bound"
    );
    assert_eq!(flush(), Err(SubmitError::Full));
    let answered = (0..100)
        .any(|_| disk.poll(SECOND_NS, &mut [Completion { cookie: Cookie(0), result: Ok(()) }]) > 0);
    assert!(answered, "there is room for one");
    assert_eq!((page(20), flush()), (Err(SubmitError::Full), Ok(())));
}

#[test]
fn a_disk_of_a_cluster_is_open_no_longer_than_the_cluster_s_lease() {
    let ram = SimRam::new(1);
    let sim: &'static SimDisk = Box::leak(Box::new(SimDisk::new(0, DISK_BYTES, ram.map(), 1)));
    let disk =
        NodeDisk::new(FoundDisk { disk: Box::leak(Box::new(AnyDisk::Host(sim))), base: None });
    let page = || submit(&disk, DiskOperation::Write, CompletionOwner::WriteOut, 1);
    test_clock::set(SECOND_NS);
    disk.lease_until(SECOND_NS);
    disk.open_until(SECOND_NS + SECOND_NS);
    assert_eq!(page(), Ok(()));
    test_clock::set(SECOND_NS + Ns::new(1));
    assert_eq!(page(), Err(SubmitError::Full), "the claims' lease alone does not open it");
    disk.lease_until(Ns::MAX);
    disk.open_until(SECOND_NS + SECOND_NS);
    assert_eq!(page(), Ok(()));
    disk.end_lease();
    assert_eq!(page(), Err(SubmitError::Full), "a fence closes it at once");
}
