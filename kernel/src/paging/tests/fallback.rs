//! A CPU without A and D bits: faults note accesses instead, and a leaf never permits an access
//! that is not noted in it.

use super::*;
use crate::mm::leaf::PageMapping;
use crate::mm::page::{Page, PageAge, Translation};

fn machine(frames: u32) -> Rig {
    RigParameters { frames, format: &TableFormat::EPT_WITHOUT_AD, ..RigParameters::default() }
        .start()
}

fn page(object: &MemoryObject, index: u32) -> Page<'_> {
    object.page(PageIndex(index)).unwrap()
}

fn bits(rig: &Rig, object: &MemoryObject, index: u32) -> (bool, bool) {
    let LeafState::Present(PageMapping { accessed, dirty, .. }) = rig.leaf(object, index) else {
        panic!("page {index} is resident")
    };
    (accessed, dirty)
}

/// Makes a guest's access: walks, and faults until the walk succeeds. Returns the number of faults.
fn access(
    rig: &mut Rig,
    object: &MemoryObject,
    index: u32,
    access: PageAccess,
) -> (Translation, u32) {
    for faults in 0..10 {
        if let Some(found) = page(object, index).walk(access) {
            return (found, faults);
        }
        if let AccessOutcome::Wait(ticket) = rig.fault_for(object, index, access) {
            while !object.ready(ticket) {
                rig.poll();
            }
        }
    }
    panic!("page {index} is never open to {access:?}")
}

#[test]
fn the_first_touch_of_a_page_costs_one_fault_whatever_it_is() {
    let mut rig = machine(64);
    let object = rig.object(16, 0);
    let (fetch, faults) = access(&mut rig, &object, 0, PageAccess::Execute);
    assert_eq!((fetch.writes, faults, bits(&rig, &object, 0)), (false, 1, (true, false)));
    let (write, faults) = access(&mut rig, &object, 1, PageAccess::Write);
    assert_eq!((write.writes, faults, bits(&rig, &object, 1)), (true, 1, (true, true)));
    let (read, faults) = access(&mut rig, &object, 2, PageAccess::Read);
    assert_eq!((read.writes, faults, read.hfn), (false, 1, rig.zeros));
    assert_eq!(access(&mut rig, &object, 0, PageAccess::Read).1, 0);
}

#[test]
fn a_write_to_a_clean_page_faults_once_and_makes_it_dirty() {
    let mut rig = machine(64);
    let object = rig.object(16, 0);
    let _ = access(&mut rig, &object, 0, PageAccess::Execute);
    assert_eq!(access(&mut rig, &object, 0, PageAccess::Write).1, 1);
    assert_eq!(access(&mut rig, &object, 0, PageAccess::Write).1, 0);
    assert_eq!((bits(&rig, &object, 0), rig.pager.counters().resident_faults), ((true, true), 1));
}

#[test]
fn a_page_that_has_aged_faults_at_its_next_touch_and_keeps_d() {
    let mut rig = machine(64);
    let object = rig.object(16, 0);
    let _ = access(&mut rig, &object, 0, PageAccess::Write);
    assert_eq!(
        (page(&object, 0).age(), page(&object, 0).age()),
        (PageAge::Referenced, PageAge::Idle)
    );
    assert_eq!(bits(&rig, &object, 0), (false, true));
    let (read, faults) = access(&mut rig, &object, 0, PageAccess::Read);
    // Dirty already: a write need not be noted again.
    assert_eq!((read.writes, faults, bits(&rig, &object, 0)), (true, 1, (true, true)));
    assert_eq!(page(&object, 0).age(), PageAge::Referenced);
}

#[test]
fn who_copies_for_the_guest_opens_the_page_too() {
    let mut rig = machine(64);
    let object = rig.object(16, 0);
    let _ = access(&mut rig, &object, 0, PageAccess::Execute);
    let _ = page(&object, 0).age();
    page(&object, 0).touch(PageAccess::Write).unwrap();
    assert_eq!(access(&mut rig, &object, 0, PageAccess::Write).1, 0);
}

#[test]
fn a_page_that_comes_back_is_noted_for_what_it_was_wanted_for() {
    let mut rig = machine(64);
    let object = rig.object(256, 0);
    rig.fill(&object, 0..256);
    let paged: Vec<_> =
        (0..256).filter(|&n| matches!(rig.leaf(&object, n), LeafState::Paged(_))).take(2).collect();
    assert_eq!(access(&mut rig, &object, paged[0], PageAccess::Read).1, 1);
    assert_eq!(bits(&rig, &object, paged[0]), (true, false));
    assert_eq!(access(&mut rig, &object, paged[1], PageAccess::Write).1, 1);
    assert_eq!(bits(&rig, &object, paged[1]), (true, true));
}

/// Forty-four old dirty pages in a scarce pool, being cleaned by a disk that holds its completions
/// back.
fn in_cleaning() -> (Rig, Arc<MemoryObject>) {
    let mut rig = machine(64);
    let object = rig.object(64, 0);
    (0..44).for_each(|n| rig.write(&object, n, u64::from(n) + 1));
    (0..44).for_each(|n| assert_eq!(page(&object, n).age(), PageAge::Referenced));
    rig.set_pace(DiskPace::Held);
    rig.settle();
    assert!(rig.disk.inner().writes > 0);
    (rig, object)
}

fn has_block(rig: &Rig, object: &MemoryObject, index: u32) -> bool {
    matches!(rig.leaf(object, index), LeafState::Present(PageMapping { has_block: true, .. }))
}

#[test]
fn a_write_while_a_page_is_cleaned_faults_and_voids_the_block() {
    let (mut rig, object) = in_cleaning();
    assert_eq!(access(&mut rig, &object, 0, PageAccess::Write).1, 1);
    rig.set_pace(DiskPace::Prompt);
    rig.settle();
    assert_eq!((has_block(&rig, &object, 0), bits(&rig, &object, 0)), (false, (true, true)));
    assert!(has_block(&rig, &object, 1));
}

/// Bochs sets A and D in the guest's page tables without write permission, once a walk was allowed
/// to read them.
#[test]
fn a_page_that_is_read_while_it_is_cleaned_gets_no_block() {
    let (mut rig, object) = in_cleaning();
    let (found, faults) = access(&mut rig, &object, 0, PageAccess::Read);
    assert_eq!((found.writes, faults), (false, 1));
    rig.set_pace(DiskPace::Prompt);
    rig.settle();
    assert!(!has_block(&rig, &object, 0));
    // The page is clean without a block, but must not count as zero.
    assert_eq!(rig.read(&object, 0), 1);
    let _ = page(&object, 0).age();
    (44..64).for_each(|n| rig.write(&object, n, 1));
    rig.settle();
    assert_eq!(rig.read(&object, 0), 1);
}
