//! A partition on a cluster's disk: it stays out while the lease is over, goes on, or is stopped.

use super::*;
use GuestStep::*;

/// The flags of KVM's clock.
fn flags() -> Gpa {
    Gpa::new(page(0).as_u64() + 24)
}

/// The cluster's lease on a disk, from the test's hand.
fn lease(life: &Life, disk: usize, ends_ns: Ns) {
    life.host().pager.disks()[disk].lease_until(ends_ns);
}

/// A guest that works for some time, on a disk whose lease ends in a second.
fn leased(work: Ns) -> (Life, Ns) {
    let program = [WriteMsr(SYSTEM_TIME, page(0).as_u64() | 1)];
    let mut life = Life::new(1, &[(config("p"), &GuestScript::of(&[&program]))]);
    let end = time::now_ns() + 2 * SECOND_NS + Ns::from_us(1_777);
    lease(&life, 0, end);
    life.finish();
    assert!(time::now_ns() < end, "the guest begins within the lease");
    life.scripts[0].go_on(&[Read(flags()), Work(work)]);
    (life, end)
}

#[test]
fn a_guest_executes_nothing_after_the_lease_and_is_told_when_it_goes_on() {
    let (mut life, end) = leased(10 * SECOND_NS);
    life.until("the end of the lease", |_| (time::now_ns() >= end).then_some(()));
    // The clock stands where the last instruction was executed, and turns take a millisecond.
    assert!(time::now_ns() <= end + 2 * MS, "it was left late");
    let entries = life.record().entries;
    life.pass(5 * SECOND_NS);
    assert_eq!(life.record().entries, entries, "it was entered after the lease");
    assert_eq!(life.shared().view(), LifecycleView::Running);
    // Not told by its own losses: those are the freeze's.
    let again = time::now_ns() + 2 * SECOND_NS;
    lease(&life, 0, again);
    life.pass(SECOND_NS);
    assert!(life.record().entries > entries, "it does not thaw");
    life.until("the end of the lease", |_| (time::now_ns() >= again).then_some(()));
    let entries = life.record().entries;
    life.pass(SECOND_NS);
    assert_eq!(life.record().entries, entries, "the second lease does not bound it");
    lease(&life, 0, Ns::new(u64::MAX - 1));
    life.scripts[0].go_on(&[Read(flags())]);
    life.finish();
    let told: Vec<_> = life.record().values.iter().map(|word| word >> 40 & 2 != 0).collect();
    assert_eq!(told, [false, true]);
}

#[test]
fn a_lease_that_is_extended_in_time_costs_the_guest_nothing() {
    let (mut life, _) = leased(60 * SECOND_NS);
    for _ in 0..40 {
        lease(&life, 0, time::now_ns() + 2 * SECOND_NS);
        life.pass(SECOND_NS);
    }
    lease(&life, 0, time::now_ns() + 60 * SECOND_NS);
    let worked = time::now_ns();
    life.scripts[0].go_on(&[Read(flags())]);
    life.finish();
    assert!(time::now_ns() - worked < 30 * SECOND_NS, "it lost time");
    let told: Vec<_> = life.record().values.iter().map(|word| word >> 40 & 2 != 0).collect();
    assert_eq!(told, [false, false]);
}

#[test]
fn a_frozen_guest_is_stopped_by_the_operator_and_beside_it_others_run() {
    let (p, q) = (GuestScript::of(&[&[]]), GuestScript::of(&[&[]]));
    let mut life = Life::new(2, &[(config("p"), &p), (config("q"), &q)]);
    let end = time::now_ns() + SECOND_NS;
    lease(&life, 0, end);
    life.until("both run", |life| {
        let is_up = |n: u16| life.partition(n).view() == LifecycleView::Running;
        (is_up(0) && is_up(1)).then_some(())
    });
    life.until("the end of the lease", |_| (time::now_ns() >= end).then_some(()));
    let before: Vec<_> = life.scripts.iter().map(|script| script.record().entries).collect();
    life.pass(SECOND_NS);
    let after: Vec<_> = life.scripts.iter().map(|script| script.record().entries).collect();
    let moved: Vec<_> = before.iter().zip(&after).map(|(old, new)| new > old).collect();
    assert_eq!(moved.iter().filter(|moved| **moved).count(), 1, "{before:?} {after:?}");
    let frozen = u16::from(moved[0]);
    life.partition(frozen).ask(crate::partition::shared::PartitionRequest::Stop);
    life.host().poke(PartitionId::new(frozen));
    life.hear("Stopped", &["operator"]);
}

#[test]
fn a_node_that_was_fenced_stops_its_partitions_and_gives_their_spaces_up() {
    let (mut life, end) = leased(60 * SECOND_NS);
    life.until("the end of the lease", |_| (time::now_ns() >= end).then_some(()));
    life.host().pager.disks()[0].end_lease();
    life.hear("Stopped", &["fenced", "partition: \"p\""]);
    life.reach(LifecycleView::Stopped);
    assert!(!life.has_heard("Crash") && !life.has_heard("Released"));
    let entries = life.record().entries;
    // Nothing of it is wiped: it is not this node's any more.
    life.pass(30 * SECOND_NS);
    assert_eq!(life.spaces()[0].0, "active");
    assert_eq!(life.record().entries, entries);
}
