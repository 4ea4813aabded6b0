//! Ends of an incarnation that are no crash.

use super::*;
use crate::node::tests::disk::{FaultKind, FaultPlan};
use GuestStep::*;
use core::sync::atomic::Ordering;

#[test]
fn a_reset_begins_the_next_incarnation_on_empty_memory_and_the_same_space() {
    let first = [Write(page(0), 7), RESET];
    let mut life = Life::alone(config("p"), &[&first, &[Read(page(0))]]);
    life.hear("Stopped", &["incarnation: 1", "how: \"reset\""]);
    life.hear("Start", &["incarnation: 2"]);
    life.hear("Entered", &["incarnation: 2"]);
    life.finish();
    let record = life.record();
    assert_eq!((record.values, record.boots[1].regs.rip), (vec![0], ENTRY));
    assert_eq!(life.spaces()[0], ("active", Some(("p".into(), 2))));
    assert!(life.spaces()[1..].iter().all(|space| space.0 == "free"));
    assert!(!life.has_heard("Crash"));
}

#[test]
fn a_triple_fault_at_a_breakpoint_without_a_table_is_a_reset() {
    let mut life = Life::alone(config("p"), &[&[LoadTable(0), Jump(INT3), TRIPLE_FAULT], &[]]);
    life.hear("Stopped", &["incarnation: 1", "how: \"reset\""]);
    life.hear("Entered", &["incarnation: 2"]);
}

#[test]
fn power_off_ends_the_partition_and_frees_what_it_had() {
    let mut program = vec![Write(page(0), 7)];
    program.extend(b"bye".iter().map(|&byte| Out(COM1, byte)));
    program.push(POWER_OFF);
    let mut life = Life::alone(config("p"), &[&program]);
    life.hear("Stopped", &["how: \"power off\"", "code: 0"]);
    life.reach(LifecycleView::Stopped);
    life.until("free spaces", |life| {
        life.spaces().iter().all(|space| space.0 == "free").then_some(())
    });
    assert_eq!(life.printed, "bye", "its last output is not lost");
    assert_eq!(life.record().boots.len(), 1);
    assert_eq!(life.host().frames.free_count(), life.host().frames.total());
}

#[test]
fn a_halt_that_nothing_can_end_is_the_end() {
    for program in [&[Cli, Halt][..], &[Sti, Halt]] {
        let mut life = Life::alone(config("p"), &[program]);
        life.hear("Stopped", &["how: \"halted for good\""]);
        life.reach(LifecycleView::Stopped);
    }
}

#[test]
fn a_test_kernel_reports_and_ends_with_its_code() {
    let mut program: Vec<_> = b"line\n".iter().map(|&byte| Out(0x5e0, byte)).collect();
    program.extend([Out(0x5e2, 0), Out(0x5e1, 3), Out(0xf4, 9)]);
    let mut life = Life::alone(config("p"), &[&program]);
    for kind in ["pass", "fail"] {
        life.hear("Guest", &[&format!("kind: \"{kind}\"")]);
    }
    life.hear("Stopped", &["how: \"debug exit\"", "code: 9"]);
    assert!(life.machine.told.iter().any(|event| event.contains("text: \"line\"")));
}

#[test]
fn the_machine_ends_after_its_last_partition_and_only_if_it_is_to() {
    for is_to_end in [true, false] {
        let script = GuestScript::of(&[&[POWER_OFF]]);
        let (p, q) = (script, GuestScript::default());
        let mut life = Life::new(2, &[(config("p"), &p), (config("q"), &q)]);
        life.host().ending.store(is_to_end, Ordering::Release);
        life.hear("Entered", &["partition: \"q\""]);
        life.reach(LifecycleView::Stopped);
        life.pass(SECOND_NS);
        assert!(!life.machine.node.has_ended(), "q runs");
        q.go_on(&[POWER_OFF]);
        life.hear("Stopped", &["partition: \"q\""]);
        life.pass(SECOND_NS);
        assert_eq!(life.machine.node.has_ended(), is_to_end);
    }
}

#[test]
fn a_machine_that_ends_leaves_a_silent_disk_behind() {
    let writes: Vec<_> = (0..64).map(|n| Write(page(n), 100 + n)).collect();
    let mut life = Life::new(1, &[(config("p"), &GuestScript::of(&[&writes]))]);
    life.finish();
    let disk = life.machine.disks[0];
    let request = disk.state().requests;
    disk.state().fault = Some(FaultPlan { request, kind: FaultKind::NoAnswer });
    life.command("evict p 512");
    life.until("a page in flight", |_| (disk.state().requests > request + 1).then_some(()));
    life.scripts[0].go_on(&[POWER_OFF]);
    life.hear("Stopped", &["how: \"power off\""]);
    life.pass(5 * SECOND_NS);
    assert_ne!(life.shared().view(), LifecycleView::Stopped, "the disk may still answer");
    life.host().ending.store(true, Ordering::Release);
    life.reach(LifecycleView::Stopped);
    assert!(life.host().frames.free_count() < life.host().frames.total());
    assert_ne!(life.spaces()[0].0, "free");
}
