//! Image files of paging devices, as the host sees them: creating, formatting and reading them.
//!
//! ```text
//!   Disk (a file) ──┬─ no partition table ──> Image: the whole file is a space
//!                   └─ GPT ────────────────> an Image for each entry of our type that can be trusted
//! ```
//!
//! The formats are the hypervisor's own (`kernel::space`, `kernel::block::gpt`); this
//! module has only the file operations. Every writer holds a [`lock`], so that an image in use by
//! an emulator is never changed.

mod disk;
mod image;
pub mod lock;
mod resized;
#[cfg(test)]
mod tests;

pub use disk::{SpaceSlot, VolumeDisk};
pub use image::SpaceImage;
pub use resized::ResizedSpace;

use anyhow::{Context, Result, bail};
use kernel::block::gpt::make::{self, GptCapacityError, NewPart, NewSpace};
use kernel::size::ReadableSize;
use kernel::space::{DeviceContent, SpaceLayout, Uuid};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// The access that a caller asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VolumeAccess {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// Images are a whole number of such blocks. Our emulators bypass the host's page cache, and direct
/// I/O cannot write any other size on a file system with blocks of this size, tmpfs for one.
const HOST_BLOCK: u64 = 4096;

/// Creates and formats a new image of `bytes`, rounded up to whole blocks of 4 KiB. The file is
/// sparse: it takes room on the host's disk only as it is used.
///
/// # Errors
/// Where the file exists already, or the size is too small.
pub fn create(path: &Path, bytes: u64) -> Result<()> {
    refuse_existing(path)?;
    let bytes = whole_blocks(bytes)?;
    crate::atomic::write(path, |file| {
        file.set_len(bytes)?;
        SpaceImage::whole(Arc::new(file.try_clone()?), path, bytes).format().map(|_| ())
    })
}

/// As [`create`], with a partition table and one formatted space for each of `sizes`.
///
/// # Errors
/// As [`create`], or where the spaces do not fit or one is too small.
pub fn create_spaces(path: &Path, bytes: u64, sizes: &[u64]) -> Result<()> {
    create_parts(path, bytes, sizes, BlankParts::default())
}

/// Partitions of a new table besides the spaces, with their sizes. They stay blank.
#[derive(Clone, Copy, Default, Debug)]
pub struct BlankParts {
    /// For an image store, which [`crate::store::create`] makes.
    pub store: Option<u64>,
    /// For a cluster area, which [`crate::cluster::create`] makes.
    pub cluster: Option<u64>,
}

impl BlankParts {
    /// Returns the sizes, in the order of the partitions.
    pub fn sizes(&self) -> Vec<u64> {
        self.all().map(|(bytes, _)| bytes).collect()
    }

    fn all(&self) -> impl Iterator<Item = (u64, NewPart)> {
        let store = self.store.map(|bytes| (bytes, NewPart::Store));
        store.into_iter().chain(self.cluster.map(|bytes| (bytes, NewPart::Cluster)))
    }
}

/// As [`create_spaces`], with further partitions behind the spaces.
///
/// # Errors
/// As [`create_spaces`].
pub fn create_parts(path: &Path, bytes: u64, sizes: &[u64], blank: BlankParts) -> Result<()> {
    refuse_existing(path)?;
    let bytes = whole_blocks(bytes)?;
    let placed = placed(bytes, &[sizes, &blank.sizes()].concat())?;
    let kinds = sizes.iter().map(|_| NewPart::Space).chain(blank.all().map(|(_, kind)| kind));
    let guid = || Ok::<_, anyhow::Error>(gpt_guid(new_uuid()?));
    let spaces = placed
        .into_iter()
        .zip(kinds)
        .map(|(sectors, kind)| Ok(NewSpace { sectors, guid: guid()?, kind }))
        .collect::<Result<Vec<_>>>()?;
    let table = make::table(bytes, guid()?, &spaces);
    crate::atomic::write(path, |file| {
        file.set_len(bytes)?;
        for piece in &table {
            file.write_all_at(&piece.bytes, piece.offset)?;
        }
        let disk = VolumeDisk::of(file.try_clone()?, path)?;
        disk.usable()?.iter().try_for_each(|image| image.format().map(|_| ()))
    })
}

fn whole_blocks(bytes: u64) -> Result<u64> {
    bytes.checked_next_multiple_of(HOST_BLOCK).context("no image is that large")
}

/// Checks that spaces of these sizes fit on a disk of `bytes`.
///
/// # Errors
/// Names the size that they need.
pub fn fits(bytes: u64, sizes: &[u64]) -> Result<()> {
    placed(bytes, sizes).map(|_| ())
}

fn placed(bytes: u64, sizes: &[u64]) -> Result<Vec<kernel::block::SectorRange>> {
    if let Some(size) = sizes.iter().find(|size| SpaceLayout::most_pages(**size) == 0) {
        bail!("a space of {} is too small for a page", crate::size::format(*size));
    }
    match make::place(bytes, sizes) {
        Ok(placed) => Ok(placed),
        Err(GptCapacityError::Count) => {
            bail!("a partition table has room for 1 to 128 spaces, not for {}", sizes.len())
        }
        Err(GptCapacityError::Needs(least)) => {
            bail!(
                "the spaces need {}, the image has {}",
                crate::size::in_mib(least),
                ReadableSize(bytes)
            )
        }
    }
}

/// Returns the size of the smallest image, in whole MiB, for spaces of these sizes.
///
/// # Errors
/// Where no image could hold them.
pub fn least_size(sizes: &[u64]) -> Result<u64> {
    match make::place(0, sizes) {
        Err(GptCapacityError::Needs(least)) => {
            least.checked_next_multiple_of(1 << 20).context("too large for any disk")
        }
        _ => placed(0, sizes).map(|_| 0),
    }
}

fn refuse_existing(path: &Path) -> Result<()> {
    if path.exists() {
        bail!("{}: exists already; `tidepool volume format` changes it", path.display());
    }
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!("{}: there is no folder {}", path.display(), folder.display());
    }
    Ok(())
}

/// Describes a space's contents in a few words.
pub fn describe(class: &DeviceContent) -> String {
    match class {
        DeviceContent::Blank => "blank".to_owned(),
        DeviceContent::Foreign(foreign) => format!("no paging space: {foreign}"),
        DeviceContent::Newer(error) => format!("a newer program's paging space: {error}"),
        DeviceContent::Damaged(damage) => format!("damaged space record: {damage}"),
        DeviceContent::Closed(closed) => format!("cluster {}'s paging space", closed.cluster),
        DeviceContent::Space(record) => match record.cluster {
            Some(cluster) => format!("{}, cluster {cluster}'s", record.state.name()),
            None => record.state.name().to_owned(),
        },
    }
}

/// Returns random bytes of the operating system.
///
/// # Errors
/// Where the system has no source of them.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn new_uuid() -> Result<Uuid> {
    let number = u128::from_le_bytes(random_bytes()?);
    Ok(Uuid::from_entropy((number >> 64) as u64, number as u64))
}

/// Converts the name to a partition table's GUID, whose first three fields are little-endian.
fn gpt_guid(uuid: Uuid) -> kernel::block::gpt::Guid {
    let mut bytes = uuid.0;
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    kernel::block::gpt::Guid::from_bytes(bytes)
}
