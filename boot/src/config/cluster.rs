//! `[cluster]`: this node's name, the images with the area by which nodes know each other, and the
//! file for what it knew last.

use super::PagingDevice;
use super::document::{ConfigError, Section};
use crate::bed::kind::Bed;
use crate::cluster::{ClusterImages, local};
use crate::volume::VolumeAccess;
use kernel::block::MAX_DISKS;
use kernel::config::is_valid_name;
use std::path::{Path, PathBuf};

/// The section.
#[derive(Default)]
pub(super) struct ClusterSection {
    /// The node's name.
    pub(super) name: Option<String>,
    /// The images.
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
    section.only(&["name", "areas", "local"])?;
    let name = section.text("name")?.map(str::to_owned);
    if name.as_deref().is_some_and(|name| !is_valid_name(name)) {
        return Err(section.error("name", "must be 1 to 31 letters, digits, - and _"));
    }
    let areas: Vec<_> = section.texts("areas")?.iter().map(|file| base.join(file)).collect();
    let local = section.text("local")?.map(|file| base.join(file));
    if matches!(bed, Bed::Bochs | Bed::Nested) {
        let key = if areas.is_empty() { local.as_ref().map(|_| "local") } else { Some("areas") };
        let refused = "this bed shares no disks with other machines";
        key.map_or(Ok(()), |key| Err(section.error(key, refused)))?;
    }
    if !matches!(areas.len(), 0 | 1 | 3) {
        return Err(section.error("areas", "a cluster has one area or three"));
    }
    if devices.len() + areas.len() + usize::from(local.is_some()) > MAX_DISKS {
        let message = format!("the hypervisor drives {MAX_DISKS} disks at most");
        return Err(section.error("areas", &message));
    }
    if !areas.is_empty() {
        ClusterImages::open(&areas, VolumeAccess::Read)
            .map_err(|error| section.error("areas", &format!("{error:#}")))?;
    }
    if let Some(file) = &local {
        local::check_file(file).map_err(|error| section.error("local", &format!("{error:#}")))?;
    }
    Ok(ClusterSection { name, areas, local })
}
