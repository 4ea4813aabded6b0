//! Cleaning in place.

use super::*;

/// A machine whose pool is scarce but not short, with old dirty pages.
fn old_and_dirty() -> (Rig, Arc<MemoryObject>) {
    let mut rig = RigParameters { frames: 64, ..RigParameters::default() }.start();
    let object = rig.object(64, 0);
    (0..44).for_each(|n| rig.write(&object, n, u64::from(n) + 1));
    // Ages the pages, as the clock hand would have done.
    for page in object.pages(0..44) {
        let _ = page.age();
    }
    (rig, object)
}

#[test]
fn an_old_dirty_page_is_written_while_it_stays_mapped() {
    let (mut rig, object) = old_and_dirty();
    rig.settle();
    assert!(rig.pager.counters().cleaned >= 32);
    let clean =
        |n: u32| matches!(rig.leaf(&object, n), LeafState::Present(m) if !m.dirty && m.has_block);
    assert_eq!((0..44).filter(|&n| clean(n)).count() as u64, rig.pager.counters().cleaned);
    assert_eq!(rig.disk.inner().blocks[0][..8], 1_u64.to_le_bytes());
}

#[test]
fn a_page_written_while_it_is_cleaned_stays_dirty() {
    let (mut rig, object) = old_and_dirty();
    rig.set_pace(DiskPace::Held);
    rig.settle();
    assert!(rig.disk.inner().writes > 0);
    rig.write(&object, 0, 4711);
    rig.set_pace(DiskPace::Prompt);
    rig.settle();
    let LeafState::Present(mapping) = rig.leaf(&object, 0) else { panic!() };
    assert!(mapping.dirty && !mapping.has_block);
    // The new content is written out later.
    (44..64).for_each(|n| rig.write(&object, n, 1));
    rig.settle();
    assert_eq!(rig.read(&object, 0), 4711);
}

#[test]
#[cfg_attr(feature = "mutant-no-flush", ignore = "it is what the mutation breaks")]
fn a_write_through_an_old_translation_is_not_missed() {
    let (mut rig, object) = old_and_dirty();
    let _ = rig.words.enter(OTHER, object.id(), object.generation());
    rig.settle();
    let LeafState::Present(mapping) = rig.leaf(&object, 0) else { panic!() };
    assert!(!mapping.dirty, "D has been cleared");
    // The other CPU's TLB still caches D as set, so the CPU does not set D again.
    rig.map.copy_in(mapping.hfn, 0, &4711_u64.to_le_bytes());
    rig.map.copy_in(mapping.hfn, 4088, &4711_u64.to_le_bytes());
    rig.words.leave(OTHER);
    rig.words.idle(OTHER);
    rig.settle();
    assert_eq!(rig.disk.inner().blocks[0][..8], 4711_u64.to_le_bytes());
}

#[test]
fn a_failed_cleaning_leaves_the_page_dirty() {
    let (mut rig, object) = old_and_dirty();
    rig.disk.inner().fail_writes = 1;
    (0..5).for_each(|_| rig.poll());
    assert_eq!(rig.pager.counters().write_errors, 1);
    let dirty = (0..44)
        .filter(|&n| matches!(rig.leaf(&object, n), LeafState::Present(m) if m.dirty))
        .count();
    assert!(dirty >= 32, "{dirty}");
}
