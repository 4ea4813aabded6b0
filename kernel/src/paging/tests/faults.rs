//! What a fault leads to, state by state.

use super::*;
use crate::addr::Gpa;
use crate::block::DiskError;
use crate::paging::{Loss, Notice};

/// A machine with one object of 256 pages, of which the first have been written out.
fn paged() -> (Rig, Arc<MemoryObject>) {
    let mut rig = Machine::default().start();
    let object = rig.object(256, 0);
    rig.fill(&object, 0..256);
    assert!(rig.absent(&object) > 100);
    (rig, object)
}

fn first_paged(rig: &Rig, object: &MemoryObject) -> u32 {
    (0..256).find(|&n| matches!(rig.leaf(object, n), Leaf::Paged(_))).unwrap()
}

#[test]
fn an_untouched_page_is_zeroed_memory_at_once() {
    let mut rig = Machine::default().start();
    let object = rig.object(16, 0);
    assert_eq!(rig.fault(&object, 3), Fault::Resolved);
    assert_eq!(rig.read(&object, 3), 0);
    assert_eq!((rig.pager.counters().demand_zero, rig.disk.inner().reads), (1, 0));
}

#[test]
fn an_address_outside_ram_is_no_ram() {
    let rig = Machine::default().start();
    let object = rig.object(16, 0);
    assert_eq!(rig.pager.fault(&object, Gpa::new(16 << 12), Access::Read, 0), Fault::NotRam);
}

#[test]
fn a_paged_page_comes_back_as_it_was() {
    let (mut rig, object) = paged();
    for index in 0..256 {
        assert_eq!(rig.read(&object, index), u64::from(index) + 1);
    }
    assert!(rig.pager.counters().page_ins > 0);
    rig.settle();
    rig.check_frames(&[&object]);
}

#[test]
fn a_second_faulter_joins_the_transfer() {
    let (mut rig, object) = paged();
    rig.set_pace(Pace::Held);
    let index = first_paged(&rig, &object);
    let reads = rig.disk.inner().reads;
    let Fault::Wait(first) = rig.fault(&object, index) else { panic!() };
    let Fault::Wait(second) = rig.fault(&object, index) else { panic!() };
    assert_eq!((rig.disk.inner().reads, rig.pager.counters().joined_waits), (reads + 1, 1));
    assert!(!object.ready(first) && !object.ready(second));
    rig.set_pace(Pace::Prompt);
    rig.poll();
    assert!(object.ready(first) && object.ready(second));
    assert_eq!(rig.fault(&object, index), Fault::Resolved);
}

/// A machine whose frames are plentiful again, and a window of 16 pages that are all paged.
fn plentiful() -> (Rig, Arc<MemoryObject>, u32) {
    let mut rig = Machine { frames: 512, ..Machine::default() }.start();
    let object = rig.object(400, 0);
    rig.fill(&object, 0..400);
    let hog = rig.object(500, 400);
    rig.fill(&hog, 0..500);
    rig.pager.detach(hog.id()).unwrap();
    let (mut ticket, _) = hog.begin_teardown(rig.words, ME);
    let passed = ticket.poll(rig.words).unwrap();
    while hog.teardown_step(&passed, 512) == crate::mm::object::Progress::More {}
    let paged = |n: u32| matches!(rig.leaf(&object, n), Leaf::Paged(_));
    let window = (1..24).map(|n| n * 16).find(|&first| (first - 1..first + 17).all(paged)).unwrap();
    (rig, object, window)
}

#[test]
fn neighbours_come_along_while_frames_are_plentiful() {
    let (mut rig, object, window) = plentiful();
    let before = rig.disk.inner().reads;
    rig.read(&object, window + 5);
    assert_eq!(rig.disk.inner().reads, before + 1);
    for n in window..window + 16 {
        let Leaf::Present(mapping) = rig.leaf(&object, n) else { panic!("one request has brought the whole window") };
        assert_eq!(mapping.accessed, n == window + 5, "only the page that was asked for starts as referenced");
    }
    for outside in [window - 1, window + 16] {
        assert!(matches!(rig.leaf(&object, outside), Leaf::Paged(_)));
    }
    (window..window + 16).for_each(|n| assert_eq!(rig.read(&object, n), u64::from(n) + 1));
    assert_eq!(rig.disk.inner().reads, before + 1);
}

#[test]
fn no_neighbour_comes_along_while_frames_are_scarce() {
    let (mut rig, object) = paged();
    assert!(!rig.pager.watermarks().is_plenty(rig.frames.free_count()));
    let index = first_paged(&rig, &object);
    rig.read(&object, index);
    assert_eq!(rig.pager.counters().read_around, 0);
}

#[test]
fn a_restored_page_starts_as_referenced_and_a_neighbour_does_not() {
    let (mut rig, object) = paged();
    let index = first_paged(&rig, &object);
    rig.set_pace(Pace::Prompt);
    let Fault::Wait(ticket) = rig.fault(&object, index) else { panic!() };
    while !object.ready(ticket) {
        rig.poll();
    }
    let Leaf::Present(mapping) = rig.leaf(&object, index) else { panic!() };
    assert!(mapping.accessed && mapping.has_block && !mapping.dirty);
}

#[test]
fn a_read_error_is_tried_again_once() {
    let (mut rig, object) = paged();
    let index = first_paged(&rig, &object);
    rig.disk.inner().fail_reads = 1;
    assert_eq!(rig.read(&object, index), u64::from(index) + 1);
    assert_eq!((rig.pager.counters().read_errors, rig.pager.counters().lost_pages), (1, 0));
}

#[test]
fn a_page_that_cannot_be_read_is_lost_and_never_zero() {
    let (mut rig, object) = paged();
    let index = first_paged(&rig, &object);
    rig.disk.inner().fail_reads = 2;
    let Fault::Wait(ticket) = rig.fault(&object, index) else { panic!() };
    while !object.ready(ticket) || rig.disk.in_flight() > 0 {
        rig.poll();
    }
    assert_eq!(rig.fault(&object, index), Fault::Lost(Loss::Io(DiskError::Io)));
    assert_eq!(rig.pager.counters().lost_pages, 1);
    let lost = Notice::PageLost { object: object.id(), index: PageIndex(index), loss: Loss::Io(DiskError::Io) };
    assert_eq!(rig.pager.take_notice(), Some(lost));
    assert!(matches!(rig.leaf(&object, index), Leaf::Paged(_)), "the evidence stays");
    rig.settle();
    rig.check_frames(&[&object]);
}

#[test]
fn a_block_that_has_changed_is_lost_and_its_neighbours_are_not() {
    let (mut rig, object) = paged();
    let index = first_paged(&rig, &object);
    rig.disk.inner().blocks[index as usize][100] ^= 1;
    let lost = loop {
        match rig.fault(&object, index) {
            Fault::Wait(_) => rig.poll(),
            other => break other,
        }
    };
    assert_eq!(lost, Fault::Lost(Loss::Checksum));
    assert_eq!(rig.read(&object, index + 1), u64::from(index) + 2);
    assert_eq!(rig.pager.counters().lost_pages, 1);
}

#[test]
fn a_wrong_neighbour_costs_only_itself() {
    let (mut rig, object, window) = plentiful();
    rig.disk.inner().blocks[window as usize + 3][0] ^= 0xff;
    assert_eq!(rig.read(&object, window + 8), u64::from(window) + 9);
    assert!(matches!(rig.leaf(&object, window + 3), Leaf::Paged(_)));
    assert!(matches!(rig.leaf(&object, window + 4), Leaf::Present(_)));
    assert_eq!((rig.pager.counters().checksum_errors, rig.pager.counters().lost_pages), (1, 0));
    rig.settle();
    rig.check_frames(&[&object]);
}

#[test]
fn a_fault_without_a_frame_waits_and_is_woken_by_reclaim() {
    let mut rig = Machine { frames: 32, ..Machine::default() }.start();
    let object = rig.object(64, 0);
    let mut index = 0;
    let ticket = loop {
        match rig.fault(&object, index) {
            Fault::Resolved => {
                let _ = object.existing(PageIndex(index)).unwrap().touch(Access::Write);
                index += 1;
            }
            Fault::Wait(ticket) => break ticket,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((index, rig.frames.free_count()), (32, 0));
    assert!(!object.ready(ticket));
    rig.settle();
    assert!(object.ready(ticket));
    assert_eq!(rig.fault(&object, index), Fault::Resolved);
}

#[test]
fn a_full_disk_queue_delays_a_page_in_and_loses_nothing() {
    let (mut rig, object) = paged();
    rig.disk.inner().depth = 0;
    let index = first_paged(&rig, &object);
    let Fault::Wait(ticket) = rig.fault(&object, index) else { panic!() };
    rig.settle();
    assert!(!object.ready(ticket));
    rig.disk.inner().depth = 1;
    assert_eq!(rig.read(&object, index), u64::from(index) + 1);
}

#[test]
fn a_dead_disk_loses_pages_instead_of_hanging() {
    let (mut rig, object) = paged();
    rig.disk.inner().dead = true;
    let index = first_paged(&rig, &object);
    let Fault::Wait(ticket) = rig.fault(&object, index) else { panic!() };
    assert!(object.ready(ticket));
    assert_eq!(rig.fault(&object, index), Fault::Lost(Loss::Io(DiskError::Dead)));
    rig.poll();
}

#[test]
fn a_lost_page_is_told_as_such_though_no_frame_is_free() {
    let (mut rig, object) = paged();
    rig.disk.inner().dead = true;
    let index = first_paged(&rig, &object);
    assert!(matches!(rig.fault(&object, index), Fault::Wait(_)));
    rig.poll();
    let hog = rig.bare_object(256);
    rig.pager.attach(hog.clone(), None).unwrap();
    let full = (0..256).any(|n| matches!(rig.fault(&hog, n), Fault::Wait(_)));
    assert!(full, "frames are left");
    assert_eq!(rig.fault(&object, index), Fault::Lost(Loss::Io(DiskError::Dead)));
}

#[test]
fn memory_that_cannot_leave_ends_in_a_reason_instead_of_a_hang() {
    let mut rig = Machine { frames: 32, ..Machine::default() }.start();
    let object = rig.bare_object(64);
    rig.pager.attach(object.clone(), None).unwrap();
    (0..32).for_each(|n| rig.write(&object, n, 7));
    let lost = loop {
        match rig.fault(&object, 40) {
            Fault::Wait(_) => rig.poll(),
            other => break other,
        }
        assert!(rig.now < 10_000 * MS);
    };
    assert_eq!(lost, Fault::Lost(Loss::NoFrames));
}

#[test]
fn promised_frames_go_to_nobody_else() {
    let rig = Machine { frames: 16, ..Machine::default() }.start();
    let (crashed, neighbour) = (rig.object(16, 0), rig.object(16, 16));
    rig.pager.credit(crashed.id(), 10);
    (0..6).for_each(|n| assert_eq!(rig.fault(&neighbour, n), Fault::Resolved));
    assert!(matches!(rig.fault(&neighbour, 6), Fault::Wait(_)));
    (0..10).for_each(|n| assert_eq!(rig.fault(&crashed, n), Fault::Resolved));
    rig.pager.end_credit(crashed.id());
}
