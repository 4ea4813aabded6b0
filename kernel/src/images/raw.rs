//! The structures of a store byte by byte. `docs/on-disk-format.md` has the same tables.
//!
//! All numbers are little-endian, and every type has alignment 1. Every version keeps magic,
//! version, required features and checksum at their places, so a newer structure is recognised and
//! a damaged version is not taken for a newer one.

use super::error::StoreFault;
use super::units::{BLOCK, MAX_IMAGES, SUMS_A_BLOCK};
use crate::mm::crc::crc32c;
use crate::space::Uuid;
use core::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of all structures.
pub(super) const VERSION: u32 = 1;
/// Required features that this program knows: none yet.
pub(super) const KNOWN_FEATURES: u64 = 0;
/// Bytes of an entry of the directory.
pub(super) const ENTRY_LEN: usize = size_of::<RawStoreEntry>();
/// Most extents of an image.
pub(super) const MAX_EXTENTS: usize = 8;
/// Bytes of an image's label.
pub(super) const LABEL_LEN: usize = 64;
/// Bytes of a partition's name.
pub(super) const NAME_LEN: usize = 32;
/// Most bytes of a definition.
pub(super) const DEFINITION_LEN: usize = 3884;

pub(super) const SUPERBLOCK_MAGIC: [u8; 8] = *b"TIDEIMGS";
pub(super) const DIRECTORY_MAGIC: [u8; 8] = *b"TIDEIDIR";
pub(super) const SLOT_MAGIC: [u8; 8] = *b"TIDEDEFN";
pub(super) const SUMS_MAGIC: [u8; 8] = *b"TIDESUMS";

/// The first bytes of every structure.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawStoreHead {
    pub magic: [u8; 8],
    pub version: U32,
    pub size: U32,
    pub features_required: U64,
    pub features_optional: U64,
    pub store: [u8; 16],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawStoreSuperblock {
    pub head: RawStoreHead,
    pub blocks: U64,
    pub slots: U32,
    pub chunk: U32,
    pub created_ns: U64,
    pub zeros: [u8; 4020],
    pub crc32c: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawDirectoryHeader {
    pub head: RawStoreHead,
    pub sequence: U64,
    pub writer: [u8; 16],
    pub written_ns: U64,
    pub count: U32,
    pub entries_crc32c: U32,
    pub zeros: [u8; 4004],
    pub crc32c: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawImageExtent {
    pub first: U32,
    pub count: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawStoreEntry {
    pub digest: [u8; 32],
    pub length: U64,
    pub kind: U32,
    pub state: U32,
    pub extents_count: U32,
    pub flags: U32,
    pub extents: [RawImageExtent; MAX_EXTENTS],
    pub label: [u8; LABEL_LEN],
    pub added_ns: U64,
    pub zeros: [u8; 64],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawStoreDirectory {
    pub header: RawDirectoryHeader,
    pub entries: [RawStoreEntry; MAX_IMAGES],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawDefinitionSlot {
    pub head: RawStoreHead,
    pub sequence: U64,
    pub writer: [u8; 16],
    pub slot: U32,
    pub state: U32,
    pub name: [u8; NAME_LEN],
    pub partition: [u8; 16],
    pub generation: U64,
    pub encoding: U32,
    pub len: U32,
    pub kernel: [u8; 32],
    pub initrd: [u8; 32],
    pub bytes: [u8; DEFINITION_LEN],
    pub crc32c: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawChunkSums {
    pub head: RawStoreHead,
    pub digest: [u8; 32],
    pub number: U32,
    pub count: U32,
    pub sums: [U32; SUMS_A_BLOCK],
    pub zeros: [u8; 4],
    pub crc32c: U32,
}

const CRC_AT: usize = BLOCK - 4;

const _: () = {
    assert!(size_of::<RawStoreSuperblock>() == BLOCK);
    assert!(size_of::<RawDirectoryHeader>() == BLOCK);
    assert!(size_of::<RawStoreEntry>() == 256);
    assert!(size_of::<RawDefinitionSlot>() == BLOCK);
    assert!(size_of::<RawChunkSums>() == BLOCK);
    assert!(offset_of!(RawStoreHead, features_required) == 16);
    assert!(offset_of!(RawStoreHead, store) == 32);
    assert!(offset_of!(RawStoreSuperblock, blocks) == 48);
    assert!(offset_of!(RawStoreSuperblock, created_ns) == 64);
    assert!(offset_of!(RawStoreSuperblock, crc32c) == CRC_AT);
    assert!(offset_of!(RawDirectoryHeader, sequence) == 48);
    assert!(offset_of!(RawDirectoryHeader, writer) == 56);
    assert!(offset_of!(RawDirectoryHeader, count) == 80);
    assert!(offset_of!(RawDirectoryHeader, entries_crc32c) == 84);
    assert!(offset_of!(RawDirectoryHeader, crc32c) == CRC_AT);
    assert!(offset_of!(RawStoreEntry, kind) == 40);
    assert!(offset_of!(RawStoreEntry, extents) == 56);
    assert!(offset_of!(RawStoreEntry, label) == 120);
    assert!(offset_of!(RawStoreEntry, added_ns) == 184);
    assert!(offset_of!(RawDefinitionSlot, slot) == 72);
    assert!(offset_of!(RawDefinitionSlot, name) == 80);
    assert!(offset_of!(RawDefinitionSlot, partition) == 112);
    assert!(offset_of!(RawDefinitionSlot, encoding) == 136);
    assert!(offset_of!(RawDefinitionSlot, kernel) == 144);
    assert!(offset_of!(RawDefinitionSlot, bytes) == 208);
    assert!(offset_of!(RawDefinitionSlot, crc32c) == CRC_AT);
    assert!(offset_of!(RawChunkSums, digest) == 48);
    assert!(offset_of!(RawChunkSums, sums) == 88);
    assert!(offset_of!(RawChunkSums, crc32c) == CRC_AT);
};

/// Makes the first bytes of a structure of `size` bytes.
pub(super) fn head(magic: [u8; 8], size: usize, store: Uuid) -> RawStoreHead {
    RawStoreHead {
        magic,
        version: VERSION.into(),
        size: (size as u32).into(),
        features_required: KNOWN_FEATURES.into(),
        features_optional: 0.into(),
        store: store.0,
    }
}

/// Returns the bytes of a structure of one block, sealed.
pub(super) fn sealed(raw: &(impl IntoBytes + Immutable)) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    bytes.copy_from_slice(raw.as_bytes());
    seal(&mut bytes);
    bytes
}

/// Writes the checksum into the last four bytes of the block.
pub(super) fn seal(block: &mut [u8]) {
    if let Some((body, crc)) = block.split_last_chunk_mut::<4>() {
        *crc = crc32c(body).0.to_le_bytes();
    }
}

/// Checks the first block of a structure: magic, checksum, version, features, size, store.
pub(super) fn check(
    block: &[u8; BLOCK],
    magic: [u8; 8],
    size: usize,
    store: Option<Uuid>,
) -> Result<(), StoreFault> {
    let Ok((head, _)) = RawStoreHead::ref_from_prefix(block) else {
        return Err(StoreFault::Foreign);
    };
    if head.magic != magic {
        return Err(if is_zero(block) { StoreFault::Empty } else { StoreFault::Foreign });
    }
    let (body, crc) = block.split_last_chunk::<4>().ok_or(StoreFault::Checksum)?;
    if crc32c(body).0.to_le_bytes() != *crc {
        return Err(StoreFault::Checksum);
    }
    if head.version.get() > VERSION {
        return Err(StoreFault::NewerVersion(head.version.get()));
    }
    let unknown = head.features_required.get() & !KNOWN_FEATURES;
    if unknown != 0 {
        return Err(StoreFault::UnknownFeatures(unknown));
    }
    if head.version.get() < VERSION {
        return Err(StoreFault::Impossible("version"));
    }
    if head.size.get() as usize != size {
        return Err(StoreFault::Impossible("size"));
    }
    match store {
        Some(store) if store.0 != head.store => Err(StoreFault::OtherStore),
        _ => Ok(()),
    }
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
