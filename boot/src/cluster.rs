//! Cluster areas as the host sees them: making, checking and sweeping them while no node runs.
//!
//! ```text
//!   AreaFile (a file, a GPT partition of one, a block device) x 1 or 3 ──> ClusterImages ──> check, sweep
//! ```
//!
//! The format and the rules are the crate `cluster`'s (`docs/cluster.md`). Every writer holds the
//! exclusive lock of the image, so an area is never changed beside an emulator that has it open.

mod area;
mod check;
mod disks;
pub mod local;
mod spaces;
mod sweep;
#[cfg(test)]
mod tests;

pub use area::AreaFile;
pub use check::{AreaReport, MemberLine};
pub use disks::{ClusterSite, DiskSpace, has_area};
pub use spaces::SpaceReport;
pub use sweep::SweepOutcome;

use crate::volume::{VolumeAccess, random_bytes};
use ::cluster::layout::{AreaLayout, Extent, MAX_STATE};
use ::cluster::state::ClusterState;
use ::cluster::superblock::{FEATURE_MAIL, Superblock};
use ::cluster::timing::ClusterTiming;
use anyhow::{Context, Result, bail, ensure};
use kernel::space::Uuid;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// All areas of one cluster.
pub struct ClusterImages {
    areas: Vec<AreaFile>,
    superblock: Superblock,
    layout: AreaLayout,
}

/// Returns a cluster's name as people see it.
pub fn name_of(cluster: u128) -> Uuid {
    Uuid(cluster.to_be_bytes())
}

fn new_name() -> Result<u128> {
    let number = u128::from_le_bytes(random_bytes()?);
    let name = Uuid::from_entropy((number >> 64) as u64, number as u64);
    Ok(u128::from_be_bytes(name.0))
}

/// Makes the areas of a new cluster: new images, or the blank GPT partitions for an area of images
/// that exist. The spaces on those images are closed to programs outside the cluster.
///
/// # Errors
/// Where the numbers are not possible, an image cannot be made or is not blank, or a space cannot
/// be closed.
pub fn create(paths: &[PathBuf], slots: u16, timing: ClusterTiming) -> Result<Superblock> {
    ensure!(matches!(paths.len(), 1 | 3), "a cluster has one area or three, not {}", paths.len());
    ensure!(
        timing.is_possible(),
        "the lease has to be at least two beats, and at most an hour: {} ms, {} ms",
        timing.lease_ms,
        timing.beat_ms
    );
    let layout = AreaLayout::new(slots, MAX_STATE).context("slots: must be 2 to 1024")?;
    let layout = layout.with_mail();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let superblock = Superblock {
        features_optional: FEATURE_MAIL,
        cluster: new_name()?,
        slots,
        areas: paths.len() as u8,
        area: 0,
        state_bytes: MAX_STATE,
        timing,
        formatted_ns: u64::try_from(since.as_nanos()).unwrap_or(0),
    };
    let mut made = Vec::new();
    let result = create_all(paths, &superblock, &layout, &mut made);
    if result.is_err() {
        made.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
    result.map(|()| superblock)
}

/// Makes the areas; `made` gets the new files.
fn create_all(
    paths: &[PathBuf],
    superblock: &Superblock,
    layout: &AreaLayout,
    made: &mut Vec<PathBuf>,
) -> Result<()> {
    let mut files = Vec::new();
    for path in paths {
        let file = if path.exists() {
            let file = AreaFile::open(path, VolumeAccess::Write)?;
            check_blank(&file, layout)?;
            file
        } else {
            let file = AreaFile::create(path, layout.len().next_multiple_of(4096))?;
            made.push(path.clone());
            file
        };
        files.push(file);
    }
    let mut spaces = Vec::new();
    for file in &files {
        spaces.extend(disks::spaces_beside(file)?);
    }
    // Nothing is written if a space cannot be closed.
    let none = ClusterState::new(MAX_STATE as usize);
    let cluster = name_of(superblock.cluster);
    disks::check(&spaces, cluster, &none)?;
    for (area, file) in (0..).zip(&files) {
        if file.is_part() || file.is_device() {
            file.clear(Extent { at: 0, len: usize::try_from(layout.len())? })?;
            file.flush()?;
        }
        let bytes = Superblock { area, ..*superblock }.encode();
        file.write(0, &[bytes, bytes].concat())?;
        file.flush()?;
    }
    // If the power fails from here on, `add` closes the rest.
    disks::close(&spaces, cluster, &none).map(|_| ())
}

/// Checks that an existing image has a blank place for an area.
fn check_blank(file: &AreaFile, layout: &AreaLayout) -> Result<()> {
    let path = file.path().display();
    if !file.is_part() && !file.is_device() {
        bail!("{path}: exists already, and has no GPT partition for a cluster");
    }
    if file.bytes() < layout.len() {
        bail!("{path}: has {} bytes, the area needs {}", file.bytes(), layout.len());
    }
    if file.superblocks()?.iter().flatten().any(|byte| *byte != 0) {
        bail!("{path}: its place for a cluster area is not blank");
    }
    Ok(())
}

impl ClusterImages {
    /// Opens all areas of a cluster, in any order.
    ///
    /// # Errors
    /// Where they are not exactly the areas of one cluster, one belongs to a newer program, or one
    /// is in use and [`VolumeAccess::Write`] is asked for.
    pub fn open(paths: &[PathBuf], access: VolumeAccess) -> Result<Self> {
        let mut found = Vec::new();
        for path in paths {
            let file = AreaFile::open(path, access)?;
            let (superblock, layout) = file.superblock()?;
            found.push((superblock, layout, file));
        }
        found.sort_by_key(|(superblock, ..)| superblock.area);
        let (superblock, layout) = found
            .first()
            .map(|(superblock, layout, _)| (*superblock, *layout))
            .context("no image")?;
        for (number, (other, _, file)) in (0..).zip(&found) {
            let path = file.path().display();
            if other.cluster != superblock.cluster {
                bail!(
                    "{path}: is of cluster {}, {} is of cluster {}",
                    name_of(other.cluster),
                    found[0].2.path().display(),
                    name_of(superblock.cluster)
                );
            }
            if (Superblock { area: superblock.area, ..*other }) != superblock {
                bail!("{path}: its superblock has other numbers than the other images'");
            }
            if other.area != number {
                bail!("{path}: is area {} of {}; each is wanted once", other.area + 1, other.areas);
            }
        }
        ensure!(
            found.len() == usize::from(superblock.areas),
            "cluster {} has {} areas: give all of its images",
            name_of(superblock.cluster),
            superblock.areas
        );
        let areas = found.into_iter().map(|(.., file)| file).collect();
        Ok(Self { areas, superblock, layout })
    }

    /// Returns the superblock of the first area.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Returns the areas in their order.
    pub fn areas(&self) -> &[AreaFile] {
        &self.areas
    }

    /// Reads a part of all areas.
    fn read_all(&self, extent: Extent) -> Result<Vec<Vec<u8>>> {
        self.areas.iter().map(|area| area.read(extent)).collect()
    }

    /// Writes to all areas, and makes it durable.
    fn write_all(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.areas.iter().try_for_each(|area| area.write(at, bytes))?;
        self.flush_all()
    }

    fn flush_all(&self) -> Result<()> {
        self.areas.iter().try_for_each(AreaFile::flush)
    }
}
