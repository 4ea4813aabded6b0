//! `tidepool demo clone`: a booted Debian becomes children that share its pages.

use crate::bed::{Bed, BedMachine};
use crate::cli::Common;
use crate::config;
use crate::demo::clone::play::ClonePlay;
use crate::demo::clone::{CloneRule, CloneScale, verdict, write_configuration};
use crate::demo::readers::Readers;
use crate::kernel_build::{self, Variant};
use crate::setup::{self, Permission, SetupJob, debian, python};
use crate::{initramfs, paths};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::process::ExitCode;

/// The arguments of `tidepool demo clone`.
#[derive(Args, Clone, Copy, Debug)]
pub struct CloneArguments {
    /// Leave out a rule, to see the damage that it prevents: the status is 1 then
    #[arg(long, value_name = "RULE")]
    without: Option<CloneRule>,
    /// Number of children
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(2..=24))]
    count: u64,
}

/// Runs the demonstration; the status is 0 only where every claim held.
///
/// # Errors
/// Names the missing thing, the failure, or the claims that did not hold.
pub fn run(common: &Common, arguments: &CloneArguments) -> Result<ExitCode> {
    let bed = common.bed();
    let scale = CloneScale::of(arguments.count);
    demonstrate(bed, common.permission(), "demo-clone", (scale, arguments.without))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the demonstration in the folder `name`.
///
/// # Errors
/// As [`run`], and where a claim did not hold.
pub fn demonstrate(
    bed: Bed,
    permission: Permission,
    name: &str,
    (scale, without): (CloneScale, Option<CloneRule>),
) -> Result<()> {
    if !matches!(bed, Bed::Qemu | Bed::Kvm) {
        bail!("the disks of bed {} are not files: use --bed qemu or --bed kvm", bed.name());
    }
    setup::prepare(&[SetupJob::Boot(bed), SetupJob::Guest, SetupJob::Readers], permission)?;
    let kernel = debian::kernel(permission)?;
    let readers = Readers {
        vmlinux: debian::debug_symbols(&kernel, permission)?,
        python: python::drgn(permission)?,
    };
    let folder = paths::tidepool().join(name);
    std::fs::create_dir_all(&folder)?;
    let initrd = folder.join("initramfs.cpio");
    initramfs::make(&kernel, &initrd)?;
    let file = write_configuration(&folder, &scale, &kernel.vmlinuz(), &initrd)?;
    let variant = without.map_or(Variant::Ordinary, CloneRule::variant);
    let mut machine = BedMachine::new(bed, name, kernel_build::hypervisor(variant)?);
    machine.apply(config::load(&file, bed)?);

    println!("{} {} in {}, {}", kernel.package, kernel.version, bed.name(), file.display());
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    let mut play = ClonePlay::new(&mut running, scale, &folder);
    let mut reading = play.play().with_context(|| place.clone())?;
    if play.story.failure.is_none() {
        play.finish().with_context(|| place.clone())?;
        play.read_dump(&readers, &mut reading).with_context(|| place.clone())?;
    }
    let verdict = verdict::judge(&scale, &play.story, &reading);
    println!("\n{}\n{}", verdict::table(&play.story).indented(), verdict.facts());
    reading.commands.iter().for_each(|command| println!("    {command}"));
    if !verdict.broken().is_empty() {
        bail!("did not hold: {}; {place}", verdict.broken().join(", "));
    }
    if without.is_some() {
        bail!("without the rule nothing was damaged: this run shows nothing");
    }
    running.passed();
    Ok(())
}
