//! The blocks of a store in a file: a whole image, a GPT partition of one, or a block device.

use crate::own_part::only_part;
use crate::volume::{VolumeAccess, lock};
use anyhow::{Context, Result, bail};
use kernel::block::gpt::GptEntry;
use kernel::images::layout::BLOCK;
use kernel::images::{StoreRead, StoreWrite};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A block at an address that direct I/O accepts.
#[repr(C, align(4096))]
struct AlignedBlock([u8; BLOCK]);

/// An open store's blocks.
pub struct StoreFile {
    file: File,
    path: PathBuf,
    /// First byte of the store in the file.
    start: u64,
    blocks: u64,
    /// Set where the host's page cache is bypassed: other machines write to a block device, and
    /// this host's cache does not know that.
    is_direct: bool,
    since: Instant,
}

impl StoreFile {
    /// Opens the store's place in the image at `path`.
    ///
    /// # Errors
    /// Where the file is missing or has no place for one store, or another command has it and
    /// [`VolumeAccess::Write`] is asked for.
    pub fn open(path: &Path, access: VolumeAccess) -> Result<Self> {
        crate::regular::check(path)?;
        let is_device = std::fs::metadata(path)?.file_type().is_block_device();
        Self::open_as(path, access, is_device)
    }

    pub(super) fn open_as(path: &Path, access: VolumeAccess, is_direct: bool) -> Result<Self> {
        let context = || path.display().to_string();
        let mut options = OpenOptions::new();
        options.read(true).write(access == VolumeAccess::Write);
        if is_direct {
            options.custom_flags(libc::O_DIRECT);
        }
        let file = options.open(path).with_context(context)?;
        if access == VolumeAccess::Write && !lock::try_store(&file).with_context(context)? {
            bail!("{}: another command writes to the store", path.display());
        }
        Self::of(file, path, is_direct)
    }

    /// Makes a new image of `bytes`, or opens an image that has a GPT partition for a store,
    /// which must be blank. Returns also whether the file is new.
    ///
    /// # Errors
    /// Where the file exists and has no such partition, or cannot be made.
    pub(super) fn create(path: &Path, bytes: u64) -> Result<(Self, bool)> {
        if path.exists() {
            let file = Self::open(path, VolumeAccess::Write)?;
            if file.start == 0 {
                bail!("{}: exists already, and has no GPT partition for a store", path.display());
            }
            let mut head = vec![0; 2 * BLOCK];
            file.read_blocks(0, &mut head).with_context(|| path.display().to_string())?;
            if head.iter().any(|byte| *byte != 0) {
                bail!("{}: its GPT partition for a store is not blank", path.display());
            }
            return Ok((file, false));
        }
        let context = || format!("{}: cannot be made", path.display());
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create_new(true).open(path).with_context(context)?;
        let bytes = bytes.checked_next_multiple_of(BLOCK as u64).context("too large for a file")?;
        let file = file.set_len(bytes).and_then(|()| lock::try_store(&file)).map(|_| file);
        let made = file.with_context(context).and_then(|file| Self::of(file, path, false));
        if made.is_err() {
            let _ = std::fs::remove_file(path);
        }
        Ok((made?, true))
    }

    fn of(mut file: File, path: &Path, is_direct: bool) -> Result<Self> {
        let context = || path.display().to_string();
        // The size in the metadata of a block device is 0.
        let bytes = file.seek(SeekFrom::End(0)).with_context(context)?;
        let whole = Self {
            file,
            path: path.to_owned(),
            start: 0,
            blocks: bytes / BLOCK as u64,
            is_direct,
            since: Instant::now(),
        };
        let read = |sector: u64, into: &mut [u8]| whole.read_sectors(sector, into);
        let part = only_part(path, bytes / 512, read, GptEntry::is_store, "a store")?;
        let Some((number, sectors)) = part else { return Ok(whole) };
        if !sectors.first.is_multiple_of(8) {
            bail!("{}: GPT entry {number} does not begin at 4 KiB", path.display());
        }
        Ok(Self { start: sectors.first * 512, blocks: sectors.count / 8, ..whole })
    }

    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of blocks of the store's place.
    pub fn block_count(&self) -> u64 {
        self.blocks
    }

    /// Reads sectors of the file for its partition table.
    fn read_sectors(&self, sector: u64, into: &mut [u8]) -> io::Result<()> {
        let at = sector * 512;
        if !self.is_direct {
            return self.file.read_exact_at(into, at);
        }
        let mut aligned = AlignedBlock([0; BLOCK]);
        for (at, piece) in (at..).step_by(512).zip(into.chunks_mut(512)) {
            let within = (at % BLOCK as u64) as usize;
            // A read at the end of the device may be short.
            let read = self.file.read_at(&mut aligned.0, at - within as u64)?;
            let from = aligned.0.get(within..within + piece.len()).filter(|_| within < read);
            piece.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        }
        Ok(())
    }

    fn place(&self, first: u64, len: usize) -> io::Result<u64> {
        let end = first.checked_add((len / BLOCK) as u64).filter(|end| *end <= self.blocks);
        end.map(|_| self.start + first * BLOCK as u64).ok_or_else(|| {
            io::Error::other(format!("{len} bytes from block {first} on are not in the store"))
        })
    }

    fn read_blocks(&self, first: u64, into: &mut [u8]) -> io::Result<()> {
        let at = self.place(first, into.len())?;
        if !self.is_direct {
            return self.file.read_exact_at(into, at);
        }
        let mut aligned = AlignedBlock([0; BLOCK]);
        for (at, piece) in (at..).step_by(BLOCK).zip(into.chunks_mut(BLOCK)) {
            self.file.read_exact_at(&mut aligned.0, at)?;
            piece.copy_from_slice(&aligned.0);
        }
        Ok(())
    }

    fn write_blocks(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        let at = self.place(first, bytes.len())?;
        if !self.is_direct {
            return self.file.write_all_at(bytes, at);
        }
        let mut aligned = AlignedBlock([0; BLOCK]);
        for (at, piece) in (at..).step_by(BLOCK).zip(bytes.chunks(BLOCK)) {
            aligned.0.copy_from_slice(piece);
            self.file.write_all_at(&aligned.0, at)?;
        }
        Ok(())
    }
}

/// Names the block in an error.
fn at(what: &str, first: u64, result: io::Result<()>) -> io::Result<()> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what} block {first}: {error}")))
}

impl StoreRead for StoreFile {
    type Error = io::Error;

    fn blocks(&self) -> u64 {
        self.blocks
    }

    async fn read(&mut self, first: u64, into: &mut [u8]) -> io::Result<()> {
        at("reading", first, self.read_blocks(first, into))
    }

    async fn pause(&mut self, ns: u64) {
        std::thread::sleep(Duration::from_nanos(ns));
    }
}

impl StoreWrite for StoreFile {
    async fn write(&mut self, first: u64, bytes: &[u8]) -> io::Result<()> {
        at("writing", first, self.write_blocks(first, bytes))
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
