//! The guest reports its panic.

use super::*;
use crate::partition::devices::map::{ERST_BASE, ERST_BUFFER_BYTES};
use GuestStep::*;

/// Stores a part of a panic's log in the error record store, as pstore does.
fn record() -> Vec<GuestStep> {
    let text = b"Panic#1 Part1\n<0>[    1.0] Kernel panic - not syncing: from the log\n";
    let mut bytes = vec![0; 200];
    bytes[..4].copy_from_slice(b"CPER");
    bytes[20..24].copy_from_slice(&(200 + text.len() as u32).to_le_bytes());
    bytes[64..80]
        .copy_from_slice(b"\xe3\x74\xa5\x75\x52\x50\x29\x4b\x8a\x8e\xbe\x2c\x64\x90\xb8\x9d");
    bytes[96] = 1;
    bytes[144..160]
        .copy_from_slice(b"\x4e\xe0\x97\xc1\x45\xd5\x70\x4a\x9c\x17\xa5\x54\x94\x19\xeb\x12");
    bytes.extend(text);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let word = |(n, bytes): (usize, &[u8; 8])| {
        let at = MEMORY - ERST_BUFFER_BYTES + 8 * n as u64;
        Write(Gpa::new(at), u64::from_le_bytes(*bytes))
    };
    let mut steps: Vec<_> = bytes.as_chunks::<8>().0.iter().enumerate().map(word).collect();
    // Begin of a write, execution, end.
    steps.extend([0, 5, 3].map(|command| Store(Gpa::new(ERST_BASE), command)));
    steps
}

/// Runs a program to the crash; returns the event, and the milliseconds from the first entry to it.
fn crash(program: &[GuestStep]) -> (String, u64) {
    let mut life = Life::alone(config("p"), &[program]);
    life.hear("Entered", &[]);
    let entered = time::now_ns();
    let told = life.hear("Crash", &[]);
    (told, (time::now_ns() - entered).as_u64() / MS.as_u64())
}

#[test]
fn a_panic_has_its_grace_and_leaves_a_dump_behind_which_the_next_incarnation_runs() {
    let mut life =
        Life::alone(config("p"), &[&[Write(page(1), 7), Sti, PANICKED], &[Read(page(1))]]);
    life.hear("Entered", &["incarnation: 1"]);
    life.hear("Crash", &["incarnation: 1", "reason: \"panic\""]);
    assert_eq!(life.shared().view(), LifecycleView::Crashed);
    life.hear("Restart", &["incarnation: 2"]);
    life.hear("Entered", &["incarnation: 2"]);
    life.finish();
    assert_eq!(life.record().values, [0], "the next one has memory of its own");
    life.until("the dump", |life| life.has_heard("DumpComplete").then_some(()));
    let dumps = life.host().spaces.kept_dumps();
    assert_eq!((dumps.len(), dumps[0].owner.epoch), (1, 1));
}

#[test]
fn the_grace_is_the_guests_own_time_and_longer_while_it_is_at_work() {
    for (interrupts, ms) in [(Sti, 100), (Cli, 500)] {
        let (told, took) = crash(&[interrupts, PANICKED]);
        assert!(told.contains("reason: \"panic\""), "{told}");
        // Between the guest's turns some of the node's time passes.
        assert!((ms..ms + ms / 3).contains(&took), "{took}");
    }
}

#[test]
fn each_record_begins_the_grace_anew_and_the_first_report_is_the_reason() {
    let mut program = vec![Sti, PANICKED, Work(80 * MS)];
    for _ in 0..2 {
        program.extend(record());
        program.push(Work(80 * MS));
    }
    let (told, took) = crash(&program);
    assert!(told.contains("reason: \"panic\"") && took >= 250, "{took} ms: {told}");
}

#[test]
fn a_record_alone_is_a_panic_in_the_words_of_the_log() {
    let mut program = vec![Sti];
    program.extend(record());
    let (told, _) = crash(&program);
    assert!(told.contains("reason: \"panic record\""), "{told}");
    assert!(told.contains("not syncing: from the log"), "{told}");
}

#[test]
fn the_words_on_the_console_come_first() {
    let line = b"[    1.0] Kernel panic - not syncing: on the console\n";
    let mut program: Vec<_> = line.iter().map(|&byte| Out(COM1, byte)).collect();
    program.extend([Sti, PANICKED]);
    program.extend(record());
    let (told, _) = crash(&program);
    assert!(told.contains("not syncing: on the console"), "{told}");
}

#[test]
fn every_end_after_a_panic_is_the_panic() {
    let ends = [&[RESET][..], &[POWER_OFF], &[Cli, Halt], &[TRIPLE_FAULT], &[Out(0xf4, 1)]];
    let programs = ends.map(|end| [&[PANICKED], end].concat());
    let programs = programs.each_ref().map(|program| &program[..]);
    let mut life = Life::alone(PartitionConfig { dump: DumpPolicy::Off, ..config("p") }, &programs);
    for _ in ends {
        life.hear("Entered", &[]);
        let entered = time::now_ns();
        life.hear("Crash", &["reason: \"panic\""]);
        assert!(time::now_ns() - entered < 50 * MS, "it is not waited for");
    }
}

#[test]
fn a_halt_is_a_part_of_the_grace() {
    // A key could end the halt.
    let keys = [
        Store(Gpa::new(0xfee0_00f0), 0x1ff),
        Store(Gpa::new(0xfec0_0000), 0x18),
        Store(Gpa::new(0xfec0_0010), 52),
    ];
    let (told, took) = crash(&[&keys[..], &[PANICKED, Sti, Halt]].concat());
    assert!(told.contains("reason: \"panic\""), "{told}");
    assert!((85..115).contains(&took), "{took}");
}

#[test]
fn an_announced_crash_kernel_runs_and_ends_as_it_likes() {
    let mut program = vec![Out(PVPANIC, 3)];
    program.extend(record());
    program.extend([Work(2 * SECOND_NS), RESET]);
    let mut life = Life::alone(config("p"), &[&program]);
    life.hear("Guest", &["kind: \"crash_kernel\""]);
    life.hear("Stopped", &["how: \"reset\""]);
    assert!(!life.has_heard("Crash"));
}

#[test]
fn a_crash_kernel_shows_by_the_clock_that_is_switched_off() {
    for switches_off in [true, false] {
        let clock = page(0).as_u64() | 1;
        let off = if switches_off { 0 } else { clock };
        let program = [
            WriteMsr(SYSTEM_TIME, clock),
            PANICKED,
            WriteMsr(SYSTEM_TIME, off),
            Work(2 * SECOND_NS),
            POWER_OFF,
        ];
        let mut life = Life::alone(config("p"), &[&program]);
        let end = if switches_off { "Stopped" } else { "Crash" };
        life.hear(end, &["incarnation: 1"]);
        assert_eq!(life.has_heard("Crash"), !switches_off);
    }
}

#[test]
fn an_orderly_shutdown_reported_by_pvpanic_is_no_panic() {
    let mut life = Life::alone(config("p"), &[&[Out(PVPANIC, 4), Work(2 * SECOND_NS), POWER_OFF]]);
    life.hear("Stopped", &["how: \"power off\""]);
    assert!(!life.has_heard("Crash"));
}
