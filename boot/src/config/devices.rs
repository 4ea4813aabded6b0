//! Paging devices: image files for virtio-blk, or memory where a bed has no virtio.

use super::document::{ConfigError, Section};
use super::size;
use crate::bed::Bed;
use crate::volume;
use anyhow::Result;
use kernel::addr::PAGE_SIZE;
use kernel::paging::space::{Class, Layout};
use std::fs;
use std::path::{Path, PathBuf};

/// What a paging device is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Device {
    /// An image file, made if it is missing.
    Image(PathBuf),
    /// Memory of the machine.
    Memory,
}

/// A paging device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PagingDevice {
    /// What it is made of.
    pub device: Device,
    /// Its size.
    pub bytes: u64,
}

impl PagingDevice {
    /// Returns the size of a memory-backed device.
    pub fn memory(&self) -> Option<u64> {
        (self.device == Device::Memory).then_some(self.bytes)
    }

    /// Returns the image file, if it is one.
    pub fn image(&self) -> Option<PathBuf> {
        match &self.device {
            Device::Image(path) => Some(path.clone()),
            Device::Memory => None,
        }
    }

    /// Returns the most logical memory that a space on the device can hold.
    pub fn largest_partition(&self) -> u64 {
        u64::from(Layout::most_pages(self.bytes)) * PAGE_SIZE
    }

    /// Makes the image file if there is none.
    ///
    /// # Errors
    /// Names the file.
    pub fn make_if_missing(&self) -> Result<()> {
        match &self.device {
            Device::Image(path) if !path.exists() => volume::create(path, self.bytes),
            _ => Ok(()),
        }
    }
}

/// Reads all `[[paging_device]]`.
pub(super) fn read(root: &Section<'_>, base: &Path, bed: Bed) -> Result<Vec<PagingDevice>, ConfigError> {
    let mut devices: Vec<PagingDevice> = Vec::new();
    for section in root.sections("paging_device")? {
        let device = one(&section, base, bed)?;
        if device.image().is_some() && devices.iter().any(|d| d.device == device.device) {
            return Err(section.error("image", "is another paging device already"));
        }
        devices.push(device);
    }
    Ok(devices)
}

fn one(section: &Section<'_>, base: &Path, bed: Bed) -> Result<PagingDevice, ConfigError> {
    section.only(&["image", "size", "memory"])?;
    match (section.text("image")?, section.pages("memory")?) {
        (None, Some(bytes)) => Ok(PagingDevice { device: Device::Memory, bytes }),
        (Some(_), None) if bed == Bed::Bochs => {
            Err(section.error("image", "Bochs has no virtio disks: write memory = \"…\" instead"))
        }
        (Some(_), None) => image(section, base),
        _ => Err(section.error("image", "say either image = \"FILE\" or memory = \"SIZE\"")),
    }
}

fn image(section: &Section<'_>, base: &Path) -> Result<PagingDevice, ConfigError> {
    let path = base.join(section.required_text("image")?);
    let wanted = section.pages("size")?;
    let bytes = match (fs::metadata(&path), wanted) {
        (Ok(file), _) if !file.is_file() => Err("is no regular file".to_owned()),
        (Ok(file), Some(bytes)) if file.len() != bytes => {
            Err(format!("{} has {} already, not {}", path.display(), size::format(file.len()), size::format(bytes)))
        }
        (Ok(file), _) => Ok(file.len()),
        (Err(_), Some(bytes)) => Ok(bytes),
        (Err(e), None) => Err(format!("{}: {e} (with a size = \"…\" beside it, it is made)", path.display())),
    };
    let bytes = bytes.map_err(|message| section.error("image", &message))?;
    if path.exists() {
        refuse_foreign(section, &path)?;
    }
    Ok(PagingDevice { device: Device::Image(path), bytes })
}

/// The hypervisor refuses such a device too; said here, it costs no start.
fn refuse_foreign(section: &Section<'_>, path: &Path) -> Result<(), ConfigError> {
    let file = path.display();
    let what = match volume::look(path) {
        Ok(Class::Blank | Class::Space(_)) => return Ok(()),
        Ok(Class::Foreign(foreign)) => format!("{file} holds {foreign}; `tidepool volume format` would overwrite it"),
        Ok(Class::Damaged(damage)) => format!("{file} has a damaged space record ({damage}); nothing touches it"),
        Err(error) => format!("{file}: {error:#}"),
    };
    Err(section.error("image", &what))
}
