//! Outcome of a fault, for each state of the page.

use super::*;
use crate::addr::Gpa;
use crate::block::DiskError;
use crate::paging::{PageLossError, PagerNotice};

/// A machine with one object of 256 pages, the first of which have been written out.
fn paged() -> (Rig, Arc<MemoryObject>) {
    let mut rig = RigParameters::default().start();
    let object = rig.object(256, 0);
    rig.fill(&object, 0..256);
    assert!(rig.absent(&object) > 100);
    (rig, object)
}

fn first_paged(rig: &Rig, object: &MemoryObject) -> u32 {
    (0..256).find(|&n| matches!(rig.leaf(object, n), LeafState::Paged(_))).unwrap()
}

#[test]
fn an_untouched_page_is_zeroed_memory_at_once() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(16, 0);
    assert_eq!(rig.fault(&object, 3), AccessOutcome::Resolved);
    assert_eq!(rig.read(&object, 3), 0);
    assert_eq!((rig.pager.counters().demand_zero, rig.disk.inner().reads), (1, 0));
}

#[test]
fn an_address_outside_ram_is_no_ram() {
    let rig = RigParameters::default().start();
    let object = rig.object(16, 0);
    assert_eq!(
        rig.pager.fault(&object, Gpa::new(16 << 12), PageAccess::Read, Ns::ZERO),
        AccessOutcome::NotRam
    );
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
    rig.set_pace(DiskPace::Held);
    let index = first_paged(&rig, &object);
    let reads = rig.disk.inner().reads;
    let AccessOutcome::Wait(first) = rig.fault(&object, index) else { panic!() };
    let AccessOutcome::Wait(second) = rig.fault(&object, index) else { panic!() };
    assert_eq!((rig.disk.inner().reads, rig.pager.counters().joined_waits), (reads + 1, 1));
    assert!(!object.ready(first) && !object.ready(second));
    rig.set_pace(DiskPace::Prompt);
    rig.poll();
    assert!(object.ready(first) && object.ready(second));
    assert_eq!(rig.fault(&object, index), AccessOutcome::Resolved);
}

/// A machine with plenty of free frames again, and a window of 16 paged pages.
fn plentiful() -> (Rig, Arc<MemoryObject>, u32) {
    let mut rig = RigParameters { frames: 512, ..RigParameters::default() }.start();
    let object = rig.object(400, 0);
    rig.fill(&object, 0..400);
    let hog = rig.object(500, 400);
    rig.fill(&hog, 0..500);
    rig.pager.detach(hog.id()).unwrap();
    let (mut ticket, _) = hog.begin_teardown(rig.words, ME);
    let passed = ticket.poll(rig.words).unwrap();
    while hog.teardown_step(&passed, 512) == crate::mm::object::TeardownProgress::More {}
    let paged = |n: u32| matches!(rig.leaf(&object, n), LeafState::Paged(_));
    let window = (1..24).map(|n| n * 16).find(|&first| (first - 1..first + 17).all(paged)).unwrap();
    (rig, object, window)
}

#[test]
fn neighbours_come_along_as_far_as_the_credit_goes() {
    let (mut rig, object, window) = plentiful();
    let before = rig.disk.inner().reads;
    rig.read(&object, window + 5);
    assert_eq!(rig.disk.inner().reads, before + 1);
    let along = rig.pager.counters().read_around as u32;
    assert!((3..16).contains(&along), "a new object has a little credit: {along}");
    for n in window + 5..=window + 5 + along {
        let LeafState::Present(mapping) = rig.leaf(&object, n) else {
            panic!("one request has brought {n}")
        };
        assert_eq!(
            mapping.accessed,
            n == window + 5,
            "only the page that was asked for starts as referenced"
        );
    }
    for outside in [window + 4, window + 6 + along] {
        assert!(matches!(rig.leaf(&object, outside), LeafState::Paged(_)));
    }
}

/// Spends the credit of a new object.
fn without_credit() -> (Rig, Arc<MemoryObject>, u32) {
    let (mut rig, object, window) = plentiful();
    let far = |n: u32| n + 64 < window || n > window + 64;
    let paged: Vec<_> = (0..400).filter(|&n| n % 40 == 0 && far(n)).collect();
    for index in paged {
        if matches!(rig.leaf(&object, index), LeafState::Paged(_)) {
            rig.read(&object, index);
        }
    }
    (rig, object, window)
}

#[test]
fn a_walk_brings_the_rest_of_its_window_in_one_request() {
    let (mut rig, object, window) = without_credit();
    rig.read(&object, window);
    assert!(
        matches!(rig.leaf(&object, window + 1), LeafState::Paged(_)),
        "nothing says that it is a walk"
    );
    let before = rig.disk.inner().reads;
    (window + 1..window + 16).for_each(|n| assert_eq!(rig.read(&object, n), u64::from(n) + 1));
    assert_eq!(rig.disk.inner().reads, before + 1);
    for outside in [window - 1, window + 16] {
        assert!(matches!(rig.leaf(&object, outside), LeafState::Paged(_)));
    }
}

#[test]
fn a_failed_read_ahead_loses_no_page() {
    let mut rig = RigParameters { frames: 4096, blocks: 6144, ..RigParameters::default() }.start();
    let object = rig.object(6144, 0);
    rig.fill(&object, 0..6144);
    let mut failed = 0;
    for index in 0..6144 {
        if matches!(rig.leaf(&object, index), LeafState::Paged(_)) {
            let _ = rig.fault_for(&object, index, PageAccess::Read);
            failed += rig.disk.fail_reads_behind_the_first();
        }
        assert_eq!(rig.read(&object, index), u64::from(index) + 1);
    }
    assert!(failed > 20, "{failed} reads ahead have failed");
    assert_eq!(rig.pager.counters().read_errors, failed as u64);
    assert_eq!((rig.pager.counters().lost_pages, rig.pager.take_notice()), (0, None));
    rig.settle();
    rig.check_frames(&[&object]);
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
    rig.set_pace(DiskPace::Prompt);
    let AccessOutcome::Wait(ticket) = rig.fault(&object, index) else { panic!() };
    while !object.ready(ticket) {
        rig.poll();
    }
    let LeafState::Present(mapping) = rig.leaf(&object, index) else { panic!() };
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
    let AccessOutcome::Wait(ticket) = rig.fault(&object, index) else { panic!() };
    while !object.ready(ticket) || rig.disk.in_flight() > 0 {
        rig.poll();
    }
    assert_eq!(rig.fault(&object, index), AccessOutcome::Lost(PageLossError::Io(DiskError::Io)));
    assert_eq!(rig.pager.counters().lost_pages, 1);
    let lost = PagerNotice::PageLost {
        object: object.id(),
        index: PageIndex(index),
        loss: PageLossError::Io(DiskError::Io),
    };
    assert_eq!(rig.pager.take_notice(), Some(lost));
    assert!(matches!(rig.leaf(&object, index), LeafState::Paged(_)), "the evidence stays");
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
            AccessOutcome::Wait(_) => rig.poll(),
            other => break other,
        }
    };
    assert_eq!(lost, AccessOutcome::Lost(PageLossError::Checksum));
    assert_eq!(rig.read(&object, index + 1), u64::from(index) + 2);
    assert_eq!(rig.pager.counters().lost_pages, 1);
}

#[test]
fn a_wrong_neighbour_costs_only_itself() {
    let (mut rig, object, window) = plentiful();
    rig.disk.inner().blocks[window as usize + 3][0] ^= 0xff;
    assert_eq!(rig.read(&object, window + 1), u64::from(window) + 2);
    assert!(matches!(rig.leaf(&object, window + 3), LeafState::Paged(_)));
    assert!(matches!(rig.leaf(&object, window + 4), LeafState::Present(_)));
    assert_eq!((rig.pager.counters().checksum_errors, rig.pager.counters().lost_pages), (1, 0));
    rig.settle();
    rig.check_frames(&[&object]);
}

#[test]
fn a_fault_without_a_frame_waits_and_is_woken_by_reclaim() {
    let mut rig = RigParameters { frames: 32, ..RigParameters::default() }.start();
    let object = rig.object(64, 0);
    let mut index = 0;
    let ticket = loop {
        match rig.fault(&object, index) {
            AccessOutcome::Resolved => {
                let _ = object.existing(PageIndex(index)).unwrap().touch(PageAccess::Write);
                index += 1;
            }
            AccessOutcome::Wait(ticket) => break ticket,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((index, rig.frames.free_count()), (32, 0));
    assert!(!object.ready(ticket));
    rig.settle();
    assert!(object.ready(ticket));
    assert_eq!(rig.fault(&object, index), AccessOutcome::Resolved);
}

#[test]
fn a_full_disk_queue_delays_a_page_in_and_loses_nothing() {
    let (mut rig, object) = paged();
    rig.disk.inner().depth = 0;
    let index = first_paged(&rig, &object);
    let AccessOutcome::Wait(ticket) = rig.fault(&object, index) else { panic!() };
    rig.settle();
    assert!(!object.ready(ticket));
    rig.disk.inner().depth = 1;
    assert_eq!(rig.read(&object, index), u64::from(index) + 1);
}

#[test]
fn a_page_that_is_wrong_while_the_lease_is_over_is_read_again_and_not_lost() {
    for is_error in [true, false] {
        let (mut rig, object) = paged();
        let index = first_paged(&rig, &object);
        let AccessOutcome::Wait(_) = rig.fault(&object, index) else { panic!() };
        // The read is in flight when the node stalls. It returns another node's page, or an error.
        rig.disk.inner().suspended = true;
        let right = rig.disk.inner().blocks[index as usize];
        rig.disk.inner().fail_reads = if is_error { 1 } else { 0 };
        if !is_error {
            rig.disk.inner().blocks[index as usize].fill(0x77);
        }
        rig.settle();
        assert!(matches!(rig.leaf(&object, index), LeafState::ComingIn(_)), "still asked for");
        assert_eq!(rig.pager.counters().lost_pages, 0);
        // The disk turns out to be this node's still.
        rig.disk.inner().blocks[index as usize] = right;
        rig.disk.inner().suspended = false;
        assert_eq!(rig.read(&object, index), u64::from(index) + 1);
        assert_eq!(rig.pager.counters().lost_pages, 0);
    }
}

#[test]
fn a_page_that_is_wrong_when_the_lease_has_been_confirmed_is_lost() {
    let (mut rig, object) = paged();
    let index = first_paged(&rig, &object);
    let AccessOutcome::Wait(_) = rig.fault(&object, index) else { panic!() };
    rig.disk.inner().suspended = true;
    rig.disk.inner().blocks[index as usize].fill(0x77);
    rig.settle();
    rig.disk.inner().suspended = false;
    rig.settle();
    assert_eq!(rig.fault(&object, index), AccessOutcome::Lost(PageLossError::Checksum));
}

#[test]
fn memory_that_is_to_go_waits_for_no_lease() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(64, 0);
    (0..64).for_each(|n| rig.write(&object, n, 3));
    rig.disk.inner().suspended = true;
    rig.pager.ask_evict(object.id(), 64);
    (0..20).for_each(|_| rig.poll());
    let leaving =
        (0..64).filter(|&n| matches!(rig.leaf(&object, n), LeafState::GoingOut(_))).count();
    assert!(leaving > 0, "pages wait for the lease");
    assert_eq!(rig.pager.detach(object.id()), Err(crate::paging::AttachError::Busy));
    (0..20).for_each(|_| rig.poll());
    assert_eq!(rig.pager.detach(object.id()), Ok(()));
}

#[test]
fn a_dead_disk_loses_pages_instead_of_hanging() {
    let (mut rig, object) = paged();
    rig.disk.inner().dead = true;
    let index = first_paged(&rig, &object);
    let AccessOutcome::Wait(ticket) = rig.fault(&object, index) else { panic!() };
    assert!(object.ready(ticket));
    assert_eq!(rig.fault(&object, index), AccessOutcome::Lost(PageLossError::Io(DiskError::Dead)));
    rig.poll();
}

#[test]
fn a_lost_page_is_told_as_such_though_no_frame_is_free() {
    let (mut rig, object) = paged();
    rig.disk.inner().dead = true;
    let index = first_paged(&rig, &object);
    assert!(matches!(rig.fault(&object, index), AccessOutcome::Wait(_)));
    rig.poll();
    let hog = rig.bare_object(256);
    rig.pager.attach(hog.clone(), None).unwrap();
    let full = (0..256).any(|n| matches!(rig.fault(&hog, n), AccessOutcome::Wait(_)));
    assert!(full, "frames are left");
    assert_eq!(rig.fault(&object, index), AccessOutcome::Lost(PageLossError::Io(DiskError::Dead)));
}

#[test]
fn memory_that_cannot_leave_ends_in_a_reason_instead_of_a_hang() {
    let mut rig = RigParameters { frames: 32, ..RigParameters::default() }.start();
    let object = rig.bare_object(64);
    rig.pager.attach(object.clone(), None).unwrap();
    (0..32).for_each(|n| rig.write(&object, n, 7));
    let lost = loop {
        match rig.fault(&object, 40) {
            AccessOutcome::Wait(_) => rig.poll(),
            other => break other,
        }
        assert!(rig.now < 10_000 * MS);
    };
    assert_eq!(lost, AccessOutcome::Lost(PageLossError::NoFrames));
}

#[test]
fn promised_frames_go_to_nobody_else() {
    let rig = RigParameters { frames: 16, ..RigParameters::default() }.start();
    let (crashed, neighbour) = (rig.object(16, 0), rig.object(16, 16));
    rig.pager.credit(crashed.id(), 10);
    (0..6).for_each(|n| assert_eq!(rig.fault(&neighbour, n), AccessOutcome::Resolved));
    assert!(matches!(rig.fault(&neighbour, 6), AccessOutcome::Wait(_)));
    (0..10).for_each(|n| assert_eq!(rig.fault(&crashed, n), AccessOutcome::Resolved));
    rig.pager.end_credit(crashed.id());
}
