//! The position of each part of a space: determined by the device's capacity and the number of
//! pages.
//!
//! Invariants: the parts follow each other without overlap, each aligned to 4 KiB, the blocks to 1
//! MiB; the last block ends before the claim and the records. All offsets are bytes from the start
//! of the device.

use crate::addr::{PAGE_SIZE, PageIndex};
use crate::block::SectorRange;
use crate::block::request::SECTOR_SIZE;
use core::ops::Range;

/// Bytes of one copy of the record.
pub const RECORD_SIZE: u64 = 4096;
/// Bytes after the last block, for the claims and the two records.
pub const TAIL: u64 = 3 * RECORD_SIZE;
/// Alignment of the first block.
pub const DATA_ALIGN: u64 = 1 << 20;
/// Least room for ELF header and program headers.
pub const MIN_HEADER_ROOM: u64 = 64 << 10;
/// Room for the notes: registers of each vCPU, VMCOREINFO, device state when suspended.
pub const NOTES_ROOM: u64 = 256 << 10;
/// Room for program headers: 56 bytes for every second page, the worst case of alternating runs.
const HEADER_BYTES_PER_PAGE: u64 = 28;
/// Room for single items: ELF header, note segment, section header, one more segment at each
/// range's end.
const HEADER_SLACK: u64 = PAGE_SIZE;
const SECTORS_PER_PAGE: u64 = PAGE_SIZE / SECTOR_SIZE;

/// A part of a space, in bytes from the device's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

impl Extent {
    /// Returns the byte after the last.
    pub const fn end(self) -> u64 {
        self.start + self.len
    }

    /// Returns the sectors of `len` bytes at `offset`; both must be multiples of a sector.
    ///
    /// Returns `None` if the range does not lie inside this part.
    pub const fn sectors(self, offset: u64, len: u64) -> Option<SectorRange> {
        match offset.checked_add(len) {
            Some(end)
                if end <= self.len
                    && offset.is_multiple_of(SECTOR_SIZE)
                    && len.is_multiple_of(SECTOR_SIZE) =>
            {
                Some(SectorRange {
                    first: (self.start + offset) / SECTOR_SIZE,
                    count: len / SECTOR_SIZE,
                })
            }
            _ => None,
        }
    }
}

/// Why a space cannot be laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayoutError {
    /// No pages.
    Empty,
    /// The device has fewer bytes than needed.
    TooSmall {
        /// Bytes needed for the pages and their metadata.
        needed: u64,
    },
}

/// The parts of a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceLayout {
    pages: u32,
    notes_start: u64,
    bitmap_start: u64,
    checksums_start: u64,
    data_start: u64,
}

impl SpaceLayout {
    /// Lays out a space for `pages` pages on a device of `capacity` bytes.
    ///
    /// # Errors
    /// [`LayoutError`] with the number of bytes needed.
    pub const fn for_pages(capacity: u64, pages: u32) -> Result<Self, LayoutError> {
        if pages == 0 {
            return Err(LayoutError::Empty);
        }
        let layout = Self::of(pages);
        let needed = layout.blocks().end() + TAIL;
        if needed > usable(capacity) {
            return Err(LayoutError::TooSmall { needed });
        }
        Ok(layout)
    }

    /// Computes the layout. It does not depend on the capacity, which only has to be large enough.
    const fn of(pages: u32) -> Self {
        let n = pages as u64;
        let room = (n * HEADER_BYTES_PER_PAGE + HEADER_SLACK).next_multiple_of(PAGE_SIZE);
        let notes_start = if room < MIN_HEADER_ROOM { MIN_HEADER_ROOM } else { room };
        let bitmap_start = notes_start + NOTES_ROOM;
        let checksums_start = bitmap_start + n.div_ceil(8).next_multiple_of(PAGE_SIZE);
        let data_start =
            (checksums_start + (n * 4).next_multiple_of(PAGE_SIZE)).next_multiple_of(DATA_ALIGN);
        Self { pages, notes_start, bitmap_start, checksums_start, data_start }
    }

    /// Returns how many pages fit on a device of `capacity` bytes; 0 if none do.
    pub fn most_pages(capacity: u64) -> u32 {
        let fits = |pages: u32| Self::for_pages(capacity, pages).is_ok();
        let (mut low, mut high) = (0, u32::MAX);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        low
    }

    /// Returns the number of pages.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Returns the room for ELF header, program headers and section header 0.
    pub const fn header(&self) -> Extent {
        Extent { start: 0, len: self.notes_start }
    }

    /// Returns the room for the notes.
    pub const fn notes(&self) -> Extent {
        Extent { start: self.notes_start, len: self.bitmap_start - self.notes_start }
    }

    /// Returns the bitmap: bit `n % 8` of byte `n / 8` belongs to page `n`.
    pub const fn bitmap(&self) -> Extent {
        Extent { start: self.bitmap_start, len: self.checksums_start - self.bitmap_start }
    }

    /// Returns the size of the bitmap's used part, in whole sectors.
    pub const fn bitmap_bytes(&self) -> usize {
        (self.pages.div_ceil(8) as usize).next_multiple_of(SECTOR_SIZE as usize)
    }

    /// Returns the checksums: four bytes a page.
    pub const fn checksums(&self) -> Extent {
        Extent {
            start: self.checksums_start,
            len: (self.pages as u64 * 4).next_multiple_of(PAGE_SIZE),
        }
    }

    /// Returns the checksums of a range of pages. The first must be a multiple of 128, so that its
    /// checksum begins a sector.
    pub const fn checksums_of(&self, pages: Range<u32>) -> Extent {
        let all = self.checksums();
        let (start, end) =
            (pages.start as u64 * 4, (pages.end as u64 * 4).next_multiple_of(SECTOR_SIZE));
        Extent {
            start: all.start + start,
            len: (if end < all.len { end } else { all.len }) - start,
        }
    }

    /// Returns the blocks.
    pub const fn blocks(&self) -> Extent {
        Extent { start: self.data_start, len: self.pages as u64 * PAGE_SIZE }
    }

    /// Returns the sectors of `count` blocks from `first` on, or `None` beyond the last block.
    pub const fn block_sectors(&self, first: PageIndex, count: u32) -> Option<SectorRange> {
        if count as u64 + first.0 as u64 > self.pages as u64 {
            return None;
        }
        let first = self.data_start / SECTOR_SIZE + first.0 as u64 * SECTORS_PER_PAGE;
        Some(SectorRange { first, count: count as u64 * SECTORS_PER_PAGE })
    }
}

/// Returns the bytes of a device that a space uses: whole pages only.
pub const fn usable(capacity: u64) -> u64 {
    capacity - capacity % PAGE_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn parts(l: &SpaceLayout) -> [Extent; 5] {
        [l.header(), l.notes(), l.bitmap(), l.checksums(), l.blocks()]
    }

    #[test]
    fn parts_follow_each_other_and_end_before_claim_and_records() {
        for pages in [1, 2, 2339, 2340, 65536, 1 << 20, u32::MAX] {
            let l = SpaceLayout::of(pages);
            let n = u64::from(pages);
            for pair in parts(&l).windows(2) {
                assert!(pair[0].end() <= pair[1].start, "{pages}: {pair:?}");
                assert!(pair[0].start.is_multiple_of(PAGE_SIZE), "{pages}");
            }
            assert!(l.header().len >= n * 28 + 64 + 64 + 3 * 56 && l.header().len >= 64 << 10);
            assert!(l.bitmap().len * 8 >= n && l.checksums().len >= n * 4);
            assert!(l.blocks().start.is_multiple_of(MIB));
            let least = l.blocks().end() + 12288;
            assert_eq!(SpaceLayout::for_pages(least, pages), Ok(l));
            assert_eq!(SpaceLayout::for_pages(least + 4095, pages), Ok(l));
            assert_eq!(
                SpaceLayout::for_pages(least - 1, pages),
                Err(LayoutError::TooSmall { needed: least })
            );
        }
    }

    #[test]
    fn the_layout_of_256_mib_is_as_documented() {
        let l = SpaceLayout::of(65536);
        assert_eq!(l.header(), Extent { start: 0, len: 1_839_104 });
        assert_eq!(l.notes(), Extent { start: 1_839_104, len: 262_144 });
        assert_eq!(l.bitmap(), Extent { start: 2_101_248, len: 8192 });
        assert_eq!(l.checksums(), Extent { start: 2_109_440, len: 262_144 });
        assert_eq!(l.blocks(), Extent { start: 3 * MIB, len: 256 * MIB });
    }

    #[test]
    fn the_checksums_of_some_pages_are_whole_sectors() {
        let l = SpaceLayout::of(5000);
        let start = l.checksums().start;
        assert_eq!(l.checksums_of(0..1), Extent { start, len: 512 });
        assert_eq!(l.checksums_of(1024..2048), Extent { start: start + 4096, len: 4096 });
        assert_eq!(l.checksums_of(4096..5000), Extent { start: start + 16384, len: 4096 });
        assert_eq!(l.checksums_of(4096..4224), Extent { start: start + 16384, len: 512 });
        assert_eq!(l.checksums_of(4096..5000).end(), l.checksums().end());
    }

    #[test]
    fn most_pages_is_the_last_that_fits() {
        assert_eq!(SpaceLayout::most_pages(0), 0);
        assert_eq!(SpaceLayout::most_pages(MIB + 12288), 0);
        assert_eq!(SpaceLayout::most_pages(MIB + 4096 + 12288), 1);
        let most = SpaceLayout::most_pages(256 * MIB);
        assert!(
            SpaceLayout::for_pages(256 * MIB, most).is_ok()
                && SpaceLayout::for_pages(256 * MIB, most + 1).is_err()
        );
        assert_eq!(SpaceLayout::for_pages(256 * MIB, 0), Err(LayoutError::Empty));
    }

    #[test]
    fn sectors_beyond_a_part_do_not_exist() {
        let l = SpaceLayout::of(16);
        assert_eq!(
            l.block_sectors(PageIndex(2), 3),
            Some(SectorRange { first: 2048 + 16, count: 24 })
        );
        assert_eq!(l.block_sectors(PageIndex(15), 2), None);
        assert_eq!(l.block_sectors(PageIndex(u32::MAX), u32::MAX), None);
        assert_eq!(l.notes().sectors(512, 1024), Some(SectorRange { first: 129, count: 2 }));
        assert_eq!(l.notes().sectors(NOTES_ROOM, 512), None);
        assert_eq!(l.notes().sectors(1, 512), None);
        assert_eq!(l.notes().sectors(u64::MAX, 512), None);
    }
}
