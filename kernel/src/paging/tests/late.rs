//! Requests that time out, and late completions.

use super::*;
use crate::mm::object::TeardownProgress;
use crate::paging::{AttachError, PageLossError};

/// Returns a machine whose object has written all its pages; some are in flight to a silent disk.
fn going_out() -> (Rig, Arc<MemoryObject>, Vec<u32>) {
    let mut rig = RigParameters { frames: 256, ..RigParameters::default() }.start();
    let object = rig.object(64, 0);
    for index in 0..40 {
        rig.write(&object, index, u64::from(index) + 1);
    }
    rig.set_pace(DiskPace::Held);
    rig.pager.ask_evict(object.id(), 16);
    (0..20).for_each(|_| rig.poll());
    let out: Vec<_> = (0..40)
        .filter(|&index| matches!(rig.leaf(&object, index), LeafState::GoingOut(_)))
        .collect();
    assert!(!out.is_empty(), "pages are on their way");
    (rig, object, out)
}

fn frame_of(rig: &Rig, object: &MemoryObject, index: u32) -> Hfn {
    match rig.leaf(object, index) {
        LeafState::Present(mapping) => mapping.hfn,
        other => panic!("page {index} is {other:?}"),
    }
}

#[test]
fn a_write_without_an_answer_leaves_its_pages_mapped_and_pinned_until_the_answer_comes() {
    let (mut rig, object, out) = going_out();
    rig.disk.write_off();
    rig.poll();
    for &index in &out {
        assert_eq!(
            rig.frames.pins(frame_of(&rig, &object, index)),
            1,
            "the disk may still read page {index}"
        );
    }
    rig.pager.ask_evict(object.id(), 64);
    rig.settle();
    let frames: Vec<_> = out.iter().map(|&index| frame_of(&rig, &object, index)).collect();
    assert!(rig.pager.is_held_by_disk(object.id()));
    rig.disk.come_back();
    rig.poll();
    assert!(
        frames.iter().all(|&hfn| rig.frames.pins(hfn) == 0)
            && !rig.pager.is_held_by_disk(object.id())
    );
    // The disk is used again, and holds the last written content.
    rig.pager.ask_evict(object.id(), 64);
    rig.settle();
    assert!(matches!(rig.leaf(&object, out[0]), LeafState::Paged(_)));
    out.iter().for_each(|&index| assert_eq!(rig.read(&object, index), u64::from(index) + 1));
    rig.settle();
    rig.check_frames(&[&object]);
}

#[test]
fn a_page_that_was_rescued_from_a_late_write_is_pinned_too() {
    let (mut rig, object, out) = going_out();
    rig.write(&object, out[0], 77);
    rig.disk.write_off();
    rig.poll();
    assert_eq!(rig.frames.pins(frame_of(&rig, &object, out[0])), 1);
    rig.disk.come_back();
    rig.settle();
    rig.pager.ask_evict(object.id(), 64);
    rig.settle();
    assert_eq!(rig.read(&object, out[0]), 77);
}

#[test]
fn the_frames_of_a_read_without_an_answer_stay_out_of_use_until_it_comes() {
    let mut rig = RigParameters { frames: 64, ..RigParameters::default() }.start();
    let object = rig.object(128, 0);
    rig.fill(&object, 0..100);
    let index =
        (0..100).find(|&index| matches!(rig.leaf(&object, index), LeafState::Paged(_))).unwrap();
    rig.set_pace(DiskPace::Held);
    assert!(matches!(rig.fault(&object, index), AccessOutcome::Wait(_)));
    let free = rig.frames.free_count();
    rig.disk.write_off();
    rig.poll();
    assert!(matches!(rig.leaf(&object, index), LeafState::Paged(_)));
    let resident = object.counts().resident;
    assert!(
        rig.frames.free_count() <= free && rig.frames.free_count() + resident < rig.frames.total()
    );
    assert!(
        matches!(rig.fault(&object, index), AccessOutcome::Lost(PageLossError::Io(_))),
        "nobody waits for a disk that is written off"
    );
    rig.disk.come_back();
    rig.settle();
    rig.check_frames(&[&object]);
    assert_eq!(
        rig.read(&object, index),
        u64::from(index) + 1,
        "the disk is back, and the page with it"
    );
}

#[test]
fn memory_on_a_disk_that_does_not_answer_comes_free_but_for_what_the_disk_has() {
    let (mut rig, object, out) = going_out();
    rig.disk.write_off();
    rig.poll();
    // Pages that are cleaned in place are in flight too.
    let resident: Vec<_> = (0..40).map(|index| frame_of(&rig, &object, index)).collect();
    let pinned = resident.iter().filter(|&&hfn| rig.frames.pins(hfn) == 1).count();
    assert!(pinned >= out.len());
    assert_eq!(rig.pager.detach(object.id()), Ok(()), "no request keeps the object");
    assert_eq!(rig.pager.detach(object.id()), Err(AttachError::Unknown));
    let (mut ticket, _) = object.begin_teardown(rig.words, ME);
    let passed = ticket.poll(rig.words).expect("no CPU is in a guest");
    let step = || object.teardown_step(&passed, 1000);
    assert_eq!(step(), TeardownProgress::Busy);
    assert_eq!(rig.frames.total() - rig.frames.free_count(), pinned as u32, "all others are free");
    assert_eq!(step(), TeardownProgress::Busy);
    rig.disk.come_back();
    let _ = rig.pager.poll(ME, rig.now + MS);
    assert_eq!(
        (0..10).map(|_| step()).find(|progress| *progress != TeardownProgress::Busy),
        Some(TeardownProgress::Done)
    );
    assert_eq!(rig.frames.free_count(), rig.frames.total());
}

#[test]
fn a_full_queue_of_one_disk_keeps_no_fault_of_another_waiting() {
    let mut rig = RigParameters { frames: 64, ..RigParameters::default() }.start();
    let (here, there) = (rig.object(64, 0), rig.object_on(1, 64, 0));
    for object in [&here, &there] {
        (0..20).for_each(|index| rig.write(object, index, 5));
        rig.pager.ask_evict(object.id(), 64);
        rig.settle();
    }
    rig.disk.inner().depth = 0;
    assert!(matches!(rig.fault(&here, 1), AccessOutcome::Wait(_)));
    rig.other_disk.inner().depth = 0;
    assert!(matches!(rig.fault(&there, 1), AccessOutcome::Wait(_)));
    rig.other_disk.inner().depth = 64;
    assert_eq!(rig.read(&there, 1), 5, "it stood in line behind the other");
}

#[test]
fn a_disk_that_does_not_answer_leaves_frames_to_the_objects_of_another() {
    let mut rig = RigParameters { frames: 128, ..RigParameters::default() }.start();
    let (here, there) = (rig.object(128, 0), rig.object_on(1, 128, 0));
    (0..90).for_each(|index| rig.write(&here, index, 1));
    rig.set_pace(DiskPace::Held);
    // More than two rounds: the other object has to give up pages, and does.
    for round in 0..3 {
        for index in 0..120 {
            rig.write(&there, index, round * 1000 + u64::from(index));
        }
    }
    rig.disk.write_off();
    for index in 0..120 {
        assert_eq!(rig.read(&there, index), 2000 + u64::from(index));
    }
}
