//! Paging devices: image files for virtio-blk, or memory where a bed has no virtio.

use super::document::{ConfigError, Section};
use crate::bed::kind::Bed;
use crate::size;
use crate::volume::{self, SpaceImage, VolumeAccess, VolumeDisk};
use anyhow::Result;
use kernel::addr::PAGE_SIZE;
use kernel::block::MAX_DISKS;
use kernel::paging::MAX_SPACES;
use kernel::space::{DeviceContent, SpaceLayout, SpaceRecord};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The backing of a paging device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceBacking {
    /// An image file; created if it is missing.
    Image(PathBuf),
    /// Memory of the machine.
    Memory,
}

/// A paging device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PagingDevice {
    /// Its backing.
    pub device: DeviceBacking,
    /// Its size.
    pub bytes: u64,
    /// Sizes of its spaces if it has a partition table. Without a table the whole device is one
    /// space.
    pub spaces: Vec<u64>,
}

impl PagingDevice {
    /// Returns the size of a memory-backed device; `None` for an image.
    pub fn memory(&self) -> Option<u64> {
        (self.device == DeviceBacking::Memory).then_some(self.bytes)
    }

    /// Returns the image file of an image-backed device.
    pub fn image(&self) -> Option<PathBuf> {
        match &self.device {
            DeviceBacking::Image(path) => Some(path.clone()),
            DeviceBacking::Memory => None,
        }
    }

    /// Returns the most logical memory that a space on the device can hold.
    pub fn largest_partition(&self) -> u64 {
        let largest = self.spaces.iter().copied().max().unwrap_or(self.bytes);
        u64::from(SpaceLayout::most_pages(largest)) * PAGE_SIZE
    }

    /// Returns the most logical memory that each space on the device can hold.
    pub fn partition_sizes(&self) -> Vec<u64> {
        let spaces =
            if self.spaces.is_empty() { std::slice::from_ref(&self.bytes) } else { &self.spaces };
        spaces.iter().map(|&bytes| u64::from(SpaceLayout::most_pages(bytes)) * PAGE_SIZE).collect()
    }

    /// Returns the number of spaces on the device.
    pub fn space_count(&self) -> usize {
        self.spaces.len().max(1)
    }

    /// Creates the image file if it is missing.
    ///
    /// # Errors
    /// Names the file.
    pub fn make_if_missing(&self) -> Result<()> {
        match &self.device {
            DeviceBacking::Image(path) if path.exists() => Ok(()),
            DeviceBacking::Image(path) if self.spaces.is_empty() => {
                volume::create(path, self.bytes)
            }
            DeviceBacking::Image(path) => volume::create_spaces(path, self.bytes, &self.spaces),
            DeviceBacking::Memory => Ok(()),
        }
    }
}

/// Reads all `[[paging_device]]`.
pub(super) fn read(
    root: &Section<'_>,
    base: &Path,
    bed: Bed,
) -> Result<Vec<PagingDevice>, ConfigError> {
    let mut devices: Vec<PagingDevice> = Vec::new();
    let sections = root.sections("paging_device")?;
    for section in &sections {
        let device = one(section, base, bed)?;
        let is_it = |other: &PagingDevice| {
            device.image().zip(other.image()).is_some_and(|(one, other)| is_same_file(&one, &other))
        };
        if devices.iter().any(is_it) {
            return Err(section.error("image", "is another paging device already"));
        }
        devices.push(device);
    }
    check_number(&sections, &devices)?;
    Ok(devices)
}

/// Returns whether two paths name the same file, also through links or different folders.
pub(super) fn is_same_file(one: &Path, other: &Path) -> bool {
    let numbers = |path: &Path| fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
    match (numbers(one), numbers(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => {
            // Neither file exists yet: compare the folder's numbers and the file name.
            let place = |path: &Path| {
                Some((
                    numbers(
                        path.parent()
                            .filter(|p| !p.as_os_str().is_empty())
                            .unwrap_or(Path::new(".")),
                    )?,
                    path.file_name()?.to_owned(),
                ))
            };
            one == other || place(one).zip(place(other)).is_some_and(|(one, other)| one == other)
        }
        _ => false,
    }
}

fn one(section: &Section<'_>, base: &Path, bed: Bed) -> Result<PagingDevice, ConfigError> {
    section.only(&["image", "size", "spaces", "memory"])?;
    match (section.text("image")?, section.pages("memory")?) {
        (None, Some(bytes)) => {
            Ok(PagingDevice { device: DeviceBacking::Memory, bytes, spaces: Vec::new() })
        }
        (Some(_), None) if bed == Bed::Bochs => {
            Err(section.error("image", "Bochs has no virtio disks: write memory = \"…\" instead"))
        }
        (Some(_), None) => image(section, base),
        _ => Err(section.error("image", "say either image = \"FILE\" or memory = \"SIZE\"")),
    }
}

fn image(section: &Section<'_>, base: &Path) -> Result<PagingDevice, ConfigError> {
    let path = base.join(section.required_text("image")?);
    let spaces = spaces(section)?;
    let wanted = match section.pages("size")? {
        None if !spaces.is_empty() && !path.exists() => Some(
            volume::least_size(&spaces)
                .map_err(|error| section.error("spaces", &format!("{error:#}")))?,
        ),
        wanted => wanted,
    };
    let bytes = match (fs::metadata(&path), wanted) {
        (Ok(file), _) if !file.is_file() => Err(format!("{}: is no regular file", path.display())),
        (Ok(file), Some(bytes)) if file.len() != bytes => Err(format!(
            "{} has {} already, not {}",
            path.display(),
            size::format(file.len()),
            size::format(bytes)
        )),
        (Ok(file), _) => Ok(file.len()),
        (Err(_), Some(bytes)) => Ok(bytes),
        (Err(e), None) => Err(format!(
            "{}: {e} (with a size = \"…\" or spaces = [\"…\"] beside it, it is made)",
            path.display()
        )),
    };
    let bytes = bytes.map_err(|message| section.error("image", &message))?;
    if path.exists() {
        let there = there(section, &path)?;
        if !spaces.is_empty() && spaces != there {
            let there: Vec<_> = there.iter().map(|bytes| size::format(*bytes)).collect();
            let there =
                if there.is_empty() { "no partition table".to_owned() } else { there.join(", ") };
            return Err(
                section.error("spaces", &format!("{} has others already: {there}", path.display()))
            );
        }
        return Ok(PagingDevice { device: DeviceBacking::Image(path), bytes, spaces: there });
    }
    if !spaces.is_empty() {
        volume::fits(bytes, &spaces)
            .map_err(|error| section.error("spaces", &format!("{error:#}")))?;
    }
    Ok(PagingDevice { device: DeviceBacking::Image(path), bytes, spaces })
}

/// Reads the sizes of the spaces that are asked for.
fn spaces(section: &Section<'_>) -> Result<Vec<u64>, ConfigError> {
    let one = |text: &String| match size::parse(text) {
        Ok(bytes) if bytes == 0 || !bytes.is_multiple_of(PAGE_SIZE) => Err(section
            .error("spaces", &format!("{text} is no multiple of {}", size::format(PAGE_SIZE)))),
        other => other.map_err(|message| section.error("spaces", &message)),
    };
    section.texts("spaces")?.iter().map(one).collect()
}

/// Returns the sizes of the spaces in an image's partition table; empty where the whole image is
/// one space. Unusable images are refused here, before a machine starts; the hypervisor would
/// refuse them too.
fn there(section: &Section<'_>, path: &Path) -> Result<Vec<u64>, ConfigError> {
    let wrong = |message: String| section.error("image", &message);
    let disk =
        VolumeDisk::open(path, VolumeAccess::Read).map_err(|error| wrong(format!("{error:#}")))?;
    let slots = disk.slots().map_err(|error| wrong(format!("{error:#}; nothing touches it")))?;
    if slots.is_empty() {
        let message = format!(
            "{} has a partition table without a paging space; it belongs to another program",
            path.display()
        );
        return Err(wrong(message));
    }
    let mut sizes = Vec::new();
    for slot in slots {
        let fault = |fault| wrong(format!("{}: GPT entry {} {fault}", path.display(), slot.number));
        let image = slot.space.map_err(fault)?;
        refuse_foreign(section, &image)?;
        sizes.extend((image.number() > 0).then_some(image.capacity()));
    }
    Ok(sizes)
}

fn refuse_foreign(section: &Section<'_>, image: &SpaceImage) -> Result<(), ConfigError> {
    let name = image.name();
    let what = match image.class() {
        Ok(DeviceContent::Space(SpaceRecord { cluster: Some(cluster), .. })) => format!(
            "{name} belongs to cluster {cluster}: give its image under `disks` in `[cluster]`"
        ),
        Ok(DeviceContent::Closed(closed)) => format!("{name} belongs to {}", closed.cluster),
        Ok(DeviceContent::Blank | DeviceContent::Space(_)) => return Ok(()),
        Ok(DeviceContent::Foreign(foreign)) => {
            format!("{name} holds {foreign}; `tidepool volume format` would overwrite it")
        }
        Ok(DeviceContent::Newer(error)) => {
            format!(
                "{name} is used by a newer version of this program ({error}); nothing touches it"
            )
        }
        Ok(DeviceContent::Damaged(damage)) => {
            format!("{name} has a damaged space record ({damage}); nothing touches it")
        }
        Err(error) => format!("{error:#}"),
    };
    Err(section.error("image", &what))
}

/// Checks the number of paging devices and spaces.
fn check_number(sections: &[Section<'_>], devices: &[PagingDevice]) -> Result<(), ConfigError> {
    let mut spaces = 0;
    for (place, (section, device)) in sections.iter().zip(devices).enumerate() {
        let key = if device.image().is_some() { "image" } else { "memory" };
        if place == MAX_DISKS {
            let message = format!(
                "{} paging devices, but the hypervisor drives {MAX_DISKS} at most",
                devices.len()
            );
            return Err(section.error(key, &message));
        }
        spaces += device.space_count();
        if spaces > MAX_SPACES {
            let key = if device.spaces.is_empty() { key } else { "spaces" };
            let message =
                format!("{spaces} paging spaces, but the hypervisor uses {MAX_SPACES} at most");
            return Err(section.error(key, &message));
        }
    }
    Ok(())
}
