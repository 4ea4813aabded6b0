//! The note of a dump with the partition's history: its last entries, and the machine's, up to the
//! crash.
//!
//! Name `TIDEPOOL`, type 0x54500001. The descriptor, little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | version: 1 |
//! | 2 | 2 | bytes of an entry: 32, or more in a later version of the hypervisor |
//! | 4 | 4 | number of entries |
//! | 8 | 8 | time of the crash, ns since the hypervisor's start |
//! | 16 | 8 | older entries that were no longer there |
//! | 24 | | the entries, oldest first: [`HistoryEntry`] |
//!
//! A reader skips what an entry has beyond the bytes that it knows, and shows the numbers of a kind
//! that it does not know. Another version means that this table has changed.

use super::elf::FieldWriter;
use super::notes::{HEADER_SIZE, header};
use crate::log::history::{ENTRY_BYTES, HistoryEntry, LatestEntries, NOTE_ENTRIES};
use core::fmt;

/// The note's name.
pub const NAME: &[u8] = b"TIDEPOOL";
/// The note's type.
pub const TYPE: u32 = 0x5450_0001;
/// The version that this code writes and reads.
const VERSION: u16 = 1;
/// Bytes before the entries.
const FRONT: usize = 24;
/// Bytes of the name with its end, padded.
const NAME_ROOM: usize = 12;

/// Returns the size of a note with this many entries, in bytes.
pub const fn note_size(entries: usize) -> usize {
    HEADER_SIZE + NAME_ROOM + FRONT + entries * ENTRY_BYTES
}

/// Writes the note of a crash at `crash_ns`.
///
/// # Panics
/// If `out` is shorter than [`note_size`] (our bug).
pub fn write(out: &mut [u8], crash_ns: u64, entries: &LatestEntries<NOTE_ENTRIES>) {
    let count = entries.iter().len();
    let out = &mut out[..note_size(count)];
    out.fill(0);
    let descriptor = header(out, NAME, TYPE, FRONT + count * ENTRY_BYTES);
    let mut put = FieldWriter { bytes: descriptor, at: 0 };
    put.put(&VERSION.to_le_bytes());
    put.put(&(ENTRY_BYTES as u16).to_le_bytes());
    put.u32(count as u32);
    put.u64(crash_ns);
    put.u64(entries.gone());
    entries.iter().for_each(|entry| put.put(&entry.encode()));
}

/// Why a descriptor is not a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryNoteError {
    /// It has fewer bytes than its fields or entries need.
    Short {
        /// Bytes needed.
        needed: u64,
        /// Bytes that are there.
        found: usize,
    },
    /// It has a version that this program does not know.
    Version(u16),
    /// Its entries are too short.
    EntrySize(u16),
}

impl core::error::Error for HistoryNoteError {}

impl fmt::Display for HistoryNoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { needed, found } => {
                write!(f, "the history is cut off: {found} bytes instead of {needed}")
            }
            Self::Version(version) => {
                write!(f, "the history has version {version}; this program knows {VERSION}")
            }
            Self::EntrySize(size) => {
                write!(f, "the history's entries have {size} bytes instead of {ENTRY_BYTES}")
            }
        }
    }
}

/// A history that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryNote<'a> {
    /// Time of the crash, ns since the hypervisor's start.
    pub crash_ns: u64,
    /// Older entries that were no longer there.
    pub gone: u64,
    entries: &'a [u8],
    entry_size: usize,
}

impl<'a> HistoryNote<'a> {
    /// Reads a note's descriptor.
    ///
    /// # Errors
    /// [`HistoryNoteError`].
    pub fn read(descriptor: &'a [u8]) -> Result<Self, HistoryNoteError> {
        let found = descriptor.len();
        let Some(front) = descriptor.first_chunk::<FRONT>() else {
            return Err(HistoryNoteError::Short { needed: FRONT as u64, found });
        };
        let u64_at = |at: usize| {
            let bytes = front.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let (version, size) = (u64_at(0) as u16, (u64_at(0) >> 16) as u16);
        if version != VERSION {
            return Err(HistoryNoteError::Version(version));
        }
        if usize::from(size) < ENTRY_BYTES {
            return Err(HistoryNoteError::EntrySize(size));
        }
        let count = u64_at(0) >> 32;
        // Both factors have at most 32 bits.
        let needed = FRONT as u64 + count * u64::from(size);
        let entries = usize::try_from(needed).ok().and_then(|needed| descriptor.get(FRONT..needed));
        Ok(Self {
            crash_ns: u64_at(8),
            gone: u64_at(16),
            entries: entries.ok_or(HistoryNoteError::Short { needed, found })?,
            entry_size: size.into(),
        })
    }

    /// Returns the entries, oldest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = HistoryEntry> + 'a {
        self.entries.chunks_exact(self.entry_size).map(|bytes| {
            let mut entry = [0; ENTRY_BYTES];
            entry.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
            HistoryEntry::decode(&entry)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::history::{self, HistoryKind};
    use crate::partition_id::PartitionId;

    fn sample() -> (LatestEntries<NOTE_ENTRIES>, Vec<u8>) {
        history::record_partition(PartitionId::new(3), HistoryKind::GuestEntered, 0, [1, 0]);
        history::record_machine(HistoryKind::DiskWrittenOff, 2, [4, 0]);
        history::record_partition(PartitionId::new(3), HistoryKind::Crashed, 1, [1, 0]);
        let entries = history::of_partition(PartitionId::new(3));
        let mut note = vec![0xff; note_size(3)];
        write(&mut note, 77, &entries);
        (entries, note)
    }

    #[test]
    fn a_note_has_name_type_and_entries_where_readers_look() {
        let (entries, note) = sample();
        assert_eq!(note[..12], [9, 0, 0, 0, 120, 0, 0, 0, 1, 0, 0x50, 0x54]);
        assert_eq!(&note[12..24], b"TIDEPOOL\0\0\0\0");
        assert_eq!(note[24..32], [1, 0, 32, 0, 3, 0, 0, 0]);
        let read = HistoryNote::read(&note[24..]).unwrap();
        assert_eq!((read.crash_ns, read.gone), (77, 0));
        assert!(read.entries().eq(entries.iter().copied()));
        assert_eq!(read.entries().len(), 3);
    }

    #[test]
    fn the_largest_note_is_far_from_filling_its_room() {
        assert!(note_size(NOTE_ENTRIES) < 4096);
    }

    #[test]
    fn every_cut_is_reported() {
        let (_, note) = sample();
        let descriptor = &note[24..];
        for len in 0..descriptor.len() {
            let needed = if len < FRONT { FRONT } else { descriptor.len() } as u64;
            let error = HistoryNote::read(&descriptor[..len]).unwrap_err();
            assert_eq!(error, HistoryNoteError::Short { needed, found: len });
        }
    }

    #[test]
    fn other_versions_are_refused_and_longer_entries_are_read() {
        let (_, note) = sample();
        let with = |at: usize, byte: u8| {
            let mut descriptor = note[24..].to_vec();
            descriptor[at] = byte;
            descriptor
        };
        assert_eq!(HistoryNote::read(&with(0, 2)), Err(HistoryNoteError::Version(2)));
        assert_eq!(HistoryNote::read(&with(2, 31)), Err(HistoryNoteError::EntrySize(31)));
        let huge = [&[1, 0, 32, 0, 255, 255, 255, 255][..], &[0; 16]].concat();
        let needed = FRONT as u64 + 32 * 0xffff_ffff;
        let error = HistoryNote::read(&huge).unwrap_err();
        assert_eq!(error, HistoryNoteError::Short { needed, found: 24 });
        let mut longer = note[24..48].to_vec();
        longer[2] = 40;
        for entry in note[48..].chunks(32) {
            longer.extend_from_slice(entry);
            longer.extend_from_slice(&[0xee; 8]);
        }
        let (longer, plain) = (HistoryNote::read(&longer).unwrap(), HistoryNote::read(&note[24..]));
        assert!(longer.entries().eq(plain.unwrap().entries()));
    }
}
