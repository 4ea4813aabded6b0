//! Partitions that come and go while the node runs.

use super::*;
use crate::config::DumpPolicy;
use crate::node::tests::machine::SLOTS;
use crate::node::tests::{Dice, is_long, seed};
use crate::pool::AccountId;
use GuestStep::*;

const DEFINE: &str = "define d memory=2M kernel=kernel";

/// A node whose partition `n` works, with two more disks.
fn beside() -> Life {
    let mut life = Life::new(3, &[(config("n"), &GuestScript::of(&[&[]]))]);
    life.hear("Entered", &["partition: \"n\""]);
    life
}

/// What a partition that has gone must leave as it was.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Ledger {
    frames: u32,
    objects: usize,
    tables: u32,
    tags: u32,
    vcpus: usize,
    promised: u32,
    spaces: Vec<(&'static str, Option<(String, u64)>)>,
    pub(super) has_work: bool,
    partitions: usize,
}

pub(super) fn ledger(life: &Life) -> Ledger {
    let host = life.host();
    let tags = host.tags.lock().used();
    Ledger {
        frames: host.frames.free_count(),
        objects: host.objects.count(),
        tables: host.tables.used_count(),
        tags,
        vcpus: life.vcpus.out.load(Ordering::Relaxed),
        promised: (0..SLOTS as u16).map(|n| host.pager.reserved(AccountId::new(n))).sum(),
        spaces: life.spaces(),
        has_work: !host.tasks.is_empty() || !host.reaper.is_empty(),
        partitions: life.machine.node.partitions().count(),
    }
}

fn stop_and_undefine(life: &mut Life) {
    assert_eq!(life.command("kill d"), "");
    life.hear("Stopped", &["partition: \"d\"", "how: \"operator\""]);
    assert_eq!(life.command("undefine d"), "");
    life.hear("Undefined", &["\"d\""]);
}

#[test]
fn a_partition_that_no_configuration_names_goes_through_its_whole_life() {
    let mut life = beside();
    let d = life.script("d", &[&[Write(page(0), 7), TRIPLE_FAULT], &[Read(page(0))]]);
    assert_eq!(life.command(&format!("{DEFINE} cmdline=\"a b\"")), "");
    life.hear("Defined", &["\"d\""]);
    let shared = life.partition(1);
    assert_eq!((shared.view(), &*shared.config.cmdline), (LifecycleView::Stopped, "a b"));
    life.pass(100 * MS);
    assert_eq!((shared.view(), d.record().boots.len()), (LifecycleView::Stopped, 0));
    assert_eq!(life.command("start d"), "");
    life.hear("Entered", &["partition: \"d\"", "incarnation: 1"]);
    life.hear("Crash", &["partition: \"d\"", "incarnation: 1"]);
    life.hear("Entered", &["partition: \"d\"", "incarnation: 2"]);
    life.until("the dump", |life| life.has_heard("DumpComplete").then_some(()));
    life.until("the read", |_| (!d.record().values.is_empty()).then_some(()));
    assert_eq!(d.record().values, [0], "the next one has memory of its own");
    assert_eq!(life.host().spaces.kept_dumps().len(), 1);
    stop_and_undefine(&mut life);
    assert!(life.machine.node.partition(PartitionId::new(1)).is_none());
    assert_eq!(life.host().spaces.kept_dumps().len(), 1, "the dump stays");
    assert!(life.command("start d").contains("no partition 'd'"));
}

#[test]
fn a_stopped_partition_of_the_configuration_starts_again() {
    let mut life = Life::alone(config("p"), &[&[POWER_OFF], &[Read(page(0))]]);
    life.hear("Stopped", &["how: \"power off\""]);
    life.reach(LifecycleView::Stopped);
    assert_eq!(life.command("start p"), "");
    life.hear("Entered", &["incarnation: 2"]);
    let refused = life.command("start p");
    assert!(refused.contains("p has not stopped, it is running: stop it first"), "{refused}");
    // A start that comes while the memory is taken apart is kept.
    life.machine.disks.iter().for_each(|disk| disk.state().speed = Some(20_480));
    life.command("kill p");
    life.hear("Stopped", &["how: \"operator\""]);
    assert_eq!(life.shared().view(), LifecycleView::Stopping);
    assert_eq!(life.command("start p"), "");
    life.machine.disks.iter().for_each(|disk| disk.state().speed = None);
    life.hear("Entered", &["incarnation: 3"]);
    // And a stop withdraws it.
    life.command("kill p");
    life.reach(LifecycleView::Stopped);
    assert_eq!((life.command("start p"), life.command("kill p")), (String::new(), String::new()));
    life.pass(SECOND_NS);
    assert_eq!((life.shared().view(), life.shared().incarnation()), (LifecycleView::Stopped, 3));
    assert!(life.command("kill p").contains("p has stopped already"));
}

#[test]
fn a_start_by_the_operator_begins_the_count_of_restarts_anew() {
    let limit = crate::config::RestartLimit { restarts: 1, time_ns: 60_000_000_000 };
    let limited =
        PartitionConfig { dump: DumpPolicy::Off, restart_limit: Some(limit), ..config("p") };
    let crash: &[GuestStep] = &[TRIPLE_FAULT];
    let mut life = Life::alone(limited, &[crash; 4]);
    for last in [2, 4] {
        life.hear("RestartLimit", &[&format!("incarnation: {last}")]);
        life.reach(LifecycleView::Stopped);
        life.command("start p");
    }
}

#[test]
fn what_runs_is_not_undefined() {
    let mut life = beside();
    life.command(DEFINE);
    assert_eq!(life.command("start d"), "");
    let refused = life.command("undefine d");
    assert!(refused.contains("d is about to start: stop it first"), "{refused}");
    life.hear("Entered", &["partition: \"d\""]);
    let refused = life.command("undefine d");
    assert!(refused.contains("d has not stopped, it is running: stop it first"), "{refused}");
    life.pass(100 * MS);
    assert_eq!(life.partition(1).view(), LifecycleView::Running);
    // It may be undefined while its memory is taken apart, and its name stays until that is over.
    life.machine.disks.iter().for_each(|disk| disk.state().speed = Some(20_480));
    life.command("kill d");
    life.hear("Stopped", &["partition: \"d\""]);
    assert_eq!(life.partition(1).view(), LifecycleView::Stopping);
    assert_eq!(life.command("undefine d"), "");
    assert!(life.command("undefine d").contains("d is being undefined"));
    assert!(life.command("start d").contains("d is being undefined"));
    assert!(life.command(DEFINE).contains("d is defined already"));
    assert!(!life.has_heard("Undefined"));
    life.machine.disks.iter().for_each(|disk| disk.state().speed = None);
    life.hear("Undefined", &["\"d\""]);
    assert_eq!(life.command(DEFINE), "");
}

#[test]
fn a_definition_that_cannot_run_is_refused_by_its_reason() {
    let mut life = beside();
    let before = ledger(&life);
    for (line, reason) in [
        ("define n memory=2M kernel=kernel", "n is defined already"),
        ("define a/b memory=2M kernel=kernel", "name: must be 1 to 31"),
        ("define d memory=2M kernel=none", "no module 'none'"),
        ("define d memory=2M kernel=kernel initrd=none", "no module 'none'"),
        ("define d memory=2M kernel=initrd", "neither a Linux bzImage nor an ELF file"),
        ("define d memory=1M kernel=kernel", "the logical memory is too small"),
        ("define d memory=1000 kernel=kernel", "memory of 1000 bytes"),
        ("define d memory=64M kernel=kernel", "larger than every paging space"),
        ("define d memory=99T kernel=kernel", "memory of "),
    ] {
        let answer = life.command(line);
        assert!(answer.starts_with("error: ") && answer.contains(reason), "{line}: {answer}");
    }
    assert!(life.command(&format!("{DEFINE} cmdline=\"{}\"", "x".repeat(9))).is_empty());
    assert_eq!(life.command("undefine d"), "");
    life.hear("Undefined", &[]);
    assert_eq!(ledger(&life), before);
    assert!(life.command("undefine x").contains("no partition 'x'"));
    assert!(life.command("set x dump=off").contains("no partition 'x'"));
}

#[test]
fn there_are_as_many_partitions_as_slots_and_spaces() {
    let mut life = Life::new(SLOTS as u8 + 1, &[(config("n"), &GuestScript::of(&[&[]]))]);
    for n in 1..SLOTS {
        assert_eq!(life.command(&format!("define d{n} memory=2M kernel=kernel")), "");
    }
    let vcpus = life.vcpus.out.load(Ordering::Relaxed);
    let refused = life.command("define e memory=2M kernel=kernel");
    assert!(refused.contains("all 4 places for partitions are taken"), "{refused}");
    assert_eq!(life.vcpus.out.load(Ordering::Relaxed), vcpus);
    life.command("undefine d2");
    life.hear("Undefined", &["\"d2\""]);
    assert_eq!(life.command("define e memory=2M kernel=kernel"), "");
    assert_eq!(life.partition(2).name(), "e", "it has the number that came free");
    let mut life = Life::new(1, &[(config("n"), &GuestScript::of(&[&[]]))]);
    life.hear("Entered", &[]);
    assert!(life.command(DEFINE).contains("2 partitions, but only 1 paging spaces"));
}

#[test]
fn a_definition_that_the_pool_or_the_tables_cannot_hold_is_refused() {
    let mut life = Life::with(4, 220, &[(config("n"), &GuestScript::of(&[&[]]))]);
    life.hear("Entered", &[]);
    let answers: Vec<_> =
        (1..SLOTS).map(|n| life.command(&format!("define d{n} memory=2M kernel=kernel"))).collect();
    assert!(answers.iter().any(|answer| answer.contains("too few for")), "{answers:?}");
    let host = life.host();
    let huge = [("n", 1 << 30), ("d", 1 << 30)];
    let refused = crate::node::capacity::check_tables(host, &huge).unwrap_err().to_string();
    assert!(refused.contains("second-level tables do not fit"), "{refused}");
    assert_eq!(crate::node::capacity::check_tables(host, &huge[..0]), Ok(()));
}

#[test]
fn the_indication_can_be_changed_until_the_crash() {
    let crash: &[GuestStep] = &[Work(SECOND_NS), TRIPLE_FAULT];
    let mut life = Life::new(3, &[(config("p"), &GuestScript::of(&[crash; 4]))]);
    let dumps = |life: &Life| life.host().spaces.kept_dumps().len();
    life.hear("Entered", &["incarnation: 1"]);
    assert_eq!(life.command("set p dump=off"), "");
    life.hear("Crash", &["incarnation: 1"]);
    life.hear("Entered", &["incarnation: 2"]);
    assert_eq!((dumps(&life), life.has_heard("DumpComplete")), (0, false));
    life.command("set p dump=aided");
    life.hear("Crash", &["incarnation: 2"]);
    life.hear("DumpComplete", &["incarnation: 2"]);
    assert_eq!(dumps(&life), 1);
    life.until("the next one", |life| (life.shared().incarnation() == 3).then_some(()));
    life.command("set p dump=off restart=never");
    life.hear("Crash", &["incarnation: 3"]);
    life.hear("Stopped", &["incarnation: 3", "how: \"crashed\""]);
    life.reach(LifecycleView::Stopped);
    assert_eq!(dumps(&life), 1);
}

#[test]
fn consoles_share_the_line_from_the_second_partition_on() {
    let line = |text: &[u8]| text.iter().map(|&byte| Out(COM1, byte)).collect::<Vec<_>>();
    let mut life = Life::new(3, &[(config("n"), &GuestScript::of(&[&line(b"one\r\n")]))]);
    life.finish();
    life.pass(20 * MS);
    assert_eq!(life.printed, "one\r\n");
    life.command(DEFINE);
    life.scripts[0].go_on(&line(b"two\r\n"));
    life.until("the line", |life| life.printed.contains("[n] two").then_some(()));
    assert!(!life.printed.contains("[n] one"));
    life.command("console d");
    assert_eq!(life.host().keys_to.get(), PartitionId::new(1));
    life.command("undefine d");
    life.hear("Undefined", &[]);
    assert_eq!(life.host().keys_to.get(), PartitionId::FIRST, "keys go to a partition that exists");
}

#[test]
fn nothing_is_defined_or_started_at_the_end() {
    let mut life = beside();
    life.command(DEFINE);
    life.command("start d");
    life.command("poweroff");
    assert!(life.command("define e memory=2M kernel=kernel").contains("the machine is ending"));
    assert!(life.command("start d").contains("the machine is ending"));
    life.until("the end", |life| life.machine.node.has_ended().then_some(()));
    assert_eq!(life.partition(1).incarnation(), 0, "the start was withdrawn");
}

#[test]
fn a_partition_that_comes_and_goes_leaves_nothing_behind() {
    let mut dice = Dice::new(seed());
    let mut life = beside();
    // The neighbour has all the pages that it uses.
    life.scripts[0].go_on(&(0..64).map(|n| Write(page(n), 1 + n)).collect::<Vec<_>>());
    life.finish();
    life.pass(100 * MS);
    let before = ledger(&life);
    for cycle in 1..=if is_long() { 2000 } else { 200 } {
        let ends = [&[TRIPLE_FAULT][..], &[POWER_OFF], &[RESET], &[]];
        let end = dice.below(ends.len() as u32) as usize;
        let mut program: Vec<_> =
            (0..u64::from(dice.below(60))).map(|n| Write(page(n), 1 + n)).collect();
        program.extend(ends[end]);
        life.script("d", &[&program]);
        let memory = 1536 + 4 * dice.below(256);
        let dump = ["aided", "off"][dice.below(2) as usize];
        let restart = ["threshold", "immediate", "never"][dice.below(3) as usize];
        let line = format!("define d memory={memory}K kernel=kernel dump={dump} restart={restart}");
        assert_eq!(life.command(&line), "", "cycle {cycle}");
        let gone = Arc::downgrade(&life.partition(1));
        // The neighbour works on.
        let value = u64::from(dice.next());
        life.scripts[0].go_on(&[Write(page(cycle % 64), value), Read(page(cycle % 64))]);
        if !dice.one_in(8) {
            life.command("start d");
            let turns = dice.below(60);
            (0..turns).for_each(|_| life.turn());
            if dice.one_in(3) {
                life.command("crash d");
            }
            life.command(&format!("evict d {}", dice.below(64)));
            (0..dice.below(30)).for_each(|_| life.turn());
            life.command("kill d");
        }
        life.until("the stop", |life| life.command("undefine d").is_empty().then_some(()));
        life.hear("Undefined", &["\"d\""]);
        life.until("the dump", |life| life.host().tasks.is_empty().then_some(()));
        life.command("release d");
        let done = |life: &mut Life| (ledger(life).has_work == before.has_work).then_some(());
        life.until("rest", done);
        life.until("the neighbour", |life| {
            (life.record().values.last() == Some(&value)).then_some(())
        });
        assert!(gone.upgrade().is_none(), "cycle {cycle}: its definition is on the heap");
        assert_eq!(ledger(&life), before, "cycle {cycle}: {line}");
        life.machine.told.clear();
        life.heard = 0;
    }
}

#[test]
fn spaces_are_kept_for_what_is_defined_and_has_not_stopped() {
    let crash: &[GuestStep] = &[TRIPLE_FAULT];
    for release in ["set d dump=off", "kill d"] {
        let mut life = Life::new(4, &[(config("n"), &GuestScript::default())]);
        life.hear("Entered", &["partition: \"n\""]);
        life.command(DEFINE);
        life.command("start d");
        life.hear("Entered", &["partition: \"d\""]);
        for incarnation in 1..=2 {
            life.scripts[0].go_on(crash);
            life.hear("Crash", &[&format!("incarnation: {incarnation}")]);
            life.until("the dump", |life| {
                (life.host().spaces.kept_dumps().len() == incarnation).then_some(())
            });
            life.pass(SECOND_NS);
        }
        assert_eq!(life.shared().view(), LifecycleView::Waiting, "the fourth space is for d");
        assert_eq!(life.command(release), "");
        life.hear("Entered", &["partition: \"n\"", "incarnation: 3"]);
    }
}
