//! One space of an image file: the whole file, or one of its GPT partitions. Offsets are relative
//! to the space.

use super::{ResizedSpace, VolumeAccess, VolumeDisk, describe, new_uuid};
use anyhow::{Context, Result, bail, ensure};
use kernel::space::RecordError;
use kernel::space::claim::{ClaimSectors, PAGE_LEN, SpaceClaim};
use kernel::space::classify::HEAD_LEN;
use kernel::space::copies::{TAIL_LEN, copies, damaged_copy};
use kernel::space::layout::usable;
use kernel::space::places::{first_foreign, places};
use kernel::space::{
    DeviceContent, ForeignData, RecordSide, Residue, SpaceArea, SpaceRecord, Uuid, classify,
};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open space.
pub struct SpaceImage {
    file: Arc<File>,
    path: PathBuf,
    number: u32,
    area: SpaceArea,
}

impl SpaceImage {
    /// Opens the only space of the image at `path`.
    ///
    /// # Errors
    /// Where the file is missing or has several spaces, or is to be written while it is in use.
    pub fn open(path: &Path, access: VolumeAccess) -> Result<Self> {
        VolumeDisk::open(path, access)?.space(None)
    }

    pub(super) fn new(file: Arc<File>, path: &Path, number: u32, area: SpaceArea) -> Self {
        Self { file, path: path.to_owned(), number, area }
    }

    pub(super) fn whole(file: Arc<File>, path: &Path, bytes: u64) -> Self {
        Self::new(file, path, 0, SpaceArea::whole(bytes / 512))
    }

    /// Returns the image file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of the space's GPT entry; 0 where the space is the whole file.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns the area of the file that the space occupies.
    pub fn area(&self) -> SpaceArea {
        self.area
    }

    /// Returns the space's size.
    pub fn capacity(&self) -> u64 {
        self.area.bytes()
    }

    /// Returns the space's name as shown to people.
    pub fn name(&self) -> String {
        match self.number {
            0 => self.path.display().to_string(),
            number => format!("{} space {number}", self.path.display()),
        }
    }

    /// Returns the file offset of the `len` bytes from `offset` on; fails where they are not within
    /// the space.
    fn locate(&self, offset: u64, len: usize) -> Result<u64> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.capacity());
        ensure!(end.is_some(), "{}: {len} bytes at {offset} are not in the space", self.name());
        Ok(self.area.start() + offset)
    }

    /// Reads at `offset`.
    ///
    /// # Errors
    /// Names the image.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let at = self.locate(offset, buffer.len())?;
        self.file
            .read_exact_at(buffer, at)
            .with_context(|| format!("{}: reading at {offset}", self.name()))
    }

    /// Writes at `offset`.
    ///
    /// # Errors
    /// Names the image.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let at = self.locate(offset, bytes.len())?;
        self.file
            .write_all_at(bytes, at)
            .with_context(|| format!("{}: writing at {offset}", self.name()))
    }

    /// Waits until everything written is on stable storage.
    ///
    /// # Errors
    /// Names the image.
    pub fn flush(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("{}: flushing", self.name()))
    }

    /// Returns the kind of contents.
    ///
    /// # Errors
    /// Where the space cannot be read.
    pub fn class(&self) -> Result<DeviceContent> {
        let Some(tail_start) = RecordSide::A.start(self.capacity()) else {
            return Ok(DeviceContent::Foreign(ForeignData::TooSmall));
        };
        let mut head = vec![0; HEAD_LEN.min(usize::try_from(self.capacity())?)];
        self.read(0, &mut head)?;
        let mut tail = [0; TAIL_LEN];
        self.read(tail_start, &mut tail)?;
        let class = classify(&head, &tail, self.capacity());
        if class != DeviceContent::Blank {
            return Ok(class);
        }
        Ok(self
            .foreign_byte()?
            .map_or(DeviceContent::Blank, |at| DeviceContent::Foreign(ForeignData::At(at))))
    }

    /// Looks for foreign data on a space whose ends are zeros, at the places that the hypervisor
    /// checks before it formats a space.
    fn foreign_byte(&self) -> Result<Option<u64>> {
        for place in places(self.capacity()) {
            let mut bytes = vec![0; usize::try_from(place.len)?];
            self.read(place.start, &mut bytes)?;
            if let Some(at) = first_foreign(place.start, &bytes, self.capacity()) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Returns the damaged copy of the record and its fault, where the other copy is sound.
    ///
    /// # Errors
    /// Where the space cannot be read.
    pub fn damaged_copy(&self) -> Result<Option<(RecordSide, RecordError)>> {
        let Some(tail_start) = RecordSide::A.start(self.capacity()) else { return Ok(None) };
        let mut tail = [0; TAIL_LEN];
        self.read(tail_start, &mut tail)?;
        Ok(damaged_copy(&tail, self.capacity()))
    }

    /// Returns both copies of the record, as far as they are sound.
    ///
    /// # Errors
    /// Where the space cannot be read.
    pub fn copies(&self) -> Result<[Option<SpaceRecord>; 2]> {
        let Some(tail_start) = RecordSide::A.start(self.capacity()) else {
            return Ok([None, None]);
        };
        let mut tail = [0; TAIL_LEN];
        self.read(tail_start, &mut tail)?;
        let [a, b] = copies(&tail, self.capacity());
        Ok([a.ok(), b.ok()])
    }

    /// Describes the space's contents. A space whose image was cut or grown is recognised.
    ///
    /// # Errors
    /// Where the space cannot be read.
    pub fn describe(&self) -> Result<String> {
        let class = self.class()?;
        let Some(resized) = self.resized(&class)? else { return Ok(describe(&class)) };
        let advice = match &resized {
            ResizedSpace::Grown { record, .. }
                if self.number == 0 && self.ends_in_zeros(record.capacity)? =>
            {
                format!(
                    "; `truncate --size={} {}` makes it whole",
                    record.capacity,
                    self.path.display()
                )
            }
            ResizedSpace::Grown { .. } | ResizedSpace::Cut { .. } => String::new(),
        };
        Ok(format!("{resized}{advice}"))
    }

    /// Returns the space of another size that is found there, where `class` says that none is at
    /// its place.
    ///
    /// # Errors
    /// Where the image cannot be read.
    pub fn resized(&self, class: &DeviceContent) -> Result<Option<ResizedSpace>> {
        match class {
            DeviceContent::Blank | DeviceContent::Foreign(_) => ResizedSpace::find(self),
            DeviceContent::Space(_)
            | DeviceContent::Newer(_)
            | DeviceContent::Closed(_)
            | DeviceContent::Damaged(_) => Ok(None),
        }
    }

    /// Returns whether only zeros follow from `start` on. At most 4 GiB are read; a longer range
    /// counts as not zero.
    fn ends_in_zeros(&self, start: u64) -> Result<bool> {
        let mut piece = vec![0; 1 << 20];
        for at in (start..self.capacity()).step_by(piece.len()) {
            let piece = &mut piece[..(self.capacity() - at).min(1 << 20) as usize];
            self.read(at, piece)?;
            if at - start >= 4 << 30 || piece.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the space's record.
    ///
    /// # Errors
    /// Names the contents that the space has instead.
    pub fn record(&self) -> Result<SpaceRecord> {
        match self.class()? {
            DeviceContent::Space(record) => Ok(record),
            _ => bail!("{}: {}", self.name(), self.describe()?),
        }
    }

    /// Returns the claim on the space, if any: a node uses it now, or used it when it was
    /// interrupted.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn claim(&self) -> Result<Option<SpaceClaim>> {
        let Some(start) = SpaceClaim::start(self.capacity()) else { return Ok(None) };
        let mut page = [0; PAGE_LEN];
        self.read(start, &mut page)?;
        Ok(ClaimSectors::decode(&page).owner())
    }

    /// Writes a record over the older copy and waits until it is on stable storage.
    ///
    /// # Errors
    /// Names the image.
    pub fn put_record(&self, record: &SpaceRecord) -> Result<()> {
        let start = RecordSide::of(record.sequence)
            .start(self.capacity())
            .context("the space is too small for a record")?;
        self.flush()?;
        self.write(start, &record.encode())?;
        self.flush()
    }

    /// Formats the space as free, whatever it held. Old blocks stay on the disk and count as stale.
    ///
    /// # Errors
    /// Where the space is too small, or cannot be written.
    pub fn format(&self) -> Result<Uuid> {
        let residue =
            if self.class()? == DeviceContent::Blank { Residue::Clean } else { Residue::Stale };
        let tail_start = RecordSide::A.start(self.capacity()).context("too small for a space")?;
        // Erase both records first: an interruption then leaves no valid space.
        self.write(tail_start, &[0; TAIL_LEN])?;
        if let Some(claim) = SpaceClaim::start(self.capacity()) {
            self.write(claim, &[0; PAGE_LEN])?;
        }
        self.flush()?;
        self.write(0, &vec![0; HEAD_LEN.min(usize::try_from(tail_start)?)])?;
        let name = new_uuid()?;
        self.put_record(&SpaceRecord::free(usable(self.capacity()), name, residue))?;
        Ok(name)
    }
}
