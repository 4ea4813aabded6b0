//! Dumps: their cost, their contents, and the remains of an interrupted dump.

use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use boot::dump::Dump;
use boot::volume::{SpaceImage, VolumeAccess};
use kernel::mm::layout::RamLayout;
use kernel::space::record::SpaceContents;
use kernel::space::{CrashReason, PartialCause, SpaceState};
use std::path::Path;
use tests::Case;
use tests::core_file::{CoreFile, PageIn};
use tests::scene::{Play, Scene, Setting};
use worker::PageIdentity;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "pages_on_disk_and_zero_pages_cost_no_write_in_a_dump",
        beds: &[Bed::Qemu],
        needs: &[],
        run: cost,
    },
    Case {
        name: "a_power_cut_in_the_drain_leaves_a_right_partial_dump",
        beds: &[Bed::Qemu],
        needs: &[],
        run: power_cut,
    },
    Case {
        name: "a_power_cut_before_the_drain_leaves_the_crashs_record",
        beds: &[Bed::Qemu],
        needs: &[],
        run: early_cut,
    },
    Case {
        name: "a_slow_disk_has_the_crash_and_its_tables_before_the_pages",
        beds: &[Bed::Qemu],
        needs: &[],
        run: windows,
    },
    Case {
        name: "the_host_command_finishes_a_drain_that_was_cut_off",
        beds: &[Bed::Qemu],
        needs: &[],
        run: finished_outside,
    },
    Case {
        name: "a_block_that_cannot_be_written_ends_in_a_partial_dump",
        beds: &[Bed::Qemu],
        needs: &[],
        run: write_error,
    },
    Case {
        name: "a_page_that_cannot_be_read_back_crashes_its_partition",
        beds: &[Bed::Qemu],
        needs: &[],
        run: read_error,
    },
];

const PAGE: u64 = 4096;
/// The test kernel's key.
const KEY: u64 = 0x5747;
/// Pages that the kernel itself writes between its page-out and its crash: stack, tables, data.
const KERNELS_OWN: u64 = 32;

/// Pages of the test kernel by state: paged out before the crash, dirty, written with zeros.
#[derive(Clone, Copy)]
struct DumpPages {
    start: u64,
    paged: u64,
    dirty: u64,
    zeros: u64,
}

/// Number of pages with content that are correct, in no segment, and wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Found {
    right: u64,
    missing: u64,
    wrong: u64,
}

impl DumpPages {
    fn address(&self, index: u64) -> u64 {
        self.start + index * PAGE
    }

    /// Reads the pages with content through the ELF header alone.
    fn in_core(&self, path: &Path) -> Result<Found> {
        let (core, mut found) = (CoreFile::open(path)?, Found::default());
        for index in 0..self.paged + self.dirty {
            match core.page(self.address(index))? {
                PageIn::NoSegment => found.missing += 1,
                PageIn::Bytes(bytes) if is_page(&bytes, index) => found.right += 1,
                PageIn::Zero | PageIn::Bytes(_) => found.wrong += 1,
            }
        }
        Ok(found)
    }

    fn check_zeros(&self, path: &Path) -> Result<()> {
        let core = CoreFile::open(path)?;
        for index in self.paged + self.dirty..self.paged + self.dirty + self.zeros {
            ensure!(
                core.page(self.address(index))? == PageIn::Zero,
                "zero page {index} is something else"
            );
        }
        Ok(())
    }
}

fn is_page(bytes: &[u8], index: u64) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    let mut page: worker::WorkerPage = [0; 512];
    page.iter_mut().zip(words).for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
    PageIdentity { key: KEY, index, generation: 0 }.check(&page).is_ok()
}

fn cost(bed: Bed) -> Result<()> {
    let setting = Setting {
        memory_mib: 16,
        pool_mib: 32,
        devices_mib: &[24],
        cmdline: "paged=1000 dirty=900 zeros=500",
        partition: "restart = \"never\"",
    };
    let scene = Scene::new(bed, "cost", setting)?;
    let mut play = scene.start()?;
    let pages = DumpPages { start: play.get_ready()?, paged: 1000, dirty: 900, zeros: 500 };
    let before = play.running.disk_counters()?[0];
    play.key(b'c')?;
    let complete = play.event("dump_complete")?;
    let after = play.running.disk_counters()?[0];

    let (written, metadata) =
        (complete.number("pages_written")?, complete.number("metadata_bytes")?);
    ensure!((pages.dirty..=pages.dirty + KERNELS_OWN).contains(&written), "{}", complete.0);
    // Besides the dump only the space's claim is written, one sector now and then.
    let beats = (after.bytes_written - before.bytes_written).checked_sub(written * PAGE + metadata);
    ensure!(
        beats.is_some_and(|bytes| bytes.is_multiple_of(512) && bytes <= 64 * 512),
        "QEMU counts {before:?} to {after:?}, {}",
        complete.0
    );
    // Headers, notes, bitmap, checksums (4 bytes a page, twice) and records: little compared with
    // the pages.
    ensure!(metadata < 160 << 10, "{}", complete.0);
    // The time in which a power cut would lose the dump, and the part of it that would lose even
    // the crash's record.
    let (crashed, described) = (complete.number("crashed_ns")?, complete.number("described_ns")?);
    println!("record CRASHED after {} us, DRAINING {} us later", crashed / 1000, described / 1000);
    ensure!(complete.number("pages_paged_before")? >= pages.paged - KERNELS_OWN, "{}", complete.0);
    play.power_off()?;
    let found = pages.in_core(&scene.image(0))?;
    ensure!(found == Found { right: 1900, ..Found::default() }, "{found:?}");
    pages.check_zeros(&scene.image(0))?;
    whole(&scene.image(0))
}

/// Checks every block of a complete dump against its checksum, and the header.
fn whole(path: &Path) -> Result<()> {
    let dump = Dump::open(path, VolumeAccess::Read)?;
    let verdict = dump.verify()?;
    ensure!(dump.record().state == SpaceState::Complete, "{:?}", dump.record().state);
    ensure!(verdict.wrong == 0 && verdict.missing == 0 && verdict.header_current, "{verdict:?}");
    Ok(())
}

/// Large enough that a record of progress is written well before the end, although it waits behind
/// megabytes of blocks on a slow disk.
const CUT: Setting = Setting {
    memory_mib: 128,
    pool_mib: 144,
    devices_mib: &[136],
    cmdline: "paged=2000 dirty=28000 zeros=500",
    partition: "restart = \"never\"",
};

/// Cuts the power after the first record of progress, on a disk that is far too slow to write the
/// rest meanwhile.
fn cut(bed: Bed, name: &'static str) -> Result<(Scene, DumpPages)> {
    let scene = Scene::new(bed, name, CUT)?;
    let mut play = scene.start()?;
    let pages = DumpPages { start: play.get_ready()?, paged: 2000, dirty: 28000, zeros: 500 };
    play.running.limit_writes(0, 12 << 20)?;
    play.key(b'c')?;
    let drain = play.event("drain")?;
    ensure!(drain.number("remaining")? > 0, "{}", drain.0);
    play.cut_power();
    let record = SpaceImage::open(&scene.image(0), VolumeAccess::Read)?.record()?;
    ensure!(record.state == SpaceState::Draining, "the cut came at {:?}", record.state);
    Ok((scene, pages))
}

fn power_cut(bed: Bed) -> Result<()> {
    let (scene, pages) = cut(bed, "power-cut")?;
    let mut play = scene.start()?;
    play.space(0, "partial")?;
    let waiting = play.event("waiting")?;
    ensure!(waiting.text("what")? == "a free paging space", "{}", waiting.0);
    play.power_off()?;
    partial(&scene.image(0), &pages)
}

/// The disk is so slow that the crash's record is durable long before the dump's description.
fn early_cut(bed: Bed) -> Result<()> {
    let (memory_mib, pool_mib, devices_mib) = (16, 32, &[24]);
    let setting =
        Setting { memory_mib, pool_mib, devices_mib, cmdline: "paged=1000 dirty=500", ..CUT };
    let scene = Scene::new(bed, "early-cut", setting)?;
    let mut play = scene.start()?;
    play.get_ready()?;
    play.running.limit_writes(0, 8 << 10)?;
    play.key(b'c')?;
    play.space(0, "crashed")?;
    play.cut_power();
    let record = SpaceImage::open(&scene.image(0), VolumeAccess::Read)?.record()?;
    ensure!(record.state == SpaceState::Crashed, "the cut came at {:?}", record.state);
    let crash = record.crash.context("the crash")?;
    ensure!(crash.reason == CrashReason::TRIPLE_FAULT && crash.time_ns > 0, "{crash:?}");
    ensure!(
        crash.registers.starts_with(&[5, 0, 0, 0, 80, 1, 0, 0, 1, 0, 0, 0]),
        "no NT_PRSTATUS: {crash:?}"
    );
    let verdict = Dump::open(&scene.image(0), VolumeAccess::Read)?.verify()?;
    ensure!(
        (verdict.right, verdict.wrong) == (0, 0),
        "blocks of which nothing is known: {verdict:?}"
    );
    // The next start keeps and reports the dump until it is released.
    let mut play = scene.start()?;
    play.event("waiting")?;
    play.running.events.send(serde_json::json!({"command": "list"}))?;
    let listed = play.event("dump")?;
    ensure!(
        listed.text("state")? == "crashed" && listed.text("reason")? == "triple fault",
        "{}",
        listed.0
    );
    ensure!(listed.text("dump")? == crash.name.to_string(), "{}", listed.0);
    play.command("release", None)?;
    play.event("start")?;
    play.power_off()
}

fn finished_outside(bed: Bed) -> Result<()> {
    let (scene, pages) = cut(bed, "cut-outside")?;
    let path = scene.image(0);
    ensure!(Dump::open(&path, VolumeAccess::Write)?.finish()? == SpaceState::Partial);
    partial(&path, &pages)
}

/// Checks a partial dump: pages in segments are correct, and all pages that were paged out before
/// are there.
fn partial(path: &Path, pages: &DumpPages) -> Result<()> {
    let dump = Dump::open(path, VolumeAccess::Read)?;
    let verdict = dump.verify()?;
    ensure!(dump.record().state == SpaceState::Partial, "{:?}", dump.record().state);
    ensure!(verdict.wrong == 0 && verdict.missing > 0 && verdict.header_current, "{verdict:?}");
    let found = pages.in_core(path)?;
    ensure!(found.wrong == 0 && found.missing > 0 && found.right >= pages.paged, "{found:?}");
    Ok(())
}

/// Measures the time in which a power cut would lose the crash's record, or the dump, on a disk
/// that is busy with page-outs at the crash.
fn windows(bed: Bed) -> Result<()> {
    const SPEED: u64 = 2 << 20;
    /// Time in which writes in flight are answered; they cannot be cancelled.
    const IN_FLIGHT_NS: u64 = 500_000_000;
    /// Time for each flush, on a busy host.
    const FLUSH_NS: u64 = 250_000_000;
    let setting = Setting {
        memory_mib: 32,
        pool_mib: 48,
        devices_mib: &[40],
        cmdline: "paged=500 dirty=4000",
        ..CUT
    };
    let scene = Scene::new(bed, "windows", setting)?;
    let mut play = scene.start()?;
    play.running.limit_writes(0, SPEED)?;
    play.get_ready()?;
    let before = play.stats()?.number("page_outs")?;
    play.command("evict", Some(1 << 20))?;
    play.until("a page-out", |stats| Ok(stats.number("page_outs")? > before))?;
    let crash = play.crash()?;
    let complete = play.event("dump_complete")?;
    let written = complete.number("pages_written")?;
    // Otherwise the disk was idle and the test proves nothing: writing the rest must take far
    // longer than the bounds.
    ensure!(written * PAGE > 3 * SPEED, "only {written} pages were left: {}", crash.0);
    let (crashed, described) = (complete.number("crashed_ns")?, complete.number("described_ns")?);
    let record_bound = IN_FLIGHT_NS + FLUSH_NS;
    let tables_bound = complete.number("metadata_bytes")? * 1_000_000_000 / SPEED + 2 * FLUSH_NS;
    let ms = |ns: u64| ns / 1_000_000;
    println!(
        "CRASHED after {} ms, bound {} ms; DRAINING {} ms later, bound {} ms",
        ms(crashed),
        ms(record_bound),
        ms(described),
        ms(tables_bound)
    );
    ensure!(
        crashed <= record_bound && described <= tables_bound,
        "more than the bound: {}",
        complete.0
    );
    play.power_off()?;
    whole(&scene.image(0))
}

/// Describes a disk that fails an operation on one page's block only.
fn fail(scene: &Scene, operation: &str, gpa: u64, memory_mib: u64) -> Result<std::path::PathBuf> {
    let image = scene.image(0);
    let ram = RamLayout::new(memory_mib << 20).context("the memory has a layout")?;
    let contents = SpaceContents::new(std::fs::metadata(&image)?.len(), &ram)
        .map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let index = ram.index_of(kernel::addr::Gfn::new(gpa / PAGE)).context("an address in RAM")?;
    let sector = contents.layout.block_sectors(index, 1).context("a page of the space")?.first;
    let rules = image.with_extension("rules");
    std::fs::write(
        &rules,
        format!(
            "[inject-error]\nevent = \"none\"\niotype = \"{operation}\"\nerrno = \"5\"\nsector = \
             \"{sector}\"\n"
        ),
    )?;
    Ok(format!("blkdebug:{}:{}", rules.display(), image.display()).into())
}

fn write_error(bed: Bed) -> Result<()> {
    let setting = Setting {
        memory_mib: 16,
        pool_mib: 32,
        devices_mib: &[24, 24],
        cmdline: "paged=500 dirty=1500",
        partition: "restart = \"threshold\"\nboot_memory = \"16 MiB\"",
    };
    let scene = Scene::new(bed, "write-error", setting)?;
    let mut machine = scene.machine()?;
    // A page that stays dirty until the crash.
    machine.disks[0] = fail(&scene, "write", (8 << 20) - PAGE, 16)?;
    let mut play = Play::of(&machine)?;
    let pages = DumpPages { start: play.get_ready()?, paged: 500, dirty: 1500, zeros: 0 };
    play.key(b'c')?;
    let failed = play.event("dump_failed")?;
    ensure!(failed.number("disk")? == 0, "{}", failed.0);
    play.event_with("start", |e| e.0["incarnation"] == 2)?;
    play.get_ready()?;
    play.power_off()?;
    partial(&scene.image(0), &pages)?;
    let found = pages.in_core(&scene.image(0))?;
    ensure!(
        found == Found { right: 1999, missing: 1, wrong: 0 },
        "the neighbours are not there: {found:?}, {}",
        failed.0
    );
    Ok(())
}

fn read_error(bed: Bed) -> Result<()> {
    let setting = Setting {
        memory_mib: 16,
        pool_mib: 32,
        devices_mib: &[24],
        cmdline: "paged=2000",
        partition: "restart = \"never\"",
    };
    let scene = Scene::new(bed, "read-error", setting)?;
    let mut machine = scene.machine()?;
    let lost = (8 << 20) - PAGE;
    machine.disks[0] = fail(&scene, "read", lost, 16)?;
    let mut play = Play::of(&machine)?;
    play.get_ready()?;
    play.key(b'v')?;
    let crash = play.event("crash")?;
    ensure!(crash.text("reason")? == "page lost", "{}", crash.0);
    ensure!(crash.number("detail")? & !(PAGE - 1) == lost, "{}", crash.0);
    let failed = play.event("dump_failed")?;
    ensure!(failed.text("message")?.contains("1 pages are missing"), "{}", failed.0);
    play.event("stopped")?;
    play.power_off()?;
    without_the_lost_page(&scene.image(0), lost)
}

/// Outside the machine the disk is sound, so the block itself is correct; but the dump was sealed
/// without it.
fn without_the_lost_page(image: &Path, lost: u64) -> Result<()> {
    let dump = Dump::open(image, VolumeAccess::Read)?;
    let (record, verdict) = (dump.record(), dump.verify()?);
    ensure!(
        (record.state, record.partial_cause) == (SpaceState::Partial, PartialCause::BAD_BLOCKS),
        "{record:?}"
    );
    let crash = record.crash.as_ref().context("a dump of a crash")?;
    ensure!(
        (crash.reason, crash.detail & !(PAGE - 1)) == (CrashReason::LOST_PAGE, lost),
        "{crash:?}"
    );
    ensure!(
        (verdict.wrong, verdict.missing, verdict.header_current) == (0, 1, true),
        "{verdict:?}"
    );
    let core = CoreFile::open(image)?;
    ensure!(core.page(lost)? == PageIn::NoSegment, "the dump shows a page that could not be read");
    Ok(())
}
