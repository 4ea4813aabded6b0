//! Large pools and large partitions: tables are sized at the start, and the cost of a dump depends
//! on the touched pages.
//!
//! The usual run takes a pool of 3 GiB and a partition of 64 GiB. `TIDEPOOL_SIZES=all` takes pools
//! of 64 MiB, 2, 8 and 16 GiB and partitions of 4, 64 and 128 GiB. Images are sparse, and the
//! emulator's memory is allocated as it is touched.

use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, ClockBase, RunningMachine};
use boot::dump::Dump;
use boot::events::Event;
use boot::volume::{SpaceImage, VolumeAccess};
use kernel::mm::crc::crc32c;
use kernel::mm::layout::RamLayout;
use kernel::space::record::SpaceContents;
use kernel::space::{
    CrashReason, DrainRecord, RecordedCrash, Residue, SpaceOwner, SpaceRecord, SpaceState, Uuid,
};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use tests::core_file::{CoreFile, PageIn};
use tests::scenario::StartedScenario;
use tests::several::{Member, Several};
use tests::{Case, expect_success, plan_machine, test_kernel};
use worker::PageIdentity;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_large_pool_costs_next_to_nothing_at_the_start",
        beds: &[Bed::Qemu],
        needs: &[],
        run: pools,
    },
    Case {
        name: "a_large_partition_crashes_and_comes_back_beside_a_neighbour",
        beds: &[Bed::Qemu],
        needs: &[],
        run: partitions,
    },
    Case {
        name: "a_large_drain_that_was_cut_off_keeps_no_node_from_starting",
        beds: &[Bed::Qemu],
        needs: &[],
        run: recovery,
    },
];

const LIMIT: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// Instructions from the hypervisor's first to the guest's first, without those that depend on the
/// pool's size.
const START_INSTRUCTIONS: u64 = 30_000_000;
/// Maximum of additional instructions for each GiB of the pool.
const GIB_INSTRUCTIONS: u64 = 2_000_000;
/// 8 ns an instruction.
const COUNTED: ClockBase = ClockBase::Instructions(3);
const INSTRUCTION_NS: u64 = 8;

/// Numbers of pages of the large partition in the states of `states`.
const PAGED: u64 = 200;
const DIRTY: u64 = 300;
const FAR: u64 = 64;
/// The test kernel's key, and the index of the first far page.
const KEY: u64 = 0x5747;
const FAR_INDEX: u64 = 1 << 32;
/// Maximum of the host's disk that the dump's image may allocate: a few blocks a page, and the
/// metadata of 128 GiB.
const MOST_ALLOCATED: u64 = 64 * MIB;

fn all() -> bool {
    std::env::var("TIDEPOOL_SIZES").is_ok_and(|value| value == "all")
}

fn pools(bed: Bed) -> Result<()> {
    let sizes: &[u64] = if all() { &[64, 2 << 10, 8 << 10, 16 << 10] } else { &[3 << 10] };
    sizes.iter().try_for_each(|&mib| pool(bed, mib).with_context(|| format!("a pool of {mib} MiB")))
}

/// Runs a guest in the pool, and counts the instructions before the guest's first. The paging
/// device is memory-backed: a disk's time would not be the hypervisor's.
fn pool(bed: Bed, pool_mib: u64) -> Result<()> {
    let toml = format!(
        "[pool]\nmemory = \"{pool_mib} MiB\"\n[machine]\ncpus = 1\n[[paging_device]]\nmemory = \
         \"20 MiB\"\n[[partition]]\nname = \"p\"\nmemory = \"16 MiB\"\nkernel = \"{}\"\ncmdline = \
         \"passes=2 limit=2000\"\n",
        test_kernel("fill")?.display()
    );
    let mut machine = plan_machine(bed, &format!("pool-{pool_mib}"), &toml, &std::env::temp_dir())?;
    machine.clock = COUNTED;
    let mut running = machine.start()?;
    let place = running.folder().display().to_string();
    work_in(&mut running, pool_mib).with_context(|| place)?;
    running.events.send(json!({"command": "poweroff"}))?;
    expect_success(running, LIMIT)
}

fn work_in(running: &mut RunningMachine, pool_mib: u64) -> Result<()> {
    let boot = running.events.wait_named(LIMIT, "boot")?;
    ensure!(boot.number("pool_pages")? == pool_mib * MIB / PAGE, "{}", boot.0);
    let instructions = running.events.wait_named(LIMIT, "entered")?.number("t")? / INSTRUCTION_NS;
    let most = START_INSTRUCTIONS + pool_mib * GIB_INSTRUCTIONS / 1024;
    println!(
        "pool of {pool_mib} MiB: {instructions} instructions to the first of the guest (at most \
         {most})"
    );
    ensure!(instructions <= most, "{instructions} instructions, more than {most}");
    let ended =
        |e: &Event| e.0["kind"] == "pass" || matches!(e.name(), "stopped" | "error" | "panic");
    let ended = running.events.wait_for(LIMIT, "the guest's verdict", ended)?;
    ensure!(ended.0["kind"] == "pass", "{}", ended.0);
    check_heap(running).map(|_| ())
}

/// Returns the pool's counters; checks those of the heap before.
fn check_heap(running: &mut RunningMachine) -> Result<Event> {
    running.events.send(json!({"command": "stats"}))?;
    let pool = running.events.wait_named(LIMIT, "pool")?;
    let [size, used, peak] = ["heap_size", "heap_used", "heap_peak"].map(|name| pool.number(name));
    let (size, used, peak) = (size?, used?, peak?);
    println!("heap {} KiB, {} used, {} at most", size >> 10, used >> 10, peak >> 10);
    ensure!(
        used > 0 && used <= peak && peak <= size / 2,
        "heap: {used} of {size} in use, {peak} at most"
    );
    Ok(pool)
}

fn power_off(mut started: StartedScenario) -> Result<()> {
    started.running.events.send(json!({"command": "poweroff"}))?;
    expect_success(started.running, LIMIT)
}

fn partitions(bed: Bed) -> Result<()> {
    let sizes: &[u64] = if all() { &[4, 64, 128] } else { &[64] };
    sizes.iter().try_for_each(|&gib| {
        partition(bed, gib).with_context(|| format!("a partition of {gib} GiB"))
    })
}

/// A large partition with few touched pages crashes twice and restarts, while its neighbour works
/// on.
fn partition(bed: Bed, gib: u64) -> Result<()> {
    let device = gib * 1024 + gib * 16 + 64;
    let cmdline = format!("paged={PAGED} dirty={DIRTY} far={FAR}");
    let members = vec![
        Member::new("big", "states", gib * 1024, &cmdline),
        Member {
            lines: "restart = \"never\"",
            ..Member::new("neighbour", "fill", 12, "passes=100000000 rewrite=4")
        },
    ];
    let several = Several { pool_mib: 24, cpus: 2, devices_mib: vec![device, device, 16], members };
    let mut started = several.start(bed, &format!("{}-{gib}-gib", bed.name()))?;
    let place = started.place();
    play(&mut started.running, gib).with_context(|| place)?;
    for disk in &started.disks[..2] {
        check_image(disk)?;
    }
    power_off(started)
}

fn play(running: &mut RunningMachine, gib: u64) -> Result<()> {
    for incarnation in [1, 2] {
        get_ready(running, incarnation)?;
        neighbour_goes_on(running)?;
        running.events.send(json!({"command": "crash", "partition": "big"}))?;
        let complete = of_big(running, "dump_complete", incarnation)?;
        let [drain_ms, since_ms] = ["drain_ns", "since_crash_ns"]
            .map(|name| complete.number(name).map(|ns| ns / 1_000_000));
        let (drain_ms, since_ms, metadata) =
            (drain_ms?, since_ms?, complete.number("metadata_bytes")? >> 10);
        println!(
            "{gib} GiB, dump {incarnation}: drained in {drain_ms} ms, whole after {since_ms} ms, \
             {metadata} KiB around blocks"
        );
        ensure!(complete.number("pages_written")? <= DIRTY + PAGED + FAR + 64, "{}", complete.0);
    }
    neighbour_goes_on(running)?;
    check_heap(running).map(|_| ())
}

fn of_big(running: &mut RunningMachine, name: &str, incarnation: u64) -> Result<Event> {
    let wanted = |e: &Event| {
        e.name() == name
            && e.0["partition"] == "big"
            && e.0["incarnation"].as_u64().is_none_or(|n| n == incarnation)
    };
    running.events.wait_for(LIMIT, &format!("“{name}” of big, {incarnation}"), wanted)
}

/// Waits until the large partition has filled all its pages, the first of which were paged out
/// before.
fn get_ready(running: &mut RunningMachine, incarnation: u64) -> Result<()> {
    of_big(running, "start", incarnation)?;
    line(running, "filled ")?;
    running
        .events
        .command(LIMIT, json!({"command": "evict", "partition": "big", "count": PAGED + FAR}))?;
    running.events.command(LIMIT, json!({"command": "console", "partition": "big"}))?;
    running.console.send(b".")?;
    line(running, "ready")?;
    running.console.send(b"v")?;
    ensure!(line(running, "wrong ")? == "0", "the large partition has lost a page");
    Ok(())
}

fn line(running: &mut RunningMachine, start: &str) -> Result<String> {
    let says = |e: &Event| {
        e.0["partition"] == "big" && e.0["kind"] == "log" && text_of(e).starts_with(start)
    };
    let event = running.events.wait_for(LIMIT, &format!("the guest's “{start}”"), says)?;
    Ok(text_of(&event)[start.len()..].to_owned())
}

fn text_of(event: &Event) -> &str {
    event.0["text"].as_str().unwrap_or_default()
}

/// Waits for two further passes of the neighbour; neither may find a wrong page.
fn neighbour_goes_on(running: &mut RunningMachine) -> Result<()> {
    for _ in 0..2 {
        let passes = |e: &Event| {
            e.0["partition"] == "neighbour"
                && (text_of(e).starts_with("pass ") || e.0["kind"] == "fail")
        };
        let event = running.events.wait_for(LIMIT, "the neighbour's next pass", passes)?;
        ensure!(text_of(&event).ends_with("wrong 0"), "{}", event.0);
    }
    Ok(())
}

/// Checks that both dumps are complete: every written page is at its place, also above 4 GiB, and
/// the image is still sparse.
fn check_image(path: &Path) -> Result<()> {
    let verdict = Dump::open(path, VolumeAccess::Read)?.verify()?;
    ensure!(verdict.wrong == 0 && verdict.missing == 0 && verdict.header_current, "{verdict:?}");
    ensure!(u64::from(verdict.right) >= PAGED + DIRTY + FAR, "{verdict:?}");
    let allocated = std::fs::metadata(path)?.blocks() * 512;
    ensure!(allocated <= MOST_ALLOCATED, "{} takes {} MiB", path.display(), allocated / MIB);
    let pages = u64::from(verdict.right + verdict.zero);
    let core = CoreFile::open(path)?;
    // The RAM above the hole begins at 4 GiB and has all pages but those of 3 GiB.
    let stride = (pages * PAGE - 3 * 1024 * MIB) / FAR / PAGE * PAGE;
    for n in 0..FAR {
        let PageIn::Bytes(bytes) = core.page((4 << 30) + n * stride)? else {
            anyhow::bail!("far page {n} is not in the dump")
        };
        let mut page: worker::WorkerPage = [0; 512];
        page.iter_mut()
            .zip(bytes.as_chunks::<8>().0)
            .for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
        let identity = PageIdentity { key: KEY, index: FAR_INDEX + n, generation: 0 };
        ensure!(identity.check(&page).is_ok(), "far page {n} is another");
    }
    Ok(())
}

/// A disk holds the record of an interrupted drain, with more pages than any heap has bits for: the
/// start processes it in pieces.
fn recovery(bed: Bed) -> Result<()> {
    const GIB: u64 = 256;
    start_beside(bed, tempfile::tempdir()?.path(), GIB << 30)
}

fn start_beside(bed: Bed, folder: &Path, bytes: u64) -> Result<()> {
    let path = folder.join("large.img");
    cut_off(&path, bytes)?;
    let toml = format!(
        "[pool]\nmemory = \"16 MiB\"\n[[paging_device]]\nimage = \
         \"large.img\"\n[[paging_device]]\nimage = \"small.img\"\nsize = \"24 \
         MiB\"\n[[partition]]\nname = \"p\"\nmemory = \"16 MiB\"\nkernel = \"{}\"\ncmdline = \
         \"passes=2\"\n",
        test_kernel("fill")?.display()
    );
    let mut running = plan_machine(bed, "cut-off", &toml, folder)?.start()?;
    let place = running.folder().display().to_string();
    let partial = |e: &Event| e.name() == "space" && e.0["disk"] == 0 && e.0["state"] == "partial";
    running
        .events
        .wait_for(LIMIT, "the large dump as a partial one", partial)
        .with_context(|| place.clone())?;
    let ended =
        |e: &Event| e.0["kind"] == "pass" || matches!(e.name(), "stopped" | "error" | "panic");
    let ended = running
        .events
        .wait_for(LIMIT, "the guest's verdict", ended)
        .with_context(|| place.clone())?;
    ensure!(ended.0["kind"] == "pass", "{}; {place}", ended.0);
    running.events.send(json!({"command": "poweroff"}))?;
    expect_success(running, LIMIT)?;
    // Only final pages are described: the first page of the memory above the hole, and no other.
    let verdict = Dump::open(&path, VolumeAccess::Read)?.verify()?;
    ensure!(
        (verdict.right, verdict.wrong, verdict.zero, verdict.header_current) == (1, 0, 1000, true),
        "{verdict:?}"
    );
    Ok(())
}

/// Creates a sparse image whose record says DRAINING, with a progress of 1000 pages and one block
/// behind it.
fn cut_off(path: &Path, bytes: u64) -> Result<()> {
    boot::volume::create(path, bytes + bytes / 50)?;
    let image = SpaceImage::open(path, VolumeAccess::Write)?;
    let ram = RamLayout::new(bytes).context("a layout")?;
    let contents =
        SpaceContents::new(image.capacity(), &ram).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let index = 3 << 18;
    let block = [7; PAGE as usize];
    image.write(contents.layout.blocks().start + index * PAGE, &block)?;
    image.write(contents.layout.checksums().start + 4 * index, &crc32c(&block).0.to_le_bytes())?;
    image.write(contents.layout.bitmap().start + index / 8, &[1 << (index % 8)])?;
    let name = "large".try_into().map_err(|_| anyhow::anyhow!("a short name"))?;
    let owner = SpaceOwner {
        name,
        partition: Uuid::from_name("large"),
        node: Uuid::from_name("gone"),
        epoch: 1,
    };
    let drain = DrainRecord { progress: 1000, program_headers: 1, notes_len: 0 };
    let free = image.record()?;
    let crash = RecordedCrash {
        name: Uuid::from_name("dump"),
        reason: CrashReason::PVPANIC,
        detail: 0,
        time_ns: 1,
        text: "panic".try_into().map_err(|_| anyhow::anyhow!("a short text"))?,
        registers: Default::default(),
    };
    let record = SpaceRecord {
        sequence: free.sequence + 1,
        state: SpaceState::Draining,
        owner: Some(owner),
        contents: Some(contents),
        drain,
        crash: Some(crash),
        residue: Residue::Stale,
        ..free
    };
    image.put_record(&record)?;
    ensure!(image.record()?.state == SpaceState::Draining, "the record is not the newest");
    Ok(())
}
