//! Classifies a device's content by the bytes at both ends, so that foreign data is never
//! overwritten.
//!
//! ```text
//!   record magic at the end? ── yes ─> a valid copy? ── no ──> Damaged, or Newer: never touched
//!            │ no                          │ yes
//!            v                             v
//!   all zeros at both ends?            head foreign? ── yes ─> Foreign: reformatted
//!     yes ─> Blank, no ─> Foreign          │ no
//!                                          v
//!                                        Space
//! ```
//!
//! A first format that was interrupted leaves a part of a FREE record and zeros: that is Blank too.
//! Before a blank disk is formatted, the [places](super::places) where foreign data may lie are
//! read too.

use super::copies::{CopiesError, RecordSide, TAIL_LEN, newest};
use super::raw::{CHECKED_LEN, FEATURE_CLUSTER, MAGIC, RawRecord};
use super::record::{RecordError, SpaceRecord};
use super::state::SpaceState;
use super::uuid::Uuid;
use core::ops::Range;

/// Bytes that are examined at the start of a device: up to the last well-known signature.
pub const HEAD_LEN: usize = 72 << 10;

/// Content of a device.
#[expect(
    clippy::large_enum_variant,
    reason = "few exist, only at start-up, so boxing gains nothing"
)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceContent {
    /// Zeros at both ends: unused; may be formatted.
    Blank,
    /// Foreign data. Never overwritten without an explicit format.
    Foreign(ForeignData),
    /// A space.
    Space(SpaceRecord),
    /// A space of a cluster that the reader does not take part in. Only its members write to it.
    Closed(ClosedSpace),
    /// A space of a newer program. Never touched without an explicit format.
    Newer(RecordError),
    /// A space whose record cannot be trusted. Never touched without an explicit format.
    Damaged(RecordDamage),
}

/// A space that only the members of a cluster may write to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClosedSpace {
    /// The cluster.
    pub cluster: Uuid,
    /// The space's name.
    pub space: Uuid,
}

/// Kind of foreign data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForeignData {
    /// Data with a well-known signature.
    Known(&'static str),
    /// Nonzero bytes without a known signature.
    Unknown,
    /// The first nonzero byte of a device whose ends are zeros.
    At(u64),
    /// A device too small for two records.
    TooSmall,
}

/// Faults of the two copies of the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordDamage {
    /// Copy A's fault.
    pub a: RecordError,
    /// Copy B's fault.
    pub b: RecordError,
}

impl core::fmt::Display for ForeignData {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Known(name) => write!(f, "{name}"),
            Self::Unknown => write!(f, "data of unknown format"),
            Self::At(byte) => write!(f, "data of unknown format at byte {byte}"),
            Self::TooSmall => write!(f, "less than 8 KiB"),
        }
    }
}

impl core::fmt::Display for RecordDamage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "copy A: {}; copy B: {}", self.a, self.b)
    }
}

/// Signatures: offset, bytes, description.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"\x7fELF", "an ELF file"),
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"XFSB", "an XFS file system"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0, b"hsqs", "a SquashFS file system"),
    (0, b"KDUMP   ", "a kdump-compressed dump"),
    (0, b"makedumpfile\0", "a flattened makedumpfile dump"),
    (0, b"TIDEIMGS", "a Tidepool image store"),
    (0, b"TIDECLUS", "a Tidepool cluster area"),
    (3, b"NTFS    ", "an NTFS file system"),
    (512, b"EFI PART", "a GPT partition table"),
    (536, b"LVM2 001", "an LVM physical volume"),
    (0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "a Linux RAID member"),
    (0xff6, b"SWAPSPACE2", "Linux swap"),
    (0xff6, b"SWAP-SPACE", "Linux swap"),
    (0x8001, b"CD001", "an ISO 9660 image"),
    (0x10040, b"_BHRfS_M", "a Btrfs file system"),
    (510, b"\x55\xaa", "an MBR partition table or boot sector"),
];

/// Bytes of a record with the name of a cluster.
const CLUSTER: Range<usize> = {
    let start = core::mem::offset_of!(RawRecord, cluster_uuid);
    start..start + size_of::<Uuid>()
};

/// Byte of a record with the lowest required features.
const FEATURES: usize = core::mem::offset_of!(RawRecord, features_required);

const ELF_MAGIC: &[u8] = b"\x7fELF";

/// Classifies a device of `capacity` bytes that starts with `head` and ends with `tail`.
///
/// `head` is the first [`HEAD_LEN`] bytes, or the whole device if it is shorter; `tail` is the
/// content of [`RecordSide::A`] and [`RecordSide::B`].
pub fn classify(head: &[u8], tail: &[u8; TAIL_LEN], capacity: u64) -> DeviceContent {
    if is_half_formatted(head, tail) {
        return DeviceContent::Blank;
    }
    let has_magic = |side: RecordSide| tail[side.offset_in_tail()..].starts_with(&MAGIC);
    if !has_magic(RecordSide::A) && !has_magic(RecordSide::B) {
        return without_record(head, tail);
    }
    match newest(tail, capacity) {
        Err(CopiesError::Newer(error)) => DeviceContent::Newer(error),
        Err(CopiesError::Damaged([a, b])) => DeviceContent::Damaged(RecordDamage { a, b }),
        // An ELF head is the space's own dump, whose program headers may contain any bytes. So only
        // other heads are compared with the signatures.
        Ok(record) if head.starts_with(ELF_MAGIC) => DeviceContent::Space(record),
        Ok(record) => match known(head) {
            Some(name) => DeviceContent::Foreign(ForeignData::Known(name)),
            None => DeviceContent::Space(record),
        },
    }
}

fn without_record(head: &[u8], tail: &[u8; TAIL_LEN]) -> DeviceContent {
    if let Some(name) = known(head) {
        return DeviceContent::Foreign(ForeignData::Known(name));
    }
    let blank = head.iter().chain(tail).all(|byte| *byte == 0);
    if blank { DeviceContent::Blank } else { DeviceContent::Foreign(ForeignData::Unknown) }
}

/// Returns whether a first format was interrupted: one copy holds some of the sectors of a FREE
/// record, and all other bytes are zeros.
fn is_half_formatted(head: &[u8], tail: &[u8; TAIL_LEN]) -> bool {
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let (a, b) = tail.split_at(TAIL_LEN / 2);
    let torn = match (is_zero(a), is_zero(b)) {
        (false, true) => a,
        (true, false) => b,
        _ => return false,
    };
    is_zero(head) && is_torn_free_record(torn)
}

/// Returns whether a copy holds a part of a FREE record. A FREE record has data only in its first
/// sector, in the checksum in its last, and in a cluster's name; a torn one lacks a sector. A
/// checksum rarely has two zero bytes, and a disk that ends in one odd byte must not match.
fn is_torn_free_record(copy: &[u8]) -> bool {
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let (first, checksum) = (&copy[..512], &copy[CHECKED_LEN..]);
    let (cluster, rest) = (&copy[CLUSTER], [512..CLUSTER.start, CLUSTER.end..CHECKED_LEN]);
    let is_first = first.starts_with(&MAGIC) && is_free(first) && is_zero(checksum);
    let is_last = is_zero(first) && checksum.iter().filter(|byte| **byte == 0).count() <= 1;
    let is_middle = is_zero(first) && is_zero(checksum) && is_random_name(cluster);
    let lacks_name = first.starts_with(&MAGIC) && is_free(first) && is_zero(cluster);
    let is_without = lacks_name && u64::from(first[FEATURES]) & FEATURE_CLUSTER != 0;
    rest.into_iter().all(|range| is_zero(&copy[range]))
        && (is_first || is_last || is_middle || is_without)
}

/// Returns whether 16 bytes have the form of a name that is made at random.
fn is_random_name(bytes: &[u8]) -> bool {
    bytes[6] & 0xf0 == 0x80 && bytes[8] & 0xc0 == 0x80
}

/// Returns whether the first sector of a record is FREE and clean, with no owner and no contents.
fn is_free(first: &[u8]) -> bool {
    let number = |at: usize| u32::from_le_bytes(core::array::from_fn(|n| first[at + n]));
    let is_zero = |range: core::ops::Range<usize>| first[range].iter().all(|byte| *byte == 0);
    number(56) == SpaceState::Free as u32
        && is_zero(60..168)
        && is_zero(176..180)
        && is_zero(184..512)
}

fn known(head: &[u8]) -> Option<&'static str> {
    let matches = |(at, bytes, _): &&(usize, &[u8], &str)| {
        head.get(*at..).is_some_and(|rest| rest.starts_with(bytes))
    };
    SIGNATURES.iter().find(matches).map(|(.., name)| *name)
}

#[cfg(test)]
mod tests {
    use super::super::copies::tests::{CAPACITY, put, record};
    use super::*;

    fn head() -> Vec<u8> {
        vec![0; HEAD_LEN]
    }

    #[test]
    fn zeros_at_both_ends_are_blank_and_any_other_byte_is_foreign() {
        assert_eq!(classify(&head(), &[0; TAIL_LEN], CAPACITY), DeviceContent::Blank);
        let mut h = head();
        h[HEAD_LEN - 1] = 1;
        assert_eq!(
            classify(&h, &[0; TAIL_LEN], CAPACITY),
            DeviceContent::Foreign(ForeignData::Unknown)
        );
        let mut t = [0; TAIL_LEN];
        t[TAIL_LEN - 1] = 1;
        assert_eq!(classify(&head(), &t, CAPACITY), DeviceContent::Foreign(ForeignData::Unknown));
    }

    #[test]
    fn every_signature_is_found_in_what_is_looked_at() {
        for (at, bytes, name) in SIGNATURES {
            let mut h = head();
            h[*at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(
                classify(&h, &[0; TAIL_LEN], CAPACITY),
                DeviceContent::Foreign(ForeignData::Known(name))
            );
        }
    }

    #[test]
    fn a_space_that_somebody_reformatted_is_foreign_again() {
        let mut tail = [0; TAIL_LEN];
        put(&mut tail, &record(4));
        assert_eq!(classify(&head(), &tail, CAPACITY), DeviceContent::Space(record(4)));
        let mut h = head();
        h[0x438..0x43a].copy_from_slice(b"\x53\xef");
        assert_eq!(
            classify(&h, &tail, CAPACITY),
            DeviceContent::Foreign(ForeignData::Known("an ext2, ext3 or ext4 file system"))
        );
    }

    #[test]
    fn a_dump_is_a_space_whatever_its_program_headers_look_like() {
        let mut tail = [0; TAIL_LEN];
        put(&mut tail, &record(4));
        let mut h = head();
        h[..4].copy_from_slice(ELF_MAGIC);
        h[510..512].copy_from_slice(b"\x55\xaa");
        assert_eq!(classify(&h, &tail, CAPACITY), DeviceContent::Space(record(4)));
    }

    /// Every subset of the sectors of the first record, on a disk of zeros.
    fn every_torn_format(first: &SpaceRecord, data: u32) {
        let whole = first.encode();
        for landed in 0..256_u32 {
            let mut tail = [0; TAIL_LEN];
            for sector in (0..8).filter(|n| landed & 1 << n != 0) {
                tail[sector * 512..][..512].copy_from_slice(&whole[sector * 512..][..512]);
            }
            let class = classify(&head(), &tail, CAPACITY);
            let is_whole = landed & data == data;
            let expected =
                if is_whole { DeviceContent::Space(first.clone()) } else { DeviceContent::Blank };
            assert_eq!(class, expected, "{landed:#b}");
        }
    }

    #[test]
    fn a_first_format_that_was_torn_is_blank_or_done() {
        every_torn_format(&record(2), 0x81);
        let cluster = Some(Uuid::from_entropy(0x1234_5678, 0x9abc_def0));
        every_torn_format(&SpaceRecord { cluster, ..record(2) }, 0x91);
    }

    #[test]
    fn a_torn_record_beside_anything_else_is_no_blank_disk() {
        let whole = record(2).encode();
        let mut tail = [0; TAIL_LEN];
        tail[..512].copy_from_slice(&whole[..512]);
        let mut h = head();
        h[70_000] = 1;
        assert!(matches!(classify(&h, &tail, CAPACITY), DeviceContent::Damaged(_)));
        let mut other = tail;
        other[5000] = 1;
        assert!(matches!(classify(&head(), &other, CAPACITY), DeviceContent::Damaged(_)));
        let mut owned = tail;
        owned[72] = 1;
        assert!(matches!(classify(&head(), &owned, CAPACITY), DeviceContent::Damaged(_)));
        tail[200] = 1;
        assert!(matches!(classify(&head(), &tail, CAPACITY), DeviceContent::Damaged(_)));
    }

    #[test]
    fn a_bad_checksum_is_damage_and_says_so() {
        let mut tail = [0; TAIL_LEN];
        put(&mut tail, &record(4));
        tail[200] ^= 1;
        let DeviceContent::Damaged(damage) = classify(&head(), &tail, CAPACITY) else {
            panic!("trusted a bad record")
        };
        assert!(damage.to_string().starts_with("copy A: record CRC32C is 0x"), "{damage}");
    }

    #[test]
    fn a_head_shorter_than_the_signatures_is_no_panic() {
        assert_eq!(classify(&[0; 512], &[0; TAIL_LEN], 512 + 8192), DeviceContent::Blank);
    }
}
