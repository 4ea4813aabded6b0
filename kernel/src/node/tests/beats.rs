//! Claims and beats during work on a space: the node does not mistake its own writes for another
//! node's, and writes to no space it does not own.

use super::bounds;
use super::disk::{FaultKind, FaultPlan, SimDisk};
use super::guest::SimGuest;
use super::machine::{SimMachine, SimRam};
use crate::arch::time;
use crate::block::request::SECTOR_SIZE;
use crate::mm::layout::RamLayout;
use crate::space::claim::{ClaimSectors, PAGE_LEN, SpaceClaim};
use crate::storage::spaces::sleep;
use crate::time::Ns;

/// How long a record is changed repeatedly: several beats.
const SPELL_NS: Ns = Ns::from_secs(3);

#[test]
fn a_record_that_is_written_while_a_beat_reads_is_not_taken_for_a_strangers() {
    for seed in 1..4 {
        let ram = SimRam::new(16);
        let disk: &'static SimDisk =
            Box::leak(Box::new(SimDisk::new(0, super::cycle::DISK_BYTES, ram.map(), seed)));
        let mut machine = SimMachine::new(&ram, vec![disk], seed);
        let spaces = machine.node.host.spaces;
        machine.block_on("open", 60, spaces.open());
        spaces.resume();
        let ram = RamLayout::new(16 << 12).expect("some pages");
        let space = spaces.acquire("p", &ram, 1).expect("a free space");
        machine.until("a space", 60, |_| spaces.is_ready(space)).expect("a sound disk");
        disk.state().reads_are_late = true;
        machine.block_on("changes", 600, async {
            let end_ns = time::now_ns() + SPELL_NS;
            while time::now_ns() < end_ns {
                spaces.change_now(space, |_| ()).await.expect("a sound disk");
                sleep(Ns::from_ms(1)).await;
            }
        });
        let trouble: Vec<_> =
            machine.told.iter().filter(|event| event.starts_with("Error")).collect();
        assert!(trouble.is_empty(), "seed {seed}: {trouble:?}");
    }
}

/// Returns where the claims on a space of so many bytes begin.
fn claims_start(space_bytes: usize) -> usize {
    SpaceClaim::start(space_bytes as u64).expect("room for a claim") as usize
}

fn claims_at(disk: &SimDisk, start: usize) -> ClaimSectors {
    ClaimSectors::decode(disk.state().content[start..][..PAGE_LEN].try_into().expect("a page"))
}

/// Returns the claims on a disk that is a single space.
fn claims(disk: &SimDisk) -> ClaimSectors {
    let bytes = disk.state().content.len();
    claims_at(disk, claims_start(bytes))
}

/// Opens a blank disk that fails every request from its n-th on; returns the machine, and the
/// number of requests made by the start.
fn open(fault: Option<u64>) -> (SimMachine, u64) {
    let ram = SimRam::new(400);
    let disk: &'static SimDisk =
        Box::leak(Box::new(SimDisk::new(0, super::cycle::DISK_BYTES, ram.map(), 1)));
    let mut machine = SimMachine::new(&ram, vec![disk], 1);
    let before = disk.state().requests;
    disk.state().fault =
        fault.map(|at| FaultPlan { request: before + at, kind: FaultKind::ErrorForGood });
    let spaces = machine.node.host.spaces;
    machine.block_on("open", 60, spaces.open());
    spaces.resume();
    let requests = disk.state().requests - before;
    (machine, requests)
}

/// The disk accepts requests again some time later. The space is then claimed before anything else
/// is written to it.
#[test]
fn a_space_that_could_not_be_claimed_at_the_start_is_claimed_later() {
    let (_, requests) = open(None);
    let stride = if super::is_long() { 1 } else { 9 };
    for at in (0..requests).step_by(stride) {
        let (mut machine, _) = open(Some(at));
        let disk = machine.disks[0];
        disk.state().fault = None;
        let mut guest = SimGuest::new("p", 0, 1);
        machine.until(&format!("a start, request {at}"), 120, |machine| {
            guest.start(machine).then_some(())
        });
        assert!(claims(disk).owner().is_some(), "request {at}: {:#?}", machine.told);
    }
}

#[test]
fn a_claim_that_cannot_be_released_keeps_no_other() {
    let (content, first) = bounds::with_table();
    let mut machine = bounds::machine_with(content, 1);
    let (disk, spaces) = (machine.disks[0], machine.node.host.spaces);
    let claims_of_first =
        (first.first * SECTOR_SIZE) as usize + claims_start(super::cycle::DISK_BYTES);
    // Spaces are aligned to 1 MiB.
    let claims_of_second = claims_of_first + super::cycle::DISK_BYTES.next_multiple_of(1 << 20);
    let owners = || {
        [claims_of_first, claims_of_second].map(|start| claims_at(disk, start).owner().is_some())
    };
    assert_eq!(owners(), [true, true]);
    disk.state().bad_bytes = claims_of_first..claims_of_first + PAGE_LEN;
    machine.block_on("leaving", 60, spaces.give_up_claims());
    assert_eq!(owners(), [true, false]);
}
