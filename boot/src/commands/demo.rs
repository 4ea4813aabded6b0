//! `tidepool` without a command: the demonstration.

use crate::bed::{Bed, Machine, Running};
use crate::cli::Common;
use crate::config;
use crate::demo::readers::Readers;
use crate::demo::story::Story;
use crate::demo::verdict::{Reading, Verdict};
use crate::demo::{self, PARTITION};
use crate::dump::Dump;
use crate::events::Polled;
use crate::kernel_build::{self, Variant};
use crate::setup::{self, Job, Permission, debian, python};
use crate::volume::{Access, Image};
use crate::{initramfs, paths};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The machine's time, from its start to the end of the story.
const LIMIT: Duration = Duration::from_secs(420);
/// How long one look at the events lasts, and so how stale a line of the console can be.
const LOOK: Duration = Duration::from_millis(50);
/// Time between two requests for counters.
const STATS: Duration = Duration::from_secs(2);
/// For the machine's orderly end.
const END: Duration = Duration::from_secs(20);

/// Runs the demonstration; the status is 0 only where every claim held.
///
/// # Errors
/// What is missing, went wrong, or did not hold.
pub fn run(common: &Common) -> Result<ExitCode> {
    demonstrate(common.bed(), common.permission(), "demo")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs it in the folder `name`, so that two do not meet.
///
/// # Errors
/// As [`run`], and where a claim did not hold.
pub fn demonstrate(bed: Bed, permission: Permission, name: &str) -> Result<()> {
    if bed == Bed::Nested {
        return demo::nested::demonstrate(bed, permission, name);
    }
    if bed == Bed::Bochs {
        bail!("the demonstration needs virtio disks, which Bochs has not: use --bed qemu");
    }
    setup::prepare(&[Job::Boot(bed), Job::Guest, Job::Readers], permission)?;
    let kernel = debian::kernel(permission)?;
    let readers = Readers { vmlinux: debian::debug_symbols(&kernel, permission)?, python: python::drgn(permission)? };
    let folder = paths::tidepool().join(name);
    let file = demo::write_configuration(&folder, bed, &kernel.vmlinuz(), &initramfs::prepare(&kernel)?)?;
    let plan = config::load(&file, bed)?;
    let disks = plan.disks.clone();
    let mut machine = Machine::new(bed, name, kernel_build::hypervisor(Variant::Ordinary)?);
    machine.apply(plan);

    println!("{} {} in {}, configuration {}", kernel.package, kernel.version, bed.name(), file.display());
    let mut running = machine.start()?;
    let story = follow(&mut running)?;
    let end = finish(&mut running);
    if let Some(failure) = &story.failure {
        bail!("{failure}; transcript in {}", running.folder().display());
    }
    end?;
    let verdict = judge(&story, &disks, &readers)?;
    if !verdict.broken().is_empty() {
        bail!("did not hold: {}; transcript in {}", verdict.broken().join(", "), running.folder().display());
    }
    running.passed();
    Ok(())
}

/// Tells the story as it happens.
fn follow(running: &mut Running) -> Result<Story> {
    let (start, mut story) = (Instant::now(), Story::default());
    let mut next_stats = start + STATS;
    while !story.is_over() {
        if start.elapsed() > LIMIT {
            bail!("the demonstration took more than {} s; transcript in {}", LIMIT.as_secs(), running.folder().display());
        }
        let said = match running.events.poll(LOOK) {
            Polled::Event(event) => story.event(&event),
            Polled::Nothing => None,
            Polled::Ended => bail!("the machine stopped too early; transcript in {}", running.folder().display()),
        };
        let mut lines: Vec<_> = said.into_iter().collect();
        while let Ok(line) = running.console.next_line(Instant::now()) {
            lines.extend(story.line(&line));
        }
        for line in lines {
            println!("{:7.1} s  {line}", start.elapsed().as_secs_f64());
        }
        if Instant::now() >= next_stats {
            running.events.send(json!({"command": "stats"}))?;
            next_stats = Instant::now() + STATS;
        }
    }
    take_last_stats(running, &mut story);
    Ok(story)
}

fn take_last_stats(running: &mut Running, story: &mut Story) {
    if running.events.command(END, json!({"command": "stats"})).is_ok() {
        let all = running.events.all().to_vec();
        all.iter().filter(|event| event.name() == "stats").for_each(|event| drop(story.event(event)));
    }
}

fn finish(running: &mut Running) -> Result<()> {
    running.events.send(json!({"command": "poweroff"}))?;
    running.wait_for_end(END)?;
    Ok(())
}

/// Reads the dump and prints the table.
fn judge(story: &Story, disks: &[PathBuf], readers: &Readers) -> Result<Verdict> {
    let image = dump_of(disks)?;
    let mut verdict = Verdict::default();
    verdict.of_story(story);
    let reading = Reading {
        blocks: Dump::open(image, Access::Read)?.verify()?,
        log: readers.kernel_log(image)?,
        compressed: readers.compressed_size(image)?,
        drgn: readers.inspect(image)?,
    };
    verdict.of_reading(story, &reading);
    println!("\n{}", verdict.facts());
    println!("  the dump is the paging device itself: {}", image.display());
    for command in readers.commands(image) {
        println!("    {command}");
    }
    Ok(verdict)
}

/// Returns the image that holds the partition's dump.
fn dump_of(disks: &[PathBuf]) -> Result<&Path> {
    for disk in disks {
        let record = Image::open(disk, Access::Read)?.record()?;
        if record.state.holds_dump() && record.owner.is_some_and(|owner| owner.name.as_str() == PARTITION) {
            return Ok(disk);
        }
    }
    None.context("no paging device holds a dump")
}
