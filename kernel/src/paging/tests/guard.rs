//! An object whose pages cannot be written, beside one whose disk is well.

use super::*;
use crate::block::DiskError;
use crate::paging::{Loss, Notice};

const FRAMES: u32 = 128;
const SECOND: u64 = 1000 * MS;

/// Two equal objects on two disks, which share the pool; the disk of the first takes no writes from now on.
fn one_fails() -> (Rig, Arc<MemoryObject>, Arc<MemoryObject>) {
    let mut rig = Machine { frames: FRAMES, ..Machine::default() }.start();
    let (bad, good) = (rig.object(FRAMES, 0), rig.object_on(1, FRAMES, 0));
    for index in 0..FRAMES {
        rig.write(&bad, index, u64::from(index) + 1);
        rig.write(&good, index, u64::from(index) + 1);
    }
    rig.settle();
    rig.disk.inner().fail_writes = u32::MAX;
    (rig, bad, good)
}

/// Writes a resident page as a guest does, so that it is not zero.
fn fill(rig: &Rig, object: &MemoryObject, index: u32) {
    if let Ok(hfn) = object.page(PageIndex(index)).unwrap().touch(Access::Write) {
        rig.map.copy_in(hfn, 0, &[0x77; 16]);
    }
}

/// Goes over the pages of an object, a fault each, until one waits or is lost; returns the answer.
fn grow(rig: &mut Rig, object: &MemoryObject, from: u32) -> Fault {
    for index in from..object.layout().pages() {
        match rig.fault(object, index) {
            Fault::Resolved => fill(rig, object, index),
            other => return other,
        }
        rig.poll();
    }
    Fault::Resolved
}

#[test]
fn an_object_that_cannot_be_written_gets_its_share_and_no_more() {
    let (mut rig, bad, good) = one_fails();
    // The first write has to fail before anything is known.
    let most = rig.frames.owned_by(bad.id()).max(FRAMES / 2) + 4;
    for round in 0..FRAMES {
        let _ = grow(&mut rig, &bad, round);
        assert_eq!(rig.read(&good, round), u64::from(round) + 1);
        let held = rig.frames.owned_by(bad.id());
        assert!(held <= most, "{held} frames, {most} before");
    }
    let kept = rig.frames.owned_by(good.id());
    assert!(kept >= FRAMES / 3, "the neighbour has {kept}");
}

#[test]
fn after_a_while_at_its_share_it_ends_with_that_reason() {
    let (mut rig, bad, good) = one_fails();
    let (started, mut round) = (rig.now, 0);
    let answer = loop {
        // The neighbour wants frames all the time.
        round += 1;
        assert_eq!(rig.read(&good, round % FRAMES), u64::from(round % FRAMES) + 1);
        match grow(&mut rig, &bad, 0) {
            Fault::Lost(loss) => break loss,
            _ => rig.poll(),
        }
        assert!(rig.now < started + 20 * SECOND, "it waits for ever");
    };
    assert_eq!(answer, Loss::Unwritable(DiskError::Io));
    assert!(rig.now - started >= SECOND, "not at the first failure");
    (0..FRAMES).for_each(|index| assert_eq!(rig.read(&good, index), u64::from(index) + 1));
}

#[test]
fn one_write_that_goes_well_ends_it() {
    let (mut rig, bad, good) = one_fails();
    let _ = grow(&mut rig, &bad, 0);
    rig.settle();
    rig.disk.inner().fail_writes = 0;
    (0..FRAMES).for_each(|index| rig.write(&bad, index, 2));
    (0..FRAMES).for_each(|index| assert_eq!(rig.read(&bad, index), 2));
    (0..FRAMES).for_each(|index| assert_eq!(rig.read(&good, index), u64::from(index) + 1));
}

#[test]
fn without_overcommit_a_bad_disk_takes_nothing_away() {
    let rig = Machine { frames: 2 * FRAMES + 64, ..Machine::default() }.start();
    let (bad, good) = (rig.object(FRAMES, 0), rig.object_on(1, FRAMES, 0));
    let mut rig = rig;
    rig.disk.inner().fail_writes = u32::MAX;
    for object in [&bad, &good] {
        (0..FRAMES).for_each(|index| rig.write(object, index, 3));
    }
    rig.pager.ask_evict(bad.id(), FRAMES);
    (0..4000).for_each(|_| rig.poll());
    (0..FRAMES).for_each(|index| rig.write(&bad, index, 4));
}

#[test]
fn an_object_that_has_more_than_its_share_goes_when_another_starves() {
    let mut rig = Machine { frames: FRAMES, ..Machine::default() }.start();
    let (bad, good) = (rig.object(FRAMES, 0), rig.object_on(1, FRAMES, 0));
    rig.pager.detach(good.id()).unwrap();
    let terms = crate::pool::Terms { account: 1, minimum: 32 };
    let blocks = BlockMap { data_start: 0, pages: FRAMES };
    rig.pager.attach_on(good.clone(), Some(Store { disk: 1, blocks }), terms).unwrap();
    rig.disk.inner().fail_writes = u32::MAX;
    let _ = grow(&mut rig, &bad, 0);
    rig.settle();
    let told =
        |rig: &Rig| core::iter::from_fn(|| rig.pager.take_notice()).any(|notice| matches!(notice, Notice::Unwritable { .. }));
    let starts = rig.now;
    let mut ended = false;
    while rig.now < starts + 10 * SECOND && !ended {
        assert!(!matches!(grow(&mut rig, &good, 0), Fault::Lost(_)), "the neighbour pays for it");
        (0..20).for_each(|_| rig.poll());
        ended = told(&rig);
    }
    assert!(ended, "nobody was told");
}
