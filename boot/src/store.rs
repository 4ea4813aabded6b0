//! Image stores as the host sees them: kernels, initrds and definitions of partitions on a disk
//! that nodes share.
//!
//! ```text
//!   StoreFile (a file, a GPT partition of one, a block device) ──> ImageStore ──> add, define, remove
//! ```
//!
//! The format and the rules of several writers are the hypervisor's own (`kernel::images`). Nodes
//! may run meanwhile; other commands on the same file are kept away by a lock.

mod add;
mod check;
mod define;
mod file;
#[cfg(test)]
mod tests;

pub use add::NewImage;
pub use check::StoreReport;
pub use define::{DefineOutcome, DefinedPartition};
pub use file::StoreFile;

use crate::volume::{VolumeAccess, random_bytes};
use anyhow::{Context, Result, anyhow};
use kernel::images::change::{self, StoreAuthor};
use kernel::images::define::Definer;
use kernel::images::layout::DEFAULT_SLOTS;
use kernel::images::{
    DefinitionSlot, ImageDigest, OpenStore, StoreDirectory, StoreError, StoreLayout,
    StoreSuperblock, device, find, open,
};
use kernel::space::Uuid;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// An open store.
pub struct ImageStore {
    file: StoreFile,
    store: OpenStore,
    author: StoreAuthor,
}

/// Drives an operation on a store whose I/O blocks, and names the store in its error.
fn now<T>(
    path: &Path,
    operation: impl Future<Output = Result<T, StoreError<io::Error>>>,
) -> Result<T> {
    let result = device::run(operation).context("a file's operations end at once")?;
    result.map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn author() -> Result<StoreAuthor> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ns = u64::try_from(since.as_nanos()).unwrap_or(0);
    Ok(StoreAuthor { writer: uuid()?, now_ns })
}

fn uuid() -> Result<Uuid> {
    let number = u128::from_le_bytes(random_bytes()?);
    Ok(Uuid::from_entropy((number >> 64) as u64, number as u64))
}

/// Makes an empty store: a new image file of `bytes`, or the GPT partition for a store of an image
/// that exists.
///
/// # Errors
/// Where the file exists without such a partition, the partition is not blank, or the size is too
/// small.
pub fn create(path: &Path, bytes: u64) -> Result<Uuid> {
    let (mut file, is_new) = StoreFile::create(path, bytes)?;
    let blocks = file.block_count();
    let layout = StoreLayout::new(blocks, DEFAULT_SLOTS);
    let made = layout
        .with_context(|| {
            format!("{}: {} KiB cannot be a store (least: 3200 KiB)", path.display(), blocks * 4)
        })
        .and_then(|layout| {
            let author = author()?;
            let superblock =
                StoreSuperblock { store: uuid()?, blocks, layout, created_ns: author.now_ns };
            now(path, change::format(&mut file, &superblock, author))?;
            Ok(superblock.store)
        });
    if made.is_err() && is_new {
        let _ = std::fs::remove_file(path);
    }
    made
}

impl ImageStore {
    /// Opens the store in the image at `path`.
    ///
    /// # Errors
    /// Where there is none, it is damaged or a newer program's, or [`VolumeAccess::Write`] is asked
    /// for while another command has it.
    pub fn open(path: &Path, access: VolumeAccess) -> Result<Self> {
        let mut file = StoreFile::open(path, access)?;
        let store = now(path, open::open(&mut file))?;
        Ok(Self { file, store, author: author()? })
    }

    /// Returns the image file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Returns the superblock.
    pub fn superblock(&self) -> &StoreSuperblock {
        &self.store.superblock
    }

    /// Returns the images.
    pub fn directory(&self) -> &StoreDirectory {
        self.store.directory()
    }

    /// Returns the slots that are in use.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn slots(&mut self) -> Result<Vec<DefinitionSlot>> {
        let path = self.file.path().to_owned();
        let mut slots = Vec::new();
        let superblock = self.store.superblock;
        let look = find::each(&mut self.file, &superblock, |slot| {
            if !slot.is_free() || slot.faults().next().is_some() {
                slots.push(slot);
            }
            None::<()>
        });
        now(&path, look)?;
        Ok(slots)
    }

    fn definer(&self) -> Definer {
        Definer { superblock: self.store.superblock, writer: self.author.writer }
    }

    /// Removes images that no definition names. Returns the others, each with the slot of a
    /// definition that names it.
    ///
    /// # Errors
    /// Names the store.
    pub fn remove_images(&mut self, digests: &[ImageDigest]) -> Result<Vec<(ImageDigest, u32)>> {
        let path = self.file.path().to_owned();
        let removal = change::remove(&mut self.file, &self.store, self.author, digests);
        let (store, named) = now(&path, removal)?;
        self.store = store;
        Ok(named)
    }

    /// Removes the images that came with definitions and that none names any more; returns them.
    ///
    /// # Errors
    /// Names the store.
    pub fn remove_unused(&mut self) -> Result<Vec<ImageDigest>> {
        let path = self.file.path().to_owned();
        let unused = now(&path, change::unused(&mut self.file, &self.store))?;
        if unused.is_empty() {
            return Ok(unused);
        }
        let named = self.remove_images(&unused)?;
        let is_named = |digest: &ImageDigest| named.iter().any(|(there, _)| there == digest);
        Ok(unused.into_iter().filter(|digest| !is_named(digest)).collect())
    }
}
