//! The area of a space on its disk: the one place where offsets in a space become sectors of the
//! disk.
//!
//! Invariant: every returned range lies inside the area, so a caller cannot reach a neighbour's
//! sectors.

use super::layout::{Extent, SpaceLayout, usable};
use crate::block::SectorRange;
use crate::block::request::SECTOR_SIZE;

/// A run of sectors of a disk that holds a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceArea {
    first: u64,
    count: u64,
}

impl SpaceArea {
    /// Makes the area of a whole disk of `sectors` sectors.
    pub const fn whole(sectors: u64) -> Self {
        Self { first: 0, count: sectors }
    }

    /// Makes the area of a part of a disk; `None` if its end overflows the byte range.
    pub const fn part(sectors: SectorRange) -> Option<Self> {
        match sectors.first.checked_add(sectors.count) {
            Some(end) if end <= u64::MAX / SECTOR_SIZE => {
                Some(Self { first: sectors.first, count: sectors.count })
            }
            _ => None,
        }
    }

    /// Returns the size of the space in bytes.
    pub const fn bytes(self) -> u64 {
        self.count * SECTOR_SIZE
    }

    /// Returns the first byte on the disk.
    pub const fn start(self) -> u64 {
        self.first * SECTOR_SIZE
    }

    /// Returns whether byte `offset` of the disk lies in the area.
    pub const fn holds(self, offset: u64) -> bool {
        offset >= self.start() && offset - self.start() < self.bytes()
    }

    /// Returns the disk's sectors for `len` bytes at byte `offset` of the space; `None` if any byte
    /// lies outside, or if either number is no multiple of a sector.
    pub const fn locate(self, offset: u64, len: u64) -> Option<SectorRange> {
        if !offset.is_multiple_of(SECTOR_SIZE) || !len.is_multiple_of(SECTOR_SIZE) {
            return None;
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.bytes() => Some(SectorRange {
                first: self.first + offset / SECTOR_SIZE,
                count: len / SECTOR_SIZE,
            }),
            _ => None,
        }
    }

    /// Returns the disk's sectors of a part of the space.
    pub const fn locate_extent(self, extent: Extent) -> Option<SectorRange> {
        self.locate(extent.start, extent.len)
    }

    /// Returns the most pages that fit.
    pub fn most_pages(self) -> u32 {
        SpaceLayout::most_pages(self.bytes())
    }

    /// Returns whether `pages` pages fit.
    pub const fn fits(self, pages: u32) -> bool {
        SpaceLayout::for_pages(usable(self.bytes()), pages).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: SpaceArea = SpaceArea { first: 2048, count: 100 };

    #[test]
    fn offsets_are_counted_from_the_first_sector() {
        assert_eq!(AREA.locate(0, 512), Some(SectorRange { first: 2048, count: 1 }));
        assert_eq!(AREA.locate(1024, 98 * 512), Some(SectorRange { first: 2050, count: 98 }));
        assert_eq!(SpaceArea::whole(8).locate(512, 1024), Some(SectorRange { first: 1, count: 2 }));
    }

    #[test]
    fn nothing_outside_is_ever_located() {
        for (offset, len) in [
            (0, 101 * 512),
            (100 * 512, 512),
            (512, 100 * 512),
            (u64::MAX - 511, 1024),
            (1, 512),
            (0, 1),
        ] {
            assert_eq!(AREA.locate(offset, len), None, "{offset} {len}");
        }
        assert!(
            !AREA.holds(2047 * 512)
                && AREA.holds(2048 * 512)
                && AREA.holds(2148 * 512 - 1)
                && !AREA.holds(2148 * 512)
        );
        assert_eq!(SpaceArea::part(SectorRange { first: u64::MAX, count: 1 }), None);
        assert_eq!(SpaceArea::part(SectorRange { first: u64::MAX / 512, count: 1 }), None);
    }
}
