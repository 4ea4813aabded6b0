//! The 4,096 bytes of a record, field by field. `docs/on-disk-format.md` has the same table.
//!
//! All numbers are little-endian, and every type has alignment 1. So there is no padding, and no
//! byte order depends on the host. Values are not checked here but in [`super::record`].

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of a record.
pub const MAGIC: [u8; 8] = *b"TIDEPOOL";
/// Version of this layout. A reader refuses any other.
pub const VERSION: u32 = 1;
/// Most RAM ranges.
pub const MAX_RANGES: usize = 8;
/// Bytes of a partition's name.
pub const NAME_LEN: usize = 64;
/// Bytes of a crash's description.
pub const TEXT_LEN: usize = 128;
/// Bytes of the notes with a vCPU's registers at its crash.
pub const REGISTERS_LEN: usize = 1024;
/// Most ranges of missing pages.
pub const MAX_MISSING: usize = 64;
/// Bit of `features_required`: the fields from byte 508 on count, and the state may be CRASHED.
pub const FEATURE_EXTENDED: u64 = 1 << 0;
/// Bit of `features_required`: the state is SUSPENDED, and the checksums at 2080 count.
pub const FEATURE_SUSPENDED: u64 = 1 << 1;
/// Bit of `features_required`: the state is SEALED, and the checksums at 2080 count.
pub const FEATURE_SEALED: u64 = 1 << 2;
/// Bit of `features_required`: the fields from byte 2092 on count. Pages without a bit may be those
/// of the base that is named there.
pub const FEATURE_BASE: u64 = 1 << 3;
/// Bit of `features_required`: the space belongs to the cluster that is named at byte 2120; only
/// its members write to the space.
pub const FEATURE_CLUSTER: u64 = 1 << 4;
/// Bytes that the checksum covers: all before it.
pub const CHECKED_LEN: usize = offset_of!(RawRecord, crc32c);

/// One range of RAM.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawRange {
    /// First guest page number.
    pub first_gfn: U64,
    /// Pages.
    pub pages: U64,
}

/// Neighbouring pages that are missing from a dump.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawMissing {
    /// First page.
    pub first: U32,
    /// Pages.
    pub count: U32,
}

/// A record.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "the names are those of `Record`, the text is in docs/on-disk-format.md"
)]
pub struct RawRecord {
    pub magic: [u8; 8],
    pub version: U32,
    pub record_size: U32,
    /// A reader that does not know one of these bits must not touch the space.
    pub features_required: U64,
    /// A reader may ignore these.
    pub features_optional: U64,
    pub space_uuid: [u8; 16],
    pub sequence: U64,
    pub state: U32,
    pub residue: U32,
    pub epoch: U64,
    pub owner_uuid: [u8; 16],
    pub owner_node: [u8; 16],
    pub owner_name: [u8; NAME_LEN],

    pub capacity: U64,
    pub pages: U32,
    pub page_size: U32,
    pub notes_start: U64,
    pub bitmap_start: U64,
    pub checksums_start: U64,
    pub data_start: U64,

    pub drain_progress: U32,
    pub program_headers: U32,
    pub notes_len: U32,
    pub ranges_count: U32,
    pub ranges: [RawRange; MAX_RANGES],

    pub crash_reason: U32,
    pub crash_detail: U32,
    pub crash_time_ns: U64,
    pub crash_text: [u8; TEXT_LEN],

    /// Other spaces of the same partition; none yet.
    pub members_count: U32,

    // With `FEATURE_EXTENDED` only.
    pub dump_uuid: [u8; 16],
    /// The whole `crash_detail`, whose own field holds the lower half.
    pub crash_detail_64: U64,
    pub partial_cause: U32,
    pub registers_len: U32,
    pub registers: [u8; REGISTERS_LEN],
    pub missing_count: U32,
    pub missing: [RawMissing; MAX_MISSING],
    // With `FEATURE_SUSPENDED` or `FEATURE_SEALED` only.
    pub notes_crc32c: U32,
    pub bitmap_crc32c: U32,
    pub checksums_crc32c: U32,
    // With `FEATURE_BASE` only.
    pub base_dump_uuid: [u8; 16],
    pub base_generation: U64,
    pub base_own_pages: U32,
    // With `FEATURE_CLUSTER` only.
    pub cluster_uuid: [u8; 16],
    pub reserved: [u8; 1956],
    pub crc32c: U32,
}

const _: () = {
    assert!(size_of::<RawRecord>() == 4096);
    assert!(offset_of!(RawRecord, features_required) == 16);
    assert!(offset_of!(RawRecord, space_uuid) == 32);
    assert!(offset_of!(RawRecord, sequence) == 48);
    assert!(offset_of!(RawRecord, state) == 56);
    assert!(offset_of!(RawRecord, epoch) == 64);
    assert!(offset_of!(RawRecord, owner_uuid) == 72);
    assert!(offset_of!(RawRecord, owner_node) == 88);
    assert!(offset_of!(RawRecord, owner_name) == 104);
    assert!(offset_of!(RawRecord, capacity) == 168);
    assert!(offset_of!(RawRecord, pages) == 176);
    assert!(offset_of!(RawRecord, notes_start) == 184);
    assert!(offset_of!(RawRecord, data_start) == 208);
    assert!(offset_of!(RawRecord, drain_progress) == 216);
    assert!(offset_of!(RawRecord, ranges) == 232);
    assert!(offset_of!(RawRecord, crash_reason) == 360);
    assert!(offset_of!(RawRecord, crash_text) == 376);
    assert!(offset_of!(RawRecord, members_count) == 504);
    assert!(offset_of!(RawRecord, dump_uuid) == 508);
    assert!(offset_of!(RawRecord, crash_detail_64) == 524);
    assert!(offset_of!(RawRecord, partial_cause) == 532);
    assert!(offset_of!(RawRecord, registers_len) == 536);
    assert!(offset_of!(RawRecord, registers) == 540);
    assert!(offset_of!(RawRecord, missing_count) == 1564);
    assert!(offset_of!(RawRecord, missing) == 1568);
    assert!(offset_of!(RawRecord, notes_crc32c) == 2080);
    assert!(offset_of!(RawRecord, base_dump_uuid) == 2092);
    assert!(offset_of!(RawRecord, base_generation) == 2108);
    assert!(offset_of!(RawRecord, base_own_pages) == 2116);
    assert!(offset_of!(RawRecord, cluster_uuid) == 2120);
    assert!(offset_of!(RawRecord, reserved) == 2136);
    assert!(offset_of!(RawRecord, crc32c) == 4092);
};

impl RawRecord {
    /// Makes a record of zeros.
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }
}

/// Writes `text` zero-padded into `field`, truncated at a character boundary.
pub fn put_text<const N: usize>(field: &mut [u8; N], text: &str) {
    let mut len = text.len().min(N);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    *field = [0; N];
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
}

/// Reads a zero-padded text; `None` if it is not UTF-8 or has nonzero bytes after its end.
pub fn get_text(field: &[u8]) -> Option<&str> {
    let len = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    let (text, padding) = field.split_at(len);
    if padding.iter().any(|b| *b != 0) {
        return None;
    }
    core::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_a_character() {
        let mut field = [0xff; 4];
        put_text(&mut field, "abcdé");
        assert_eq!(get_text(&field), Some("abcd"));
        put_text(&mut field, "abcé");
        assert_eq!((get_text(&field), field), (Some("abc"), *b"abc\0"));
    }

    #[test]
    fn text_with_rubbish_behind_its_end_is_refused() {
        assert_eq!(get_text(b"a\0b\0"), None);
        assert_eq!(get_text(b"\xff\0"), None);
        assert_eq!(get_text(b"\0\0"), Some(""));
    }
}
