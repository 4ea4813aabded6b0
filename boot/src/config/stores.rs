//! `[[image_store]]`: disks with image stores, which several machines may have at the same time.

use super::PagingDevice;
use super::devices::is_same_file;
use super::document::{ConfigError, Section};
use crate::bed::kind::Bed;
use crate::store::ImageStore;
use crate::volume::VolumeAccess;
use kernel::block::MAX_DISKS;
use std::path::{Path, PathBuf};

/// Reads all sections.
///
/// # Errors
/// Names the file that the bed cannot use, or that is another disk.
pub(super) fn read(
    root: &Section<'_>,
    base: &Path,
    bed: Bed,
    devices: &[PagingDevice],
) -> Result<Vec<PathBuf>, ConfigError> {
    let mut stores: Vec<PathBuf> = Vec::new();
    for section in root.sections("image_store")? {
        section.only(&["image"])?;
        let wrong = |message: &str| section.error("image", message);
        let name = section.text("image")?.ok_or_else(|| wrong("is missing: the store's file"))?;
        if bed == Bed::Bochs {
            return Err(wrong("Bochs has no virtio disks, so it has no image store"));
        }
        let path = base.join(name);
        let mut others =
            stores.iter().cloned().chain(devices.iter().filter_map(PagingDevice::image));
        if others.any(|other| is_same_file(&path, &other)) {
            return Err(wrong("is another disk of this machine already"));
        }
        if devices.len() + stores.len() == MAX_DISKS {
            return Err(wrong(&format!("the hypervisor drives {MAX_DISKS} disks at most")));
        }
        stores.push(path);
    }
    Ok(stores)
}

/// Checks that the files are image stores.
///
/// # Errors
/// Names the first file that is none, with the reason.
pub(super) fn check(root: &Section<'_>, stores: &[PathBuf]) -> Result<(), ConfigError> {
    for (path, section) in stores.iter().zip(root.sections("image_store")?) {
        ImageStore::open(path, VolumeAccess::Read)
            .map_err(|error| section.error("image", &format!("{error:#}")))?;
    }
    Ok(())
}
