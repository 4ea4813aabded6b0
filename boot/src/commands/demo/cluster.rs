//! `tidepool demo cluster`: three nodes share a disk, and their partitions outlive them.

use crate::bed::Bed;
use crate::cli::Common;
use crate::demo::cluster::play::ClusterPlay;
use crate::demo::cluster::verdict::{self, ClusterReading};
use crate::demo::cluster::writes::{self, LateWrites};
use crate::demo::cluster::{ClusterRule, DemoDisks, chart};
use crate::setup::{self, Permission, SetupJob, debian};
use crate::{initramfs, paths};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::process::ExitCode;

/// The arguments of `tidepool demo cluster`.
#[derive(Args, Clone, Copy, Debug)]
pub struct ClusterDemoArguments {
    /// Leave out a rule, to see the damage that it prevents: the status is 1 then
    #[arg(long, value_name = "RULE")]
    without: Option<ClusterRule>,
}

/// Runs the demonstration; the status is 0 only where every claim held.
///
/// # Errors
/// Names the missing thing, the failure, or the claims that did not hold.
pub fn run(common: &Common, arguments: &ClusterDemoArguments) -> Result<ExitCode> {
    demonstrate(common.bed(), common.permission(), arguments.without)?;
    Ok(ExitCode::SUCCESS)
}

fn demonstrate(bed: Bed, permission: Permission, without: Option<ClusterRule>) -> Result<()> {
    if !matches!(bed, Bed::Qemu | Bed::Kvm) {
        bail!("the disks of bed {} are not files: use --bed qemu or --bed kvm", bed.name());
    }
    setup::prepare(&[SetupJob::Boot(bed), SetupJob::Guest], permission)?;
    let kernel = debian::kernel(permission)?;
    let initrd = initramfs::prepare(&kernel)?;
    let folder = paths::tidepool().join("demo-cluster");
    let spaces = ClusterRule::spaces(without);
    let site = DemoDisks::make(&folder, spaces, &kernel.vmlinuz(), &initrd)?;
    println!("{} {}, three nodes in {}", kernel.package, kernel.version, folder.display());
    let mut play = ClusterPlay::start(bed, &site, without)?;
    let place = format!("transcripts in {}", play.places());
    let outcome = play.play(without);
    let end = play.now();
    println!("\n{}\n{}", chart::draw(&play.story, end), verdict::table(&play.story).indented());
    outcome.with_context(|| place.clone())?;
    play.finish().with_context(|| place.clone())?;
    let ranges = writes::ranges(&site.shared())?;
    let late = LateWrites::of(0, &play.writes(0)?, &ranges, &play.story);
    let verdict = verdict::judge(&play.story, ClusterReading { late, without });
    println!("{}", verdict.facts());
    if !verdict.broken().is_empty() {
        bail!("did not hold: {}; {place}", verdict.broken().join(", "));
    }
    if let Some(rule) = without {
        bail!("without the rule “{}” nothing was damaged; {place}", rule.name());
    }
    play.passed();
    Ok(())
}
