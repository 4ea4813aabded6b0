//! An unmodified Debian with twice as much memory promised as there is: it pages, panics, and runs
//! again before its dump is complete.
//!
//! The first case is the demonstration itself, whose claims are the assertions: no page wrong, a
//! restart with pages still to drain, every block of the dump right, the panic in makedumpfile's
//! log, the worker's pages found by drgn.
//!
//! The second one is a smaller one on VMX, up to the dump. The third is the smallest possible
//! Debian, on a CPU without A and D bits.

use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use boot::bed::bochs::CPU_WITHOUT_AD;
use boot::commands::demo::demonstrate;
use boot::demo::DemoScale;
use boot::demo::readers::Readers;
use boot::dump::Dump;
use boot::setup::{Permission, SetupJob, debian, python};
use boot::volume::VolumeAccess;
use boot::{initramfs, paths};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tests::{Case, expect_success, plan_machine};

/// Time limit for the next step of a Debian, in an emulator with fifty million instructions a
/// second.
const LIMIT: Duration = Duration::from_secs(420);
const SHORT: Duration = Duration::from_secs(60);
/// The kernel's panic message, without level and time.
const PANIC: &str = "Kernel panic - not syncing: sysrq triggered crash";

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "debian_pages_panics_restarts_and_its_dump_is_read",
        beds: &[Bed::Qemu, Bed::Kvm],
        needs: &[SetupJob::Guest, SetupJob::Readers],
        run: |bed| {
            demonstrate(
                bed,
                Permission::Refuse,
                &format!("demo-test-{}", bed.name()),
                DemoScale::of(bed).untimed(),
            )
        },
    },
    // A boot takes a minute or more of CPU time there, so the successor's second boot is left to
    // `cargo run -- --bed bochs`.
    Case {
        name: "debian_panics_beside_debian_on_vmx_and_its_dump_is_read",
        beds: &[Bed::Bochs],
        needs: &[SetupJob::Guest, SetupJob::Readers],
        run: |bed| {
            demonstrate(
                bed,
                Permission::Refuse,
                "demo-test-bochs",
                DemoScale::of(bed).untimed().to_the_dump(),
            )
        },
    },
    Case {
        name: "debian_without_dirty_bits_pages_panics_and_its_dump_is_read",
        beds: &[Bed::Bochs],
        needs: &[SetupJob::Guest, SetupJob::Readers],
        run: without_dirty_bits,
    },
];

fn without_dirty_bits(bed: Bed) -> Result<()> {
    let kernel = debian::kernel(Permission::Refuse)?;
    let vmlinux = debian::debug_symbols(&kernel, Permission::Refuse)?;
    let readers = Readers { vmlinux, python: python::drgn(Permission::Refuse)? };
    let folder = paths::tidepool().join("debian-without-dirty-bits");
    std::fs::create_dir_all(&folder)?;
    // An initramfs of its own: other tests make theirs at the same time.
    let initrd = folder.join("initramfs.cpio");
    initramfs::make(&kernel, &initrd)?;
    let machine = plan_machine(
        bed,
        "debian-without-dirty-bits",
        &configuration(&kernel.vmlinuz(), &initrd),
        &folder,
    )?;
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    let image = folder.join("dump.img");
    let pages = live_through(&mut running, &image).with_context(|| place.clone())?;
    running.events.send(json!({"command": "poweroff"}))?;
    expect_success(running, SHORT)?;

    let dump = Dump::open(&image, VolumeAccess::Read)?;
    let recorded = dump.record().crash.as_ref().context("the record says nothing of the crash")?;
    ensure!(&*recorded.text == PANIC && recorded.time_ns > 0, "{recorded:?}");
    let verdict = dump.verify()?;
    ensure!(verdict.wrong == 0 && verdict.missing == 0 && verdict.header_current, "{verdict:?}");
    ensure!(
        readers.kernel_log(&image)?.contains("sysrq triggered crash"),
        "another panic is in the log"
    );
    let found = readers.inspect(&image)?;
    ensure!(
        found["pages"] == pages && found["wrong"] == 0 && found["missing"] == 0,
        "{pages} pages: {found}"
    );
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn configuration(kernel: &Path, initrd: &Path) -> String {
    format!(
        "[pool]\nmemory = \"48 MiB\"\n[machine]\ncpus = 1\ncpu = \
         \"{CPU_WITHOUT_AD}\"\n[[paging_device]]\nmemory = \"104 MiB\"\n[[paging_device]]\nmemory \
         = \"104 MiB\"\n[[partition]]\nname = \"debian\"\nmemory = \"96 MiB\"\nkernel = \
         \"{}\"\ninitrd = \"{}\"\ncmdline = \"console=ttyS0 quiet worker.mib=32 \
         worker.crash_after=1 worker.dirty_mib=8\"\n",
        kernel.display(),
        initrd.display()
    )
}

/// Follows the partition through crash, dump and restart, and copies the dump out; returns the
/// number of the worker's pages.
fn live_through(running: &mut boot::bed::RunningMachine, image: &Path) -> Result<u64> {
    let boot = running.events.wait_named(SHORT, "boot")?;
    ensure!(boot.text("accessed_dirty")? == "software", "{}", boot.0);
    let pages = verified(running)?;
    let crash = running.events.wait_named(LIMIT, "crash")?;
    ensure!(crash.text("text")? == PANIC, "not the guest's own word: {}", crash.0);
    ensure!(crash.number("paged")? > 0, "nothing was paged out before: {}", crash.0);
    let restart = running.events.wait_named(LIMIT, "restart")?;
    ensure!(restart.number("drain_remaining")? > 0, "it waited for its whole dump: {}", restart.0);
    let complete = running.events.wait_named(LIMIT, "dump_complete")?;
    ensure!(verified(running)? == pages, "the second incarnation has other memory");

    running.events.command(SHORT, json!({"command": "stats"}))?;
    let stats = running.events.newest("pool").context("no counters came")?;
    println!("{}", stats.0);
    let count = |member| stats.number(member);
    ensure!(
        count("page_ins")? > 0 && count("clean_evictions")? > 0 && count("resident_faults")? > 0,
        "{}",
        stats.0
    );
    ensure!(count("lost")? == 0, "pages were lost: {}", stats.0);

    running.events.command(SHORT, json!({"command": "kill", "partition": "debian"}))?;
    running.events.wait_named(SHORT, "stopped")?;
    running.bring_out(complete.number("disk")?, image, SHORT)?;
    Ok(pages)
}

/// Waits for the end of the worker's first pass; returns the number of correct pages.
fn verified(running: &mut boot::bed::RunningMachine) -> Result<u64> {
    let line = running.console.wait_for(LIMIT, "worker: pass 1 ")?;
    let words: Vec<_> = line.split_whitespace().rev().collect();
    match words[..] {
        ["0", "wrong", pages, "pages", ..] => Ok(pages.parse()?),
        _ => anyhow::bail!("{line}"),
    }
}
