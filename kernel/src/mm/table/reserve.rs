//! Table pages of the machine: frames set apart at start, reached through the direct map.

use super::{EMPTY, ENTRIES, TableEntry, TableMemory, TablePage};
use crate::addr::Hfn;
use crate::mm::{frames::FrameTable, phys::DirectMap};
use core::sync::atomic::{AtomicU64, Ordering};

/// Frames set apart for table pages, so that a fault needs no allocator.
///
/// They have a free list and lock of their own ([`FrameTable`]), sized at start for all partitions
/// and their dump images.
#[derive(Debug)]
pub struct TableReserve {
    frames: FrameTable,
    map: DirectMap,
}

impl TableReserve {
    /// Takes the frames of `frames` as table pages.
    pub const fn new(frames: FrameTable, map: DirectMap) -> Self {
        Self { frames, map }
    }

    /// Returns how many table pages are left.
    #[cfg(test)]
    pub fn free_count(&self) -> u32 {
        self.frames.free_count()
    }

    /// Returns how many table pages there are.
    pub fn total(&self) -> u32 {
        self.frames.total()
    }

    /// Returns how many table pages are in use.
    pub fn used_count(&self) -> u32 {
        self.frames.total() - self.frames.free_count()
    }

    /// Returns the largest number of table pages that an object of `pages` RAM pages can need.
    ///
    /// One for 512 pages; up to three more where the hole splits the RAM or the RAM ends inside a
    /// table; two levels above, at most one page for each GiB on each side of the hole, counted as
    /// one for 256 leaf tables; the root.
    pub const fn pages_for(pages: u64) -> u64 {
        let leaf_tables = pages.div_ceil(512) + 2;
        leaf_tables + leaf_tables.div_ceil(256) + 2 + 2 + 1
    }
}

impl TableMemory for TableReserve {
    type Page<'a> = &'a [AtomicU64; ENTRIES];

    fn alloc(&self) -> Option<Hfn> {
        let frame = self.frames.alloc()?;
        self.map.words(frame.hfn()).iter().for_each(|entry| entry.store(EMPTY, Ordering::Relaxed));
        Some(frame.hfn())
    }

    fn free(&self, table: Hfn) {
        self.frames.free(self.frames.of_table(table));
    }

    #[inline]
    fn page(&self, table: Hfn) -> &[AtomicU64; ENTRIES] {
        self.map.words(table)
    }
}

impl<'a> TablePage for &'a [AtomicU64; ENTRIES] {
    type Entry = &'a AtomicU64;

    #[inline]
    fn entry(self, index: usize) -> &'a AtomicU64 {
        &self[index]
    }
}

impl TableEntry for &AtomicU64 {
    #[inline]
    fn load(self) -> u64 {
        AtomicU64::load(self, Ordering::Acquire)
    }

    #[inline]
    fn compare_exchange(self, old: u64, new: u64) -> Result<(), u64> {
        AtomicU64::compare_exchange(self, old, new, Ordering::SeqCst, Ordering::Acquire).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::{fake::FakeRam, layout::RamLayout, leaf::TableFormat, table::SecondLevelTable};
    use alloc::sync::Arc;

    fn reserve(frames: u32) -> Arc<TableReserve> {
        let ram = FakeRam::new(Hfn::new(0x1000), frames);
        Arc::new(TableReserve::new(FrameTable::new(&[ram.region()]).unwrap(), ram.map()))
    }

    #[test]
    fn the_reserve_of_an_object_is_enough_for_every_page_of_it() {
        let small = [1 << 12, 1 << 21, (1 << 21) + 4096];
        let large = [(1 << 30) + 4096, (3 << 30) + 4096, 5 << 30];
        // Thousands of tables are too many for an interpreter.
        let large = large.into_iter().filter(|_| !cfg!(miri));
        for bytes in small.into_iter().chain(large) {
            let layout = RamLayout::new(bytes).unwrap();
            let need = TableReserve::pages_for(u64::from(layout.pages()));
            let table = SecondLevelTable::new(reserve(need as u32), &TableFormat::EPT).unwrap();
            for range in layout.ranges() {
                let last = range.first.checked_add(range.count - 1).unwrap();
                let pages = (0..range.count)
                    .step_by(512)
                    .filter_map(|n| range.first.checked_add(n))
                    .chain([last]);
                pages.for_each(|gfn| {
                    assert!(table.slot_or_build(gfn).unwrap().is_some(), "{bytes:#x} {gfn:?}")
                });
            }
        }
    }

    #[test]
    fn a_dropped_table_gives_everything_back() {
        let reserve = reserve(16);
        let table = SecondLevelTable::new(reserve.clone(), &TableFormat::NPT).unwrap();
        table.slot_or_build(crate::addr::Gfn::new(0)).unwrap();
        assert_eq!((reserve.used_count(), reserve.free_count()), (4, 12));
        drop(table);
        assert_eq!(reserve.free_count(), 16);
    }
}
