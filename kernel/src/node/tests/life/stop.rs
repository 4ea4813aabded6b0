//! A stop in order: the power button, the guest's answers to it, and the time-out.

use super::*;
use crate::node::tests::machine::number;
use crate::partition::devices::map::{IOAPIC_BASE, POWER_BUTTON_PIN};
use crate::virt::InjectedEvent;
use GuestStep::*;

/// The vector of the button.
const VECTOR: u8 = 0x31;
/// End of interrupt.
const EOI: GuestStep = WriteMsr(0x80b, 0);

/// A guest that has switched its local APIC on (x2APIC).
const APIC: [GuestStep; 2] = [WriteMsr(0x1b, 0xfee0_0d00), WriteMsr(0x80f, 0x1ff)];

/// Opens the button's input.
const OPEN: [GuestStep; 2] = [
    Store(Gpa::new(IOAPIC_BASE), 0x10 + 2 * POWER_BUTTON_PIN as u32),
    Store(Gpa::new(IOAPIC_BASE + 0x10), VECTOR as u32),
];

/// A guest that waits for the button and then does `then`.
fn waits_and(then: &[GuestStep]) -> Vec<GuestStep> {
    [&APIC[..], &OPEN, &[Sti, Halt], then].concat()
}

/// A partition with this program, whose guest has reached its end or its first halt.
fn running(config: PartitionConfig, program: &[GuestStep]) -> Life {
    let mut life = Life::alone(config, &[program, &[]]);
    life.hear("Entered", &[]);
    life.pass(100 * MS);
    life
}

fn assert_stays_stopped(life: &mut Life) {
    life.reach(LifecycleView::Stopped);
    life.pass(SECOND_NS);
    assert_eq!((life.shared().view(), life.record().boots.len()), (LifecycleView::Stopped, 1));
}

#[test]
fn a_guest_that_answers_the_button_ends_itself() {
    let mut life = running(config("p"), &waits_and(&[Work(2 * SECOND_NS), POWER_OFF]));
    assert_eq!(life.command("stop p"), "");
    let told = life.hear("Stopping", &["partition: \"p\"", "incarnation: 1"]);
    assert_eq!(number(&told, "timeout_ns: "), Some((60 * SECOND_NS).as_u64()));
    assert_eq!(life.shared().view(), LifecycleView::ShuttingDown);
    life.hear("Stopped", &["incarnation: 1", "how: \"power button\"", "code: 0"]);
    assert_stays_stopped(&mut life);
    assert_eq!(life.record().delivered, [InjectedEvent::interrupt(VECTOR)]);
    assert_eq!(life.command("start p"), "");
    life.hear("Entered", &["incarnation: 2"]);
}

#[test]
fn a_power_off_without_the_button_is_no_answer_to_it() {
    let mut life = running(config("p"), &[POWER_OFF]);
    life.hear("Stopped", &["how: \"power off\""]);
    assert_eq!(life.command("start p"), "");
    life.hear("Entered", &["incarnation: 2"]);
    life.scripts[0].go_on(&[POWER_OFF]);
    life.hear("Stopped", &["how: \"power off\""]);
}

#[test]
fn a_guest_that_does_not_answer_is_stopped_hard_after_the_time() {
    let timer = [WriteMsr(0x832, 0x41), WriteMsr(0x838, u64::from(u32::MAX)), Sti, Halt];
    let asleep = [&APIC[..], &timer].concat();
    for program in [&[][..], &asleep, &waits_and(&[EOI, Halt])] {
        let mut life = running(config("p"), program);
        let asked = time::now_ns();
        life.command("stop p timeout=10s");
        life.hear("Stopped", &["how: \"hard after time-out\""]);
        let waited = time::now_ns() - asked;
        assert!((10 * SECOND_NS..10 * SECOND_NS + 100 * MS).contains(&waited), "{waited:?}");
        assert_stays_stopped(&mut life);
    }
}

#[test]
fn a_guest_that_waits_for_a_page_is_stopped_within_the_time() {
    let mut life = Life::new(1, &[(config("p"), &GuestScript::of(&[&[Write(page(0), 7)]]))]);
    life.finish();
    life.command("evict p 512");
    life.until("the eviction", |life| (life.host().pager.counters().page_outs >= 1).then_some(()));
    // The page comes after a second.
    life.machine.disks.iter().for_each(|disk| disk.state().speed = Some(4096));
    life.scripts[0].go_on(&[Read(page(0))]);
    life.pass(20 * MS);
    let asked = time::now_ns();
    life.command("stop p timeout=300ms");
    life.hear("Stopped", &["how: \"hard after time-out\""]);
    assert!(time::now_ns() - asked < 400 * MS);
    assert_eq!(life.record().values, [], "the page was not there yet");
}

#[test]
fn a_press_is_kept_until_the_kernel_has_opened_the_input() {
    let late = [&APIC[..], &[Sti, Work(2 * SECOND_NS)], &OPEN, &[Work(MS), POWER_OFF]].concat();
    let mut life = running(config("p"), &late);
    life.command("stop p");
    life.pass(SECOND_NS);
    assert_eq!(life.record().delivered, []);
    life.hear("Stopped", &["how: \"power button\""]);
    assert_eq!(life.record().delivered, [InjectedEvent::interrupt(VECTOR)]);
}

#[test]
fn a_press_does_not_reach_the_next_incarnation() {
    let mut life = running(config("p"), &[]);
    life.command("stop p timeout=1s");
    life.hear("Stopped", &["how: \"hard after time-out\""]);
    assert_stays_stopped(&mut life);
    life.command("start p");
    life.hear("Entered", &["incarnation: 2"]);
    life.scripts[0].go_on(&waits_and(&[POWER_OFF]));
    life.pass(5 * SECOND_NS);
    assert_eq!((life.shared().view(), life.record().delivered), (LifecycleView::Running, vec![]));
}

#[test]
fn a_second_stop_presses_again_and_its_time_counts() {
    let mut life = running(config("p"), &waits_and(&[EOI, Halt, EOI, Halt, POWER_OFF]));
    life.command("stop p timeout=10s");
    life.pass(8 * SECOND_NS);
    life.command("stop p timeout=10s");
    life.hear("Stopping", &[]);
    life.hear("Stopping", &[]);
    life.pass(8 * SECOND_NS);
    assert_eq!(life.shared().view(), LifecycleView::ShuttingDown);
    life.command("stop p timeout=10s");
    life.hear("Stopped", &["how: \"power button\""]);
    assert_eq!(life.record().delivered.len(), 3);
    let mut life = running(config("p"), &[]);
    life.command("stop p");
    life.pass(SECOND_NS);
    let asked = time::now_ns();
    life.command("stop p timeout=500ms");
    life.hear("Stopped", &["how: \"hard after time-out\""]);
    assert!(time::now_ns() - asked < SECOND_NS);
}

#[test]
fn a_kill_or_a_stop_without_time_ends_it_at_once() {
    for line in ["kill p", "stop p timeout=0"] {
        for is_under_way in [false, true] {
            let mut life = running(config("p"), &[]);
            if is_under_way {
                life.command("stop p");
                life.hear("Stopping", &[]);
            }
            let asked = time::now_ns();
            assert_eq!(life.command(line), "");
            life.hear("Stopped", &["how: \"operator\""]);
            assert!(time::now_ns() - asked < 100 * MS);
            assert_stays_stopped(&mut life);
            assert_eq!(life.has_heard("Stopping"), is_under_way);
        }
    }
}

#[test]
fn a_guest_that_resets_or_halts_at_the_button_does_not_start_again() {
    for (end, how) in [(&[RESET][..], "reset while stopping"), (&[Cli, Halt], "halted for good")] {
        let mut life = running(config("p"), &waits_and(end));
        life.command("stop p");
        life.hear("Stopped", &[&format!("how: \"{how}\"")]);
        assert_stays_stopped(&mut life);
    }
}

#[test]
fn a_crash_while_it_stops_leaves_its_dump_and_no_next_incarnation() {
    for restart in [RestartPolicy::Threshold, RestartPolicy::Immediate, RestartPolicy::Never] {
        let crashes = waits_and(&[Write(page(0), 7), TRIPLE_FAULT]);
        let mut life = running(PartitionConfig { restart, ..config("p") }, &crashes);
        life.command("stop p");
        life.hear("Crash", &["reason: \"triple fault\""]);
        life.hear("DumpComplete", &["incarnation: 1"]);
        life.hear("Stopped", &["how: \"crashed\""]);
        assert_stays_stopped(&mut life);
        assert!(!life.has_heard("Restart"));
        // Stops and crashes before do not count for a partition that was started again.
        life.command("start p");
        life.hear("Entered", &["incarnation: 2"]);
    }
    let plain = PartitionConfig { dump: DumpPolicy::Off, ..config("p") };
    let mut life = running(plain, &waits_and(&[TRIPLE_FAULT]));
    life.command("stop p");
    life.hear("Crash", &[]);
    life.hear("Stopped", &["how: \"crashed\""]);
    assert_stays_stopped(&mut life);
}

#[test]
fn a_crash_by_the_operator_beside_a_stop_is_no_restart() {
    for lines in [["stop p", "crash p"], ["crash p", "stop p"]] {
        let mut life = running(config("p"), &[]);
        lines.iter().for_each(|line| assert_eq!(life.command(line), ""));
        life.hear("Crash", &["reason: \"operator\""]);
        life.hear("DumpComplete", &[]);
        life.hear("Stopped", &["how: \"crashed\""]);
        assert_stays_stopped(&mut life);
    }
}

#[test]
fn a_panic_that_the_time_cuts_short_is_a_crash() {
    let mut life = running(config("p"), &waits_and(&[PANICKED]));
    life.command("stop p timeout=50ms");
    life.hear("Crash", &["reason: \"panic\""]);
    life.hear("DumpComplete", &[]);
    life.hear("Stopped", &["how: \"crashed\""]);
    assert_stays_stopped(&mut life);
}

#[test]
fn what_shuts_down_is_not_started_and_not_undefined() {
    let mut life = running(config("p"), &[]);
    life.command("stop p");
    life.hear("Stopping", &[]);
    for line in ["start p", "undefine p"] {
        let refused = life.command(line);
        assert!(refused.contains("p has not stopped, it is shutting down"), "{refused}");
    }
    assert_eq!(life.shared().view(), LifecycleView::ShuttingDown);
}

#[test]
fn a_partition_without_a_running_guest_is_stopped_at_once() {
    let at_once = |life: &mut Life| {
        let asked = time::now_ns();
        assert_eq!(life.command("stop p"), "");
        life.hear("Stopped", &["partition: \"p\"", "how: \"operator\""]);
        assert!(time::now_ns() - asked < SECOND_NS && !life.has_heard("Stopping"));
    };
    // It is being loaded.
    let mut large = config("p");
    large.kernel.initrd = Some("initrd".into());
    let mut life = Life::alone(large, &[]);
    life.reach(LifecycleView::Loading);
    at_once(&mut life);
    // It waits for a space.
    let (p, q) = (GuestScript::default(), GuestScript::default());
    let mut life = Life::new(1, &[(config("q"), &q), (config("p"), &p)]);
    life.hear("Waiting", &["partition: \"p\""]);
    at_once(&mut life);
    // Its space is being made ready.
    let mut life = Life::alone(config("p"), &[]);
    life.until("its space", |life| {
        (life.shared().view() == LifecycleView::Activating).then_some(())
    });
    at_once(&mut life);
    assert!(!life.has_heard("Entered"));
    // It was reset, and its memory is being taken apart.
    let mut life = Life::alone(config("p"), &[&[Write(page(0), 7), RESET], &[]]);
    life.hear("Stopped", &["how: \"reset\""]);
    at_once(&mut life);
    assert_stays_stopped(&mut life);
}

#[test]
fn a_crashed_partition_is_stopped_at_once_and_its_dump_is_finished() {
    let writes: Vec<_> = (0..64).map(|n| Write(page(n), 100 + n)).collect();
    let mut life = Life::alone(config("p"), &[&writes]);
    life.finish();
    life.machine.disks.iter().for_each(|disk| disk.state().speed = Some(20_480));
    life.command("crash p");
    life.hear("Crash", &[]);
    life.command("stop p");
    life.hear("Stopped", &["how: \"operator\""]);
    assert!(!life.has_heard("DumpComplete") && !life.has_heard("Stopping"));
    assert!(life.command("stop p").is_empty() || life.shared().view() == LifecycleView::Stopped);
    life.machine.disks.iter().for_each(|disk| disk.state().speed = None);
    life.hear("DumpComplete", &["incarnation: 1"]);
    assert_stays_stopped(&mut life);
    assert!(life.command("stop p").contains("p has stopped already"));
}

#[test]
fn the_machine_ends_in_order_and_no_guest_holds_it_up() {
    let polite = GuestScript::of(&[&waits_and(&[Work(SECOND_NS), POWER_OFF])]);
    let (deaf, fragile) =
        (GuestScript::of(&[&[]]), GuestScript::of(&[&waits_and(&[TRIPLE_FAULT])]));
    let configs = [config("p"), config("deaf"), config("fragile")];
    let [p, d, f] = configs;
    let mut life = Life::new(5, &[(p, &polite), (d, &deaf), (f, &fragile)]);
    life.pass(500 * MS);
    let asked = time::now_ns();
    assert_eq!(life.command("poweroff timeout=5s"), "");
    assert!(life.command("start p").contains("the machine is ending"));
    life.hear("Stopped", &["partition: \"p\"", "how: \"power button\""]);
    life.hear("Stopped", &["partition: \"deaf\"", "how: \"hard after time-out\""]);
    life.until("the end", |life| life.machine.node.has_ended().then_some(()));
    assert!(time::now_ns() - asked < 7 * SECOND_NS);
    let counts = |kind: &str| life.machine.told.iter().filter(|e| e.starts_with(kind)).count();
    assert_eq!((counts("Start {"), counts("DumpComplete {"), counts("Stopped {")), (3, 1, 3));
    // Without a time it ends at once, and so it does if the operator loses patience.
    for lines in [&["poweroff"][..], &["poweroff timeout=50s", "poweroff"]] {
        let mut life = running(config("p"), &[]);
        let asked = time::now_ns();
        lines.iter().for_each(|line| assert_eq!(life.command(line), ""));
        life.hear("Stopped", &["how: \"operator\""]);
        life.until("the end", |life| life.machine.node.has_ended().then_some(()));
        assert!(time::now_ns() - asked < SECOND_NS);
    }
}
