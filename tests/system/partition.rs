//! Test kernels in partitions: they run, page, crash and restart.

use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use boot::dump::Dump;
use boot::events::Event;
use boot::volume::VolumeAccess;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::core::keyed_pages;
use tests::scenario::{PARTITION, Scenario, StartedScenario};
use tests::{Case, expect_success};

const BOTH: &[Bed] = &[Bed::Qemu, Bed::Bochs, Bed::Kvm, Bed::Nested];
const LIMIT: Duration = Duration::from_secs(240);
const ANSWER: Duration = Duration::from_secs(60);
const KEY: u64 = 0x5eed;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_pvh_kernel_runs_and_passes",
        beds: BOTH,
        needs: &[],
        run: |bed| passes(bed, Scenario::new("hello", "")),
    },
    Case {
        name: "exceptions_arrive_in_the_guest",
        beds: BOTH,
        needs: &[],
        run: |bed| passes(bed, Scenario::new("traps", "")),
    },
    Case { name: "twice_the_memory_keeps_every_page", beds: BOTH, needs: &[], run: overcommit },
    Case {
        name: "a_crash_becomes_a_dump_while_the_partition_runs_again",
        beds: BOTH,
        needs: &[],
        run: crash,
    },
    Case {
        name: "every_way_to_reset_is_a_reset_and_no_crash",
        beds: BOTH,
        needs: &[],
        run: resets,
    },
    Case {
        name: "a_dump_costs_no_write_for_what_is_there_or_zero",
        beds: &[Bed::Qemu, Bed::Nested],
        needs: &[],
        run: writes,
    },
    Case {
        name: "an_unreleased_dump_is_kept_and_the_partition_waits",
        beds: &[Bed::Qemu, Bed::Bochs],
        needs: &[],
        run: waits,
    },
];

fn is_guest(event: &Event, kind: &str) -> bool {
    event.name() == "guest" && event.0["kind"] == kind
}

fn wait_for_pass(started: &mut StartedScenario) -> Result<()> {
    let verdict = started
        .running
        .events
        .wait_for(LIMIT, "a verdict", |e| is_guest(e, "pass") || is_guest(e, "fail"))?;
    ensure!(is_guest(&verdict, "pass"), "{}; {}", verdict.0, started.place());
    Ok(())
}

fn passes(bed: Bed, scenario: Scenario) -> Result<()> {
    let mut started = scenario.start(bed, &format!("{}-{}", bed.name(), scenario.kernel))?;
    wait_for_pass(&mut started)?;
    expect_success(started.running, LIMIT)
}

/// Number of the ways in which `leave` resets the machine.
const WAYS: u64 = 7;

fn resets(bed: Bed) -> Result<()> {
    let mut started = Scenario::new("leave", "").start(bed, &format!("{}-resets", bed.name()))?;
    wait_for_pass(&mut started)?;
    let events = started.running.events.all();
    let resets =
        events.iter().filter(|event| event.name() == "stopped" && event.0["how"] == "reset");
    let ended: Vec<_> = resets.filter_map(|event| event.0["incarnation"].as_u64()).collect();
    ensure!(ended == (1..=WAYS).collect::<Vec<_>>(), "{ended:?}; {}", started.place());
    ensure!(!events.iter().any(|event| event.name() == "crash"), "a crash; {}", started.place());
    expect_success(started.running, LIMIT)
}

/// Returns the memory of a partition that pages: in bed C a page-out and page-in take five
/// milliseconds.
const fn memory_mib(bed: Bed) -> u64 {
    match bed {
        Bed::Nested => 8,
        _ => 16,
    }
}

fn stats(started: &mut StartedScenario) -> Result<Event> {
    started.running.events.command(ANSWER, json!({"command": "stats"}))?;
    let last = started.running.events.newest("stats");
    last.cloned().context("an answer without counters")
}

fn overcommit(bed: Bed) -> Result<()> {
    let cmdline = if bed == Bed::Nested { "passes=1" } else { "passes=2" };
    let scenario = Scenario {
        pool_mib: memory_mib(bed) / 2,
        memory_mib: memory_mib(bed),
        at_end: "stay",
        ..Scenario::new("fill", cmdline)
    };
    let mut started = scenario.start(bed, &format!("{}-overcommit", bed.name()))?;
    wait_for_pass(&mut started)?;
    // Use the pool's counters: the partition's own are removed with its memory, right after the
    // verdict.
    stats(&mut started)?;
    let pool = started.running.events.newest("pool").context("no counters of the pool")?;
    ensure!(pool.number("page_ins")? > 0 && pool.number("page_outs")? > 0, "{}", pool.0);
    started.running.passed();
    Ok(())
}

fn crash(bed: Bed) -> Result<()> {
    let scenario = Scenario {
        pool_mib: memory_mib(bed) / 2,
        memory_mib: memory_mib(bed),
        devices_mib: vec![32, 32],
        at_end: "stay",
        ..Scenario::new("fill", "passes=1 rewrite=4 crash=1")
    };
    let mut started = scenario.start(bed, &format!("{}-crash", bed.name()))?;
    let events = &mut started.running.events;
    let crash = events.wait_named(LIMIT, "crash")?;
    ensure!(crash.text("reason")? == "triple fault", "{}", crash.0);
    ensure!(crash.number("paged")? > 0, "nothing was paged out before: {}", crash.0);
    let restart = events.wait_named(LIMIT, "restart")?;
    // The number of pages left to drain depends on timing here; the story on bed B, whose time is
    // exact, asserts it.
    let freed = restart.number("freed_from_image")? >= restart.number("boot_memory")?;
    ensure!(restart.text("gate")? == "threshold" && freed, "{}", restart.0);
    let complete = events.wait_named(LIMIT, "dump_complete")?;
    ensure!(complete.number("pages_paged_before")? > 0, "{}", complete.0);
    wait_for_pass(&mut started)?;
    let disk = usize::try_from(complete.number("disk")?)?;
    let image = bring_out(bed, &mut started, disk)?;
    check_dump(&started, &image)?;
    started.running.passed();
    Ok(())
}

/// Returns an image of paging device `disk`: the file itself, or a copy of the memory behind it.
fn bring_out(bed: Bed, started: &mut StartedScenario, disk: usize) -> Result<PathBuf> {
    let file = started.file("memory.img");
    match bed {
        Bed::Qemu | Bed::Kvm => return Ok(started.disks[disk].clone()),
        Bed::Nested => {
            started.running.nested()?.bring_out(disk, &file)?;
            return Ok(file);
        }
        Bed::Bochs => {}
    }
    // The partition has stopped, so the hypervisor's own page tables are in use.
    started.running.events.wait_named(LIMIT, "stopped")?;
    started.running.bring_out(disk as u64, &file, ANSWER)?;
    Ok(file)
}

/// Checks the dump against its own record, and by a reader that knows only ELF and the page format.
fn check_dump(started: &StartedScenario, image: &Path) -> Result<()> {
    let verdict = Dump::open(image, VolumeAccess::Read)?.verify()?;
    ensure!(
        verdict.wrong == 0 && verdict.missing == 0 && verdict.header_current,
        "{verdict:?}; {}",
        started.place()
    );
    let filled =
        started.running.events.all().iter().filter_map(|event| event.0["text"].as_str()).find_map(
            |text| {
                let count = text.strip_prefix("filled pages ")?;
                count.parse::<u64>().ok()
            },
        );
    let filled = filled.context("the kernel says how much it filled")?;
    let pages = keyed_pages(&std::fs::read(image)?, KEY)?;
    ensure!(pages.wrong == 0, "{} wrong pages; {}", pages.wrong, started.place());
    for index in 0..filled {
        // One pass with rewrite=4: every fourth page was written a second time.
        let expected = u64::from(index.is_multiple_of(4));
        let found = pages.generations.get(&index);
        ensure!(
            found == Some(&expected),
            "page {index} has generation {found:?}; {}",
            started.place()
        );
    }
    Ok(())
}

/// The device's own counter is the proof: with a pool that holds everything, the device is asked to
/// write only the dump, the pages evicted before it, and their metadata.
fn writes(bed: Bed) -> Result<()> {
    const FILLED: u64 = 1024;
    const EVICTED: u64 = 512;
    let scenario = Scenario {
        pool_mib: 48,
        memory_mib: 32,
        devices_mib: vec![64],
        partition: "restart = \"never\"",
        at_end: "stay",
        ..Scenario::new("fill", &format!("passes=0 limit={FILLED} spin=1"))
    };
    let mut started = scenario.start(bed, &format!("{}-writes", bed.name()))?;
    let events = &mut started.running.events;
    events.wait_for(LIMIT, "the kernel to spin", |e| {
        is_guest(e, "log") && e.0["text"] == "spinning"
    })?;
    events
        .command(ANSWER, json!({"command": "evict", "partition": PARTITION, "count": EVICTED}))?;
    // The answer only confirms the request; the pager evicts the pages at its own pace.
    let deadline = Instant::now() + ANSWER;
    while stats(&mut started)?.number("paged")? < EVICTED / 2 {
        ensure!(Instant::now() < deadline, "the pages do not leave; {}", started.place());
    }
    let events = &mut started.running.events;
    events.command(ANSWER, json!({"command": "crash", "partition": PARTITION}))?;
    let complete = events.wait_named(LIMIT, "dump_complete")?;
    let before = complete.number("pages_paged_before")? + complete.number("pages_clean")?;
    ensure!(before >= EVICTED / 2, "hardly a page was on the disk before: {}", complete.0);
    let written = started.running.disk_counters()?[0].bytes_written;
    // Image, stack and tables of the kernel, the firmware's tables; headers, bitmap, checksums and
    // records of the space.
    let bound = (FILLED + 128) * 4096 + (1 << 20);
    ensure!(written >= FILLED * 4096, "{written} bytes are too few for {FILLED} pages");
    ensure!(written <= bound, "{written} bytes were written, {bound} are enough; {}", complete.0);
    started.running.passed();
    Ok(())
}

fn waits(bed: Bed) -> Result<()> {
    let scenario = Scenario { at_end: "stay", ..Scenario::new("fill", "passes=1 crash=1") };
    let mut started = scenario.start(bed, &format!("{}-waits", bed.name()))?;
    let events = &mut started.running.events;
    events.wait_named(LIMIT, "crash")?;
    events.wait_for(LIMIT, "the partition to wait", |e| {
        e.name() == "waiting" && e.0["what"] == "a free paging space"
    })?;
    events.wait_named(LIMIT, "dump_complete")?;
    events.command(ANSWER, json!({"command": "release", "partition": PARTITION}))?;
    events.wait_for(LIMIT, "the second incarnation", |e| {
        e.name() == "start" && e.0["incarnation"] == 2
    })?;
    wait_for_pass(&mut started)?;
    started.running.passed();
    Ok(())
}
