//! Regions whose leaf tables are still to be made: the memory of a resumed partition begins with no
//! table, and the state of its pages lies in its paging space.
//!
//! ```text
//!             a fault, or the reader's own way through the memory
//!   unread ─────────────> wanted ── read, checksum right ──> read: the leaf table is linked whole
//!                            └───── checksum wrong ────────> lost: its pages never read as zeros
//! ```
//!
//! A region is the pages of one leaf table: 2 MiB. Page indexes and guest page numbers agree in
//! their lower nine bits, because the hole below 4 GiB is whole regions.
//!
//! Invariants:
//! * No leaf table of an unread region exists, so each access to it faults, and the fault's slow
//!   path asks here before it makes a table.
//! * A region is read or lost once. After [`MemoryObject::begin_teardown`] no table is linked.

use super::MemoryObject;
use crate::addr::PageIndex;
use crate::arch::heap::{self, HeapError};
use crate::mm::crc::Crc32c;
use crate::mm::layout::HOLE_BASE;
use crate::mm::leaf::{EMPTY, LeafState};
use crate::mm::table::OutOfTablesError;
use crate::sync::{RankedLock, rank};
use alloc::vec::Vec;
use arrayvec::ArrayVec;

/// Pages of a region.
pub const REGION_PAGES: u32 = 512;
/// Most regions that are remembered as wanted. A faulter whose region is not among them faults
/// again when one of them was read.
const MOST_WANTED: usize = 16;

/// The state of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionState {
    /// Its pages are what their leaves say; without a leaf table all are untouched.
    Read,
    /// It will be read.
    Unread,
    /// The state of its pages cannot be read.
    Lost,
}

/// What the reader does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextRegion {
    /// It reads this region.
    Region(u32),
    /// Nothing is wanted at present.
    Nothing,
    /// No region is unread, or the object is being taken apart.
    Done,
}

/// The regions of an object that are not read.
pub(super) struct UnreadRegions(RankedLock<RegionMarks, { rank::OBJECT }>);

struct RegionMarks {
    /// One bit a region.
    unread: Vec<u64>,
    lost: Vec<u64>,
    /// Unread regions that are not lost.
    left: u32,
    has_lost: bool,
    wanted: ArrayVec<u32, MOST_WANTED>,
    are_all_wanted: bool,
    /// Where the reader's own way goes on.
    hand: u32,
    is_closed: bool,
}

impl core::fmt::Debug for UnreadRegions {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("UnreadRegions").finish_non_exhaustive()
    }
}

impl UnreadRegions {
    fn new(regions: u32) -> Result<Self, HeapError> {
        let words = regions.div_ceil(64) as usize;
        let words = || heap::spare::<u64>(words).ok_or(HeapError);
        let (mut unread, lost) = (words()?, words()?);
        for (word, bits) in unread.iter_mut().enumerate() {
            let left = regions - word as u32 * 64;
            *bits = u64::MAX >> (64 - left.min(64));
        }
        Ok(Self(RankedLock::new(RegionMarks {
            unread,
            lost,
            left: regions,
            has_lost: false,
            wanted: ArrayVec::new(),
            are_all_wanted: false,
            hand: 0,
            is_closed: false,
        })))
    }

    /// Ends all reading: no table is linked any more.
    pub(super) fn close(&self) {
        self.0.lock().is_closed = true;
    }
}

impl RegionMarks {
    fn state(&self, region: u32) -> RegionState {
        let has = |bits: &[u64]| {
            bits.get(region as usize / 64).is_some_and(|word| word >> (region % 64) & 1 != 0)
        };
        match (has(&self.unread), has(&self.lost)) {
            (_, true) => RegionState::Lost,
            (true, false) => RegionState::Unread,
            (false, false) => RegionState::Read,
        }
    }

    fn note_read(&mut self, region: u32) {
        if self.state(region) == RegionState::Unread {
            self.unread[region as usize / 64] &= !(1 << (region % 64));
            self.left -= 1;
        }
    }

    /// Returns the next unread region from the hand on.
    fn next_unread(&mut self) -> Option<u32> {
        while let Some(word) = self.unread.get(self.hand as usize / 64) {
            let lost = self.lost[self.hand as usize / 64];
            let rest = (word & !lost) >> (self.hand % 64);
            if rest != 0 {
                self.hand += rest.trailing_zeros();
                return Some(self.hand);
            }
            self.hand = (self.hand / 64 + 1) * 64;
        }
        None
    }
}

impl MemoryObject {
    /// Makes all regions of an empty object unread.
    ///
    /// # Errors
    /// [`HeapError`]: no room for the marks.
    pub fn expect_regions(&self) -> Result<(), HeapError> {
        let regions = UnreadRegions::new(self.layout.pages().div_ceil(REGION_PAGES))?;
        self.unread.call_once(|| regions);
        Ok(())
    }

    /// Returns the state of a page's region, and wants it read if it is not.
    #[cold]
    pub fn want(&self, index: PageIndex) -> RegionState {
        let Some(unread) = self.unread.get() else { return RegionState::Read };
        let (mut marks, region) = (unread.0.lock(), index.0 / REGION_PAGES);
        let state = marks.state(region);
        if state == RegionState::Unread && !marks.wanted.contains(&region) {
            let _ = marks.wanted.try_push(region);
        }
        state
    }

    /// Returns the state of a page's region, and the number of pages from it to the region's end.
    /// `None` for an object whose regions were all read or never unread.
    pub fn region_of(&self, index: PageIndex) -> Option<(RegionState, u32)> {
        let marks = self.unread.get()?.0.lock();
        let state = marks.state(index.0 / REGION_PAGES);
        (marks.left > 0 || marks.has_lost).then_some((state, REGION_PAGES - index.0 % REGION_PAGES))
    }

    /// Wants all regions read; returns how many are not yet.
    pub fn want_all(&self) -> u32 {
        let Some(unread) = self.unread.get() else { return 0 };
        let mut marks = unread.0.lock();
        marks.are_all_wanted = true;
        marks.left
    }

    /// Returns the first page of the first region that is lost.
    pub fn first_lost(&self) -> Option<PageIndex> {
        let marks = self.unread.get()?.0.lock();
        let word = marks.lost.iter().position(|word| *word != 0)?;
        let region = word as u32 * 64 + marks.lost[word].trailing_zeros();
        Some(PageIndex(region * REGION_PAGES))
    }

    /// Returns the region to read next: a wanted one, or any if `is_idle` or all are wanted.
    pub fn next_region(&self, is_idle: bool) -> NextRegion {
        let Some(unread) = self.unread.get() else { return NextRegion::Done };
        let mut marks = unread.0.lock();
        if marks.is_closed || marks.left == 0 {
            return NextRegion::Done;
        }
        while let Some(region) = marks.wanted.first().copied() {
            if marks.state(region) == RegionState::Unread {
                return NextRegion::Region(region);
            }
            marks.wanted.remove(0);
        }
        if !is_idle && !marks.are_all_wanted {
            return NextRegion::Nothing;
        }
        marks.next_unread().map_or(NextRegion::Done, NextRegion::Region)
    }

    /// Links the leaf table of an unread region, whose pages have these blocks; a region without a
    /// block needs none. Then it is read.
    ///
    /// # Errors
    /// [`OutOfTablesError`]: try again when others have freed some.
    pub fn adopt_region(
        &self,
        region: u32,
        blocks: &[Option<Crc32c>],
    ) -> Result<(), OutOfTablesError> {
        let first = PageIndex(region * REGION_PAGES);
        let (Some(unread), Some(gfn)) = (self.unread.get(), self.layout.gfn_of(first)) else {
            return Ok(());
        };
        let mut marks = unread.0.lock();
        if marks.is_closed || marks.state(region) != RegionState::Unread {
            return Ok(());
        }
        let count = blocks.iter().flatten().count() as u32;
        if count > 0 {
            let leaf = |n: usize| blocks.get(n).copied().flatten().map(LeafState::Paged);
            let is_new = self.table.link_leaves(gfn, leaf)?;
            assert!(is_new, "an unread region has no leaf table");
            self.counts.adopted(count);
        }
        marks.note_read(region);
        Ok(())
    }

    /// Gives an unread region up: its pages are lost.
    pub fn lose_region(&self, region: u32) {
        let Some(unread) = self.unread.get() else { return };
        let mut marks = unread.0.lock();
        if marks.state(region) == RegionState::Unread {
            marks.lost[region as usize / 64] |= 1 << (region % 64);
            marks.has_lost = true;
            marks.left -= 1;
        }
    }
}

const _: () = assert!(HOLE_BASE.is_multiple_of(REGION_PAGES as u64 * crate::addr::PAGE_SIZE));
const _: () = assert!(EMPTY != 0, "an untouched leaf is not a word of zeros");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::test_bed::MemoryBed;

    #[test]
    fn what_a_fault_wants_comes_first_and_all_come_once() {
        let marks = |regions| UnreadRegions::new(regions).unwrap().0.lock().left;
        assert_eq!([1, 63, 64, 65, 1000].map(marks), [1, 63, 64, 65, 1000]);
        for regions in [1, 63, 64, 65, 130] {
            let unread = UnreadRegions::new(regions).unwrap();
            let mut marks = unread.0.lock();
            let mut all = Vec::new();
            while let Some(region) = marks.next_unread() {
                marks.note_read(region);
                all.push(region);
            }
            assert_eq!(all, (0..regions).collect::<Vec<_>>());
            assert_eq!(marks.left, 0);
        }
    }

    #[test]
    fn a_region_is_linked_whole_and_counted() {
        let bed = MemoryBed::new();
        let object = &bed.object;
        object.expect_regions().unwrap();
        assert_eq!(object.next_region(false), NextRegion::Nothing);
        assert_eq!(object.region_of(PageIndex(3)), Some((RegionState::Unread, 509)));
        assert_eq!(object.want(PageIndex(3)), RegionState::Unread);
        assert_eq!(object.next_region(false), NextRegion::Region(0));
        let blocks: Vec<_> = (0..8).map(|n| (n % 2 == 1).then_some(Crc32c(n))).collect();
        object.adopt_region(0, &blocks).unwrap();
        let leaf = |n| object.existing(PageIndex(n)).unwrap().leaf();
        assert_eq!([leaf(2), leaf(3)], [LeafState::Untouched, LeafState::Paged(Crc32c(3))]);
        assert_eq!((object.counts().paged, object.counts().untouched), (4, MemoryBed::PAGES - 4));
        assert_eq!(object.next_region(true), NextRegion::Done);
        assert_eq!(object.want(PageIndex(3)), RegionState::Read);
        assert_eq!(object.region_of(PageIndex(3)), None);
    }

    #[test]
    fn a_lost_region_stays_lost_and_an_object_that_ends_takes_none() {
        let bed = MemoryBed::new();
        bed.object.expect_regions().unwrap();
        bed.object.lose_region(0);
        assert_eq!(bed.object.want(PageIndex(1)), RegionState::Lost);
        bed.object.adopt_region(0, &[Some(Crc32c(1))]).unwrap();
        assert!(bed.object.existing(PageIndex(0)).is_none());
        assert_eq!(bed.object.first_lost(), Some(PageIndex(0)));
        let bed = MemoryBed::new();
        bed.object.expect_regions().unwrap();
        bed.object.unread.get().unwrap().close();
        assert_eq!(bed.object.next_region(true), NextRegion::Done);
        bed.object.adopt_region(0, &[Some(Crc32c(1))]).unwrap();
        assert!(bed.object.existing(PageIndex(0)).is_none());
    }
}
