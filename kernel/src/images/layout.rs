//! Places and limits of a store, in blocks of 4 KiB and chunks of 64 KiB from its first byte.
//!
//! ```text
//!   block 0   1        16           32           48                    up to a MiB
//!   ┌─────┬─────┬─────┬────────────┬────────────┬─────────────────────┬──────────────────────┐
//!   │  A  │  B  │  -  │directory A │directory B │ A0 B0 A1 B1 ...     │ chunks               │
//!   └─────┴─────┴─────┴────────────┴────────────┴─────────────────────┴──────────────────────┘
//!    superblocks                                  definition slots      data
//! ```

pub use super::side::StoreSide;
pub use super::units::{BLOCK, CHUNK, CHUNK_BLOCKS, MAX_IMAGES};

/// Bytes of one copy of the directory: a block for the header, and the entries.
pub const DIRECTORY_LEN: usize = BLOCK + MAX_IMAGES * super::raw::ENTRY_LEN;
/// Definition slots of a new store.
pub const DEFAULT_SLOTS: u32 = 256;
/// Fewest definition slots.
pub const MIN_SLOTS: u32 = 8;
/// Most definition slots.
pub const MAX_SLOTS: u32 = 1024;
/// Slots that are read at once.
pub const SLOTS_AT_ONCE: u32 = 8;
/// Most chunks of a store: 16 TiB.
pub const MAX_CHUNKS: u64 = 1 << 28;

const DIRECTORY_BLOCKS: u64 = (DIRECTORY_LEN / BLOCK) as u64;
const DIRECTORY: u64 = 16;
const SLOTS: u64 = DIRECTORY + 2 * DIRECTORY_BLOCKS;
/// The data begins at a multiple of 1 MiB.
const DATA_ALIGN: u64 = (1 << 20) / CHUNK as u64;

const _: () = assert!(DIRECTORY_BLOCKS == 16 && DIRECTORY_LEN == CHUNK);

/// The places of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreLayout {
    slots: u32,
    chunks: u32,
}

impl StoreLayout {
    /// Plans a store of `blocks` blocks with `slots` definition slots; `None` if that is not
    /// possible.
    pub const fn new(blocks: u64, slots: u32) -> Option<Self> {
        let chunks = blocks / CHUNK_BLOCKS;
        if slots < MIN_SLOTS
            || slots > MAX_SLOTS
            || !slots.is_multiple_of(SLOTS_AT_ONCE)
            || chunks > MAX_CHUNKS
        {
            return None;
        }
        let layout = Self { slots, chunks: chunks as u32 };
        // The smallest image takes two chunks.
        if layout.first_chunk() as u64 + 2 > chunks { None } else { Some(layout) }
    }

    /// Returns the number of definition slots.
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// Returns the number of the first chunk of the data.
    pub const fn first_chunk(&self) -> u32 {
        let blocks = SLOTS + 2 * self.slots as u64;
        (blocks.div_ceil(CHUNK_BLOCKS).next_multiple_of(DATA_ALIGN)) as u32
    }

    /// Returns the number of chunks from the store's start to its end.
    pub const fn end_chunk(&self) -> u32 {
        self.chunks
    }

    /// Returns the number of chunks for data.
    pub const fn data_chunks(&self) -> u32 {
        self.chunks - self.first_chunk()
    }

    /// Returns the block of a copy of the superblock.
    pub const fn superblock(side: StoreSide) -> u64 {
        side.index() as u64
    }

    /// Returns the first block of a copy of the directory.
    pub const fn directory(side: StoreSide) -> u64 {
        DIRECTORY + side.index() as u64 * DIRECTORY_BLOCKS
    }

    /// Returns the block of a copy of a definition slot.
    pub const fn slot(slot: u32, side: StoreSide) -> u64 {
        SLOTS + 2 * slot as u64 + side.index() as u64
    }

    /// Returns the first block of a chunk.
    pub const fn chunk(chunk: u32) -> u64 {
        chunk as u64 * CHUNK_BLOCKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_without_overlap() {
        let layout = StoreLayout::new(1 << 16, DEFAULT_SLOTS).unwrap();
        assert_eq!(StoreLayout::superblock(StoreSide::B), 1);
        assert_eq!(StoreLayout::directory(StoreSide::A), 16);
        assert_eq!(StoreLayout::directory(StoreSide::B), 32);
        assert_eq!(StoreLayout::slot(0, StoreSide::A), 48);
        assert_eq!(StoreLayout::slot(255, StoreSide::B), 559);
        assert_eq!(StoreLayout::chunk(layout.first_chunk()), 768);
        assert_eq!((layout.end_chunk(), layout.data_chunks()), (4096, 4048));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let least = 768 + 2 * CHUNK_BLOCKS;
        assert!(StoreLayout::new(least, DEFAULT_SLOTS).is_some());
        assert!(StoreLayout::new(least - 1, DEFAULT_SLOTS).is_none());
        for slots in [0, 7, 12, MAX_SLOTS + 8] {
            assert!(StoreLayout::new(1 << 20, slots).is_none(), "{slots}");
        }
        assert!(StoreLayout::new((MAX_CHUNKS + 1) * CHUNK_BLOCKS, DEFAULT_SLOTS).is_none());
        assert!(StoreLayout::new(u64::MAX, DEFAULT_SLOTS).is_none());
    }
}
