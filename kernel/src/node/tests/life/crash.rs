//! Crashes: their reasons, their dumps, and the restart behind them.

use super::*;
use crate::addr::PageIndex;
use crate::config::{DumpBound, DumpOverflow, RestartLimit};
use crate::dump::history_note::{self, HistoryNote};
use crate::log::history::{HistoryEntry, HistoryKind, HistorySubject};
use crate::node::tests::image;
use crate::node::tests::machine::number;
use crate::virt::{InjectedEvent, TaskSource, TaskSwitch};
use GuestStep::*;
use core::sync::atomic::Ordering;

/// An exit for an access that no page and no device answers.
const fn outside(access: PageAccess, during_walk: bool) -> VmExit {
    VmExit::SecondLevelFault { gpa: Gpa::new(0xd000_0000), access, during_walk, gva: None }
}

#[test]
fn an_exit_that_has_no_answer_is_a_crash_with_its_reason() {
    let switch = TaskSwitch { source: TaskSource::Jump, selector: 8 };
    let crashes = [
        (VmExit::TripleFault, "triple fault", 0),
        (VmExit::EntryFailed { code: 33 }, "entry failed", 33),
        (VmExit::Unknown { code: 99 }, "unknown exit", 99),
        (VmExit::TaskSwitch(switch), "task switch", 8),
        (VmExit::MachineCheck, "machine check", 0),
        (outside(PageAccess::Execute, false), "execution outside memory", 0xd000_0000),
        (outside(PageAccess::Read, true), "tables or stack outside memory", 0xd000_0000),
        (outside(PageAccess::Write, false), "instruction not emulated", 0xd000_0000),
    ];
    let programs: Vec<_> = crashes.iter().map(|&(exit, ..)| [Exit(exit)]).collect();
    let programs: Vec<_> = programs.iter().map(|program| &program[..]).collect();
    let mut life = Life::alone(PartitionConfig { dump: DumpPolicy::Off, ..config("p") }, &programs);
    for (_, reason, detail) in crashes {
        let told = life.hear("Crash", &[&format!("reason: \"{reason}\"")]);
        assert_eq!(number(&told, "detail: "), Some(detail), "{told}");
        assert_eq!(number(&told, "rip: "), Some(ENTRY), "{told}");
        life.hear("Entered", &[]);
    }
}

#[test]
fn the_dump_has_what_the_guest_has_written() {
    let writes: Vec<_> = (0..16).map(|n| Write(page(n), 100 + n)).collect();
    let mut life = Life::alone(config("p"), &[&writes]);
    life.finish();
    // Half of them are on the disk already when the crash comes.
    life.command("evict p 8");
    life.pass(SECOND_NS);
    life.scripts[0].go_on(&[TRIPLE_FAULT]);
    let told = life.hear("DumpComplete", &["incarnation: 1"]);
    let disk = number(&told, "disk: ").expect("a disk") as usize;
    let content = life.machine.disks[disk].state().content.clone();
    let layout = image::record(&content).and_then(|record| record.contents).expect("a dump").layout;
    for n in 0..16 {
        let index = PageIndex((page(n).as_u64() / PAGE_SIZE) as u32);
        let at = layout.blocks().start as usize + index.0 as usize * PAGE_SIZE as usize;
        assert_eq!(content[at..][..8], (100 + n).to_le_bytes());
    }
}

/// Returns the history in the notes of the dump on a disk.
fn history_on(life: &Life, disk: usize) -> Vec<HistoryEntry> {
    let content = life.machine.disks[disk].state().content.clone();
    let record = image::record(&content).expect("a record");
    let start = record.contents.expect("a dump").layout.notes().start as usize;
    let notes = &content[start..][..record.drain.notes_len as usize];
    let name = [history_note::NAME, &[0; 4]].concat();
    let at = notes.windows(name.len()).position(|bytes| bytes == name).expect("the history's note");
    let history = HistoryNote::read(&notes[at + name.len()..]).expect("a history");
    history.entries().collect()
}

#[test]
fn the_note_of_a_dump_has_the_events_up_to_the_crash() {
    let script = GuestScript::of(&[&[Write(page(0), 7), TRIPLE_FAULT], &[TRIPLE_FAULT]]);
    let idle = GuestScript::of(&[&[]]);
    let small = PartitionConfig { boot_memory_bytes: Some(16 * PAGE_SIZE), ..config("p") };
    let mut life = Life::new(4, &[(config("other"), &idle), (small, &script)]);
    let mut disks = Vec::new();
    for incarnation in [1, 2] {
        let told = life.hear("DumpComplete", &[&format!("incarnation: {incarnation},")]);
        disks.push(number(&told, "disk: ").expect("a disk") as usize);
    }
    let told = |disk: usize| -> Vec<_> {
        let own = history_on(&life, disk).into_iter();
        let own = own.filter(|entry| entry.of != HistorySubject::Machine);
        let own: Vec<_> = own.inspect(|e| assert_eq!(e.of, HistorySubject::Partition(1))).collect();
        own.iter().map(|entry| (HistoryKind::of(entry.kind).unwrap(), entry.numbers[0])).collect()
    };
    let first = told(disks[0]);
    let expected = [
        (HistoryKind::IncarnationStarted, 1),
        (HistoryKind::GuestEntered, 1),
        (HistoryKind::GuestEnded, ENTRY),
        (HistoryKind::Crashed, 1),
        (HistoryKind::FramesPromised, 16),
        (HistoryKind::DrainBegun, 1),
    ];
    assert_eq!(first, expected);
    let second = told(disks[1]);
    assert_eq!(second[..first.len()], first);
    for kind in [HistoryKind::RestartAllowed, HistoryKind::GuestEntered, HistoryKind::GuestEnded] {
        assert!(second[first.len()..].iter().any(|(found, _)| *found == kind), "{second:?}");
    }
    let machine = history_on(&life, disks[1]);
    assert!(machine.iter().any(|entry| entry.kind == HistoryKind::SpaceChanged as u16));
    assert!(machine.windows(2).all(|pair| pair[0].t_ns <= pair[1].t_ns));
}

#[test]
fn the_gate_opens_at_the_boot_memory_while_the_dump_is_still_written() {
    let writes: Vec<_> = (0..128).map(|n| Write(page(n), 100 + n)).collect();
    let mut small = config("p");
    small.boot_memory_bytes = Some(16 * PAGE_SIZE);
    let mut life = Life::alone(small, &[&writes]);
    life.finish();
    life.machine.disks[0].state().speed = Some(400 << 10);
    life.scripts[0].go_on(&[TRIPLE_FAULT]);
    life.hear("Crash", &[]);
    let told = life.hear("Restart", &["gate: \"threshold\""]);
    assert!(number(&told, "freed_from_image: ") >= Some(16), "{told}");
    life.hear("Entered", &["incarnation: 2"]);
    assert!(!life.has_heard("DumpComplete"));
    life.hear("DumpComplete", &["incarnation: 1"]);
}

#[test]
fn an_immediate_restart_waits_for_no_disk() {
    let immediate = PartitionConfig { restart: RestartPolicy::Immediate, ..config("p") };
    let mut life = Life::alone(immediate, &[&[Write(page(0), 7)], &[Read(page(0))]]);
    life.finish();
    life.pass(SECOND_NS);
    for disk in &life.machine.disks {
        disk.state().speed = Some(20_480);
    }
    life.scripts[0].go_on(&[TRIPLE_FAULT]);
    life.hear("Crash", &[]);
    let crashed = time::now_ns();
    life.hear("Restart", &["gate: \"immediate\""]);
    life.hear("Entered", &["incarnation: 2"]);
    assert!(time::now_ns() - crashed < 20 * MS);
    life.finish();
    assert_eq!(life.record().values, [0]);
}

#[test]
fn a_partition_that_does_not_restart_stops_when_its_dump_is_sealed() {
    let never = PartitionConfig { restart: RestartPolicy::Never, ..config("p") };
    let mut life = Life::alone(never, &[&[TRIPLE_FAULT]]);
    life.hear("DumpComplete", &["incarnation: 1"]);
    life.hear("Stopped", &["how: \"crashed\""]);
    life.reach(LifecycleView::Stopped);
    assert!(!life.has_heard("Restart"));
}

#[test]
fn the_restart_limit_ends_a_partition_that_crashes_again_and_again() {
    let limit = RestartLimit { restarts: 1, time_ns: (60 * SECOND_NS).as_u64() };
    let limited = PartitionConfig { restart_limit: Some(limit), ..config("p") };
    let script = GuestScript::of(&[&[TRIPLE_FAULT], &[TRIPLE_FAULT]]);
    let mut life = Life::new(3, &[(limited, &script)]);
    life.hear("Crash", &["incarnation: 1"]);
    life.hear("Entered", &["incarnation: 2"]);
    life.hear("RestartLimit", &["incarnation: 2", "restarts: 1"]);
    life.hear("DumpComplete", &["incarnation: 2"]);
    life.hear("Stopped", &["incarnation: 2", "how: \"restart limit\""]);
    life.reach(LifecycleView::Stopped);
    assert_eq!(life.record().boots.len(), 2);
}

#[test]
fn without_dumps_a_crash_is_followed_by_a_plain_restart() {
    let plain = PartitionConfig { dump: DumpPolicy::Off, ..config("p") };
    let mut life = Life::alone(plain, &[&[Write(page(0), 7), TRIPLE_FAULT], &[Read(page(0))]]);
    life.hear("Crash", &["incarnation: 1"]);
    life.hear("Entered", &["incarnation: 2"]);
    life.finish();
    assert_eq!(life.record().values, [0]);
    life.pass(SECOND_NS);
    assert!(!life.has_heard("DumpComplete") && life.host().spaces.kept_dumps().is_empty());
    assert_eq!(life.spaces()[0], ("active", Some(("p".into(), 2))));
    let never =
        PartitionConfig { dump: DumpPolicy::Off, restart: RestartPolicy::Never, ..config("p") };
    let mut life = Life::alone(never, &[&[TRIPLE_FAULT]]);
    life.hear("Stopped", &["how: \"crashed\""]);
    life.reach(LifecycleView::Stopped);
}

#[test]
fn at_the_bound_of_dumps_the_partition_restarts_without_one_or_drops_the_oldest() {
    for when_full in [DumpOverflow::Skip, DumpOverflow::DropOldest] {
        let bound = Some(DumpBound { most: 1, when_full });
        let bounded = PartitionConfig { dump_bound: bound, ..config("p") };
        let mut life = Life::new(3, &[(bounded, &GuestScript::of(&[&[TRIPLE_FAULT], &[]]))]);
        life.hear("DumpComplete", &["incarnation: 1"]);
        life.hear("Entered", &["incarnation: 2"]);
        life.scripts[0].go_on(&[TRIPLE_FAULT]);
        life.hear("Crash", &["incarnation: 2"]);
        let kept = match when_full {
            DumpOverflow::Skip => {
                life.hear("DumpSkipped", &["incarnation: 2", "kept: 1", "bound: 1"]);
                1
            }
            DumpOverflow::DropOldest => {
                life.hear("DumpDropped", &["incarnation: 1"]);
                2
            }
        };
        life.until("the third incarnation", |life| (life.record().boots.len() == 3).then_some(()));
        life.pass(SECOND_NS);
        let dumps: Vec<_> =
            life.host().spaces.kept_dumps().iter().map(|dump| dump.owner.epoch).collect();
        assert_eq!(dumps, [kept]);
        let skipped = life.shared().dumps_skipped.load(Ordering::Relaxed);
        assert_eq!(skipped, u64::from(when_full == DumpOverflow::Skip));
    }
}

#[test]
fn a_lost_page_is_a_crash_and_never_reads_as_zeros() {
    let mut life = Life::alone(config("p"), &[&[Write(page(0), 7)]]);
    life.finish();
    life.command("evict p 512");
    life.until("the eviction", |life| (life.host().pager.counters().page_outs >= 1).then_some(()));
    life.pass(SECOND_NS);
    // Every copy of the value on the disk is damaged.
    let mut state = life.machine.disks[0].state();
    let word = 7_u64.to_le_bytes();
    let at: Vec<_> = (0..state.content.len()).step_by(PAGE_SIZE as usize).collect();
    at.into_iter()
        .filter(|&at| state.content[at..][..8] == word)
        .collect::<Vec<_>>()
        .iter()
        .for_each(|&at| state.content[at] = 8);
    drop(state);
    life.scripts[0].go_on(&[Read(page(0))]);
    let told = life.hear("Crash", &["reason: \"page lost\""]);
    assert_eq!(number(&told, "detail: "), Some(page(0).as_u64()));
    assert_eq!(life.record().values, []);
    life.hear("Entered", &["incarnation: 2"]);
}

#[test]
fn a_guest_without_a_sign_of_life_gets_an_nmi_and_then_crashes() {
    // Between the guest's turns some of the node's time passes.
    const TIMEOUT: Ns = Ns::from_secs(3);
    let watched = PartitionConfig { hang_timeout_ns: Some(TIMEOUT.as_u64()), ..config("p") };
    let mut life = Life::alone(watched, &[&[]]);
    life.hear("Entered", &[]);
    let entered = time::now_ns();
    life.hear("Hang", &["incarnation: 1"]);
    let silent = time::now_ns() - entered;
    assert!((TIMEOUT..TIMEOUT + SECOND_NS).contains(&silent), "{silent:?}");
    life.pass(20 * MS);
    assert_eq!(life.record().delivered, [InjectedEvent::nmi()]);
    life.hear("Crash", &["reason: \"watchdog\""]);
    let grace = time::now_ns() - entered - silent;
    assert!((TIMEOUT..TIMEOUT + SECOND_NS).contains(&grace), "{grace:?}");
    life.hear("Entered", &["incarnation: 2"]);
}

#[test]
fn a_guest_that_panics_at_the_nmi_has_panicked() {
    let watched =
        PartitionConfig { hang_timeout_ns: Some((3 * SECOND_NS).as_u64()), ..config("p") };
    let mut life = Life::alone(watched, &[&[Work(3 * SECOND_NS + 500 * MS), PANICKED]]);
    life.hear("Hang", &[]);
    life.hear("Crash", &["reason: \"panic\""]);
}

#[test]
fn a_guest_that_takes_its_timers_interrupts_does_not_hang() {
    let watched =
        PartitionConfig { hang_timeout_ns: Some((3 * SECOND_NS).as_u64()), ..config("p") };
    let mut program = vec![WriteMsr(0x1b, 0xfee0_0d00), WriteMsr(0x80f, 0x1ff)];
    program.extend([WriteMsr(0x832, 0x41), WriteMsr(0x83e, 0b1011), Sti]);
    for _ in 0..5 {
        program.extend([
            WriteMsr(0x838, SECOND_NS.as_u64()),
            Work(2 * SECOND_NS),
            WriteMsr(0x80b, 0),
        ]);
    }
    program.push(POWER_OFF);
    let mut life = Life::alone(watched, &[&program]);
    life.hear("Stopped", &["how: \"power off\""]);
    assert!(!life.has_heard("Hang"));
    assert_eq!(life.record().delivered.len(), 5);
}
