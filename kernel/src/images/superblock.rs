//! The superblock: the store's name and size. Only a format writes it, in two equal copies.

use super::error::{StoreContentError, StoreFault, StorePlace};
use super::layout::{BLOCK, CHUNK, StoreLayout, StoreSide};
use super::raw::{RawStoreSuperblock, SUPERBLOCK_MAGIC, check, head, sealed};
use crate::space::Uuid;
use zerocopy::{FromBytes, FromZeros};

/// The superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreSuperblock {
    /// The store's name.
    pub store: Uuid,
    /// Blocks of the store.
    pub blocks: u64,
    /// Its places.
    pub layout: StoreLayout,
    /// Time of the format in nanoseconds since 1970.
    pub created_ns: u64,
}

/// Bytes at the start of a disk that show whether it is a store.
pub const HEAD_LEN: usize = 2 * BLOCK;

/// Returns whether a disk that begins with `head` is a store, of whatever version and state.
pub fn is_store(head: &[u8]) -> bool {
    head.as_chunks::<BLOCK>().0.iter().any(|block| block.starts_with(&SUPERBLOCK_MAGIC))
}

impl StoreSuperblock {
    /// Encodes a copy.
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut raw = RawStoreSuperblock::new_zeroed();
        raw.head = head(SUPERBLOCK_MAGIC, BLOCK, self.store);
        raw.blocks = self.blocks.into();
        raw.slots = self.layout.slots().into();
        raw.chunk = (CHUNK as u32).into();
        raw.created_ns = self.created_ns.into();
        sealed(&raw)
    }

    /// Decodes both copies of a store on a disk or partition of `blocks` blocks.
    ///
    /// # Errors
    /// If the store cannot be used. A copy of a newer program makes the whole store a newer
    /// program's.
    pub fn decode(copies: [&[u8; BLOCK]; 2], blocks: u64) -> Result<Self, StoreContentError> {
        let found = copies.map(|copy| Self::decode_one(copy, blocks));
        let error = |side: StoreSide, fault| StoreContentError {
            place: StorePlace::Superblock(side),
            fault,
        };
        for side in StoreSide::BOTH {
            if let Err(fault) = found[side.index()]
                && fault.is_newer()
            {
                return Err(error(side, fault));
            }
        }
        match found {
            [Ok(first), _] => Ok(first),
            [_, Ok(second)] => Ok(second),
            [Err(StoreFault::Foreign | StoreFault::Empty), Err(fault)] => {
                Err(error(StoreSide::B, fault))
            }
            [Err(fault), _] => Err(error(StoreSide::A, fault)),
        }
    }

    /// Decodes one copy.
    ///
    /// # Errors
    /// Its fault.
    pub fn decode_one(bytes: &[u8; BLOCK], blocks: u64) -> Result<Self, StoreFault> {
        check(bytes, SUPERBLOCK_MAGIC, BLOCK, None)?;
        let raw = RawStoreSuperblock::ref_from_bytes(bytes)
            .map_err(|_| StoreFault::Impossible("size"))?;
        let store = Uuid(raw.head.store);
        if store == Uuid::NIL {
            return Err(StoreFault::Impossible("store"));
        }
        if raw.chunk.get() as usize != CHUNK {
            return Err(StoreFault::Impossible("chunk"));
        }
        let layout = StoreLayout::new(raw.blocks.get(), raw.slots.get())
            .ok_or(StoreFault::Impossible("blocks"))?;
        if raw.blocks.get() > blocks {
            return Err(StoreFault::CutOff(blocks));
        }
        Ok(Self { store, blocks: raw.blocks.get(), layout, created_ns: raw.created_ns.get() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::layout::DEFAULT_SLOTS;
    use crate::images::raw::seal;

    const BLOCKS: u64 = 4096;

    fn sample() -> StoreSuperblock {
        StoreSuperblock {
            store: Uuid([7; 16]),
            blocks: BLOCKS,
            layout: StoreLayout::new(BLOCKS, DEFAULT_SLOTS).unwrap(),
            created_ns: 1_700_000_000_000_000_000,
        }
    }

    fn changed(at: usize, new: &[u8]) -> [u8; BLOCK] {
        let mut bytes = sample().encode();
        bytes[at..at + new.len()].copy_from_slice(new);
        seal(&mut bytes);
        bytes
    }

    #[test]
    fn every_damaged_byte_is_found_and_the_other_copy_counts() {
        let whole = sample().encode();
        for at in 0..BLOCK {
            let mut damaged = whole;
            damaged[at] ^= 1 << (at % 8);
            assert!(StoreSuperblock::decode_one(&damaged, BLOCKS).is_err(), "byte {at}");
            if at % 64 == 0 {
                assert_eq!(StoreSuperblock::decode([&damaged, &whole], BLOCKS), Ok(sample()));
                assert_eq!(StoreSuperblock::decode([&whole, &damaged], BLOCKS), Ok(sample()));
            }
        }
        let zeros = [0; BLOCK];
        let place = StorePlace::Superblock(StoreSide::B);
        assert_eq!(
            StoreSuperblock::decode([&zeros, &zeros], BLOCKS),
            Err(StoreContentError { place, fault: StoreFault::Empty })
        );
    }

    #[test]
    fn a_newer_copy_refuses_the_store_whatever_the_other_says() {
        let whole = sample().encode();
        for (copy, fault) in [
            (changed(8, &[2]), StoreFault::NewerVersion(2)),
            (changed(16, &[4]), StoreFault::UnknownFeatures(4)),
        ] {
            for copies in [[&copy, &whole], [&whole, &copy]] {
                assert_eq!(StoreSuperblock::decode(copies, BLOCKS).unwrap_err().fault, fault);
            }
        }
        assert!(StoreSuperblock::decode_one(&changed(24, &[9]), BLOCKS).is_ok(), "optional bits");
    }

    #[test]
    fn impossible_numbers_are_named() {
        for (at, new, field) in [
            (8, &[0][..], "version"),
            (12, &[1], "size"),
            (32, &[0; 16], "store"),
            (48, &[0; 8], "blocks"),
            (56, &[7, 0], "blocks"),
            (60, &[1], "chunk"),
        ] {
            assert_eq!(
                StoreSuperblock::decode_one(&changed(at, new), BLOCKS),
                Err(StoreFault::Impossible(field)),
            );
        }
        assert_eq!(
            StoreSuperblock::decode_one(&sample().encode(), BLOCKS - 1),
            Err(StoreFault::CutOff(BLOCKS - 1))
        );
    }
}
