//! Devices on a partition's PCI bus.
//!
//! The test kernel `random` drives the entropy device while its pages are evicted, and breaks every
//! rule of it. Debian finds the bus without a complaint and reads random numbers through its own
//! driver, while it is overcommitted and after a suspension.

use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, RunningMachine};
use boot::events::Event;
use boot::initramfs;
use boot::setup::{Permission, SetupJob, debian};
use serde_json::{Value, json};
use std::time::Duration;
use tests::scenario::{PARTITION, Scenario, scenario_folder};
use tests::{Case, expect_success, plan_machine};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "device_random_works_while_pages_leave_and_stops_where_rules_are_broken",
        beds: &[Bed::Qemu, Bed::Bochs],
        needs: &[],
        run: test_kernel,
    },
    Case {
        name: "device_random_is_found_by_debian_and_read_while_it_pages",
        beds: &[Bed::Qemu, Bed::Kvm],
        needs: &[SetupJob::Guest],
        run: linux,
    },
];

const LIMIT: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(60);
/// Pages that are evicted at each line of the guest's log.
const EVICTED: u32 = 4096;

fn test_kernel(bed: Bed) -> Result<()> {
    let scenario = Scenario {
        partition: "rng = \"on\"\ndump = \"off\"",
        ..Scenario::new("random", "requests=512 pages=200")
    };
    let mut started = scenario.start(bed, &format!("{}-device-random", bed.name()))?;
    let played = play(&mut started.running);
    played.with_context(|| started.place())?;
    expect_success(started.running, LIMIT)
}

/// Evicts the guest's pages at each line of its log until it has ended.
fn play(running: &mut RunningMachine) -> Result<()> {
    let mut lines = 0;
    loop {
        let event = running.events.wait_for(LIMIT, "the guest's next word", |event| {
            matches!(event.name(), "guest" | "crash" | "stopped" | "error")
        })?;
        let kind = event.0["kind"].as_str().unwrap_or_default();
        ensure!(event.name() == "guest" && kind != "fail", "{}", event.0);
        if kind == "pass" {
            ensure!(lines >= 16, "only {lines} lines");
            return Ok(());
        }
        lines += 1;
        let evict = json!({"command": "evict", "partition": PARTITION, "pages": EVICTED});
        running.events.send(evict)?;
    }
}

/// What Linux must not say of its bus and the device.
const COMPLAINTS: &[&str] = &[
    "PCI: Fatal",
    "not using MMCONFIG",
    "can't derive routing",
    "no GSI",
    "[Firmware Bug]: PCI",
    "can't claim BAR",
    "failed to assign",
    "no compatible bridge window",
    "virtio_pci: probe",
    "WARNING",
    "BUG:",
];

fn linux(bed: Bed) -> Result<()> {
    let name = format!("{}-device-linux", bed.name());
    let folder = scenario_folder(&name)?;
    let kernel = debian::kernel(Permission::Refuse)?;
    let initrd = folder.path().join("initramfs.cpio");
    initramfs::make(&kernel, &initrd)?;
    let text = format!(
        "[pool]\nmemory = \"112 MiB\"\n[[paging_device]]\nimage = \"0.img\"\nsize = \"192 \
         MiB\"\n[[partition]]\nname = \"linux\"\nmemory = \"160 MiB\"\nkernel = \
         \"{}\"\ninitrd = \"{}\"\ndump = \"off\"\nrng = \"on\"\ncmdline = \"console=ttyS0 \
         worker.mib=96 tidepool.random\"\n",
        kernel.vmlinuz().display(),
        initrd.display()
    );
    let machine = plan_machine(bed, &name, &text, folder.path())?;
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    suspend(&mut running).with_context(|| place.clone())?;
    expect_success(running, LIMIT).with_context(|| place)?;

    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    go_on(&mut running).with_context(|| place.clone())?;
    expect_success(running, LIMIT).with_context(|| place)
}

/// Reads random numbers beside the worker, which pages, and suspends Linux meanwhile.
fn suspend(running: &mut RunningMachine) -> Result<()> {
    running.console.wait_for(LIMIT, "init: random source virtio_rng.0")?;
    running.console.wait_for(LIMIT, "worker: pass 1 ")?;
    let mut sums = Vec::new();
    for _ in 0..4 {
        sums.push(numbers(running)?);
    }
    running.events.command(SHORT, json!({"command": "stats"}))?;
    let stats = running.events.newest("pool").context("no counters came")?;
    println!("{}", stats.0);
    ensure!(stats.number("page_ins")? > 0 && stats.number("lost")? == 0, "{}", stats.0);
    check_sums(sums)?;
    check_log(&running.console.text())?;
    command(running, json!({"command": "suspend", "partition": "linux"}))?;
    running.events.wait_named(LIMIT, "suspended")?;
    command(running, json!({"command": "poweroff"}))
}

/// Resumes it on another start of the hypervisor, where it goes on reading.
fn go_on(running: &mut RunningMachine) -> Result<()> {
    let is_there = |event: &Event| event.name() == "space" && event.0["state"] == "suspended";
    running.events.wait_for(LIMIT, "the suspended space", is_there)?;
    command(running, json!({"command": "resume", "partition": "linux"}))?;
    running.events.wait_named(LIMIT, "resumed")?;
    let mut sums = Vec::new();
    for _ in 0..3 {
        sums.push(numbers(running)?);
    }
    check_sums(sums)?;
    check_log(&running.console.text())?;
    command(running, json!({"command": "poweroff"}))
}

/// Returns the checksum of the next numbers that were read.
fn numbers(running: &mut RunningMachine) -> Result<String> {
    let line = running.console.wait_for(LIMIT, "init: random bytes 4096 sum ")?;
    let sum = line.split_ascii_whitespace().skip_while(|word| *word != "sum").nth(1);
    sum.map(str::to_owned).with_context(|| line.clone())
}

fn check_sums(mut sums: Vec<String>) -> Result<()> {
    let count = sums.len();
    sums.sort_unstable();
    sums.dedup();
    ensure!(sums.len() == count, "the same numbers twice: {sums:?}");
    Ok(())
}

fn check_log(console: &str) -> Result<()> {
    for word in COMPLAINTS {
        ensure!(!console.contains(word), "{word} in the kernel's log");
    }
    Ok(())
}

fn command(running: &mut RunningMachine, command: Value) -> Result<()> {
    let reply = running.events.command(LIMIT, command.clone())?;
    ensure!(reply.0["ok"] == true, "{command}: {}", reply.0);
    Ok(())
}
