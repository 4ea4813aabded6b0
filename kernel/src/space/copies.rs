//! The two copies of the record: a torn write leaves the other one whole.
//!
//! ```text
//!   end - 8 KiB   A   even sequence numbers
//!   end - 4 KiB   B   odd sequence numbers
//! ```
//!
//! The next record always replaces the older copy, so the position follows from the sequence number
//! alone.

use super::codec::has_checksum;
use super::layout::{RECORD_SIZE, usable};
use super::record::{RecordError, SpaceRecord};
use crate::block::SectorRange;
use crate::block::request::SECTOR_SIZE;

/// Bytes of both copies: the last ones of a device.
pub const TAIL_LEN: usize = 2 * RECORD_SIZE as usize;

/// A record's sequence number: the epoch of its writer's claim above a 32-bit counter.
///
/// So a record of an earlier owner is never the newest, however late it lands. The parity selects
/// the copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RecordSequence(pub u64);

impl RecordSequence {
    /// Returns the epoch of the owner that wrote the record; 0 for records of the first version.
    pub const fn epoch(self) -> u64 {
        self.0 >> 32
    }

    /// Returns the next number for an owner of `epoch`; it belongs to the other copy.
    #[must_use]
    pub const fn next(self, epoch: u64) -> Self {
        let next = self.0 + 1;
        let base = epoch << 32;
        if next >= base {
            return Self(next);
        }
        Self(base + next % 2)
    }
}

/// One of the two copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordSide {
    /// The first.
    A,
    /// The second.
    B,
}

impl core::fmt::Display for RecordSide {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

impl RecordSide {
    /// Returns the copy for a record with this sequence number.
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

    /// Returns its first byte on a device of `capacity` bytes, or `None` if the device is too small
    /// for records.
    pub const fn start(self, capacity: u64) -> Option<u64> {
        match usable(capacity).checked_sub(TAIL_LEN as u64) {
            Some(tail) => Some(tail + self.offset_in_tail() as u64),
            None => None,
        }
    }

    /// Returns its sectors.
    pub const fn sectors(self, capacity: u64) -> Option<SectorRange> {
        match self.start(capacity) {
            Some(start) => {
                Some(SectorRange { first: start / SECTOR_SIZE, count: RECORD_SIZE / SECTOR_SIZE })
            }
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

    /// Decodes the copy, if its sequence number belongs on this side.
    fn decode(self, tail: &[u8; TAIL_LEN], capacity: u64) -> Result<SpaceRecord, RecordError> {
        let record = SpaceRecord::decode(self.bytes(tail), capacity)?;
        if Self::of(record.sequence) == self {
            Ok(record)
        } else {
            Err(RecordError::Field("sequence"))
        }
    }
}

/// Decodes both copies, each by itself.
pub fn copies(tail: &[u8; TAIL_LEN], capacity: u64) -> [Result<SpaceRecord, RecordError>; 2] {
    [RecordSide::A, RecordSide::B].map(|side| side.decode(tail, capacity))
}

/// Why a device has no usable record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopiesError {
    /// At least one copy was written by a newer program, so the other one is out of date.
    Newer(RecordError),
    /// Neither copy is valid: the faults of A and B.
    Damaged([RecordError; 2]),
}

/// Decodes the newest valid record of a device of `capacity` bytes from its last 8 KiB.
///
/// # Errors
/// [`CopiesError`] if no copy is usable.
pub fn newest(tail: &[u8; TAIL_LEN], capacity: u64) -> Result<SpaceRecord, CopiesError> {
    match (RecordSide::A.decode(tail, capacity), RecordSide::B.decode(tail, capacity)) {
        (Ok(a), Ok(b)) => Ok(if a.sequence > b.sequence { a } else { b }),
        (Ok(record), Err(error)) => beside(record, RecordSide::B, error, tail),
        (Err(error), Ok(record)) => beside(record, RecordSide::A, error, tail),
        (Err(a), Err(b)) => match [a, b].into_iter().find(|error| error.is_newer()) {
            Some(error) => Err(CopiesError::Newer(error)),
            None => Err(CopiesError::Damaged([a, b])),
        },
    }
}

/// Judges a valid record next to an invalid copy.
fn beside(
    record: SpaceRecord,
    other: RecordSide,
    error: RecordError,
    tail: &[u8; TAIL_LEN],
) -> Result<SpaceRecord, CopiesError> {
    // A newer version with a wrong checksum is just a damaged byte.
    match error.is_newer() && has_checksum(other.bytes(tail)) {
        true => Err(CopiesError::Newer(error)),
        false => Ok(record),
    }
}

/// Returns the copy that is damaged next to a valid one, by a torn write or by bit rot. A copy that
/// was never written is not damaged.
pub fn damaged_copy(tail: &[u8; TAIL_LEN], capacity: u64) -> Option<(RecordSide, RecordError)> {
    let [a, b] = [RecordSide::A, RecordSide::B].map(|side| side.decode(tail, capacity).err());
    let (side, error) = match (a, b) {
        (Some(error), None) => (RecordSide::A, error),
        (None, Some(error)) => (RecordSide::B, error),
        _ => return None,
    };
    let was_written = side.bytes(tail).iter().any(|byte| *byte != 0);
    was_written.then_some((side, error))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::space::{Residue, Uuid};

    pub(crate) const CAPACITY: u64 = 16 << 20;

    pub(crate) fn record(sequence: u64) -> SpaceRecord {
        SpaceRecord {
            sequence,
            ..SpaceRecord::free(CAPACITY, Uuid::from_entropy(1, 1), Residue::Clean)
        }
    }

    pub(crate) fn put(tail: &mut [u8; TAIL_LEN], record: &SpaceRecord) {
        let at = RecordSide::of(record.sequence).offset_in_tail();
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
    fn the_next_number_goes_to_the_other_copy_and_carries_the_epoch() {
        for last in [0, 1, 7, 8, (3 << 32) - 1, 3 << 32, (3 << 32) + 1, (5 << 32) + 4] {
            for epoch in [0, 1, 3, 4, 6] {
                let next = RecordSequence(last).next(epoch);
                assert_ne!(RecordSide::of(next.0), RecordSide::of(last), "{last:#x} {epoch}");
                assert!(next.0 > last && next.epoch() >= epoch, "{last:#x} {epoch}");
            }
        }
        assert_eq!(RecordSequence(7).next(3), RecordSequence(3 << 32));
    }

    #[test]
    fn a_torn_write_leaves_the_record_before() {
        let mut tail = [0; TAIL_LEN];
        put(&mut tail, &record(7));
        put(&mut tail, &record(8));
        tail[RecordSide::A.offset_in_tail() + 512..][..3000].fill(0xee);
        assert_eq!(newest(&tail, CAPACITY).unwrap().sequence, 7);
    }

    #[test]
    fn two_bad_copies_name_both_faults() {
        let mut tail = [0; TAIL_LEN];
        put(&mut tail, &record(8));
        tail[100] ^= 1;
        let faults = newest(&tail, CAPACITY).unwrap_err();
        let CopiesError::Damaged(faults) = faults else { panic!("{faults:?}") };
        assert!(matches!(faults, [RecordError::Checksum { .. }, RecordError::Magic]));
    }

    /// Puts a record of version 2, or of version 1 with an unknown feature bit.
    fn put_newer(tail: &mut [u8; TAIL_LEN], sequence: u64, version: u8, features: u8) {
        let mut bytes = record(sequence).encode();
        (bytes[8], bytes[16]) = (version, features);
        let crc = crate::mm::crc::crc32c(&bytes[..4092]).0;
        bytes[4092..].copy_from_slice(&crc.to_le_bytes());
        tail[RecordSide::of(sequence).offset_in_tail()..][..4096].copy_from_slice(&bytes);
    }

    #[test]
    fn a_newer_copy_makes_the_one_that_can_be_read_worthless() {
        for (version, features, fault) in
            [(2, 0, RecordError::Version(2)), (1, 33, RecordError::Features(32))]
        {
            for newer in [7, 8] {
                let mut tail = [0; TAIL_LEN];
                put(&mut tail, &record(15 - newer));
                put_newer(&mut tail, newer, version, features);
                assert_eq!(newest(&tail, CAPACITY), Err(CopiesError::Newer(fault)));
                tail[RecordSide::of(15 - newer).offset_in_tail()] ^= 1;
                assert_eq!(
                    newest(&tail, CAPACITY),
                    Err(CopiesError::Newer(fault)),
                    "beside a damaged one"
                );
            }
        }
    }

    #[test]
    fn a_damaged_version_is_no_newer_program() {
        let mut tail = [0; TAIL_LEN];
        put(&mut tail, &record(7));
        put(&mut tail, &record(8));
        tail[RecordSide::A.offset_in_tail() + 8] = 2;
        assert_eq!(newest(&tail, CAPACITY).unwrap().sequence, 7);
        assert_eq!(damaged_copy(&tail, CAPACITY), Some((RecordSide::A, RecordError::Version(2))));
        put_newer(&mut tail, 8, 0, 1);
        assert_eq!(newest(&tail, CAPACITY).unwrap().sequence, 7, "there was no version 0");
    }

    #[test]
    fn a_damaged_copy_is_told_and_one_that_was_never_written_is_not() {
        let mut tail = [0; TAIL_LEN];
        put(&mut tail, &record(1));
        assert_eq!(damaged_copy(&tail, CAPACITY), None);
        put(&mut tail, &record(2));
        assert_eq!(damaged_copy(&tail, CAPACITY), None);
        tail[RecordSide::B.offset_in_tail() + 500] ^= 1;
        assert!(matches!(
            damaged_copy(&tail, CAPACITY),
            Some((RecordSide::B, RecordError::Checksum { .. }))
        ));
        tail[RecordSide::A.offset_in_tail() + 500] ^= 1;
        assert_eq!(damaged_copy(&tail, CAPACITY), None, "both are: no space at all");
    }

    #[test]
    fn a_record_on_the_wrong_side_does_not_count() {
        let mut tail = [0; TAIL_LEN];
        tail[..4096].copy_from_slice(&record(9).encode());
        assert_eq!(
            newest(&tail, CAPACITY),
            Err(CopiesError::Damaged([RecordError::Field("sequence"), RecordError::Magic]))
        );
    }

    #[test]
    fn copies_lie_in_the_last_whole_pages() {
        assert_eq!(RecordSide::A.start(CAPACITY + 512), Some(CAPACITY - 8192));
        assert_eq!(
            RecordSide::B.sectors(CAPACITY),
            Some(SectorRange { first: (CAPACITY - 4096) / 512, count: 8 })
        );
        assert_eq!(RecordSide::A.start(8191), None);
    }
}
