//! The pager's entries in the history of a partition.

use super::*;
use crate::log::history::{self, HistoryKind};

/// Returns the entries of these kinds: the code and the two numbers of each. The rig's objects draw
/// on the accounts of their own numbers.
fn told(object: &MemoryObject, kinds: &[HistoryKind]) -> Vec<(HistoryKind, u32, [u64; 2])> {
    let entries =
        history::of_partition(crate::partition_id::PartitionId::new(object.id().as_u16()));
    let known = entries.iter().filter_map(|entry| {
        HistoryKind::of(entry.kind).map(|kind| (kind, entry.code, entry.numbers))
    });
    known.filter(|(kind, ..)| kinds.contains(kind)).collect()
}

#[test]
fn a_page_in_that_ends_well_leaves_no_entry() {
    let (mut rig, object) = full();
    rig.settle();
    let paged = (0..64).find(|&n| matches!(rig.leaf(&object, n), LeafState::Paged(_)));
    let before = told(&object, HistoryKind::ALL);
    assert_eq!(rig.read(&object, paged.expect("a paged page")), u64::from(paged.unwrap()) + 1);
    let after = told(&object, HistoryKind::ALL);
    let launched = |entries: &[(HistoryKind, u32, [u64; 2])]| {
        entries.iter().filter(|(kind, ..)| *kind == HistoryKind::BatchLaunched).count()
    };
    assert_eq!(after.len() - before.len(), launched(&after) - launched(&before));
}

#[test]
fn a_batch_is_recorded_with_its_pages() {
    let (mut rig, object) = full();
    rig.settle();
    let batches = told(&object, &[HistoryKind::BatchLaunched]);
    assert!(!batches.is_empty());
    let pages: u64 = batches.iter().map(|(.., numbers)| numbers[0]).sum();
    assert!(pages >= u64::from(rig.absent(&object)), "{batches:?}");
}

#[test]
fn of_failures_in_a_row_only_the_first_is_recorded() {
    let (mut rig, object) = full();
    rig.disk.inner().fail_writes = 3;
    (0..1000).for_each(|_| rig.poll());
    let failed = told(&object, &[HistoryKind::WriteFailed]);
    let [(_, 0, [first, count])] = failed[..] else { panic!("{failed:?}") };
    assert!(count > 0 && first + count <= 64);
}

#[test]
fn a_page_is_lost_after_its_reads_have_failed() {
    let (mut rig, object) = full();
    rig.settle();
    let paged = (0..64).find(|&n| matches!(rig.leaf(&object, n), LeafState::Paged(_)));
    let index = paged.expect("a paged page");
    rig.disk.inner().blocks[index as usize][100] ^= 1;
    while let AccessOutcome::Wait(_) = rig.fault(&object, index) {
        rig.poll();
    }
    let (failed, lost) = (HistoryKind::ReadFailed, HistoryKind::PageLost);
    let page = u64::from(index);
    let expected = [(failed, 1, [page, 1]), (failed, 1, [page, 2]), (lost, 1, [page, 0])];
    assert_eq!(told(&object, &[failed, lost]), expected);
}

#[test]
#[cfg_attr(feature = "mutant-no-flush", ignore = "it is what the mutation breaks")]
fn a_flush_that_waits_long_is_recorded_once_and_so_is_its_end() {
    let (mut rig, object) = full();
    let _ = rig.words.enter(OTHER, object.id(), object.generation());
    let kinds = [HistoryKind::FlushLate, HistoryKind::FlushPassed];
    (0..19).for_each(|_| rig.poll());
    assert_eq!(told(&object, &kinds), []);
    (0..19).for_each(|_| rig.poll());
    let late = told(&object, &kinds);
    assert!(!late.is_empty());
    for (kind, _, [cpus, _]) in &late {
        assert_eq!((*kind, *cpus), (HistoryKind::FlushLate, 1 << OTHER.index()));
    }
    rig.words.leave(OTHER);
    rig.words.idle(OTHER);
    rig.settle();
    let passed = told(&object, &[HistoryKind::FlushPassed]);
    assert_eq!(passed.len(), late.len());
    assert!(passed.iter().all(|(_, _, [after_ns, _])| *after_ns >= 20 * MS.as_u64()), "{passed:?}");
}
