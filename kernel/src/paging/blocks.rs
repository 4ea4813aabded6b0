//! Maps pages to blocks: the direct map of a paging space, as far as the pager needs it.

use crate::addr::{PAGE_SIZE, PageIndex};
use crate::block::SectorRange;
use crate::block::request::SECTOR_SIZE;

/// Sectors in a block.
pub const SECTORS_PER_BLOCK: u64 = PAGE_SIZE / SECTOR_SIZE;

/// The blocks of a paging space: page `n` at `data_start + n` blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockMap {
    /// First sector of block 0.
    pub data_start: u64,
    /// Number of blocks.
    pub pages: u32,
}

impl BlockMap {
    /// Returns the sector after the last block, or `None` if that is beyond any disk.
    pub fn end(&self) -> Option<u64> {
        self.data_start.checked_add(u64::from(self.pages) * SECTORS_PER_BLOCK)
    }

    /// Returns the sectors of `count` blocks from `first` on.
    ///
    /// # Panics
    /// If a block lies beyond the space (our bug: a space is at least as large as the object that
    /// is attached to it).
    pub fn sectors(&self, first: PageIndex, count: u32) -> SectorRange {
        assert!(
            u64::from(first.0) + u64::from(count) <= u64::from(self.pages),
            "block beyond the paging space"
        );
        SectorRange {
            first: self.data_start + u64::from(first.0) * SECTORS_PER_BLOCK,
            count: u64::from(count) * SECTORS_PER_BLOCK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_pages_have_neighbouring_blocks() {
        let map = BlockMap { data_start: 2048, pages: 10 };
        assert_eq!(map.sectors(PageIndex(0), 1), SectorRange { first: 2048, count: 8 });
        assert_eq!(map.sectors(PageIndex(3), 7), SectorRange { first: 2072, count: 56 });
    }

    #[test]
    #[should_panic(expected = "beyond the paging space")]
    fn a_block_beyond_the_space_is_our_bug() {
        let _ = BlockMap { data_start: 0, pages: 10 }.sectors(PageIndex(9), 2);
    }
}
