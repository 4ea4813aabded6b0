//! Reading and formatting devices at start-up, when nothing else uses them and waiting is allowed.
//!
//! ```text
//!   inspect ──> Class ──> recovery ──┬─ Format ──> format                       ┐
//!                                    ├─ Reclaim ─> write the record             ├──> Opened::Space
//!                                    ├─ Use, Keep, Finish, Scrub                ┘
//!                                    └─ Leave ────────────────────────────────────> Opened::Unusable
//! ```

use alloc::vec;

use super::classify::{Class, Foreign, HEAD_LEN, classify};
use super::copies::{Side, TAIL_LEN};
use super::layout::RECORD_SIZE;
use super::record::{Record, Residue};
use super::recovery::{Recovery, recovery};
use super::uuid::Uuid;
use crate::addr::PAGE_SIZE;
use crate::block::blocking::{Blocking, BlockingError};
use crate::block::dma::DmaRegion;
use crate::block::request::SECTOR_SIZE;
use crate::block::{DiskInfo, SubmitError};

/// Bytes that are read or written at a time.
const PIECE: usize = PAGE_SIZE as usize;

/// A device as a start leaves it.
// Few exist, at start-up.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opened {
    /// A space: FREE, RELEASING (to be scrubbed further), DRAINING (its header to be brought up to date), or with a dump.
    Space {
        /// Its record.
        record: Record,
        /// What was done or is to do.
        recovery: Recovery,
    },
    /// Not ours, or not to be trusted: left alone.
    Unusable(Class),
}

/// A device during start-up, with one page for its data.
pub struct Device<'a, C> {
    io: Blocking<'a, C>,
    capacity: u64,
    page: &'a DmaRegion,
}

impl<'a, C: Fn() -> u64> Device<'a, C> {
    /// Uses `io`, whose disk says `info`, with `page` (at least 4 KiB) for its data.
    pub fn new(io: Blocking<'a, C>, info: &DiskInfo, page: &'a DmaRegion) -> Self {
        Self { io, capacity: info.capacity * SECTOR_SIZE, page }
    }

    /// Looks at the device, and does what a start has to do.
    ///
    /// `name` is the uuid of a space that has to be made.
    ///
    /// # Errors
    /// [`BlockingError`] where the device fails.
    pub fn open(&self, name: Uuid) -> Result<Opened, BlockingError> {
        let class = self.inspect()?;
        let recovery = recovery(&class);
        let record = match (&recovery, class) {
            (Recovery::Format, _) => self.format(name, Residue::Clean)?,
            (Recovery::Reclaim(record), _) => {
                self.write_record(record)?;
                self.io.flush()?;
                record.clone()
            }
            (Recovery::Leave, class) => return Ok(Opened::Unusable(class)),
            (_, Class::Space(record)) => record,
            (_, class) => return Ok(Opened::Unusable(class)),
        };
        Ok(Opened::Space { record, recovery })
    }

    /// Reads both ends and says what they look like.
    ///
    /// # Errors
    /// [`BlockingError`] where the device fails.
    pub fn inspect(&self) -> Result<Class, BlockingError> {
        let (Some(a), Some(b)) = (Side::A.start(self.capacity), Side::B.start(self.capacity)) else {
            return Ok(Class::Foreign(Foreign::TooSmall));
        };
        let mut head = vec![0; HEAD_LEN.min(a as usize)];
        for (n, piece) in head.chunks_mut(PIECE).enumerate() {
            self.read((n * PIECE) as u64, piece)?;
        }
        let mut tail = [0; TAIL_LEN];
        self.read(a, &mut tail[Side::A.offset_in_tail()..Side::B.offset_in_tail()])?;
        self.read(b, &mut tail[Side::B.offset_in_tail()..])?;
        Ok(classify(&head, &tail, self.capacity))
    }

    /// Makes a free space of the device, whatever it held.
    ///
    /// # Errors
    /// [`BlockingError`] where the device fails.
    pub fn format(&self, name: Uuid, residue: Residue) -> Result<Record, BlockingError> {
        let (Some(a), Some(b)) = (Side::A.start(self.capacity), Side::B.start(self.capacity)) else {
            return Err(BlockingError::Refused(SubmitError::Invalid));
        };
        // Both records go first, whatever their sequence: an interruption leaves something that is nobody's space.
        self.write(a, &[0; PIECE])?;
        self.write(b, &[0; PIECE])?;
        self.io.flush()?;
        for at in (0..a.min(HEAD_LEN as u64)).step_by(PIECE) {
            self.write(at, &[0; PIECE])?;
        }
        self.io.flush()?;
        let record = Record::free(self.capacity, name, residue);
        self.write_record(&record)?;
        self.io.flush()?;
        Ok(record)
    }

    /// Writes a record to its side; not flushed.
    ///
    /// # Errors
    /// [`BlockingError`] where the device fails.
    pub fn write_record(&self, record: &Record) -> Result<(), BlockingError> {
        match Side::of(record.sequence).start(self.capacity) {
            Some(at) => self.write(at, &record.encode()),
            None => Err(BlockingError::Refused(SubmitError::Invalid)),
        }
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), BlockingError> {
        self.io.read(offset, self.page.hpa(0), buf.len() as u32)?;
        self.page.window().copy_out(0, buf);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8; RECORD_SIZE as usize]) -> Result<(), BlockingError> {
        self.page.window().copy_in(0, bytes);
        self.io.write(offset, self.page.hpa(0), bytes.len() as u32)
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
