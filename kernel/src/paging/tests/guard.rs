//! An object whose pages cannot be written, next to one with a working disk.

use super::*;
use crate::block::DiskError;
use crate::paging::{PageLossError, PagerNotice};
use crate::time::Ns;

const FRAMES: u32 = 128;
const SECOND: Ns = Ns::from_secs(1);

/// Two equal objects on two disks share the pool; the first one's disk rejects writes from now on.
fn one_fails() -> (Rig, Arc<MemoryObject>, Arc<MemoryObject>) {
    let mut rig = RigParameters { frames: FRAMES, ..RigParameters::default() }.start();
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
    if let Ok(hfn) = object.page(PageIndex(index)).unwrap().touch(PageAccess::Write) {
        rig.map.copy_in(hfn, 0, &[0x77; 16]);
    }
}

/// Faults on the pages of an object in order, until a fault waits or is lost; returns the answer.
fn grow(rig: &mut Rig, object: &MemoryObject, from: u32) -> AccessOutcome {
    for index in from..object.layout().pages() {
        match rig.fault(object, index) {
            AccessOutcome::Resolved => fill(rig, object, index),
            other => return other,
        }
        rig.poll();
    }
    AccessOutcome::Resolved
}

#[test]
fn an_object_that_cannot_be_written_gets_its_share_and_no_more() {
    let (mut rig, bad, good) = one_fails();
    // The disk counts as failing only after the first write has failed.
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
        // The other object keeps taking frames.
        round += 1;
        assert_eq!(rig.read(&good, round % FRAMES), u64::from(round % FRAMES) + 1);
        match grow(&mut rig, &bad, 0) {
            AccessOutcome::Lost(loss) => break loss,
            _ => rig.poll(),
        }
        assert!(rig.now < started + 20 * SECOND, "it waits for ever");
    };
    assert_eq!(answer, PageLossError::Unwritable(DiskError::Io));
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
    let rig = RigParameters { frames: 2 * FRAMES + 64, ..RigParameters::default() }.start();
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
    let mut rig = RigParameters { frames: FRAMES, ..RigParameters::default() }.start();
    let (bad, good) = (rig.object(FRAMES, 0), rig.object_on(1, FRAMES, 0));
    rig.pager.detach(good.id()).unwrap();
    let terms = crate::pool::PoolTerms { account: crate::pool::AccountId::new(1), minimum: 32 };
    let blocks = BlockMap { data_start: 0, pages: FRAMES };
    rig.pager.attach_on(good.clone(), Some(PageStore { disk: 1, blocks }), terms).unwrap();
    rig.disk.inner().fail_writes = u32::MAX;
    let _ = grow(&mut rig, &bad, 0);
    rig.settle();
    let told = |rig: &Rig| {
        core::iter::from_fn(|| rig.pager.take_notice())
            .any(|notice| matches!(notice, PagerNotice::Unwritable { .. }))
    };
    let starts = rig.now;
    let mut ended = false;
    while rig.now < starts + 10 * SECOND && !ended {
        assert!(
            !matches!(grow(&mut rig, &good, 0), AccessOutcome::Lost(_)),
            "the neighbour pays for it"
        );
        (0..20).for_each(|_| rig.poll());
        ended = told(&rig);
    }
    assert!(ended, "nobody was told");
}

/// An object without a store, and another with all it needs; both write until they wait or are
/// refused.
fn without_store() -> (Rig, Arc<MemoryObject>, Arc<MemoryObject>) {
    let mut rig = RigParameters { frames: FRAMES, ..RigParameters::default() }.start();
    let (late, good) = (rig.bare_object(2 * FRAMES), rig.object_on(1, FRAMES, 0));
    rig.pager.attach(late.clone(), None).unwrap();
    (0..FRAMES / 4).for_each(|index| rig.write(&good, index, u64::from(index) + 1));
    (rig, late, good)
}

/// Polls for `ns`; returns the last answer to the object's fault.
fn wait(rig: &mut Rig, object: &MemoryObject, from: u32, ns: Ns) -> AccessOutcome {
    let end = rig.now + ns;
    while rig.now < end {
        if let lost @ AccessOutcome::Lost(_) = grow(rig, object, from) {
            return lost;
        }
        rig.poll();
    }
    grow(rig, object, from)
}

#[test]
fn an_object_whose_store_is_being_prepared_waits_for_it() {
    let (mut rig, late, good) = without_store();
    rig.pager.expect_store(late.id(), true);
    assert!(matches!(wait(&mut rig, &late, 0, 30 * SECOND), AccessOutcome::Wait(_)));
    assert!(rig.frames.owned_by(late.id()) <= FRAMES * 2 / 3 + 1, "it has its share at most");
    (0..FRAMES / 4).for_each(|index| assert_eq!(rig.read(&good, index), u64::from(index) + 1));
    rig.pager.give_store(late.id(), PageStore { disk: 0, blocks: BLOCKS }).unwrap();
    (0..2 * FRAMES).for_each(|index| rig.write(&late, index, u64::from(index) + 9));
    (0..2 * FRAMES).for_each(|index| assert_eq!(rig.read(&late, index), u64::from(index) + 9));
}

#[test]
fn an_object_that_will_have_no_store_does_not_wait() {
    for was_expected in [false, true] {
        let (mut rig, late, _) = without_store();
        if was_expected {
            rig.pager.expect_store(late.id(), true);
            assert!(matches!(wait(&mut rig, &late, 0, 5 * SECOND), AccessOutcome::Wait(_)));
            rig.pager.expect_store(late.id(), false);
        }
        assert_eq!(
            wait(&mut rig, &late, 0, 5 * SECOND),
            AccessOutcome::Lost(PageLossError::NoFrames)
        );
    }
}

/// A single object on a machine where some frames are in other use, so that it never holds its
/// whole share.
fn alone(store: Option<PageStore>) -> (Rig, Arc<MemoryObject>) {
    let rig = RigParameters { frames: FRAMES, ..RigParameters::default() }.start();
    let object = rig.bare_object(2 * FRAMES);
    rig.pager.attach(object.clone(), store).unwrap();
    assert!((0..8).all(|_| rig.frames.alloc().is_some()));
    (rig, object)
}

const BLOCKS: BlockMap = BlockMap { data_start: 0, pages: 2 * FRAMES };

#[test]
fn one_that_is_alone_waits_for_its_store() {
    let (mut rig, object) = alone(None);
    rig.pager.expect_store(object.id(), true);
    assert!(matches!(wait(&mut rig, &object, 0, 20 * SECOND), AccessOutcome::Wait(_)));
    rig.pager.give_store(object.id(), PageStore { disk: 0, blocks: BLOCKS }).unwrap();
    (0..2 * FRAMES).for_each(|index| rig.write(&object, index, 5));
    (0..2 * FRAMES).for_each(|index| assert_eq!(rig.read(&object, index), 5));
}

#[test]
fn one_that_is_alone_waits_for_its_silent_disk() {
    let (mut rig, object) = alone(Some(PageStore { disk: 0, blocks: BLOCKS }));
    rig.disk.inner().pace = DiskPace::Held;
    assert!(
        matches!(wait(&mut rig, &object, 0, 20 * SECOND), AccessOutcome::Wait(_)),
        "the disk's time-out decides"
    );
    rig.disk.inner().pace = DiskPace::Prompt;
    (0..2 * FRAMES).for_each(|index| rig.write(&object, index, 5));
    (0..2 * FRAMES).for_each(|index| assert_eq!(rig.read(&object, index), 5));
}

/// Reads all pages of an object; returns the longest wait for one.
fn longest_wait(rig: &mut Rig, object: &MemoryObject) -> Ns {
    let waits = (0..FRAMES).map(|index| {
        let start = rig.now;
        assert_eq!(rig.read(object, index), u64::from(index) + 1);
        rig.now - start
    });
    waits.max().unwrap_or(Ns::ZERO)
}

/// A disk refuses pages while a crash is recorded on it, for as long as that fails.
#[test]
fn a_disk_that_refuses_pages_makes_no_neighbour_wait() {
    let mut rig = RigParameters { frames: FRAMES, ..RigParameters::default() }.start();
    let (refused, good) = (rig.object(FRAMES, 0), rig.object_on(1, FRAMES, 0));
    (0..FRAMES).for_each(|index| rig.write(&good, index, u64::from(index) + 1));
    (0..FRAMES).for_each(|index| rig.write(&refused, index, u64::from(index) + 1));
    rig.settle();
    rig.disk.inner().refuses_writes = true;
    // Its resident pages are dirty, so each leaves by a write.
    for index in 0..FRAMES {
        if refused.page(PageIndex(index)).unwrap().touch(PageAccess::Write).is_ok() {
            rig.write(&refused, index, u64::from(index) + 1);
        }
    }
    assert!(rig.frames.owned_by(refused.id()) > FRAMES / 2, "it holds most of the pool");
    let longest = longest_wait(&mut rig, &good);
    assert!(longest <= 100 * MS, "{longest:?}");
    // It gets no more than its share meanwhile.
    let _ = wait(&mut rig, &refused, 0, SECOND);
    assert!(longest_wait(&mut rig, &good) <= 100 * MS);
    rig.disk.inner().refuses_writes = false;
    (0..FRAMES).for_each(|index| assert_eq!(rig.read(&refused, index), u64::from(index) + 1));
}
