//! An image file as a disk, and the spaces on it.

use super::{SpaceImage, VolumeAccess, lock};
use anyhow::{Context, Result, bail};
use cluster::layout::SUPERBLOCK;
use cluster::superblock::{Superblock, SuperblockError};
use kernel::block::gpt::{
    self, BOOT_CODE_LEN, GptCopy, GptEntryError, GptError, GptFinding, GptTable,
};
use kernel::dump::selected::BootCode;
use kernel::space::{DeviceContent, SpaceArea, Uuid};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open image file.
pub struct VolumeDisk {
    file: Arc<File>,
    path: PathBuf,
    bytes: u64,
    found: GptFinding,
}

/// A place for a space on a disk.
pub struct SpaceSlot {
    /// Number of its GPT entry; 0 where the space is the whole file.
    pub number: u32,
    /// The space, or the reason why its entry cannot be trusted.
    pub space: Result<SpaceImage, GptEntryError>,
}

impl VolumeDisk {
    /// Opens the file at `path` and looks for a partition table.
    ///
    /// # Errors
    /// Where the file is missing, or [`VolumeAccess::Write`] is asked for while the file is in use.
    pub fn open(path: &Path, access: VolumeAccess) -> Result<Self> {
        crate::regular::check(path)?;
        let options = OpenOptions::new().read(true).write(access == VolumeAccess::Write).open(path);
        let file = options.with_context(|| format!("{}", path.display()))?;
        if access == VolumeAccess::Write && !lock::try_exclusive(&file)? {
            bail!("{}: is in use", path.display());
        }
        Self::of(file, path)
    }

    /// Looks for a partition table in an open file.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn of(file: File, path: &Path) -> Result<Self> {
        let context = || format!("{}", path.display());
        let bytes = file.metadata().with_context(context)?.len();
        let found = gpt::read(bytes / 512, reader(&file)).with_context(context)?;
        Ok(Self { file: Arc::new(file), path: path.to_owned(), bytes, found })
    }

    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file's size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the partition table in force, if there is one. Where that is the backup, the fault
    /// of the primary table comes with it.
    pub fn table(&self) -> Option<(&GptTable, Option<GptError>)> {
        if let GptFinding::Table(table, fault) = &self.found { Some((table, *fault)) } else { None }
    }

    /// Returns the faults of the partition table's damaged copies.
    ///
    /// # Errors
    /// Where the image cannot be read.
    pub fn table_faults(&self) -> Result<Vec<(GptCopy, GptError)>> {
        let mut faults = Vec::new();
        for copy in [GptCopy::Primary, GptCopy::Backup] {
            if let Err(fault) = gpt::read_copy(copy, self.bytes / 512, reader(&self.file))? {
                faults.push((copy, fault));
            }
        }
        Ok(faults)
    }

    /// Returns the spaces, and the entries that cannot be trusted.
    ///
    /// # Errors
    /// Where both copies of the partition table are damaged.
    pub fn slots(&self) -> Result<Vec<SpaceSlot>> {
        let image = |number, area| SpaceImage::new(self.file.clone(), &self.path, number, area);
        match &self.found {
            GptFinding::None => Ok(vec![SpaceSlot {
                number: 0,
                space: Ok(SpaceImage::whole(self.file.clone(), &self.path, self.bytes)),
            }]),
            GptFinding::Damaged(primary, backup) => {
                bail!(
                    "{}: damaged partition table: primary: {primary}; backup: {backup}",
                    self.path.display()
                )
            }
            GptFinding::Table(table, _) => {
                let ours = table.entries.iter().filter(|entry| entry.is_space());
                let area = |entry: &gpt::GptEntry| {
                    SpaceArea::part(entry.sectors()?).ok_or(GptEntryError::OutOfRange)
                };
                Ok(ours
                    .map(|e| SpaceSlot {
                        number: e.number,
                        space: area(e).map(|area| image(e.number, area)),
                    })
                    .collect())
            }
        }
    }

    /// Returns the usable spaces.
    ///
    /// # Errors
    /// As [`VolumeDisk::slots`].
    pub fn usable(&self) -> Result<Vec<SpaceImage>> {
        Ok(self.slots()?.into_iter().filter_map(|slot| slot.space.ok()).collect())
    }

    /// Returns the disk's cluster: that of its area, or of its spaces' records.
    ///
    /// # Errors
    /// Where the image cannot be read, or has an area that cannot be read.
    pub fn cluster(&self) -> Result<Option<Uuid>> {
        let entries = self.table().map_or(&[][..], |(table, _)| &table.entries[..]);
        for entry in entries.iter().filter(|entry| entry.is_cluster()) {
            let Ok(sectors) = entry.sectors() else { continue };
            let mut both = [[0; SUPERBLOCK]; 2];
            let context = || format!("{}", self.path.display());
            reader(&self.file)(sectors.first, both.as_flattened_mut()).with_context(context)?;
            match Superblock::decode([&both[0], &both[1]]) {
                Ok(superblock) => return Ok(Some(Uuid(superblock.cluster.to_be_bytes()))),
                Err(SuperblockError::Foreign) => {}
                Err(error) => bail!("{}: its cluster area: {error}", self.path.display()),
            }
        }
        for space in self.usable()? {
            if let DeviceContent::Space(record) = space.class()?
                && record.cluster.is_some()
            {
                return Ok(record.cluster);
            }
        }
        Ok(None)
    }

    /// Checks that a command may change the disk: it is no cluster's.
    ///
    /// # Errors
    /// Names the cluster.
    pub fn check_alone(&self) -> Result<()> {
        match self.cluster()? {
            None => Ok(()),
            Some(cluster) => bail!(
                "{}: belongs to cluster {cluster}, and only its members change it; `tidepool \
                 cluster remove` takes a disk out",
                self.path.display()
            ),
        }
    }

    /// Returns a space by its number; without a number the only space.
    ///
    /// # Errors
    /// Where no such space exists, or there are several and no number is given.
    pub fn space(&self, number: Option<u32>) -> Result<SpaceImage> {
        let mut slots = self.slots()?;
        let place = match number {
            Some(number) => slots.iter().position(|slot| slot.number == number),
            None if slots.len() == 1 => Some(0),
            None => None,
        };
        let Some(place) = place else {
            let numbers: Vec<_> = slots.iter().map(|slot| slot.number.to_string()).collect();
            let there = if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") };
            match number {
                Some(number) => {
                    bail!("{}: has no space {number} (there are: {there})", self.path.display())
                }
                None => bail!("{}: say which space (there are: {there})", self.path.display()),
            }
        };
        let slot = slots.swap_remove(place);
        slot.space.map_err(|fault| {
            anyhow::anyhow!("{}: GPT entry {} {fault}", self.path.display(), slot.number)
        })
    }
}

impl VolumeDisk {
    /// Returns the contents of the boot-code bytes on a disk with a partition table.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn boot_code(&self) -> Result<BootCode> {
        let mut sector = [0; 512];
        reader(&self.file)(0, &mut sector).with_context(|| format!("{}", self.path.display()))?;
        Ok(BootCode::of(&sector))
    }

    /// Returns the space whose dump is selected.
    ///
    /// # Errors
    /// Where the image cannot be read, or both copies of the partition table are damaged.
    pub fn selected(&self) -> Result<Option<u32>> {
        let code = self.boot_code()?;
        let images = self.usable()?;
        Ok(images
            .iter()
            .find(|image| image.number() > 0 && code.selects(image.area()))
            .map(SpaceImage::number))
    }

    /// Writes the boot-code bytes, with a flush before and after the write.
    ///
    /// # Errors
    /// Where there is no partition table, or the image cannot be written.
    pub fn set_boot_code(&self, code: &[u8; BOOT_CODE_LEN]) -> Result<()> {
        let context = || format!("{}: writing the boot-code bytes", self.path.display());
        if self.table().is_none() {
            bail!("{}: has no partition table", self.path.display());
        }
        self.file.sync_data().with_context(context)?;
        self.file.write_all_at(code, 0).with_context(context)?;
        self.file.sync_data().with_context(context)
    }
}

fn reader(file: &File) -> impl FnMut(u64, &mut [u8]) -> std::io::Result<()> {
    |sector, bytes| file.read_exact_at(bytes, sector * 512)
}
