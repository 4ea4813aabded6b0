//! The drain of a dump image.

use super::*;
use crate::block::DiskError;
use crate::paging::{DrainProgress, ImageDrain, PageFinal};
use crate::pool::{AccountId, PoolTerms};

/// An object of 512 pages: 0..64 written and partly paged, 64..128 zero, 128..192 written, the rest
/// untouched.
fn crashed(rig: &mut Rig) -> (Arc<MemoryObject>, ImageDrain) {
    let object = rig.object(512, 0);
    (0..64).for_each(|n| rig.write(&object, n, u64::from(n) + 1));
    for n in 64..128 {
        rig.touch(&object, n, PageAccess::Write);
    }
    (128..192).for_each(|n| rig.write(&object, n, u64::from(n) + 1));
    object.become_image();
    let drain = ImageDrain::new(&rig.pager, object.clone());
    (object, drain)
}

fn run(rig: &mut Rig, drain: &ImageDrain) -> DrainProgress {
    let mut cursor = PageIndex(0);
    for _ in 0..2000 {
        let (progress, _) = drain.step(&rig.pager, ME, 256);
        assert!(progress.cursor >= cursor || progress.failed.is_some(), "progress goes forwards");
        cursor = progress.cursor;
        for index in 0..cursor.0 {
            assert!(
                drain.final_kind(&rig.pager, PageIndex(index)).is_some(),
                "page {index} is below the cursor"
            );
        }
        if progress.done || progress.failed.is_some() {
            return progress;
        }
        rig.poll();
    }
    panic!("a drain ends");
}

fn check_content(rig: &Rig, drain: &ImageDrain, expected: impl Fn(u32) -> u64) {
    for n in 0..512 {
        let kind = drain.final_kind(&rig.pager, PageIndex(n)).unwrap();
        let block = &rig.disk.inner().blocks[n as usize];
        match kind {
            PageFinal::Zero => assert_eq!(expected(n), 0, "page {n}"),
            PageFinal::Block(crc) => {
                assert_eq!(block[..8], expected(n).to_le_bytes(), "page {n}");
                assert_eq!(crate::mm::crc::crc32c(block), crc);
            }
        }
    }
}

fn content(n: u32) -> u64 {
    if n < 64 || (128..192).contains(&n) { u64::from(n) + 1 } else { 0 }
}

#[test]
fn a_drained_image_is_on_the_disk_and_holds_no_frame() {
    let mut rig = RigParameters { frames: 512, ..RigParameters::default() }.start();
    let (object, drain) = crashed(&mut rig);
    let done = run(&mut rig, &drain);
    assert_eq!((done.written, done.zero, done.clean, done.freed), (128, 64, 0, 192));
    assert_eq!((done.remaining, done.cursor), (0, PageIndex(512)));
    assert_eq!(rig.disk.inner().blocks_written, 128, "zero and untouched pages cost no write");
    check_content(&rig, &drain, content);
    assert_eq!(rig.frames.free_count(), 512);
    rig.check_frames(&[&object]);
}

#[test]
fn the_drain_writes_whole_requests_in_ascending_order() {
    let mut rig =
        RigParameters { frames: 512, max_segments: 32, ..RigParameters::default() }.start();
    let (_, drain) = crashed(&mut rig);
    run(&mut rig, &drain);
    let runs = rig.disk.inner().write_runs.clone();
    assert_eq!(runs, [(0, 32), (32, 32), (128, 32), (160, 32)]);
}

#[test]
fn what_was_paged_or_clean_before_the_crash_is_not_written_again() {
    let mut rig = RigParameters { frames: 128, ..RigParameters::default() }.start();
    let object = rig.object(512, 0);
    rig.fill(&object, 0..256);
    (0..256).for_each(|n| assert_eq!(rig.read(&object, n), u64::from(n) + 1));
    rig.settle();
    let dirty = (0..256)
        .filter(|&n| matches!(rig.leaf(&object, n), LeafState::Present(m) if m.dirty))
        .count() as u64;
    let before = rig.disk.inner().blocks_written;
    object.become_image();
    let drain = ImageDrain::new(&rig.pager, object.clone());
    let done = run(&mut rig, &drain);
    assert_eq!(rig.disk.inner().blocks_written - before, dirty);
    assert_eq!((done.written, done.clean + done.written), (dirty, done.freed));
    check_content(&rig, &drain, |n| if n < 256 { u64::from(n) + 1 } else { 0 });
}

#[test]
fn the_successor_runs_while_the_image_drains() {
    let mut rig = RigParameters { frames: 256, ..RigParameters::default() }.start();
    let (image, drain) = crashed(&mut rig);
    rig.set_pace(DiskPace::Random);
    let successor = rig.object(512, 512);
    for n in 0..400 {
        rig.write(&successor, n, u64::from(n) + 7);
        let _ = drain.step(&rig.pager, ME, 64);
    }
    let done = run(&mut rig, &drain);
    assert!(done.done);
    (0..400).for_each(|n| assert_eq!(rig.read(&successor, n), u64::from(n) + 7));
    check_content(&rig, &drain, content);
    rig.set_pace(DiskPace::Prompt);
    rig.settle();
    rig.check_frames(&[&image, &successor]);
}

#[test]
fn reclaim_takes_from_the_image_before_it_takes_from_the_successor() {
    let mut rig = RigParameters { frames: 256, ..RigParameters::default() }.start();
    let (image, drain) = crashed(&mut rig);
    let successor = rig.object(512, 512);
    for n in 0..100 {
        rig.write(&successor, n, 1);
    }
    assert_eq!(successor.counts().resident, 100);
    assert!(image.counts().resident < 192, "{:?}", drain.progress(&rig.pager));
}

#[test]
fn an_image_of_which_a_page_is_read_again_still_gives_all_its_frames() {
    let mut rig = RigParameters { frames: 512, ..RigParameters::default() }.start();
    let (image, drain) = crashed(&mut rig);
    run(&mut rig, &drain);
    assert_eq!(rig.read(&image, 5), 6);
    assert!(!drain.progress(&rig.pager).done);
    let done = run(&mut rig, &drain);
    assert_eq!((done.remaining, rig.frames.free_count()), (0, 512));
    assert_eq!(rig.disk.inner().blocks_written, 128);
}

#[test]
fn a_write_error_in_the_drain_is_tried_again() {
    let mut rig =
        RigParameters { frames: 512, max_segments: 16, ..RigParameters::default() }.start();
    let (_, drain) = crashed(&mut rig);
    rig.disk.inner().fail_writes = 3;
    let done = run(&mut rig, &drain);
    assert!(done.done && rig.pager.counters().write_errors == 3);
    check_content(&rig, &drain, content);
}

#[test]
fn a_disk_that_takes_nothing_stops_the_drain_with_a_reason() {
    let mut rig =
        RigParameters { frames: 512, max_segments: 16, ..RigParameters::default() }.start();
    let (_, drain) = crashed(&mut rig);
    rig.disk.inner().fail_writes = u32::MAX;
    let stopped = run(&mut rig, &drain);
    assert!(stopped.failed.is_some() && !stopped.done);
    rig.disk.inner().fail_writes = 0;
    drain.retry(&rig.pager);
    rig.settle();
    assert!(run(&mut rig, &drain).done);
    check_content(&rig, &drain, content);
}

#[test]
fn a_block_that_takes_no_write_keeps_none_of_its_neighbours_back() {
    let mut rig =
        RigParameters { frames: 512, max_segments: 32, ..RigParameters::default() }.start();
    let (object, drain) = crashed(&mut rig);
    rig.disk.inner().bad_block = Some(40);
    let stopped = run(&mut rig, &drain);
    assert_eq!((stopped.failed, stopped.done), (Some(DiskError::Io), false));
    let unfinished: Vec<u32> =
        (0..512).filter(|&n| drain.final_kind(&rig.pager, PageIndex(n)).is_none()).collect();
    assert_eq!(unfinished, [40]);
    assert_eq!((object.counts().resident, stopped.written), (1, 127));
}

#[test]
fn what_was_found_wrong_before_the_crash_is_suspected_in_the_dump() {
    let mut rig = RigParameters { frames: 128, ..RigParameters::default() }.start();
    let object = rig.object(512, 0);
    rig.fill(&object, 0..256);
    let paged: Vec<u32> =
        (0..256).filter(|&n| matches!(rig.leaf(&object, n), LeafState::Paged(_))).collect();
    let wrong = [paged[3], paged[60], paged[90]];
    for index in wrong {
        rig.disk.inner().blocks[index as usize][100] ^= 1;
        while matches!(rig.fault(&object, index), AccessOutcome::Wait(_)) {
            rig.poll();
        }
    }
    rig.settle();
    object.become_image();
    let drain = ImageDrain::new(&rig.pager, object.clone());
    assert!(run(&mut rig, &drain).done);
    let suspects = drain.suspects(&rig.pager);
    assert!(
        wrong.iter().all(|index| suspects.ranges().any(|range| range.contains(index))),
        "{suspects:?}"
    );
    // A neighbour that was found wrong when it was read along counts too, but no intact page.
    let is_wrong = |n: u32| {
        crate::mm::crc::crc32c(&rig.disk.inner().blocks[n as usize])
            != match drain.final_kind(&rig.pager, PageIndex(n)) {
                Some(PageFinal::Block(crc)) => crc,
                other => panic!("{other:?}"),
            }
    };
    assert!(suspects.ranges().flatten().all(is_wrong), "{suspects:?}");
}

#[test]
fn pages_under_way_at_the_crash_are_waited_for() {
    let mut rig = RigParameters { frames: 64, ..RigParameters::default() }.start();
    let object = rig.object(512, 0);
    rig.fill(&object, 0..100);
    rig.set_pace(DiskPace::Held);
    let paged = (0..100).find(|&n| matches!(rig.leaf(&object, n), LeafState::Paged(_))).unwrap();
    assert!(matches!(rig.fault(&object, paged), AccessOutcome::Wait(_)));
    object.become_image();
    let drain = ImageDrain::new(&rig.pager, object.clone());
    for _ in 0..10 {
        let (progress, _) = drain.step(&rig.pager, ME, 4096);
        assert!(progress.cursor.0 <= paged && !progress.done);
        rig.poll();
    }
    rig.set_pace(DiskPace::Prompt);
    assert!(run(&mut rig, &drain).done);
    check_content(&rig, &drain, |n| if n < 100 { u64::from(n) + 1 } else { 0 });
}

/// A full pool, a crash, and another object that takes every frame it can get.
#[test]
fn an_images_frames_are_kept_for_its_next_incarnation_while_a_hungry_neighbour_goes_on() {
    const BOOT: u32 = 32;
    let mut rig = RigParameters { frames: 128, ..RigParameters::default() }.start();
    let store = |first: u64, pages| {
        Some(PageStore { disk: 0, blocks: BlockMap { data_start: first * 8, pages } })
    };
    let terms = |account| PoolTerms { account: AccountId::new(account), minimum: 8 };
    let (crashed, neighbour) = (rig.bare_object(64), rig.bare_object(512));
    rig.pager.attach_on(crashed.clone(), store(0, 64), terms(0)).unwrap();
    rig.pager.attach_on(neighbour.clone(), store(512, 512), terms(1)).unwrap();
    (0..64).for_each(|n| rig.write(&crashed, n, 1));
    (0..56).for_each(|n| rig.write(&neighbour, n, 2));
    crashed.become_image();
    rig.pager.promise(crashed.id(), BOOT);
    let drain = ImageDrain::new(&rig.pager, crashed.clone());
    let mut next = 56;
    while drain.progress(&rig.pager).freed < u64::from(BOOT) {
        let _ = drain.step(&rig.pager, ME, 8);
        // Takes all free frames.
        while next < 512 && rig.fault(&neighbour, next) == AccessOutcome::Resolved {
            next += 1;
        }
        rig.poll();
        let free = rig.frames.free_count();
        assert!(
            rig.pager.reserved(AccountId::new(0)) <= free,
            "{} kept of {free} free",
            rig.pager.reserved(AccountId::new(0))
        );
    }
    assert_eq!(
        rig.pager.reserved(AccountId::new(0)),
        BOOT,
        "all of the image's first frames are kept"
    );
    let before = next;
    for _ in 0..200 {
        while next < 512 && rig.fault(&neighbour, next) == AccessOutcome::Resolved {
            next += 1;
        }
        let _ = drain.step(&rig.pager, ME, 64);
        rig.poll();
    }
    assert!(next > before + 64, "the neighbour goes on, by frames of its own: {before} {next}");
    assert_eq!(rig.pager.reserved(AccountId::new(0)), BOOT);
    // The next incarnation gets all of them at once, although no other frame is free.
    let successor = rig.bare_object(64);
    rig.pager.attach_on(successor.clone(), store(128, 64), terms(0)).unwrap();
    for n in 0..BOOT {
        assert_eq!(
            rig.fault(&successor, n),
            AccessOutcome::Resolved,
            "frame {n} of the boot memory"
        );
    }
    assert_eq!(rig.pager.reserved(AccountId::new(0)), 0);
}

#[test]
fn what_a_partition_does_not_need_is_everybodys_in_the_end() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(64, 0);
    (0..64).for_each(|n| rig.write(&object, n, 1));
    object.become_image();
    let account = AccountId::new(object.id().as_u16());
    rig.pager.promise(object.id(), 1000);
    let drain = ImageDrain::new(&rig.pager, object.clone());
    for _ in 0..50 {
        let _ = drain.step(&rig.pager, ME, 64);
        rig.poll();
    }
    assert_eq!(rig.pager.reserved(account), 64, "no more than the image had");
    rig.pager.end_promise(account);
    assert_eq!(rig.pager.reserved(account), 0);
}
