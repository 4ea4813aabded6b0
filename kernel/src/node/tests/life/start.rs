//! From nothing to the first instruction.

use super::*;
use crate::node::tests::disk::{FaultKind, FaultPlan};
use GuestStep::*;

#[test]
fn a_start_loads_the_kernel_and_enters_it_with_the_loaders_registers() {
    let code = Gpa::new(GuestScript::MOV);
    let mut life = Life::alone(config("p"), &[&[Read(code)]]);
    life.hear("Start", &["incarnation: 1"]);
    life.hear("Entered", &["partition: \"p\"", "incarnation: 1"]);
    life.finish();
    let record = life.record();
    assert_eq!((record.boots.len(), record.boots[0].regs.rip), (1, ENTRY));
    assert_eq!(record.boots[0].state.cr0 & 1, 1, "PVH begins in protected mode");
    assert_eq!(record.values[0].to_le_bytes()[..2], GuestScript::MOV_BYTES);
    assert_eq!((life.shared().view(), life.shared().incarnation()), (LifecycleView::Running, 1));
}

#[test]
fn a_partition_without_a_space_waits_for_the_first_that_comes_free() {
    let (p, q) = (GuestScript::of(&[&[]]), GuestScript::default());
    let mut life = Life::new(1, &[(config("p"), &p), (config("q"), &q)]);
    life.hear("Entered", &["partition: \"p\""]);
    life.pass(100 * MS);
    assert!(life.has_heard("Waiting"));
    assert_eq!(life.partition(1).view(), LifecycleView::Waiting);
    assert_eq!(q.record().boots.len(), 0);
    life.command("kill p");
    life.hear("Entered", &["partition: \"q\"", "incarnation: 1"]);
    let told: Vec<_> =
        life.machine.told.iter().filter(|event| event.starts_with("Waiting")).collect();
    assert_eq!(told.len(), 1, "the wait is reported once: {told:?}");
}

#[test]
fn a_space_that_fails_is_left_for_another_one() {
    let mut life = Life::new(2, &[(config("p"), &GuestScript::default())]);
    let disk = life.machine.disks[0];
    let request = disk.state().requests;
    disk.state().fault = Some(FaultPlan { request, kind: FaultKind::ErrorForGood });
    life.hear("Entered", &["incarnation: 1"]);
    assert_eq!(life.spaces()[1].1, Some(("p".into(), 1)));
}

#[test]
fn an_immediate_start_does_not_wait_for_its_space_and_pages_when_it_has_it() {
    let writes: Vec<_> = (0..8).map(|n| Write(page(n), 100 + n)).collect();
    let immediate = PartitionConfig { restart: RestartPolicy::Immediate, ..config("p") };
    for (restarts, is_first) in [(immediate, true), (config("p"), false)] {
        let mut life = Life::new(1, &[(restarts, &GuestScript::of(&[&writes]))]);
        // A record of 4 KiB takes a fifth of a second.
        life.machine.disks[0].state().speed = Some(20_480);
        life.hear("Entered", &[]);
        let is_active = life.spaces()[0].0 == "active";
        assert_eq!(is_active, !is_first, "{:?}", life.spaces());
        life.finish();
        life.machine.disks[0].state().speed = None;
        life.until("the space", |life| (life.spaces()[0].0 == "active").then_some(()));
        life.pass(100 * MS);
        life.command("evict p 512");
        life.until("the eviction", |life| {
            (life.host().pager.counters().page_outs >= 8).then_some(())
        });
        life.scripts[0].go_on(&[Read(page(7))]);
        life.finish();
        assert_eq!(life.record().values, [107]);
    }
}

#[test]
fn a_partition_without_a_kernel_stops_before_it_begins() {
    let mut bad = config("p");
    bad.kernel.image = "none".into();
    let mut life = Life::alone(bad, &[]);
    life.hear("Error", &["place: \"p\""]);
    life.hear("Stopped", &["how: \"cannot start\""]);
    life.reach(LifecycleView::Stopped);
    assert!(!life.has_heard("Entered"));
    life.until("free spaces", |life| {
        life.spaces().iter().all(|space| space.0 == "free").then_some(())
    });
}

#[test]
fn a_large_image_is_loaded_in_several_turns() {
    let mut large = config("p");
    large.kernel.initrd = Some("initrd".into());
    let mut life = Life::alone(large, &[]);
    life.hear("Start", &[]);
    let mut turns = 0;
    while !life.has_heard("Entered") {
        assert_eq!(life.shared().view(), LifecycleView::Loading);
        life.turn();
        turns += 1;
    }
    assert!(turns >= INITRD_BYTES / (256 << 10), "{turns}");
}
