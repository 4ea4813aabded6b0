//! `[cluster]`: this node's name, the images with the area by which nodes know each other, and the
//! file for what it knew last.

use super::PagingDevice;
use super::document::{ConfigError, Section};
use crate::bed::kind::Bed;
use crate::cluster::{ClusterImages, local, name_of};
use crate::volume::{VolumeAccess, VolumeDisk};
use anyhow::{Result, bail};
use kernel::block::MAX_DISKS;
use kernel::config::is_valid_name;
use kernel::space::Uuid;
use std::path::{Path, PathBuf};

/// The section.
#[derive(Default)]
pub(super) struct ClusterSection {
    /// The node's name.
    pub(super) name: Option<String>,
    /// The images with areas, and then those of other disks of the cluster.
    pub(super) areas: Vec<PathBuf>,
    /// The file with the local copy.
    pub(super) local: Option<PathBuf>,
}

/// Reads the section.
pub(super) fn read(
    root: &Section<'_>,
    base: &Path,
    bed: Bed,
    devices: &[PagingDevice],
) -> Result<ClusterSection, ConfigError> {
    let Some(section) = root.section("cluster")? else { return Ok(ClusterSection::default()) };
    section.only(&["name", "areas", "disks", "local"])?;
    let name = section.text("name")?.map(str::to_owned);
    if name.as_deref().is_some_and(|name| !is_valid_name(name)) {
        return Err(section.error("name", "must be 1 to 31 letters, digits, - and _"));
    }
    let images = |key| -> Result<Vec<PathBuf>, ConfigError> {
        Ok(section.texts(key)?.iter().map(|file| base.join(file)).collect())
    };
    let (mut areas, disks) = (images("areas")?, images("disks")?);
    let local = section.text("local")?.map(|file| base.join(file));
    if matches!(bed, Bed::Bochs | Bed::Nested) {
        let key = if areas.is_empty() { local.as_ref().map(|_| "local") } else { Some("areas") };
        let refused = "this bed shares no disks with other machines";
        key.map_or(Ok(()), |key| Err(section.error(key, refused)))?;
    }
    if !matches!(areas.len(), 0 | 1 | 3) {
        return Err(section.error("areas", "a cluster has one area or three"));
    }
    if areas.is_empty() && !disks.is_empty() {
        return Err(section.error("disks", "a cluster's disks need its `areas`"));
    }
    if devices.len() + areas.len() + disks.len() + usize::from(local.is_some()) > MAX_DISKS {
        let message = format!("the hypervisor drives {MAX_DISKS} disks at most");
        let key = if disks.is_empty() { "areas" } else { "disks" };
        return Err(section.error(key, &message));
    }
    if !areas.is_empty() {
        let images = ClusterImages::open(&areas, VolumeAccess::Read)
            .map_err(|error| section.error("areas", &format!("{error:#}")))?;
        for disk in &disks {
            check_disk(disk, name_of(images.superblock().cluster))
                .map_err(|error| section.error("disks", &format!("{error:#}")))?;
        }
    }
    areas.extend(disks);
    if let Some(file) = &local {
        local::check_file(file).map_err(|error| section.error("local", &format!("{error:#}")))?;
    }
    Ok(ClusterSection { name, areas, local })
}

/// Checks that a disk belongs to the cluster.
fn check_disk(path: &Path, cluster: Uuid) -> Result<()> {
    match VolumeDisk::open(path, VolumeAccess::Read)?.cluster()? {
        Some(found) if found == cluster => Ok(()),
        Some(other) => bail!("{}: belongs to cluster {other}, not {cluster}", path.display()),
        None => bail!(
            "{}: belongs to no cluster; `tidepool cluster add` brings it under one",
            path.display()
        ),
    }
}
