//! The guest physical addresses that are RAM, and the number of each RAM page.
//!
//! ```text
//!  guest physical   0 ........ 3 GiB | hole: devices | 4 GiB ........
//!  page index       0 ........ n-1                     n ............     (holes left out)
//! ```
//!
//! The page index is the block number in the paging space (`space`), so a layout is fixed
//! for the life of an incarnation and stored in the space record.

use crate::addr::{Gfn, Gpa, PAGE_SIZE, PageIndex};

/// First guest physical address of the device hole below 4 GiB.
pub const HOLE_BASE: u64 = 0xc000_0000;
/// End of the device hole.
pub const HOLE_END: u64 = 0x1_0000_0000;

/// Returns whether an address lies in the device hole.
#[inline(always)]
pub const fn is_in_hole(gpa: Gpa) -> bool {
    const SHIFT: u32 = HOLE_BASE.trailing_zeros();
    const _: () = assert!(HOLE_END - HOLE_BASE == 1 << SHIFT);
    gpa.as_u64() >> SHIFT == HOLE_BASE >> SHIFT
}

/// One contiguous range of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RamRange {
    /// First page.
    pub first: Gfn,
    /// Pages.
    pub count: u64,
    /// Page index of `first`.
    pub index: u32,
}

/// A partition's RAM: one range below the hole; if that is too small, another one from 4 GiB on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RamLayout {
    low: u64,
    high: u64,
}

impl RamLayout {
    /// Lays out `bytes` of logical memory.
    ///
    /// Returns `None` if `bytes` is zero, no whole number of pages, or has more than 2^32 pages.
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes == 0 || !bytes.is_multiple_of(PAGE_SIZE) || bytes / PAGE_SIZE > u32::MAX as u64 {
            return None;
        }
        let low = if bytes < HOLE_BASE { bytes } else { HOLE_BASE };
        Some(Self { low: low / PAGE_SIZE, high: (bytes - low) / PAGE_SIZE })
    }

    /// Returns the number of RAM pages.
    #[inline]
    pub const fn pages(&self) -> u32 {
        (self.low + self.high) as u32
    }

    /// Returns the ranges, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = RamRange> + use<> {
        let low = RamRange { first: Gfn::new(0), count: self.low, index: 0 };
        let high = RamRange {
            first: Gpa::new(HOLE_END).number(),
            count: self.high,
            index: self.low as u32,
        };
        [low, high].into_iter().filter(|r| r.count > 0)
    }

    /// Returns the page index of `gfn`, or `None` if it is not RAM.
    #[inline]
    pub const fn index_of(&self, gfn: Gfn) -> Option<PageIndex> {
        let n = gfn.as_u64();
        let above = Gpa::new(HOLE_END).number().as_u64();
        if n < self.low {
            Some(PageIndex(n as u32))
        } else if n >= above && n - above < self.high {
            Some(PageIndex((self.low + n - above) as u32))
        } else {
            None
        }
    }

    /// Returns the number of pages from `index` to the end of its range; 0 beyond the last.
    pub const fn left_in_range(&self, index: PageIndex) -> u32 {
        let n = index.0 as u64;
        let end = if n < self.low { self.low } else { self.low + self.high };
        end.saturating_sub(n) as u32
    }

    /// Returns the guest page of RAM page `index`.
    #[inline]
    pub const fn gfn_of(&self, index: PageIndex) -> Option<Gfn> {
        let n = index.0 as u64;
        if n < self.low {
            Some(Gfn::new(n))
        } else if n < self.low + self.high {
            Some(Gfn::new(Gpa::new(HOLE_END).number().as_u64() + n - self.low))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_the_hole_goes_on_at_4_gib() {
        let l = RamLayout::new(4 << 30).unwrap();
        assert_eq!(l.pages(), 1 << 20);
        assert_eq!(l.index_of(Gpa::new(HOLE_BASE).number()), None);
        assert_eq!(l.index_of(Gpa::new(HOLE_END).number()), Some(PageIndex(0xc0000)));
        assert_eq!(l.gfn_of(PageIndex(0xc0000)), Some(Gpa::new(HOLE_END).number()));
        assert_eq!(l.gfn_of(PageIndex(1 << 20)), None);
        assert_eq!(l.ranges().map(|r| r.count).sum::<u64>(), 1 << 20);
    }

    #[test]
    fn sizes_that_are_no_pages_have_no_layout() {
        assert_eq!(RamLayout::new(0), None);
        assert_eq!(RamLayout::new(4097), None);
        assert_eq!(RamLayout::new(1 << 45), None);
    }
}
