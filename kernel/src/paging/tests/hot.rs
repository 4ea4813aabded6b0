//! Pages by their last use, and their way back.

use super::*;
use crate::paging::{PrefetchState, WindowUse};

/// A machine with 64 paged pages of one object, and frames for all.
fn paged() -> (Rig, Arc<MemoryObject>) {
    let mut rig = RigParameters { frames: 192, ..RigParameters::default() }.start();
    let object = rig.object(64, 0);
    rig.fill(&object, 0..64);
    rig.pager.ask_evict(object.id(), 64);
    rig.settle();
    assert_eq!(object.counts().paged, 64);
    (rig, object)
}

fn survey(rig: &Rig, object: &MemoryObject) -> Vec<(u32, WindowUse)> {
    let mut all = Vec::new();
    rig.pager.survey(object, 0..4, |window, found| all.push((window, found)));
    all
}

#[test]
fn a_survey_tells_used_idle_and_dirty_pages() {
    let mut rig = RigParameters::default().start();
    let object = rig.object(64, 0);
    for n in [0, 1, 17, 18] {
        rig.write(&object, n, u64::from(n) + 1);
    }
    rig.fetch(&object, 19);
    for page in object.pages(0..2) {
        let _ = page.age();
    }
    assert_eq!(
        survey(&rig, &object),
        [
            (0, WindowUse { used: 0, idle: 0b11, dirty: 0b11 }),
            // A page of zeros is no page to write.
            (1, WindowUse { used: 0b1110, idle: 0, dirty: 0b110 }),
        ]
    );
}

#[test]
fn pages_come_back_in_one_request_a_run_and_no_fault_is_left() {
    let (mut rig, object) = paged();
    let mut left = 0b1111_0000_1111_1111;
    let reads = rig.pager.counters().read_requests;
    for _ in 0..40 {
        let _ = rig.pager.prefetch(&object, 1, &mut left, rig.now);
        rig.poll();
    }
    assert_eq!(left, 0);
    assert_eq!(rig.pager.counters().read_requests, reads + 2);
    let found = survey(&rig, &object);
    assert_eq!(found, [(1, WindowUse { used: 0, idle: 0b1111_0000_1111_1111, dirty: 0 })]);
    let ins = rig.pager.counters().page_ins;
    assert_eq!(rig.read(&object, 16), 17);
    assert_eq!(rig.pager.counters().page_ins, ins, "nothing was read again");
    rig.check_frames(&[&object]);
}

#[test]
fn nothing_is_prefetched_while_a_page_is_demanded_or_frames_are_few() {
    let (mut rig, object) = paged();
    rig.set_pace(DiskPace::Held);
    let AccessOutcome::Wait(_) = rig.fault(&object, 5) else { panic!("it is paged") };
    let mut left = u16::MAX;
    assert_eq!(rig.pager.prefetch(&object, 2, &mut left, rig.now), PrefetchState::Busy);
    assert_eq!(left, u16::MAX);
    rig.set_pace(DiskPace::Prompt);
    rig.settle();
    assert_eq!(rig.pager.prefetch(&object, 2, &mut left, rig.now), PrefetchState::Begun);
    rig.settle();
    // Another partition takes nearly all frames.
    let other = rig.object(160, 64);
    (0..130).for_each(|n| rig.write(&other, n, 1));
    left = u16::MAX;
    assert_eq!(rig.pager.prefetch(&object, 3, &mut left, rig.now), PrefetchState::Over);
    assert_eq!(left, u16::MAX);
    object.become_image();
    assert_eq!(rig.pager.prefetch(&object, 3, &mut left, rig.now), PrefetchState::Over);
}
