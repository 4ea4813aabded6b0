//! The operator's commands, at each stage of a partition's life.

use super::*;
use crate::partition::shared::PartitionRequest;
use GuestStep::*;

/// Slows all disks down: a record of 4 KiB takes a fifth of a second.
fn slow(life: &Life) {
    life.machine.disks.iter().for_each(|disk| disk.state().speed = Some(20_480));
}

#[test]
fn a_running_guest_that_is_crashed_leaves_a_dump_and_restarts() {
    let mut life = Life::alone(config("p"), &[&[Write(page(0), 7)], &[]]);
    life.finish();
    assert_eq!(life.command("crash p"), "");
    life.hear("Crash", &["incarnation: 1", "reason: \"operator\""]);
    life.hear("Entered", &["incarnation: 2"]);
    life.until("the dump", |life| life.has_heard("DumpComplete").then_some(()));
}

#[test]
fn a_halted_guest_is_crashed_and_stopped_like_a_running_one() {
    let halts = [WriteMsr(0x1b, 0xfee0_0d00), WriteMsr(0x80f, 0x1ff), WriteMsr(0x832, 0x41)];
    let halts = [&halts[..], &[WriteMsr(0x838, u64::from(u32::MAX)), Sti, Halt]].concat();
    let mut life = Life::alone(config("p"), &[&halts, &halts]);
    for incarnation in 1..=2 {
        life.hear("Entered", &[&format!("incarnation: {incarnation}")]);
        life.pass(100 * MS);
        let entries = life.record().entries;
        life.pass(100 * MS);
        assert_eq!(life.record().entries, entries, "it halts");
        if incarnation == 1 {
            life.command("crash p");
            life.hear("Crash", &["reason: \"operator\""]);
        }
    }
    life.command("kill p");
    life.hear("Stopped", &["incarnation: 2", "how: \"operator\""]);
    life.reach(LifecycleView::Stopped);
}

#[test]
fn a_partition_that_is_being_loaded_can_be_crashed_and_stopped() {
    let mut large = config("p");
    large.kernel.initrd = Some("initrd".into());
    let mut life = Life::alone(large, &[]);
    life.reach(LifecycleView::Loading);
    assert_eq!(life.command("crash p"), "");
    life.hear("Crash", &["incarnation: 1", "reason: \"operator\""]);
    assert!(!life.has_heard("Entered"));
    life.hear("Start", &["incarnation: 2"]);
    life.reach(LifecycleView::Loading);
    life.command("kill p");
    life.hear("Stopped", &["incarnation: 2", "how: \"operator\""]);
    life.reach(LifecycleView::Stopped);
    assert!(!life.has_heard("Entered"));
}

#[test]
fn a_partition_that_waits_for_a_space_is_not_crashed_and_can_be_stopped() {
    let (p, q) = (GuestScript::default(), GuestScript::default());
    let mut life = Life::new(1, &[(config("q"), &q), (config("p"), &p)]);
    life.hear("Waiting", &["partition: \"p\""]);
    assert!(life.command("crash p").contains("p does not run: it is waiting"));
    life.command("kill p");
    life.hear("Stopped", &["partition: \"p\"", "how: \"operator\""]);
    assert!(life.command("kill p").contains("p has stopped already"));
    assert!(life.command("crash p").contains("p does not run: it is stopped"));
}

#[test]
fn a_stop_while_the_space_is_made_ready_comes_after_that() {
    let mut life = Life::alone(config("p"), &[]);
    slow(&life);
    life.pass(20 * MS);
    assert_eq!(life.shared().view(), LifecycleView::Activating);
    life.command("kill p");
    life.pass(20 * MS);
    assert!(!life.has_heard("Stopped"));
    life.hear("Stopped", &["how: \"operator\""]);
    assert!(!life.has_heard("Entered"));
    life.reach(LifecycleView::Stopped);
}

#[test]
fn a_crashed_partition_can_be_stopped_and_its_dump_is_finished() {
    let writes: Vec<_> = (0..64).map(|n| Write(page(n), 100 + n)).collect();
    let mut life = Life::alone(config("p"), &[&writes]);
    life.finish();
    slow(&life);
    life.command("crash p");
    life.hear("Crash", &[]);
    assert!(life.command("crash p").contains("p does not run: it is crashed"));
    life.command("kill p");
    life.hear("Stopped", &["how: \"operator\""]);
    assert!(!life.has_heard("DumpComplete"));
    life.machine.disks.iter().for_each(|disk| disk.state().speed = None);
    life.hear("DumpComplete", &["incarnation: 1"]);
    assert!(!life.has_heard("Restart"));
}

#[test]
fn a_crash_that_comes_too_late_does_not_hit_the_next_incarnation() {
    let mut life = Life::alone(config("p"), &[&[RESET], &[]]);
    life.hear("Stopped", &["how: \"reset\""]);
    life.shared().ask(PartitionRequest::Crash);
    life.host().poke(PartitionId::FIRST);
    life.hear("Entered", &["incarnation: 2"]);
    life.pass(SECOND_NS);
    assert!(!life.has_heard("Crash"));
}

#[test]
fn a_stop_after_a_reset_ends_the_partition() {
    let mut life = Life::alone(config("p"), &[&[Write(page(0), 7), RESET], &[]]);
    life.hear("Stopped", &["how: \"reset\""]);
    life.command("kill p");
    life.hear("Stopped", &["incarnation: 1", "how: \"operator\""]);
    life.reach(LifecycleView::Stopped);
    assert_eq!(life.record().boots.len(), 1);
}

#[test]
fn a_guest_that_waits_for_a_page_can_be_stopped() {
    let mut life = Life::new(1, &[(config("p"), &GuestScript::of(&[&[Write(page(0), 7)]]))]);
    life.finish();
    life.command("evict p 512");
    life.until("the eviction", |life| (life.host().pager.counters().page_outs >= 1).then_some(()));
    slow(&life);
    life.scripts[0].go_on(&[Read(page(0))]);
    life.pass(20 * MS);
    life.command("kill p");
    life.hear("Stopped", &["how: \"operator\""]);
    life.reach(LifecycleView::Stopped);
    assert_eq!(life.record().values, [], "the page was not there yet");
}
