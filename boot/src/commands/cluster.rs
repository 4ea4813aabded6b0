//! `tidepool cluster`: areas by which nodes that share disks know each other.

use crate::cluster::{self, AreaReport, ClusterImages, ClusterSite, SpaceReport, local, name_of};
use crate::config::duration;
use crate::report::TextTable;
use crate::volume::VolumeAccess;
use ::cluster::timing::ClusterTiming;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What to do with cluster areas.
#[derive(Subcommand)]
pub enum ClusterAction {
    /// Make the area of a new cluster: a new image, or three on three disks, or blank GPT
    /// partitions of that type
    Create {
        /// The image, or three of them
        #[arg(required = true)]
        images: Vec<PathBuf>,
        /// Starts of hypervisors that can register before the next sweep, 2 to 1024
        #[arg(long, default_value_t = 1024)]
        slots: u16,
        /// Time between a node's beats
        #[arg(long, value_parser = duration::parse, default_value = "1 s")]
        beat: Duration,
        /// Time for which a node goes on after its last beat
        #[arg(long, value_parser = duration::parse, default_value = "8 s")]
        lease: Duration,
    },
    /// Check every structure of a cluster's areas, or show nodes' local copies, and list the
    /// members; nodes may run meanwhile.
    /// The status is 0 only if all are sound
    Check {
        /// All images with the cluster's areas, its disks, or files with local copies
        #[arg(required = true)]
        images: Vec<PathBuf>,
    },
    /// Close the paging spaces of disks to programs outside the cluster, while no node runs; each
    /// has to be free or to hold a dump
    Add {
        /// All images with the cluster's areas, and the disks
        #[arg(required = true)]
        images: Vec<PathBuf>,
        /// I have made sure that no machine uses the areas (needed for block devices)
        #[arg(long)]
        machines_are_off: bool,
    },
    /// Take disks without an area out of the cluster, while no node runs: their spaces are open to
    /// all programs again
    Remove {
        /// All images with the cluster's areas, and the disks
        #[arg(required = true)]
        images: Vec<PathBuf>,
        /// I have made sure that no machine uses the areas (needed for block devices)
        #[arg(long)]
        machines_are_off: bool,
    },
    /// Give the slots of all starts back, while no node runs: every member counts as off
    Sweep {
        /// All images of the cluster
        #[arg(required = true)]
        images: Vec<PathBuf>,
        /// I have made sure that no machine uses the areas (needed for block devices, whose lock
        /// other hosts do not see)
        #[arg(long)]
        machines_are_off: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// Names the image, and the place in it.
pub fn run(action: &ClusterAction) -> Result<ExitCode> {
    match action {
        ClusterAction::Create { images, slots, beat, lease } => {
            let millis = |time: &Duration| u32::try_from(time.as_millis()).context("is too long");
            let timing = ClusterTiming {
                beat_ms: millis(beat).context("--beat")?,
                lease_ms: millis(lease).context("--lease")?,
                ..ClusterTiming::DEFAULT
            };
            let superblock = cluster::create(images, *slots, timing)?;
            println!("cluster {}", name_of(superblock.cluster));
            Ok(ExitCode::SUCCESS)
        }
        ClusterAction::Check { images } => check(images),
        ClusterAction::Add { images, machines_are_off } => {
            let site = quiet_site(images, *machines_are_off)?;
            println!("cluster {}: {} spaces are its", site.cluster(), site.add()?);
            Ok(ExitCode::SUCCESS)
        }
        ClusterAction::Remove { images, machines_are_off } => {
            let site = quiet_site(images, *machines_are_off)?;
            println!("cluster {}: {} spaces are open to all", site.cluster(), site.remove()?);
            Ok(ExitCode::SUCCESS)
        }
        ClusterAction::Sweep { images, machines_are_off } => sweep(images, *machines_are_off),
    }
}

fn check(paths: &[PathBuf]) -> Result<ExitCode> {
    let (locals, others): (Vec<_>, Vec<_>) =
        paths.iter().cloned().partition(|path| local::is_local(path));
    for file in &locals {
        print!("{}", local::describe(file)?);
    }
    if others.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let site = ClusterSite::open(&others, VolumeAccess::Read)?;
    let superblock = *site.images.superblock();
    let mut report = AreaReport::of(&site.images)?;
    println!(
        "cluster {}: {} of {} slots used, {} members, last decree {}; beat {} ms, lease {} ms",
        name_of(superblock.cluster),
        report.used,
        superblock.slots,
        report.members.len(),
        report.decree,
        superblock.timing.beat_ms,
        superblock.timing.lease_ms
    );
    let mut table = TextTable::new(&["slot", "incarnation", "name", "state", "since decree"]);
    for member in &report.members {
        table.row(&[
            member.id.slot.to_string(),
            name_of(member.id.incarnation.0).to_string(),
            member.name.clone(),
            member.status.to_owned(),
            member.since.to_string(),
        ]);
    }
    if !report.members.is_empty() {
        print!("{table}");
    }
    let spaces = SpaceReport::of(&site)?;
    let mut table = TextTable::new(&["space", "state", "cluster"]);
    spaces.rows.iter().for_each(|row| table.row(row));
    if !spaces.rows.is_empty() {
        print!("{table}");
    }
    report.notes.extend(spaces.notes);
    report.faults.extend(spaces.faults);
    report.notes.iter().for_each(|note| println!("{note}"));
    report.faults.iter().for_each(|fault| eprintln!("{fault}"));
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Opens the images of a cluster that no node uses.
fn quiet_site(paths: &[PathBuf], are_off: bool) -> Result<ClusterSite> {
    let site = ClusterSite::open(paths, VolumeAccess::Write)?;
    check_off(&site.images, are_off)?;
    Ok(site)
}

fn check_off(images: &ClusterImages, are_off: bool) -> Result<()> {
    if let Some(device) = images.areas().iter().find(|area| area.is_device() && !are_off) {
        bail!(
            "{}: is a block device, which other hosts may use: make sure that no machine does, and \
             say --machines-are-off",
            device.path().display()
        );
    }
    Ok(())
}

fn sweep(paths: &[PathBuf], are_off: bool) -> Result<ExitCode> {
    let images = ClusterImages::open(paths, VolumeAccess::Write)?;
    check_off(&images, are_off)?;
    let swept = images.sweep()?;
    println!(
        "cluster {}: {} slots free again, {} kept, {} members quiet, last decree {}",
        name_of(images.superblock().cluster),
        swept.freed,
        swept.kept,
        swept.quieted,
        swept.decree
    );
    Ok(ExitCode::SUCCESS)
}
