//! Image files of paging devices, from outside: what they hold, making and formatting them.
//!
//! The formats are the hypervisor's own (`kernel::paging::space`); here are only the file operations. Whoever writes
//! holds a [`lock`], so that an image that an emulator uses is never changed.

pub mod lock;

use anyhow::{Context, Result, bail};
use kernel::paging::space::classify::HEAD_LEN;
use kernel::paging::space::copies::TAIL_LEN;
use kernel::paging::space::layout::usable;
use kernel::paging::space::{Class, Record, Residue, Side, Uuid, classify};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An open image.
pub struct Image {
    file: File,
    path: PathBuf,
    capacity: u64,
}

/// What a caller will do with an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Look at it.
    Read,
    /// Change it.
    Write,
}

impl Image {
    /// Opens the image at `path`.
    ///
    /// # Errors
    /// Where it is missing, or to be written while it is in use.
    pub fn open(path: &Path, access: Access) -> Result<Self> {
        let context = || format!("{}", path.display());
        let file = OpenOptions::new().read(true).write(access == Access::Write).open(path).with_context(context)?;
        if access == Access::Write && !lock::try_exclusive(&file)? {
            bail!("{}: is in use", path.display());
        }
        let capacity = file.metadata().with_context(context)?.len();
        Ok(Self { file, path: path.to_owned(), capacity })
    }

    /// Returns the image's size.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Reads at `offset`.
    ///
    /// # Errors
    /// Names the image.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset).with_context(|| format!("{}: reading at {offset}", self.path.display()))
    }

    /// Writes at `offset`.
    ///
    /// # Errors
    /// Names the image.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).with_context(|| format!("{}: writing at {offset}", self.path.display()))
    }

    /// Waits until everything written is on the medium.
    ///
    /// # Errors
    /// Names the image.
    pub fn flush(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("{}: flushing", self.path.display()))
    }

    /// Returns what the image holds.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn class(&self) -> Result<Class> {
        let Some(tail_start) = Side::A.start(self.capacity) else {
            return Ok(Class::Foreign(kernel::paging::space::Foreign::TooSmall));
        };
        let mut head = vec![0; HEAD_LEN.min(usize::try_from(self.capacity)?)];
        self.read(0, &mut head)?;
        let mut tail = [0; TAIL_LEN];
        self.read(tail_start, &mut tail)?;
        Ok(classify(&head, &tail, self.capacity))
    }

    /// Returns the space's record.
    ///
    /// # Errors
    /// Says what the image holds instead.
    pub fn record(&self) -> Result<Record> {
        match self.class()? {
            Class::Space(record) => Ok(record),
            other => bail!("{}: {}", self.path.display(), describe(&other)),
        }
    }

    /// Writes a record over the older copy, and waits until it is on the medium.
    ///
    /// # Errors
    /// Names the image.
    pub fn put_record(&self, record: &Record) -> Result<()> {
        let start = Side::of(record.sequence).start(self.capacity).context("the image is too small for a record")?;
        self.flush()?;
        self.write(start, &record.encode())?;
        self.flush()
    }

    /// Makes a free space of the image, whatever it held. Old blocks stay, known as stale.
    ///
    /// # Errors
    /// Where it is too small, or cannot be written.
    pub fn format(&self) -> Result<Uuid> {
        let residue = if self.class()? == Class::Blank { Residue::Clean } else { Residue::Stale };
        let tail_start = Side::A.start(self.capacity).context("too small for a space")?;
        // Both records go first: an interruption leaves something that is nobody's space.
        self.write(tail_start, &[0; TAIL_LEN])?;
        self.flush()?;
        self.write(0, &vec![0; HEAD_LEN.min(usize::try_from(tail_start)?)])?;
        let name = new_uuid()?;
        self.put_record(&Record::free(usable(self.capacity), name, residue))?;
        Ok(name)
    }
}

/// Returns what the image at `path` holds.
///
/// # Errors
/// Where it cannot be read.
pub fn look(path: &Path) -> Result<Class> {
    Image::open(path, Access::Read)?.class()
}

/// Makes a new image of `bytes`, which takes room on the host's disk only as it is used, and formats it.
///
/// # Errors
/// Where there is a file already, or it is too small.
pub fn create(path: &Path, bytes: u64) -> Result<()> {
    if path.exists() {
        bail!("{}: exists already; `tidepool volume format` changes it", path.display());
    }
    crate::atomic::write(path, |file| {
        file.set_len(bytes)?;
        let image = Image { file: file.try_clone()?, path: path.to_owned(), capacity: bytes };
        image.format().map(|_| ())
    })
}

/// Says in a few words what an image holds.
pub fn describe(class: &Class) -> String {
    match class {
        Class::Blank => "blank".to_owned(),
        Class::Foreign(foreign) => format!("no paging space: {foreign}"),
        Class::Damaged(damage) => format!("damaged space record: {damage}"),
        Class::Space(record) => record.state.name().to_owned(),
    }
}

fn new_uuid() -> Result<Uuid> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let number = u128::from_le_bytes(bytes);
    Ok(Uuid::from_entropy((number >> 64) as u64, number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::paging::space::SpaceState;

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("tidepool-volume-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_new_image_is_a_free_clean_space() {
        let path = temporary("new");
        create(&path, 8 << 20).unwrap();
        let record = Image::open(&path, Access::Read).unwrap().record().unwrap();
        assert_eq!((record.state, record.residue, record.capacity), (SpaceState::Free, Residue::Clean, 8 << 20));
        assert!(create(&path, 8 << 20).is_err());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn formatting_takes_foreign_data_away_and_remembers_that_blocks_are_stale() {
        let path = temporary("foreign");
        let mut data = vec![7; 8 << 20];
        data[510..512].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(&path, data).unwrap();
        let image = Image::open(&path, Access::Write).unwrap();
        assert!(matches!(image.class().unwrap(), Class::Foreign(_)));
        image.format().unwrap();
        assert_eq!(image.record().unwrap().residue, Residue::Stale);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_image_in_use_is_not_opened_for_writing() {
        let path = temporary("locked");
        create(&path, 8 << 20).unwrap();
        let first = Image::open(&path, Access::Write).unwrap();
        assert!(Image::open(&path, Access::Write).err().unwrap().to_string().contains("in use"));
        drop(first);
        std::fs::remove_file(&path).unwrap();
    }
}
