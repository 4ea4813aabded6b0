//! Power cuts: an operation's writes are replayed up to each point, with every subset of those that
//! no flush has made durable, and with torn ones.

use super::super::fake::{FakeOperation, apply};
use super::*;

/// Calls `check` with each content of the disk that a power cut during `operations` can leave, and
/// the number of operations that were complete.
fn every_cut(before: &[u8], operations: &[FakeOperation], mut check: impl FnMut(&[u8], usize)) {
    let mut stable = before.to_vec();
    let mut pending: Vec<(u64, &[u8])> = vec![];
    check(&stable, 0);
    for (done, operation) in (1..).zip(operations) {
        match operation {
            FakeOperation::Flush => {
                pending.drain(..).for_each(|(first, bytes)| apply(&mut stable, first, bytes));
                check(&stable, done);
            }
            FakeOperation::Write(first, bytes) => {
                pending.push((*first, bytes));
                assert!(pending.len() <= 8, "few writes between two flushes");
                for subset in 0..1_u32 << pending.len() {
                    let mut disk = stable.clone();
                    let chosen = pending.iter().enumerate().filter(|(n, _)| subset >> n & 1 == 1);
                    chosen.for_each(|(_, (first, bytes))| apply(&mut disk, *first, bytes));
                    check(&disk, done - 1);
                }
                tear(&stable, &pending, |disk| check(disk, done - 1));
            }
        }
    }
}

/// Tears the last write: its first or its last sectors arrive.
fn tear(stable: &[u8], pending: &[(u64, &[u8])], mut check: impl FnMut(&[u8])) {
    let Some(((first, bytes), others)) = pending.split_last() else { return };
    let mut base = stable.to_vec();
    others.iter().for_each(|(first, bytes)| apply(&mut base, *first, bytes));
    let step = (bytes.len() / 512).div_ceil(24) * 512;
    for cut in (512..bytes.len()).step_by(step) {
        let at = *first as usize * 4096;
        let mut disk = base.clone();
        disk[at..at + cut].copy_from_slice(&bytes[..cut]);
        check(&disk);
        let mut disk = base.clone();
        disk[at + cut..at + bytes.len()].copy_from_slice(&bytes[cut..]);
        check(&disk);
    }
}

/// Runs an operation on `disk`, and checks that every cut leaves the old contents or the new ones,
/// and that the end leaves the new ones.
fn old_or_new(
    disk: &mut FakeStoreDisk,
    operation: impl FnOnce(&mut FakeStoreDisk),
) -> (Contents, Contents) {
    let (before, old) = (disk.bytes.clone(), contents(&disk.bytes));
    disk.operations.clear();
    operation(disk);
    let new = contents(&disk.bytes);
    let (operations, mut cuts) = (core::mem::take(&mut disk.operations), 0);
    every_cut(&before, &operations, |bytes, done| {
        let found = contents(bytes);
        assert!(found == old || found == new, "after {done} operations: {found:?}");
        assert!(done < operations.len() || found == new, "what was announced is lost");
        cuts += 1;
    });
    assert!(cuts > 10, "{cuts} cuts");
    (old, new)
}

#[test]
fn an_addition_leaves_the_old_store_or_the_new_one() {
    let disk = &mut formatted();
    for n in 0..3 {
        let (old, new) = old_or_new(disk, |disk| {
            add_now(disk, &content(n, 2 * CHUNK + 7));
        });
        assert_eq!(new.images.len(), old.images.len() + 1);
    }
}

#[test]
fn a_definition_leaves_the_old_one_or_the_new_one() {
    let disk = &mut formatted();
    let (one, two) = (add_now(disk, &content(1, 100)), add_now(disk, &content(2, 100)));
    for (generation, kernel) in [(1, one), (2, two), (3, one)] {
        let (_, new) = old_or_new(disk, |disk| {
            run(definer(2).define(disk, definition("web", kernel))).unwrap().unwrap();
        });
        assert_eq!(new.definitions["web"], (generation, kernel));
    }
    let (_, new) = old_or_new(disk, |disk| {
        run(definer(2).undefine(disk, "web", None)).unwrap().unwrap();
    });
    assert!(new.definitions.is_empty());
    old_or_new(disk, |disk| {
        run(definer(2).define(disk, definition("web", two))).unwrap().unwrap();
    });
}

#[test]
fn a_removal_leaves_the_image_or_takes_it_and_its_room_is_used_only_after_that() {
    let disk = &mut formatted();
    let one = add_now(disk, &content(1, 8 * CHUNK));
    add_now(disk, &content(2, 2 * CHUNK));
    let (_, new) = old_or_new(disk, |disk| {
        let store = run(open::open(disk)).unwrap().unwrap();
        run(change::remove(disk, &store, AUTHOR, &[one])).unwrap().unwrap();
    });
    assert_eq!(new.images.len(), 1);
    // The older copy of the directory still names the room that this takes.
    let (_, new) = old_or_new(disk, |disk| {
        add_now(disk, &content(3, 6 * CHUNK));
    });
    assert_eq!(new.images.len(), 2);
}

#[test]
fn a_format_leaves_no_store_or_an_empty_one() {
    let disk = &mut formatted();
    add_now(disk, &content(1, 100));
    let before = disk.bytes.clone();
    disk.operations.clear();
    run(change::format(disk, &superblock(), AUTHOR)).unwrap().unwrap();
    let (old, mut bytes) = (contents(&before), before);
    let operations = core::mem::take(&mut disk.operations);
    for (done, operation) in operations.iter().enumerate() {
        match run(open::open(&mut FakeStoreDisk::of(bytes.clone()))).unwrap() {
            Ok(_) if done == 0 => assert_eq!(contents(&bytes), old),
            Ok(_) => assert_eq!(contents(&bytes), Contents::default()),
            Err(StoreError::Content(error)) => assert_eq!(error.fault, StoreFault::Empty),
            Err(error) => panic!("{error}"),
        }
        if let FakeOperation::Write(first, new) = operation {
            apply(&mut bytes, *first, new);
        }
    }
    assert_eq!(contents(&bytes), Contents::default());
}
