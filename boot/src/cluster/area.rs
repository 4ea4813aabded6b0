//! A cluster area in a file: a whole image, a GPT partition of one, or a block device.

use crate::own_part::only_part;
use crate::volume::{VolumeAccess, VolumeDisk, lock};
use ::cluster::layout::{AreaLayout, Extent, SUPERBLOCK};
use ::cluster::superblock::Superblock;
use anyhow::{Context, Result, bail, ensure};
use kernel::block::gpt::GptEntry;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// Bytes that are zeroed at once.
const ZEROS: usize = 1 << 20;

/// An open area.
pub struct AreaFile {
    file: File,
    path: PathBuf,
    /// First byte of the area in the file.
    start: u64,
    bytes: u64,
    /// Set for a block device, whose lock other hosts do not see.
    is_device: bool,
}

impl AreaFile {
    /// Opens the place of an area in the image at `path`.
    ///
    /// # Errors
    /// Where there is none, or the image is in use and [`VolumeAccess::Write`] is asked for.
    pub fn open(path: &Path, access: VolumeAccess) -> Result<Self> {
        crate::regular::check(path)?;
        let options = OpenOptions::new().read(true).write(access == VolumeAccess::Write).open(path);
        let file = options.with_context(|| path.display().to_string())?;
        if access == VolumeAccess::Write && !lock::try_exclusive(&file)? {
            bail!("{}: is in use", path.display());
        }
        Self::of(file, path)
    }

    /// Makes a new image of `bytes`.
    ///
    /// # Errors
    /// Where it exists, or cannot be made.
    pub fn create(path: &Path, bytes: u64) -> Result<Self> {
        let context = || format!("{}: cannot be made", path.display());
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(path);
        let file = file.with_context(context)?;
        let is_locked = file.set_len(bytes).and_then(|()| lock::try_exclusive(&file));
        ensure!(is_locked.with_context(context)?, "{}: is in use", path.display());
        Self::of(file, path)
    }

    fn of(mut file: File, path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        let is_device = file.metadata().with_context(context)?.file_type().is_block_device();
        // The size in the metadata of a block device is 0.
        let bytes = file.seek(SeekFrom::End(0)).with_context(context)?;
        let whole = Self { file, path: path.to_owned(), start: 0, bytes, is_device };
        let read = |sector: u64, into: &mut [u8]| whole.file.read_exact_at(into, sector * 512);
        let part = only_part(path, bytes / 512, read, GptEntry::is_cluster, "a cluster")?;
        let Some((_, sectors)) = part else { return Ok(whole) };
        Ok(Self { start: sectors.first * 512, bytes: sectors.count * 512, ..whole })
    }

    /// Returns the image file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether other hosts may use it although its lock is free here.
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// Returns whether the area is a GPT partition.
    pub fn is_part(&self) -> bool {
        self.start > 0
    }

    /// Returns the whole image as a disk. It shares the file, and so the file's lock.
    ///
    /// # Errors
    /// Names the image.
    pub fn disk(&self) -> Result<VolumeDisk> {
        let file = self.file.try_clone().with_context(|| self.path.display().to_string())?;
        VolumeDisk::of(file, &self.path)
    }

    /// Returns the bytes of its place.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads a part of the area.
    ///
    /// # Errors
    /// Names the image.
    pub fn read(&self, extent: Extent) -> Result<Vec<u8>> {
        let mut bytes = vec![0; extent.len];
        let read = self.file.read_exact_at(&mut bytes, self.start + extent.at);
        read.with_context(|| format!("{}: reading at {}", self.path.display(), extent.at))?;
        Ok(bytes)
    }

    /// Writes at `at`.
    ///
    /// # Errors
    /// Names the image.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(bytes, self.start + at);
        written.with_context(|| format!("{}: writing at {at}", self.path.display()))
    }

    /// Writes zeros.
    ///
    /// # Errors
    /// Names the image.
    pub fn clear(&self, extent: Extent) -> Result<()> {
        let zeros = vec![0; extent.len.min(ZEROS)];
        let end = extent.at + extent.len as u64;
        let mut pieces = (extent.at..end).step_by(ZEROS);
        pieces.try_for_each(|at| {
            let len = (end - at).min(ZEROS as u64) as usize;
            self.write(at, &zeros[..len])
        })
    }

    /// Waits until everything written is on stable storage.
    ///
    /// # Errors
    /// Names the image.
    pub fn flush(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("{}: flushing", self.path.display()))
    }

    /// Returns both superblocks.
    ///
    /// # Errors
    /// Where the place is too small or cannot be read.
    pub fn superblocks(&self) -> Result<[[u8; SUPERBLOCK]; 2]> {
        let len = 2 * SUPERBLOCK;
        ensure!(self.bytes >= len as u64, "{}: not a cluster area", self.path.display());
        let both = self.read(Extent { at: 0, len })?;
        let (copies, _) = both.as_chunks::<SUPERBLOCK>();
        copies.first_chunk().copied().context("two superblocks")
    }

    /// Returns the superblock that counts, and the layout.
    ///
    /// # Errors
    /// Where the area cannot be joined by this program.
    pub fn superblock(&self) -> Result<(Superblock, AreaLayout)> {
        let [a, b] = self.superblocks()?;
        let found = Superblock::decode([&a, &b]);
        let found = found.map_err(|error| anyhow::anyhow!("{}: {error}", self.path.display()))?;
        let layout = found.layout().context("a decoded superblock has possible numbers")?;
        if self.bytes < layout.len() {
            bail!(
                "{}: the area needs {} bytes, there are {}",
                self.path.display(),
                layout.len(),
                self.bytes
            );
        }
        Ok((found, layout))
    }
}
