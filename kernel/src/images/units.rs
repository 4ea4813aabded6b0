//! Units and limits that the structures share.

use crate::addr::PAGE_SIZE;

/// Bytes of a block, the unit of reads and writes.
pub const BLOCK: usize = PAGE_SIZE as usize;
/// Bytes of a chunk, the unit of room and of checksums.
pub const CHUNK: usize = 64 << 10;
/// Blocks of a chunk.
pub const CHUNK_BLOCKS: u64 = (CHUNK / BLOCK) as u64;
/// Most images of a store.
pub const MAX_IMAGES: usize = 240;
/// Checksums in a block.
pub(super) const SUMS_A_BLOCK: usize = 1000;
/// Most chunks of an image's content.
pub(super) const MAX_CONTENT_CHUNKS: u32 = CHUNK_BLOCKS as u32 * SUMS_A_BLOCK as u32;
