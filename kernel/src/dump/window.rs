//! A part of a dump's bitmap in memory: a dump of any size is described through one window of at
//! most [`WINDOW_BYTES`].
//!
//! ```text
//!   bitmap on the disk   |-------- window --------|------------------------|----
//!   pages                0              524,288 (2 GiB)            1,048,576
//! ```
//!
//! A window is opened over pages, filled (from the image, or from the disk) and then written or
//! queried. Its first page is the first of a sector of the bitmap, so a window is whole sectors.

use crate::addr::PageIndex;
use crate::arch::heap::{self, HeapError};
use crate::block::request::SECTOR_SIZE;
use crate::space::SpaceLayout;
use crate::space::content::{alike_bits, has_bit, mark_block};
use crate::space::layout::Extent;
use alloc::vec::Vec;
use core::ops::Range;

/// Bytes of the largest window.
pub const WINDOW_BYTES: usize = 64 << 10;
/// Pages whose bits fill the largest window: 2 GiB of memory.
pub const WINDOW_PAGES: u32 = WINDOW_BYTES as u32 * 8;
/// Pages whose bits fill a sector.
const SECTOR_PAGES: u32 = SECTOR_SIZE as u32 * 8;
/// Pages whose checksums are written together if any of them has a block: 4 KiB of checksums.
const CHECKSUM_PAGES: u32 = 1024;

/// Bits of some pages of a dump: "the block holds the final content".
#[derive(Debug)]
pub struct BitmapWindow {
    bits: Vec<u8>,
    /// The pages whose bits it holds.
    pages: Range<u32>,
}

impl BitmapWindow {
    /// Makes a window for a dump of this layout, open over no pages yet.
    ///
    /// # Errors
    /// [`HeapError`]: the heap has no room for it.
    pub fn new(layout: &SpaceLayout) -> Result<Self, HeapError> {
        Ok(Self { bits: heap::zeroed(layout.bitmap_bytes().min(WINDOW_BYTES))?, pages: 0..0 })
    }

    /// Splits `pages` of a dump of `all` pages into ranges that a window can be opened over. They
    /// are whole sectors of the bitmap, so the first may begin earlier and the last end later than
    /// `pages`.
    pub fn pieces(pages: Range<u32>, all: u32) -> impl Iterator<Item = Range<u32>> {
        let (mut next, end) = (
            pages.start / SECTOR_PAGES * SECTOR_PAGES,
            pages.end.checked_next_multiple_of(SECTOR_PAGES),
        );
        let end = if pages.is_empty() { next } else { end.unwrap_or(all).min(all) };
        core::iter::from_fn(move || {
            let first = next;
            next = end.min(first.saturating_add(WINDOW_PAGES));
            (first < next).then_some(first..next)
        })
    }

    /// Opens the window over `pages` and clears all bits.
    ///
    /// # Panics
    /// If `pages` is not one of [`Self::pieces`] (our bug).
    pub fn open(&mut self, pages: Range<u32>) {
        assert!(pages.start.is_multiple_of(SECTOR_PAGES), "a window begins with a sector");
        assert!(pages.len().div_ceil(8) <= self.bits.len(), "a window has room for its pages");
        self.pages = pages;
        self.bits.fill(0);
    }

    /// Returns the pages that the window is open over.
    pub fn pages(&self) -> Range<u32> {
        self.pages.clone()
    }

    /// Sets the bit of a page; ignores a page outside.
    pub fn mark(&mut self, index: PageIndex) {
        if self.pages.contains(&index.0) {
            mark_block(&mut self.bits, PageIndex(index.0 - self.pages.start));
        }
    }

    /// Returns the bit of a page; false outside.
    pub fn has_block(&self, index: PageIndex) -> bool {
        self.pages.contains(&index.0) && has_bit(&self.bits, PageIndex(index.0 - self.pages.start))
    }

    /// Returns how many pages from `index` on have the same bit, as far as the window and whole
    /// equal bytes show; at least 1.
    pub fn alike(&self, index: PageIndex) -> u32 {
        let offset = PageIndex(index.0.saturating_sub(self.pages.start));
        alike_bits(&self.bits, offset).min(self.pages.end.saturating_sub(index.0)).max(1)
    }

    /// Returns the window's bytes: whole sectors.
    pub fn bytes(&self) -> &[u8] {
        &self.bits[..self.len()]
    }

    /// Returns the window's bytes, for reading from the disk.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len();
        &mut self.bits[..len]
    }

    fn len(&self) -> usize {
        self.pages.len().div_ceil(8).next_multiple_of(SECTOR_SIZE as usize)
    }

    /// Returns the part of the space that the window's bytes belong to.
    pub fn extent(&self, layout: &SpaceLayout) -> Extent {
        Extent {
            start: layout.bitmap().start + u64::from(self.pages.start / 8),
            len: self.len() as u64,
        }
    }

    /// Returns the next range of pages at or after `from` whose checksums have to be written, or
    /// `None` if no further page has a block.
    pub fn checksum_run(&self, from: u32) -> Option<Range<u32>> {
        let steps = |start: u32| (start..self.pages.end).step_by(CHECKSUM_PAGES as usize);
        let start = steps(from.max(self.pages.start)).find(|first| self.has_any(*first))?;
        let end = steps(start).find(|first| !self.has_any(*first)).unwrap_or(self.pages.end);
        Some(start..end)
    }

    /// Returns the next run of bitmap sectors with bits, at or after byte `from` of the window: its
    /// part of the space, its bytes, and the offset of its end. `None` if no further sector has
    /// bits.
    pub fn bit_run(&self, layout: &SpaceLayout, from: usize) -> Option<(Extent, &[u8], usize)> {
        const SECTOR: usize = SECTOR_SIZE as usize;
        let has_bits = |at: &usize| self.bytes()[*at..*at + SECTOR].iter().any(|byte| *byte != 0);
        let first = (from..self.len()).step_by(SECTOR).find(has_bits)?;
        let end =
            (first..self.len()).step_by(SECTOR).find(|at| !has_bits(at)).unwrap_or(self.len());
        let start = self.extent(layout).start + first as u64;
        Some((Extent { start, len: (end - first) as u64 }, &self.bytes()[first..end], end))
    }

    fn has_any(&self, first: u32) -> bool {
        let at = (first - self.pages.start) as usize / 8;
        let end = self.bits.len().min(at + CHECKSUM_PAGES as usize / 8);
        self.bits[at..end].iter().any(|byte| *byte != 0)
    }
}

const _: () = assert!(
    WINDOW_PAGES.is_multiple_of(SECTOR_PAGES) && SECTOR_PAGES.is_multiple_of(CHECKSUM_PAGES)
);

#[cfg(test)]
mod tests {
    use super::*;

    /// 256 GiB.
    const MANY: u32 = 256 << 18;

    fn window(pages: Range<u32>) -> BitmapWindow {
        let mut window =
            BitmapWindow::new(&SpaceLayout::for_pages(1 << 40, MANY).unwrap()).unwrap();
        window.open(pages);
        window
    }

    #[test]
    fn only_sectors_of_the_bitmap_that_have_bits_are_written() {
        let layout = SpaceLayout::for_pages(1 << 40, MANY).unwrap();
        let mut window = window(WINDOW_PAGES..2 * WINDOW_PAGES);
        for page in [4096, 8191, 8192, 40_960] {
            window.mark(PageIndex(WINDOW_PAGES + page));
        }
        let start = layout.bitmap().start + u64::from(WINDOW_PAGES / 8);
        let (extent, bytes, end) = window.bit_run(&layout, 0).unwrap();
        assert_eq!(
            (extent, bytes.len(), end),
            (Extent { start: start + 512, len: 1024 }, 1024, 1536)
        );
        assert_eq!((bytes[0], bytes[511], bytes[512]), (1, 0x80, 1));
        let (extent, _, end) = window.bit_run(&layout, end).unwrap();
        assert_eq!((extent, end), (Extent { start: start + 5120, len: 512 }, 5632));
        assert_eq!(window.bit_run(&layout, end), None);
    }

    #[test]
    fn pieces_are_whole_sectors_that_cover_what_is_asked() {
        let of = |pages, all| BitmapWindow::pieces(pages, all).collect::<Vec<_>>();
        assert_eq!(of(0..100, 100), vec![0..100]);
        assert_eq!(of(5000..5001, 100_000), vec![4096..8192]);
        assert_eq!(of(5000..9000, 8900), vec![4096..8900]);
        assert_eq!(of(7..7, 100), vec![]);
        assert_eq!(
            of(WINDOW_PAGES - 1..WINDOW_PAGES + 1, MANY),
            vec![WINDOW_PAGES - 4096..WINDOW_PAGES + 4096]
        );
        let all = of(0..MANY, MANY);
        assert_eq!((all.len(), all[127].clone()), (128, MANY - WINDOW_PAGES..MANY));
        assert_eq!(
            of(0..u32::MAX, u32::MAX).last(),
            Some(&(u32::MAX - (WINDOW_PAGES - 1)..u32::MAX))
        );
    }

    #[test]
    fn a_window_of_any_dump_is_bounded() {
        for (pages, bytes) in
            [(1, 512), (4097, 1024), (WINDOW_PAGES, WINDOW_BYTES), (u32::MAX, WINDOW_BYTES)]
        {
            let window =
                BitmapWindow::new(&SpaceLayout::for_pages(1 << 45, pages).unwrap()).unwrap();
            assert_eq!(window.bits.len(), bytes, "{pages}");
        }
    }

    #[test]
    fn a_window_knows_its_pages_and_no_others() {
        let start = 3 * WINDOW_PAGES;
        let mut w = window(start..start + 8192);
        for n in [start - 1, start, start + 8191, start + 8192] {
            w.mark(PageIndex(n));
        }
        assert_eq!((w.bytes().len(), w.bytes()[0], w.bytes()[1023]), (1024, 1, 0x80));
        assert_eq!(w.bytes().iter().map(|b| b.count_ones()).sum::<u32>(), 2);
        let at = |n| w.has_block(PageIndex(n));
        assert_eq!(
            [at(start - 1), at(start), at(start + 1), at(start + 8191), at(start + 8192)],
            [false, true, false, true, false]
        );
        let layout = SpaceLayout::for_pages(1 << 40, MANY).unwrap();
        assert_eq!(
            w.extent(&layout),
            Extent { start: layout.bitmap().start + u64::from(start) / 8, len: 1024 }
        );
        w.open(0..4096);
        assert!(w.bytes().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn alike_pages_are_told_together() {
        let mut w = window(8192..16384);
        for n in (16..32_u32).chain([40]) {
            w.mark(PageIndex(8192 + n));
        }
        let at = |n: u32| w.alike(PageIndex(8192 + n));
        assert_eq!(
            [at(0), at(1), at(16), at(32), at(40), at(48), at(8184)],
            [16, 1, 16, 8, 1, 8144, 8]
        );
        let mut next = 8192;
        while next < 16384 {
            let run = w.alike(PageIndex(next));
            assert!(
                (next..next + run)
                    .all(|n| w.has_block(PageIndex(n)) == w.has_block(PageIndex(next))),
                "{next}"
            );
            next += run;
        }
        assert_eq!(next, 16384);
    }

    #[test]
    fn checksums_are_written_only_where_blocks_are() {
        let mut w = window(WINDOW_PAGES..2 * WINDOW_PAGES);
        assert_eq!(w.checksum_run(0), None);
        for n in [5000, 6000, 400_000] {
            w.mark(PageIndex(WINDOW_PAGES + n));
        }
        let first = w.checksum_run(0).unwrap();
        assert_eq!(first, WINDOW_PAGES + 4096..WINDOW_PAGES + 6144);
        let second = w.checksum_run(first.end).unwrap();
        assert_eq!(second, WINDOW_PAGES + 399_360..WINDOW_PAGES + 400_384);
        assert_eq!(w.checksum_run(second.end), None);
        w.mark(PageIndex(2 * WINDOW_PAGES - 1));
        assert_eq!(w.checksum_run(second.end), Some(2 * WINDOW_PAGES - 1024..2 * WINDOW_PAGES));
    }
}
