//! The two copies of the record: a torn write leaves the other one whole.
//!
//! ```text
//!   end - 8 KiB   A   even sequence numbers
//!   end - 4 KiB   B   odd sequence numbers
//! ```
//!
//! So the next record always replaces the older copy, and nobody has to remember which that is.

use super::layout::{RECORD_SIZE, usable};
use super::record::{Record, RecordError};
use crate::block::SectorRange;
use crate::block::request::SECTOR_SIZE;

/// Bytes of both copies, the last of a device.
pub const TAIL_LEN: usize = 2 * RECORD_SIZE as usize;

/// One of the two copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

impl Side {
    /// Returns where the record with this sequence number lies.
    pub const fn of(sequence: u64) -> Self {
        if sequence.is_multiple_of(2) { Self::A } else { Self::B }
    }

    /// Returns its offset in the tail.
    pub const fn offset_in_tail(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => RECORD_SIZE as usize,
        }
    }

    /// Returns its first byte on a device of `capacity` bytes, or `None` if that is too small for records.
    pub const fn start(self, capacity: u64) -> Option<u64> {
        match usable(capacity).checked_sub(TAIL_LEN as u64) {
            Some(tail) => Some(tail + self.offset_in_tail() as u64),
            None => None,
        }
    }

    /// Returns its sectors.
    pub const fn sectors(self, capacity: u64) -> Option<SectorRange> {
        match self.start(capacity) {
            Some(start) => Some(SectorRange { first: start / SECTOR_SIZE, count: RECORD_SIZE / SECTOR_SIZE }),
            None => None,
        }
    }

    /// Returns its bytes within the tail.
    fn bytes(self, tail: &[u8; TAIL_LEN]) -> &[u8; RECORD_SIZE as usize] {
        let (a, b) = tail.split_first_chunk().expect("the tail holds two records");
        match self {
            Self::A => a,
            Self::B => b.first_chunk().expect("the tail holds two records"),
        }
    }

    /// Decodes the copy, if it is one that belongs here.
    fn decode(self, tail: &[u8; TAIL_LEN], capacity: u64) -> Result<Record, RecordError> {
        let record = Record::decode(self.bytes(tail), capacity)?;
        if Self::of(record.sequence) == self { Ok(record) } else { Err(RecordError::Field("sequence")) }
    }
}

/// Decodes the newest valid record of a device of `capacity` bytes from its last 8 KiB.
///
/// # Errors
/// Where neither copy is valid, the faults of both.
pub fn newest(tail: &[u8; TAIL_LEN], capacity: u64) -> Result<Record, [RecordError; 2]> {
    match (Side::A.decode(tail, capacity), Side::B.decode(tail, capacity)) {
        (Ok(a), Ok(b)) => Ok(if a.sequence > b.sequence { a } else { b }),
        (Ok(record), Err(_)) | (Err(_), Ok(record)) => Ok(record),
        (Err(a), Err(b)) => Err([a, b]),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::paging::space::{Residue, Uuid};

    pub const CAPACITY: u64 = 16 << 20;

    pub fn record(sequence: u64) -> Record {
        Record { sequence, ..Record::free(CAPACITY, Uuid::from_entropy(1, 1), Residue::Clean) }
    }

    pub fn put(tail: &mut [u8; TAIL_LEN], record: &Record) {
        let at = Side::of(record.sequence).offset_in_tail();
        tail[at..at + 4096].copy_from_slice(&record.encode());
    }

    #[test]
    fn successive_records_never_overwrite_the_newest() {
        let mut tail = [0; TAIL_LEN];
        for sequence in 1..6 {
            put(&mut tail, &record(sequence));
            assert_eq!(newest(&tail, CAPACITY).unwrap().sequence, sequence);
        }
    }

    #[test]
    fn a_torn_write_leaves_the_record_before() {
        let mut tail = [0; TAIL_LEN];
        put(&mut tail, &record(7));
        put(&mut tail, &record(8));
        tail[Side::A.offset_in_tail() + 512..][..3000].fill(0xee);
        assert_eq!(newest(&tail, CAPACITY).unwrap().sequence, 7);
    }

    #[test]
    fn two_bad_copies_name_both_faults() {
        let mut tail = [0; TAIL_LEN];
        put(&mut tail, &record(8));
        tail[100] ^= 1;
        let faults = newest(&tail, CAPACITY).unwrap_err();
        assert!(matches!(faults, [RecordError::Checksum { .. }, RecordError::Magic]));
    }

    #[test]
    fn a_record_on_the_wrong_side_does_not_count() {
        let mut tail = [0; TAIL_LEN];
        tail[..4096].copy_from_slice(&record(9).encode());
        assert_eq!(newest(&tail, CAPACITY), Err([RecordError::Field("sequence"), RecordError::Magic]));
    }

    #[test]
    fn copies_lie_in_the_last_whole_pages() {
        assert_eq!(Side::A.start(CAPACITY + 512), Some(CAPACITY - 8192));
        assert_eq!(Side::B.sectors(CAPACITY), Some(SectorRange { first: (CAPACITY - 4096) / 512, count: 8 }));
        assert_eq!(Side::A.start(8191), None);
    }
}
