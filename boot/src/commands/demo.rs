//! `tidepool` without a command: the demonstration. `tidepool demo` has others, of one matter each.

pub mod clone;
pub mod cluster;

use crate::bed::{Bed, BedMachine, RunningMachine};
use crate::cli::Common;
use crate::config;
use crate::demo::counters::CounterPoll;
use crate::demo::readers::Readers;
use crate::demo::record::RunRecord;
use crate::demo::story::DemoStory;
use crate::demo::verdict::{DemoVerdict, Reading};
use crate::demo::{self, DemoScale};
use crate::dump::Dump;
use crate::events::Polled;
use crate::kernel_build::{self, Variant};
use crate::setup::{self, Permission, SetupJob, debian, python};
use crate::volume::{SpaceImage, VolumeAccess};
use crate::{initramfs, paths};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The demonstrations of one matter.
#[derive(Subcommand)]
pub enum DemoAction {
    /// A booted Debian becomes many children that share its pages (two minutes)
    Clone(clone::CloneArguments),
    /// Three nodes share a disk; one stands still, one is killed, and their partitions run on
    /// (five minutes)
    Cluster(cluster::ClusterDemoArguments),
}

/// Runs a demonstration of one matter; the status is 0 only where every claim held.
///
/// # Errors
/// Names the missing thing, the failure, or the claims that did not hold.
pub fn run_one(common: &Common, action: &DemoAction) -> Result<ExitCode> {
    match action {
        DemoAction::Clone(arguments) => clone::run(common, arguments),
        DemoAction::Cluster(arguments) => cluster::run(common, arguments),
    }
}

/// Time limit of one poll for events, and so the delay of a console line.
const LOOK: Duration = Duration::from_millis(20);
/// Time between two requests for counters, and so between two points of the picture.
const STATS: Duration = Duration::from_millis(500);
/// The same time while a dump drains.
const STATS_OF_DRAIN: Duration = Duration::from_millis(40);
/// Time limit for the machine's orderly end.
const END: Duration = Duration::from_secs(60);

/// Runs the demonstration; the status is 0 only where every claim held.
///
/// # Errors
/// Names the missing thing, the failure, or the claim that did not hold.
pub fn run(common: &Common) -> Result<ExitCode> {
    let bed = common.bed();
    demonstrate(bed, common.permission(), "demo", DemoScale::of(bed))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the demonstration in the folder `name`, so that two runs do not collide.
///
/// # Errors
/// As [`run`], and where a claim did not hold.
pub fn demonstrate(bed: Bed, permission: Permission, name: &str, scale: DemoScale) -> Result<()> {
    if bed == Bed::Nested {
        return demo::nested::demonstrate(bed, permission, name);
    }
    setup::prepare(&[SetupJob::Boot(bed), SetupJob::Guest, SetupJob::Readers], permission)?;
    let kernel = debian::kernel(permission)?;
    let readers = Readers {
        vmlinux: debian::debug_symbols(&kernel, permission)?,
        python: python::drgn(permission)?,
    };
    let folder = paths::tidepool().join(name);
    let file = demo::write_configuration(
        &folder,
        bed,
        &scale,
        &kernel.vmlinuz(),
        &initramfs::prepare(&kernel)?,
    )?;
    let plan = config::load(&file, bed)?;
    let disks = plan.disks.clone();
    let mut machine = BedMachine::new(bed, name, kernel_build::hypervisor(Variant::Ordinary)?);
    machine.apply(plan);

    println!(
        "{} {} in {}, configuration {}",
        kernel.package,
        kernel.version,
        bed.name(),
        file.display()
    );
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    let mut record = RunRecord::default();
    let story = follow(&mut running, scale, &mut record).with_context(|| place.clone())?;
    story.series.draw(&folder, &DemoScale::name(0))?;
    if let Some(failure) = &story.failure {
        bail!("{failure}; {place}");
    }
    let disks = if disks.is_empty() { bring_out(&mut running, &story, &folder)? } else { disks };
    finish(&mut running).with_context(|| place.clone())?;
    let verdict = judge(&story, &disks, &readers, &mut record)?;
    if !verdict.broken().is_empty() {
        bail!("did not hold: {}; {place}", verdict.broken().join(", "));
    }
    // The README shows only runs in which all claims held.
    record.write(&folder)?;
    running.passed();
    Ok(())
}

/// Follows the story and prints it as it happens.
fn follow(
    running: &mut RunningMachine,
    scale: DemoScale,
    record: &mut RunRecord,
) -> Result<DemoStory> {
    let (start, mut story, mut counters) =
        (Instant::now(), DemoStory::new(scale), CounterPoll::new());
    while !story.is_over() {
        let at = start.elapsed();
        if at.as_secs() > scale.limit_s {
            bail!("the demonstration took more than {} s", scale.limit_s);
        }
        let at = at.as_secs_f64();
        let mut lines = Vec::new();
        match running.events.poll(LOOK) {
            Polled::Event(event) => {
                counters.event(&event);
                lines.extend(story.event(at, &event));
            }
            Polled::Nothing => {}
            Polled::Ended => bail!("the machine stopped too early"),
        }
        while let Ok(line) = running.console.next_line(Instant::now()) {
            lines.extend(story.line(at, &line));
        }
        for line in lines {
            record.line(format!("{at:7.1} s  {line}"));
        }
        counters.ask(&mut running.events, if story.drains() { STATS_OF_DRAIN } else { STATS })?;
    }
    Ok(story)
}

/// Stops the partitions and writes the memory-backed disk that holds the dump to a file.
fn bring_out(
    running: &mut RunningMachine,
    story: &DemoStory,
    folder: &Path,
) -> Result<Vec<PathBuf>> {
    for name in story.workers.keys() {
        running.events.command(END, json!({"command": "kill", "partition": name}))?;
        running.events.wait_for(END, "a partition to stop", |event| {
            event.name() == "stopped" && event.0["partition"] == **name
        })?;
    }
    let (_, complete) = story.complete.as_ref().context("no dump is complete")?;
    let file = folder.join("dump.img");
    running.bring_out(complete.number("disk")?, &file, END)?;
    Ok(vec![file])
}

fn finish(running: &mut RunningMachine) -> Result<()> {
    running.events.send(json!({"command": "poweroff"}))?;
    running.wait_for_end(END)?;
    Ok(())
}

/// Reads the dump and prints the tables.
fn judge(
    story: &DemoStory,
    disks: &[PathBuf],
    readers: &Readers,
    record: &mut RunRecord,
) -> Result<DemoVerdict> {
    let image = dump_of(disks)?;
    let mut verdict = DemoVerdict::default();
    verdict.of_story(story);
    let reading = Reading {
        blocks: Dump::open(image, VolumeAccess::Read)?.verify()?,
        log: readers.kernel_log(image)?,
        compressed: readers.compressed_size(image)?,
        crash: readers.crash(image, "bt\n")?,
        drgn: readers.inspect(image)?,
    };
    verdict.of_reading(story, &reading);
    record.tables(&format!("{}\n{}", verdict.table().indented(), verdict.facts()));
    println!("  the dump is the paging device itself: {}", image.display());
    for command in readers.commands(image) {
        println!("    {command}");
    }
    Ok(verdict)
}

/// Returns the image that holds the first partition's dump.
fn dump_of(disks: &[PathBuf]) -> Result<&Path> {
    let first = DemoScale::name(0);
    for disk in disks {
        let record = SpaceImage::open(disk, VolumeAccess::Read)?.record()?;
        if record.state.holds_dump()
            && record.owner.is_some_and(|owner| owner.name.as_str() == first)
        {
            return Ok(disk);
        }
    }
    None.context("no paging device holds a dump")
}
