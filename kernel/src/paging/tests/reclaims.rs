//! Eviction of pages.

use super::*;
use crate::addr::PageIndex;
use crate::block::DiskError;
use crate::mm::guest_bytes::Faulter;
use crate::paging::PagerNotice;

#[test]
fn a_dirty_page_is_written_to_its_own_block() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(256, 32);
    rig.fill(&object, 0..256);
    let paged: Vec<_> =
        (0..256).filter(|&n| matches!(rig.leaf(&object, n), LeafState::Paged(_))).collect();
    assert!(!paged.is_empty());
    for n in paged {
        assert_eq!(rig.disk.inner().blocks[32 + n as usize][..8], (u64::from(n) + 1).to_le_bytes());
    }
    rig.check_frames(&[&object]);
}

#[test]
fn neighbours_leave_in_one_request() {
    let mut rig = RigParameters { frames: 4096, ..RigParameters::default() }.start();
    let object = rig.object(2048, 0);
    (0..2048).for_each(|n| rig.write(&object, n, 1));
    let hog = rig.bare_object(2048);
    rig.pager.attach(hog.clone(), None).unwrap();
    (0..2040).for_each(|n| rig.write(&hog, n, 1));
    rig.settle();
    let inner = rig.disk.inner();
    assert!(inner.blocks_written >= 32, "{}", inner.blocks_written);
    assert!(inner.blocks_written / inner.writes >= 16, "{:?}", inner.write_runs);
}

#[test]
fn a_zero_page_is_evicted_without_a_write() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(256, 0);
    // Dirty by D, zero by content.
    for index in 0..256 {
        rig.touch(&object, index, PageAccess::Write);
    }
    rig.settle();
    assert_eq!(rig.disk.inner().writes, 0);
    assert!(rig.pager.counters().zero_evictions >= 128);
    (0..256).for_each(|n| assert_eq!(rig.read(&object, n), 0));
}

#[test]
fn clean_page_is_evicted_without_a_write() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(256, 0);
    rig.fill(&object, 0..256);
    // After two rounds of reads, every resident page was read from its block.
    for _ in 0..2 {
        (0..256).for_each(|n| assert_eq!(rig.read(&object, n), u64::from(n) + 1));
    }
    rig.settle();
    let before = (rig.disk.inner().writes, rig.pager.counters().clean_evictions);
    (0..256).for_each(|n| assert_eq!(rig.read(&object, n), u64::from(n) + 1));
    assert_eq!(rig.disk.inner().writes, before.0);
    assert!(rig.pager.counters().clean_evictions > before.1 + 100);
    rig.settle();
    rig.check_frames(&[&object]);
}

#[test]
fn without_a_space_only_zero_pages_leave() {
    let mut rig = RigParameters { frames: 64, ..RigParameters::default() }.start();
    let object = rig.bare_object(128);
    rig.pager.attach(object.clone(), None).unwrap();
    (0..30).for_each(|n| rig.write(&object, n, 9));
    for n in 30..128 {
        rig.touch(&object, n, PageAccess::Write);
    }
    rig.settle();
    assert_eq!(rig.disk.inner().writes, 0);
    (0..30).for_each(|n| assert_eq!(rig.read(&object, n), 9));
    rig.check_frames(&[&object]);
}

#[test]
fn a_page_touched_while_it_goes_out_is_rescued() {
    let mut rig = RigParameters { frames: 64, ..RigParameters::default() }.start();
    let object = rig.object(64, 0);
    rig.set_pace(DiskPace::Held);
    (0..64).for_each(|n| rig.write(&object, n, u64::from(n) + 1));
    rig.settle();
    let going = (0..64).find(|&n| matches!(rig.leaf(&object, n), LeafState::GoingOut(_))).unwrap();
    assert_eq!(rig.fault(&object, going), AccessOutcome::Resolved);
    rig.write(&object, going, 4711);
    rig.set_pace(DiskPace::Prompt);
    rig.settle();
    assert_eq!(rig.pager.counters().rescues, 1);
    assert!(
        matches!(rig.leaf(&object, going), LeafState::Present(_)),
        "the write's result is dropped"
    );
    assert_eq!(rig.read(&object, going), 4711);
    rig.check_frames(&[&object]);
}

#[test]
#[cfg_attr(feature = "mutant-no-flush", ignore = "it is what the mutation breaks")]
fn a_frame_in_limbo_is_not_read_before_the_other_cpu_has_passed() {
    let mut rig = RigParameters { frames: 64, ..RigParameters::default() }.start();
    let object = rig.object(64, 0);
    (0..64).for_each(|n| rig.write(&object, n, u64::from(n) + 1));
    let _ = rig.words.enter(OTHER, object.id(), object.generation());
    let mut kicked = 0;
    for _ in 0..20 {
        rig.now += MS;
        kicked |= rig.pager.poll(ME, rig.now).kicks.0;
    }
    assert_eq!(kicked, 1 << OTHER.index());
    let going: Vec<_> =
        (0..64).filter(|&n| matches!(rig.leaf(&object, n), LeafState::GoingOut(_))).collect();
    assert!(!going.is_empty());
    assert_eq!((rig.disk.inner().writes, rig.frames.free_count()), (0, 0));
    // The other CPU still writes through its TLB.
    let LeafState::GoingOut(hfn) = rig.leaf(&object, going[0]) else { panic!() };
    rig.map.copy_in(hfn, 0, &99_u64.to_le_bytes());
    rig.map.copy_in(hfn, 4088, &99_u64.to_le_bytes());
    rig.words.leave(OTHER);
    rig.words.idle(OTHER);
    rig.settle();
    assert!(matches!(rig.leaf(&object, going[0]), LeafState::Paged(_)));
    assert_eq!(rig.read(&object, going[0]), 99);
}

#[test]
fn a_failed_write_leaves_its_pages_mapped_and_dirty() {
    let (mut rig, object) = full();
    rig.disk.inner().fail_writes = 1;
    rig.settle();
    assert_eq!(rig.pager.counters().write_errors, 1);
    let Some(PagerNotice::WriteFailed { first, error, .. }) = rig.pager.take_notice() else {
        panic!()
    };
    assert_eq!(error, DiskError::Io);
    let LeafState::Present(mapping) = rig.leaf(&object, first.0) else { panic!() };
    assert!(mapping.dirty && !mapping.has_block);
    (0..200).for_each(|_| rig.poll());
    assert!(rig.absent(&object) > 0, "after a pause it is tried again");
    (0..64).for_each(|n| assert_eq!(rig.read(&object, n), u64::from(n) + 1));
}

#[test]
fn of_failures_in_a_row_only_the_first_is_news() {
    let (mut rig, object) = full();
    rig.disk.inner().fail_writes = 3;
    (0..1000).for_each(|_| rig.poll());
    assert_eq!(rig.pager.counters().write_errors, 3);
    assert!(matches!(rig.pager.take_notice(), Some(PagerNotice::WriteFailed { .. })));
    assert_eq!(rig.pager.take_notice(), None);
    (0..64).for_each(|n| assert_eq!(rig.read(&object, n), u64::from(n) + 1));
}

#[test]
fn with_a_dead_disk_a_clean_page_stays_because_it_is_the_only_copy() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(256, 0);
    rig.fill(&object, 0..256);
    let clean: Vec<_> = (0..256)
        .filter(|&n| matches!(rig.leaf(&object, n), LeafState::Paged(_)))
        .take(16)
        .collect();
    clean.iter().for_each(|&n| assert_eq!(rig.read(&object, n), u64::from(n) + 1));
    rig.disk.inner().dead = true;
    rig.pager.ask_evict(object.id(), 256);
    (0..200).for_each(|_| rig.poll());
    assert_eq!(rig.pager.take_notice(), Some(PagerNotice::DiskDead { object: object.id() }));
    for n in clean {
        assert_eq!(rig.fault(&object, n), AccessOutcome::Resolved, "page {n} has left");
        assert_eq!(rig.read(&object, n), u64::from(n) + 1);
    }
}

#[test]
fn a_cpu_does_not_idle_while_a_faulter_waits_for_a_pause_to_end() {
    let mut rig = RigParameters { frames: 32, ..RigParameters::default() }.start();
    let object = rig.object(64, 0);
    (0..32).for_each(|n| rig.write(&object, n, 1));
    rig.disk.inner().fail_writes = 16;
    let AccessOutcome::Wait(ticket) = rig.fault(&object, 40) else { panic!() };
    while !object.ready(ticket) {
        rig.now += MS;
        let work = rig.pager.poll(ME, rig.now);
        assert!(
            work.woke_waiters || work.poll_again || rig.disk.in_flight() > 0,
            "who would poll again?"
        );
        assert!(rig.now < 5_000 * MS);
    }
    assert!(rig.pager.counters().write_errors > 0);
}

#[test]
fn a_full_queue_stalls_a_batch_that_goes_on_later() {
    let mut rig = RigParameters { frames: 64, max_segments: 2, ..RigParameters::default() }.start();
    let object = rig.object(64, 0);
    (rig.disk.inner().depth, rig.disk.inner().pace) = (1, DiskPace::Prompt);
    (0..64).for_each(|n| rig.write(&object, n, u64::from(n) + 1));
    rig.settle();
    assert!(rig.absent(&object) >= 16);
    rig.check_frames(&[&object]);
}

#[test]
fn a_referenced_page_outlives_an_old_one() {
    let mut rig = RigParameters { frames: 256, ..RigParameters::default() }.start();
    let object = rig.object(1024, 0);
    (0..64).for_each(|n| rig.write(&object, n, 1));
    // A hot set that is touched repeatedly while cold pages stream by. Its cost is the faults on
    // hot pages.
    let before = rig.pager.counters().page_ins;
    for cold in 64..1024 {
        rig.write(&object, cold, 2);
        for hot in 0..64 {
            rig.touch(&object, hot, PageAccess::Read);
        }
        rig.poll();
    }
    let faults = rig.pager.counters().page_ins - before;
    assert!(faults < 64, "{faults} faults on 64 hot pages");
}

#[test]
fn an_object_in_use_cannot_be_detached_before_its_io_ends() {
    let mut rig = RigParameters { frames: 64, ..RigParameters::default() }.start();
    let object = rig.object(64, 0);
    rig.set_pace(DiskPace::Held);
    (0..64).for_each(|n| rig.write(&object, n, 3));
    rig.settle();
    assert_eq!(rig.pager.detach(object.id()), Err(crate::paging::AttachError::Busy));
    rig.set_pace(DiskPace::Prompt);
    rig.settle();
    assert_eq!(rig.pager.detach(object.id()), Ok(()));
}

#[test]
fn pages_that_are_asked_for_leave_though_the_pool_is_empty() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(64, 0);
    (0..64).for_each(|n| rig.write(&object, n, u64::from(n) + 1));
    rig.pager.ask_evict(object.id(), 20);
    rig.settle();
    assert_eq!(object.counts().paged, 20);
    (0..64).for_each(|n| assert_eq!(rig.read(&object, n), u64::from(n) + 1));
}

#[test]
fn asking_for_what_cannot_leave_ends() {
    let mut rig = RigParameters::default().start();
    let object = rig.bare_object(64);
    rig.pager.attach(object.clone(), None).unwrap();
    (0..64).for_each(|n| rig.write(&object, n, 1));
    rig.pager.ask_evict(object.id(), 20);
    rig.settle();
    assert!(!rig.pager.poll(ME, rig.now).poll_again);
}

#[test]
fn a_wish_is_served_although_one_before_it_found_nothing() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(64, 0);
    rig.pager.ask_evict(object.id(), 20);
    // Every page is used again before the hand returns to it, for two rounds.
    for _ in 0..3 {
        (0..64).for_each(|n| rig.write(&object, n, u64::from(n) + 1));
        rig.poll();
    }
    rig.settle();
    assert_eq!(object.counts().paged, 0, "the first wish has ended");
    (0..64).for_each(|n| rig.write(&object, n, u64::from(n) + 2));
    rig.pager.ask_evict(object.id(), 20);
    rig.settle();
    assert_eq!(object.counts().paged, 20);
}

#[test]
fn a_landmark_is_noticed_on_its_way_to_its_block() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(256, 0);
    rig.fill(&object, 0..256);
    rig.pager.ask_evict(object.id(), 256);
    rig.settle();
    assert_eq!(rig.pager.landmarks(object.id())[..], [PageIndex(76)]);
}

#[test]
fn a_handlers_copy_makes_the_page_resident_through_the_same_door() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(256, 0);
    rig.fill(&object, 0..256);
    let index = (0..256).find(|&n| matches!(rig.leaf(&object, n), LeafState::Paged(_))).unwrap();
    let page = PageIndex(index);
    assert!(
        Faulter::fault(&rig.pager, &object, page, PageAccess::Read).is_err(),
        "it is being read"
    );
    rig.settle();
    assert!(Faulter::fault(&rig.pager, &object, page, PageAccess::Read).is_ok());
}

#[test]
fn a_partition_at_its_minimum_gives_nothing() {
    let mut rig = RigParameters { frames: 128, ..RigParameters::default() }.start();
    let (small, large) = (rig.bare_object(40), rig.bare_object(512));
    let store = |first: u64, pages| {
        Some(PageStore { disk: 0, blocks: BlockMap { data_start: first * 8, pages } })
    };
    let terms = |account| crate::pool::PoolTerms {
        account: crate::pool::AccountId::new(account),
        minimum: 40,
    };
    rig.pager.attach_on(small.clone(), store(0, 40), terms(0)).unwrap();
    rig.pager.attach_on(large.clone(), store(64, 512), terms(1)).unwrap();
    (0..40).for_each(|n| rig.write(&small, n, 1));
    // Long enough for many rounds of the hand, while the small object is never touched.
    (0..512).for_each(|n| rig.write(&large, n, 2));
    rig.settle();
    assert_eq!(small.counts().resident, 40);
    assert!(large.counts().resident >= 40);
    rig.pager.ask_evict(small.id(), 10);
    rig.settle();
    assert_eq!(small.counts().resident, 30, "an operator may");
}

#[test]
fn few_free_frames_are_told_once_before_anybody_waits() {
    let mut rig = RigParameters { frames: 128, ..RigParameters::default() }.start();
    let object = rig.object(256, 0);
    let told = (0..128).filter(|&n| {
        assert_eq!(rig.fault(&object, n), AccessOutcome::Resolved, "{n}");
        rig.pager.wants_poll()
    });
    assert_eq!(told.count(), 1);
    rig.poll();
    assert!(rig.pager.wants_poll(), "still few");
}

#[test]
fn sampling_tells_memory_in_use_from_memory_that_is_not() {
    let mut rig = RigParameters { frames: 512, ..RigParameters::default() }.start();
    let (busy, idle) = (rig.object(128, 0), rig.object(128, 128));
    for object in [&busy, &idle] {
        (0..128).for_each(|n| rig.write(object, n, 1));
    }
    for _ in 0..20 {
        for n in 0..128 {
            rig.touch(&busy, n, PageAccess::Read);
        }
        rig.now += 1_000 * MS;
        rig.poll();
    }
    let used =
        |object: &MemoryObject| rig.pager.state.lock().slots.get(object.id()).unwrap().usage.used;
    assert!(used(&busy) > 230 && used(&idle) < 40, "{} {}", used(&busy), used(&idle));
}

#[test]
fn who_fetches_all_the_time_counts_as_one_who_uses_all_it_has() {
    let mut rig = RigParameters { frames: 128, ..RigParameters::default() }.start();
    let (thrashing, idle) = (rig.object(512, 0), rig.object(32, 512));
    (0..32).for_each(|n| rig.write(&idle, n, 1));
    (0..512).for_each(|n| rig.write(&thrashing, n, 1));
    // Cycles through four times the pages that fit; pages just aged by the hand look idle.
    for n in 0..8000 {
        rig.touch(&thrashing, n % 512, PageAccess::Read);
        rig.now += 5 * MS;
    }
    assert!(rig.pager.counters().page_ins > 1000, "it does not thrash");
    let used =
        |object: &MemoryObject| rig.pager.state.lock().slots.get(object.id()).unwrap().usage.used;
    assert!(
        used(&thrashing) > 200 && used(&thrashing) > used(&idle) + 100,
        "{} {}",
        used(&thrashing),
        used(&idle)
    );
}
