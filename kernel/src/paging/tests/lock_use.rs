//! The pager's counters of its lock and its turns.

use super::*;
use crate::time::Ticks;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

#[test]
fn a_turn_is_without_work_unless_an_answer_is_taken_or_a_page_moves() {
    let mut rig = RigParameters { frames: 64, ..RigParameters::default() }.start();
    let object = rig.object(128, 0);
    rig.fill(&object, 0..128);
    let idle = rig.pager.lock_use();
    (0..5).for_each(|_| rig.poll());
    let after = rig.pager.lock_use();
    assert_eq!(
        (after.turns - idle.turns, after.turns_without_work - idle.turns_without_work),
        (5, 5)
    );

    let paged = (0..128).find(|n| matches!(rig.leaf(&object, *n), LeafState::Paged(_))).unwrap();
    let AccessOutcome::Wait(ticket) = rig.fault(&object, paged) else {
        panic!("a paged page is there at once")
    };
    while !object.ready(ticket) {
        rig.poll();
    }
    let read = rig.pager.lock_use();
    let with_work = |later: LockUse, earlier: LockUse| {
        (later.turns - earlier.turns) - (later.turns_without_work - earlier.turns_without_work)
    };
    assert!(with_work(read, after) >= 1, "{read:?}");

    rig.pager.ask_evict(object.id(), 16);
    rig.settle();
    assert!(with_work(rig.pager.lock_use(), read) >= 2, "a batch was filled and written");
}

#[test]
fn holds_are_counted_and_those_of_turns_are_timed_where_there_are_several_cpus() {
    let mut rig = RigParameters::default().start();
    let before = rig.pager.lock_use();
    assert_eq!(before.longest_ticks, Ticks::ZERO);
    drop(rig.pager.locked());
    assert_eq!(rig.pager.lock_use().taken, before.taken + 2);
    rig.poll();
    assert!(rig.pager.lock_use().longest_ticks > Ticks::ZERO);
}

#[test]
fn a_wait_for_the_lock_is_counted() {
    let rig = RigParameters::default().start();
    let before = rig.pager.lock_use().waits;
    // A round in which the other thread was stopped before it asked for the lock is repeated.
    for _ in 0..10_000 {
        let (asks, held) = (AtomicBool::new(false), rig.pager.locked());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                asks.store(true, SeqCst);
                drop(rig.pager.locked());
            });
            while !asks.load(SeqCst) {
                std::thread::yield_now();
            }
            (0..50).for_each(|_| std::thread::yield_now());
            drop(held);
        });
        if rig.pager.lock_use().waits > before {
            return;
        }
    }
    panic!("no wait was counted");
}

/// A poll's writes to a memory-backed disk are completed by the end of that poll: no interrupt
/// would announce them later.
#[test]
fn answers_of_a_disk_that_does_not_interrupt_are_taken_at_once() {
    let mut rig = RigParameters { frames: 64, ..RigParameters::default() }.start();
    let object = rig.object(128, 0);
    rig.disk.inner().is_silent = true;
    (0..32).for_each(|n| rig.write(&object, n, 1));
    rig.settle();
    rig.pager.ask_evict(object.id(), 8);
    // The pages are aged, taken, flushed and written.
    for _ in 0..8 {
        rig.poll();
        let state = rig.pager.locked();
        assert!(
            state.batches.iter().all(|batch| batch.outstanding == 0),
            "a write waits for the next poll"
        );
    }
    assert_eq!(rig.pager.counters().page_outs, 8);
}
