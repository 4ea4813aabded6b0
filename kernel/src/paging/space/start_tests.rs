//! Devices as a start finds them.

use core::cell::Cell;

use super::super::codec::tests::sample;
use super::super::live::tests::{CAPACITY, TestDisk, bytes_of, disk, on_medium, put};
use super::super::state::SpaceState;
use super::*;
use crate::block::Disk;
use crate::block::dma::fake::region;
use crate::mm::layout::RamLayout;
use crate::paging::space::record::Contents;

fn with<T>(disk: &TestDisk, test: impl FnOnce(&Device<'_, &dyn Fn() -> u64>) -> T) -> T {
    let (time, page) = (Cell::new(0u64), region(1));
    let clock = || {
        time.set(time.get() + 1);
        time.get()
    };
    test(&Device::new(Blocking::new(disk, &clock as &dyn Fn() -> u64, 1000), &disk.info(), &page))
}

fn name() -> Uuid {
    Uuid::from_entropy(7, 7)
}

fn open(disk: &TestDisk) -> Opened {
    with(disk, |device| device.open(name()).unwrap())
}

/// A record in this state that fits the disk.
fn record(state: SpaceState) -> Record {
    let contents = Contents::new(CAPACITY, &RamLayout::new(64 << 12).unwrap()).ok();
    Record { capacity: CAPACITY, contents, drain: Default::default(), state, ..sample() }
}

fn with_record(state: SpaceState) -> &'static TestDisk {
    let disk = disk(0, CAPACITY, true);
    let record = record(state);
    put(disk, Side::of(record.sequence).start(CAPACITY).unwrap(), &record.encode());
    disk
}

#[test]
fn a_blank_device_becomes_a_space_and_stays_one() {
    let disk = disk(0, CAPACITY, true);
    let Opened::Space { record, recovery } = open(disk) else { panic!("not taken") };
    assert_eq!((record.state, record.residue, recovery), (SpaceState::Free, Residue::Clean, Recovery::Format));
    assert_eq!(on_medium(disk), record);
    assert_eq!(open(disk), Opened::Space { record, recovery: Recovery::Use });
}

#[test]
fn foreign_and_damaged_devices_are_not_written() {
    let foreign = disk(0, CAPACITY, true);
    put(foreign, 0x438, b"\x53\xef");
    let damaged = with_record(SpaceState::Complete);
    put(damaged, CAPACITY - 4096 + 100, &[0xee]);
    for disk in [foreign, damaged] {
        let before = bytes_of(disk, 0, CAPACITY as usize);
        assert!(matches!(open(disk), Opened::Unusable(_)));
        assert_eq!(disk.counters().requests.write + disk.counters().requests.write_zeroes, 0);
        assert_eq!(bytes_of(disk, 0, CAPACITY as usize), before);
    }
}

#[test]
fn an_explicit_format_takes_even_a_dump_with_a_high_sequence() {
    let disk = with_record(SpaceState::Complete);
    let made = with(disk, |device| device.format(name(), Residue::Stale)).unwrap();
    assert_eq!(on_medium(disk), made);
    assert_eq!((made.space, made.residue), (name(), Residue::Stale));
}

#[test]
fn a_space_whose_owner_is_gone_is_free_on_the_medium() {
    let disk = with_record(SpaceState::Active);
    let Opened::Space { record, .. } = open(disk) else { panic!("not taken") };
    assert_eq!((record.state, record.residue), (SpaceState::Free, Residue::Stale));
    assert_eq!(on_medium(disk), record);
}

#[test]
fn dumps_and_scrubs_are_found_as_they_were_left() {
    for (state, expected) in [
        (SpaceState::Complete, Recovery::Keep),
        (SpaceState::Partial, Recovery::Keep),
        (SpaceState::Draining, Recovery::Finish),
        (SpaceState::Releasing, Recovery::Scrub),
    ] {
        let disk = with_record(state);
        assert_eq!(open(disk), Opened::Space { record: record(state), recovery: expected });
        assert_eq!(disk.counters().requests.write, 0);
    }
}

#[test]
fn a_device_too_small_for_records_is_foreign() {
    assert_eq!(open(disk(0, 4096, true)), Opened::Unusable(Class::Foreign(Foreign::TooSmall)));
}

#[test]
fn errors_of_the_device_come_through() {
    use crate::block::DiskError;
    use crate::block::fault::{Effect, Rule};
    let disk = disk(0, CAPACITY, true);
    disk.inject(Rule { operation: None, sectors: None, effect: Effect::Fail(DiskError::Io), times: 1 });
    assert_eq!(with(disk, |device| device.open(name())), Err(BlockingError::Failed(DiskError::Io)));
}
