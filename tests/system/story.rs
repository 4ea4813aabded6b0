//! The whole story with a test kernel on a memory-backed disk: it pages, crashes, drains, leaves a
//! dump, and works again.
//!
//! Bochs' debugger copies the dump out, and the dump is read without the code that wrote it.

use anyhow::{Context, Result, bail, ensure};
use boot::bed::{Bed, RunningMachine};
use boot::events::Event;
use kernel::dump::history_note::{self, HistoryNote};
use serde_json::json;
use std::time::Duration;
use tests::scenario::{PARTITION, Scenario, StartedScenario};
use tests::space::{ElfCore, PAGE, SpaceBytes};
use tests::{Case, expect_success};
use worker::PageIdentity;

const LIMIT: Duration = Duration::from_secs(180);
const SHORT: Duration = Duration::from_secs(30);
const KEY: u64 = 0x7ea5;
const TRIPLE_FAULT: u32 = 1;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_partition_is_back_at_once_on_one_cpu",
        beds: &[Bed::Bochs],
        needs: &[],
        run: one_cpu,
    },
    Case {
        name: "a_partition_is_back_when_its_dump_freed_enough",
        beds: &[Bed::Bochs],
        needs: &[],
        run: two_cpus,
    },
    Case {
        name: "a_cpu_without_dirty_bits_pages_crashes_and_dumps",
        beds: &[Bed::Bochs],
        needs: &[],
        run: without_dirty_bits,
    },
];

fn one_cpu(bed: Bed) -> Result<()> {
    let restart = story(bed, "restart = \"immediate\"\n[machine]\ncpus = 1", "immediate", "cpu")?;
    ensure!(restart.number("freed_from_image")? == 0, "it waited for frames: {}", restart.0);
    Ok(())
}

fn without_dirty_bits(bed: Bed) -> Result<()> {
    const LINES: &str = "restart = \"threshold\"\nboot_memory = \"1 MiB\"\n[machine]\ncpus = \
                         2\ncpu = \"corei7_ivy_bridge_3770k\"";
    let restart = story(bed, LINES, "threshold", "software")?;
    ensure!(restart.number("freed_from_image")? >= 256, "{}", restart.0);
    Ok(())
}

fn two_cpus(bed: Bed) -> Result<()> {
    let restart = story(
        bed,
        "restart = \"threshold\"\nboot_memory = \"1 MiB\"\n[machine]\ncpus = 2",
        "threshold",
        "cpu",
    )?;
    let (freed, needed) = (restart.number("freed_from_image")?, restart.number("boot_memory")?);
    ensure!(freed >= needed && needed == 256, "{freed} frames were freed, {needed} are needed");
    Ok(())
}

/// Runs a partition with twice as much logical memory as pool, much of it dirty at the crash of
/// incarnation 1. Returns the event of its restart.
fn story(bed: Bed, lines: &'static str, gate: &str, accessed_dirty: &str) -> Result<Event> {
    let scenario = Scenario {
        pool_mib: 4,
        memory_mib: 8,
        devices_mib: vec![10, 10],
        partition: lines,
        at_end: "stay",
        ..Scenario::new("fill", &format!("key={KEY} passes=1 rewrite=2 crash=1"))
    };
    let mut started = scenario.start(bed, &format!("story-{gate}-{accessed_dirty}"))?;
    let boot = started.running.events.wait_named(SHORT, "boot")?;
    ensure!(boot.text("accessed_dirty")? == accessed_dirty, "{}", boot.0);
    let restart = tell(&mut started, gate).with_context(|| started.place())?;
    started.running.events.send(json!({"command": "poweroff"}))?;
    expect_success(started.running, SHORT)?;
    Ok(restart)
}

fn tell(started: &mut StartedScenario, gate: &str) -> Result<Event> {
    let running = &mut started.running;
    let filled = verified_pages(running, 1)?;
    let crash = running.events.wait_named(SHORT, "crash")?;
    ensure!(crash.text("reason")? == "triple fault" && crash.number("paged")? > 0, "{}", crash.0);
    let restart = running.events.wait_named(SHORT, "restart")?;
    ensure!(
        restart.text("gate")? == gate && restart.number("drain_remaining")? > 0,
        "{}",
        restart.0
    );
    let dump = running.events.wait_named(LIMIT, "dump_complete")?;
    ensure!(verified_pages(running, 2)? == filled, "the second incarnation has other memory");
    let verdict = |event: &Event| event.name() == "guest" && event.0["kind"] != "log";
    let verdict = running.events.wait_for(LIMIT, "the verdict of incarnation 2", verdict)?;
    ensure!(verdict.text("kind")? == "pass", "{}", verdict.0);
    // Without a guest the hypervisor's own page tables are in use; Bochs reads memory through them.
    running.events.wait_named(SHORT, "stopped")?;
    paged(running)?;
    check_dump(started, &crash, &dump, filled)?;
    Ok(restart)
}

/// Waits until an incarnation has verified all its pages; returns their number.
fn verified_pages(running: &mut RunningMachine, incarnation: u64) -> Result<u64> {
    let line =
        running.events.wait_for(LIMIT, &format!("incarnation {incarnation} at work"), |event| {
            let text = event.0["text"].as_str().unwrap_or("");
            event.0["incarnation"] == incarnation
                && (text.starts_with("pass 1 ") || text.starts_with("failed"))
        })?;
    let words: Vec<_> = line.text("text")?.split(' ').collect();
    match words[..] {
        ["pass", "1", "pages", pages, "wrong", "0"] => Ok(pages.parse()?),
        _ => bail!("{}", line.0),
    }
}

fn paged(running: &mut RunningMachine) -> Result<()> {
    running.events.send(json!({"command": "stats"}))?;
    let stats = running.events.wait_named(SHORT, "pool")?;
    ensure!(
        stats.number("page_ins")? > 0
            && stats.number("page_outs")? > 0
            && stats.number("lost")? == 0,
        "{}",
        stats.0
    );
    let boot = running
        .events
        .all()
        .iter()
        .find(|event| event.name() == "boot")
        .context("no boot was reported")?;
    let by_faults = boot.text("accessed_dirty")? == "software";
    ensure!(
        !by_faults || stats.number("resident_faults")? > 0,
        "no access was noted by a fault: {}",
        stats.0
    );
    Ok(())
}

fn check_dump(
    started: &mut StartedScenario,
    crash: &Event,
    dump: &Event,
    filled: u64,
) -> Result<()> {
    let file = started.file("space.img");
    let running = &mut started.running;
    running.bring_out(dump.number("disk")?, &file, SHORT)?;

    let space = SpaceBytes::open(&file)?;
    let record = space.record()?;
    let owner = (&*record.owner, record.epoch, record.crash_reason);
    ensure!(owner == (PARTITION, 1, TRIPLE_FAULT) && record.pages * PAGE == 8 << 20, "{record:?}");
    let core = space.verify()?;
    check_counts(&core, crash, dump)?;
    check_registers(&core, crash)?;
    check_pages(&core, filled)
}

/// Checks the counters: resident pages were written or clean, paged ones stayed in place, the other
/// pages cost nothing.
fn check_counts(core: &ElfCore<'_>, crash: &Event, dump: &Event) -> Result<()> {
    let (written, clean) = (dump.number("pages_written")?, dump.number("pages_clean")?);
    let (zero, paged) = (dump.number("pages_zero")?, dump.number("pages_paged_before")?);
    ensure!(written > 0 && clean > 0 && paged > 0, "nothing of one kind: {}", dump.0);
    ensure!(written + clean + zero == crash.number("resident")?, "{} of {}", dump.0, crash.0);
    let blocks = core.loads.iter().map(|load| load.file_bytes / PAGE).sum::<usize>() as u64;
    ensure!(blocks == written + clean + paged, "{blocks} blocks in the core: {}", dump.0);
    Ok(())
}

fn check_registers(core: &ElfCore<'_>, crash: &Event) -> Result<()> {
    let notes = core.notes()?;
    let kinds: Vec<_> = notes.iter().map(|note| (note.name, note.kind, note.bytes.len())).collect();
    let [registers @ .., (owner, kind, _)] = kinds.as_slice() else { bail!("no notes") };
    ensure!(registers == [("CORE", 1, 336), ("QEMU", 0, 440)], "{kinds:?}");
    ensure!((owner.as_bytes(), *kind) == (history_note::NAME, history_note::TYPE), "{kinds:?}");
    let history = HistoryNote::read(notes[registers.len()].bytes)?;
    let told: Vec<_> = history.entries().map(|entry| entry.to_string()).collect();
    ensure!(told.iter().any(|line| line.contains("crashed")), "{told:?}");
    let rip = u64::from_le_bytes(notes[0].bytes[112 + 16 * 8..][..8].try_into()?);
    ensure!(rip == crash.number("rip")?, "RIP is {rip:#x} in the dump: {}", crash.0);
    Ok(())
}

/// Checks that every page that the test kernel filled is there once, with its last content.
fn check_pages(core: &ElfCore<'_>, filled: u64) -> Result<()> {
    let mut next = 0;
    for address in core.addresses() {
        let bytes = core.page(address)?;
        let words =
            |n: usize| u64::from_le_bytes(bytes[8 * n..8 * n + 8].try_into().expect("eight bytes"));
        let page = std::array::from_fn(words);
        if PageIdentity::of(&page).is_some_and(|found| found.key == KEY) {
            // Every second page was rewritten, including the first.
            let expected =
                PageIdentity { key: KEY, index: next, generation: u64::from(next % 2 == 0) };
            let checked = expected.check(&page).and_then(|()| worker::check_crc(&page).map(|_| ()));
            ensure!(checked.is_ok(), "page {next} at {address:#x}: {checked:?}");
            next += 1;
        }
    }
    ensure!(next == filled, "{next} of {filled} pages are in the dump");
    Ok(())
}
