//! The memory map, converted from the firmware's form to `BootInfo`'s.
//!
//! Invariants: usable ranges are whole pages and do not overlap one another. They do not overlap
//! any reserved range, nor any range of another kind in the firmware's map, whatever the order of
//! the calls.

use arrayvec::ArrayVec;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use core::ops::Range;

const PAGE: u64 = 4096;
/// More pieces than any known map has (a UEFI map has about 60). Beyond this, usable memory is
/// lost, never gained.
pub const MAX_REGIONS: usize = 192;

/// The map under construction.
#[derive(Default)]
pub struct MemoryMap {
    usable: ArrayVec<Range<u64>, MAX_REGIONS>,
    taken: ArrayVec<MemoryRegion, MAX_REGIONS>,
}

impl MemoryMap {
    /// Returns an empty map.
    pub const fn new() -> Self {
        Self { usable: ArrayVec::new_const(), taken: ArrayVec::new_const() }
    }

    /// Adds an entry of the firmware's map, with the firmware's number of its kind (1 is memory).
    pub fn add_firmware_entry(&mut self, start: u64, len: u64, kind: u32) {
        let end = start.saturating_add(len);
        if kind != 1 {
            return self.take(start..end, MemoryRegionKind::UnknownBios(kind));
        }
        // An entry that begins within the last page of all has no whole page.
        let Some(first) = start.checked_next_multiple_of(PAGE) else { return };
        let whole = first..end & !(PAGE - 1);
        if whole.is_empty() {
            return;
        }
        subtract(&mut self.usable, &whole);
        let _ = self.usable.try_push(whole.clone());
        for region in &self.taken {
            subtract(&mut self.usable, &outward(region.start..region.end));
        }
    }

    /// Removes a range from the usable memory: it holds data of the boot.
    pub fn reserve(&mut self, range: Range<u64>) {
        self.take(range, MemoryRegionKind::Bootloader);
    }

    /// Removes everything from `limit` on from the usable memory: the direct map ends there.
    pub fn cut_at(&mut self, limit: u64) {
        subtract(&mut self.usable, &(limit..u64::MAX));
    }

    /// Takes `pages` pages from the top of the highest usable range below `limit`, and returns the
    /// first one's address.
    pub fn allocate_below(&mut self, limit: u64, pages: u64) -> Option<u64> {
        let bytes = pages * PAGE;
        let top_of = |range: &Range<u64>| range.end.min(limit);
        let fits = |range: &&Range<u64>| top_of(range).saturating_sub(bytes) >= range.start;
        let top = self.usable.iter().filter(fits).map(top_of).max()?;
        self.reserve(top - bytes..top);
        Some(top - bytes)
    }

    /// Returns the end of the highest usable range.
    pub fn top(&self) -> u64 {
        self.usable.iter().map(|range| range.end).max().unwrap_or(0)
    }

    /// Writes the map to `out` in `BootInfo`'s form, usable memory first; returns the filled part
    /// of `out`.
    pub fn write_to(self, out: &mut [MemoryRegion; MAX_REGIONS]) -> &mut [MemoryRegion] {
        let usable = self.usable.iter().map(|r| MemoryRegion {
            start: r.start,
            end: r.end,
            kind: MemoryRegionKind::Usable,
        });
        let mut len = 0;
        for (slot, region) in out.iter_mut().zip(usable.chain(self.taken.iter().copied())) {
            *slot = region;
            len += 1;
        }
        &mut out[..len]
    }

    fn take(&mut self, range: Range<u64>, kind: MemoryRegionKind) {
        if range.is_empty() {
            return;
        }
        subtract(&mut self.usable, &outward(range.clone()));
        // The entry informs readers of the map and keeps later entries from making the range
        // usable. A full list must not go unnoticed.
        self.taken
            .try_push(MemoryRegion { start: range.start, end: range.end, kind })
            .expect("the firmware's memory map has more pieces than MAX_REGIONS");
    }
}

fn outward(range: Range<u64>) -> Range<u64> {
    range.start & !(PAGE - 1)..range.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

fn subtract(ranges: &mut ArrayVec<Range<u64>, MAX_REGIONS>, hole: &Range<u64>) {
    let old = core::mem::take(ranges);
    for range in old {
        let below = range.start..range.end.min(hole.start);
        let above = range.start.max(hole.end)..range.end;
        for rest in [below, above] {
            if !rest.is_empty() {
                // A piece that does not fit stays unused memory.
                let _ = ranges.try_push(rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(map: MemoryMap) -> Vec<(u64, u64)> {
        let mut out = [MemoryRegion::empty(); MAX_REGIONS];
        let regions = map.write_to(&mut out);
        let mut usable: Vec<_> = regions
            .iter()
            .filter(|r| r.kind == MemoryRegionKind::Usable)
            .map(|r| (r.start, r.end))
            .collect();
        usable.sort_unstable();
        usable
    }

    #[test]
    fn a_reservation_splits_the_range_it_lies_in() {
        let mut map = MemoryMap::new();
        map.add_firmware_entry(0x10_0000, 0x10_0000, 1);
        map.reserve(0x14_0010..0x14_0020);
        assert_eq!(usable(map), [(0x10_0000, 0x14_0000), (0x14_1000, 0x20_0000)]);
    }

    #[test]
    fn a_reservation_holds_against_memory_that_comes_later() {
        let mut map = MemoryMap::new();
        map.reserve(0x2000..0x3000);
        map.add_firmware_entry(0x6000, 0x1000, 2);
        map.add_firmware_entry(0, 0x8000, 1);
        assert_eq!(usable(map), [(0, 0x2000), (0x3000, 0x6000), (0x7000, 0x8000)]);
    }

    #[test]
    fn entries_that_overlap_are_counted_once() {
        let mut map = MemoryMap::new();
        map.add_firmware_entry(0, 0x4000, 1);
        map.add_firmware_entry(0x2000, 0x4000, 1);
        let total: u64 = usable(map).iter().map(|(start, end)| end - start).sum();
        assert_eq!(total, 0x6000);
    }

    #[test]
    fn partial_pages_and_absurd_lengths_are_not_usable() {
        let mut map = MemoryMap::new();
        map.add_firmware_entry(0x1001, 0x1ffe, 1);
        map.add_firmware_entry(u64::MAX - 1, 1, 1);
        map.add_firmware_entry(0x10_0000, u64::MAX, 1);
        map.cut_at(0x20_0000);
        assert_eq!(usable(map), [(0x10_0000, 0x20_0000)]);
    }

    #[test]
    fn pages_come_from_the_top_below_the_limit() {
        let mut map = MemoryMap::new();
        map.add_firmware_entry(0x10_0000, 0x10_0000, 1);
        map.add_firmware_entry(0x1_0000_0000, 0x10_0000, 1);
        assert_eq!(map.allocate_below(0x1_0000_0000, 2), Some(0x1f_e000));
        assert_eq!(map.allocate_below(0x1000, 1), None);
        assert_eq!(usable(map), [(0x10_0000, 0x1f_e000), (0x1_0000_0000, 0x1_0010_0000)]);
    }
}
