//! Pages that a guest has read and not written: they share one frame of zeros.

use super::*;
use crate::paging::{ImageDrain, PageFinal};

const FORMATS: [&TableFormat; 3] =
    [&TableFormat::EPT, &TableFormat::NPT, &TableFormat::EPT_WITHOUT_AD];

fn start(format: &'static TableFormat) -> (Rig, Arc<MemoryObject>) {
    let rig = RigParameters { format, ..RigParameters::default() }.start();
    let object = rig.object(512, 0);
    (rig, object)
}

/// Walks to a page as the CPU does; returns `None` on a fault.
fn walk(object: &MemoryObject, index: u32, access: PageAccess) -> Option<(Hfn, bool)> {
    object.existing(PageIndex(index))?.walk(access).map(|found| (found.hfn, found.writes))
}

fn enter(rig: &Rig, cpu: CpuId, object: &MemoryObject) -> bool {
    rig.words.enter(cpu, object.id(), object.generation()).is_some()
}

/// More pages than the pool has frames.
#[test]
fn a_read_takes_no_frame_and_permits_nothing_else() {
    for format in FORMATS {
        let (rig, object) = start(format);
        for index in 0..512 {
            assert_eq!(walk(&object, index, PageAccess::Read), None);
            assert_eq!(rig.fault_for(&object, index, PageAccess::Read), AccessOutcome::Resolved);
            assert_eq!(walk(&object, index, PageAccess::Read), Some((rig.zeros, false)));
            assert_eq!(walk(&object, index, PageAccess::Write), None);
            assert_eq!(walk(&object, index, PageAccess::Execute), None);
        }
        let counts = rig.pager.counters();
        assert_eq!((counts.zeros_shown, counts.demand_zero), (512, 0));
        assert_eq!((object.counts().untouched, object.counts().resident), (512, 0));
        rig.check_frames(&[&object]);
    }
}

#[test]
fn a_write_and_a_fetch_give_the_page_a_frame_of_its_own() {
    for (format, access) in
        FORMATS.into_iter().flat_map(|f| [(f, PageAccess::Write), (f, PageAccess::Execute)])
    {
        let (mut rig, object) = start(format);
        assert_eq!((rig.read(&object, 1), rig.read(&object, 2)), (0, 0));
        assert_eq!(rig.fault_for(&object, 1, access), AccessOutcome::Resolved);
        let (own, _) = walk(&object, 1, access).expect("the page is there");
        assert!(own != rig.zeros && rig.map.is_zero(own));
        rig.write(&object, 1, 7);
        assert_eq!((rig.read(&object, 1), rig.read(&object, 2)), (7, 0));
        assert_eq!(walk(&object, 2, PageAccess::Read), Some((rig.zeros, false)));
        assert_eq!(rig.pager.counters().demand_zero, 1);
        rig.check_frames(&[&object]);
    }
}

/// A CPU that reports a write as a read must not fault forever.
#[test]
fn a_second_read_fault_gives_the_page_a_frame() {
    let (rig, object) = start(&TableFormat::EPT);
    for _ in 0..2 {
        assert_eq!(rig.fault_for(&object, 3, PageAccess::Read), AccessOutcome::Resolved);
    }
    let counts = rig.pager.counters();
    assert_eq!((counts.zeros_shown, counts.demand_zero, object.counts().resident), (1, 1, 1));
}

/// The guest has read the page on one CPU and writes it on another: the first CPU's translation is
/// stale.
#[test]
fn a_cpu_that_has_seen_the_zeros_flushes_before_it_enters_again() {
    for (format, access) in
        FORMATS.into_iter().flat_map(|f| [(f, PageAccess::Write), (f, PageAccess::Execute)])
    {
        let (rig, object) = start(format);
        assert_eq!(rig.fault_for(&object, 5, PageAccess::Read), AccessOutcome::Resolved);
        for cpu in [ME, OTHER] {
            let _ = enter(&rig, cpu, &object);
            rig.words.leave(cpu);
            assert!(!enter(&rig, cpu, &object), "nothing has changed");
            rig.words.leave(cpu);
        }
        rig.words.idle(OTHER);
        assert_eq!(rig.fault_for(&object, 5, access), AccessOutcome::Resolved);
        assert_eq!([ME, OTHER].map(|cpu| enter(&rig, cpu, &object)), [true, true]);
    }
}

#[test]
fn a_page_that_showed_nothing_costs_no_flush() {
    let (rig, object) = start(&TableFormat::EPT);
    let _ = enter(&rig, ME, &object);
    rig.words.leave(ME);
    assert_eq!(rig.fault_for(&object, 4, PageAccess::Write), AccessOutcome::Resolved);
    assert_eq!(rig.fault_for(&object, 5, PageAccess::Read), AccessOutcome::Resolved);
    assert!(!enter(&rig, ME, &object));
}

#[test]
#[should_panic(expected = "no CPU runs a guest whose page gets a frame")]
fn a_frame_under_a_running_guest_is_our_bug() {
    let (rig, object) = start(&TableFormat::EPT);
    let _ = rig.fault_for(&object, 5, PageAccess::Read);
    let _ = enter(&rig, OTHER, &object);
    let _ = rig.fault_for(&object, 5, PageAccess::Write);
}

/// Evicted zero pages come back without a frame, and other pages with their content.
#[test]
fn a_page_of_zeros_that_has_left_is_shown_again() {
    let (mut rig, object) = start(&TableFormat::NPT);
    for n in 0..128 {
        rig.touch(&object, n, PageAccess::Write);
    }
    rig.fill(&object, 128..512);
    let gone: Vec<_> = (0..128).filter(|&n| rig.leaf(&object, n) == LeafState::Zero).collect();
    assert!(!gone.is_empty());
    let before = rig.pager.counters();
    gone.iter().for_each(|&n| assert_eq!(rig.read(&object, n), 0));
    let after = rig.pager.counters();
    assert_eq!(after.zeros_shown - before.zeros_shown, gone.len() as u64);
    assert_eq!(after.demand_zero, before.demand_zero);
    gone.iter().for_each(|&n| rig.write(&object, n, u64::from(n) + 1));
    (128..512).for_each(|n| assert_eq!(rig.read(&object, n), u64::from(n) + 1));
    rig.settle();
    rig.check_frames(&[&object]);
}

#[test]
fn in_a_dump_they_are_zeros_and_cost_no_write() {
    let (mut rig, object) = start(&TableFormat::EPT);
    (0..64).for_each(|n| assert_eq!(rig.read(&object, n), 0));
    (32..40).for_each(|n| rig.write(&object, n, 9));
    object.become_image();
    let drain = ImageDrain::new(&rig.pager, object.clone());
    while !drain.step(&rig.pager, ME, 64).0.done {
        rig.poll();
    }
    assert_eq!(drain.progress(&rig.pager).written, 8);
    for n in 0..512 {
        let kind = drain.final_kind(&rig.pager, PageIndex(n));
        let is_written = (32..40).contains(&n);
        assert_eq!(kind == Some(PageFinal::Zero), !is_written, "page {n}: {kind:?}");
    }
    rig.check_frames(&[&object]);
}
