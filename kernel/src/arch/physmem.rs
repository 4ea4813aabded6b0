//! Memory that is allocated once, at start-up: the heap, the pool's frames, memory-backed disks.
//!
//! It starts with all usable memory of the machine, and memory that is taken is never returned. The
//! memory is in the direct map, and zeroed unless a method says otherwise.
// UNSAFETY: zeroes physical memory and makes it the heap.
#![expect(unsafe_code)]

use super::{direct_map, heap};
use crate::addr::{Hpa, PAGE_SIZE};
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use core::ops::Range;

/// Usable memory without an owner. Not `Clone`: two copies would allocate the same memory twice.
pub struct PhysicalMemory {
    regions: arrayvec::ArrayVec<Range<u64>, 64>,
    total: u64,
}

impl PhysicalMemory {
    /// Takes over the usable regions of the boot information.
    ///
    /// # Safety
    /// The regions are in the direct map, nothing uses them, and this is the only call.
    pub unsafe fn new(regions: &[MemoryRegion]) -> Self {
        let usable =
            regions.iter().filter(|r| r.kind == MemoryRegionKind::Usable).map(|r| r.start..r.end);
        let mut this = Self { regions: arrayvec::ArrayVec::new(), total: 0 };
        for region in usable {
            // If there are too many regions, the rest is left unused; the regions that do not fit
            // are small.
            if this.regions.try_push(region.clone()).is_ok() {
                this.total += region.end - region.start;
            }
        }
        this
    }

    /// Returns how many bytes there were at the start.
    pub fn usable_total(&self) -> u64 {
        self.total
    }

    /// Returns how many bytes are left, in any number of pieces.
    pub fn usable_left(&self) -> u64 {
        self.regions.iter().map(|r| r.end - r.start).sum()
    }

    /// Returns the size of the largest piece that is left.
    pub fn largest_piece(&self) -> u64 {
        self.regions.iter().map(|r| r.end - r.start).max().unwrap_or(0)
    }

    /// Takes `bytes` (rounded up to whole pages) of contiguous, zeroed memory, from the smallest
    /// piece with enough room.
    pub fn take(&mut self, bytes: u64) -> Option<Range<Hpa>> {
        let range = self.take_uncleared(bytes)?;
        let len = range.end.as_u64() - range.start.as_u64();
        // SAFETY: the range was usable, so it is mapped and unused, and it has just been taken.
        unsafe { core::ptr::write_bytes(direct_map::pointer::<u8>(range.start), 0, len as usize) };
        Some(range)
    }

    /// Takes memory that still holds the firmware's leftovers: for frames, which are zeroed or
    /// filled when they are installed.
    pub fn take_uncleared(&mut self, bytes: u64) -> Option<Range<Hpa>> {
        let bytes = bytes.checked_next_multiple_of(PAGE_SIZE)?;
        let room = |r: &Range<u64>| r.end - r.start;
        let region =
            self.regions.iter_mut().filter(|r| room(r) >= bytes).min_by_key(|r| room(r))?;
        let start = region.start;
        region.start += bytes;
        Some(Hpa::new(start)..Hpa::new(start + bytes))
    }

    /// Takes memory that is not zeroed, in up to `N` pieces, largest first; `None` if that is not
    /// enough.
    pub fn take_pieces<const N: usize>(
        &mut self,
        bytes: u64,
    ) -> Option<arrayvec::ArrayVec<Range<Hpa>, N>> {
        let before = self.regions.clone();
        let (mut pieces, mut left) = (arrayvec::ArrayVec::new(), bytes);
        while left > 0 && !pieces.is_full() && self.largest_piece() >= PAGE_SIZE {
            let Some(range) =
                self.take_uncleared(left.min(self.largest_piece() / PAGE_SIZE * PAGE_SIZE))
            else {
                break;
            };
            left = left.saturating_sub(range.end.as_u64() - range.start.as_u64());
            pieces.push(range);
        }
        if left > 0 {
            self.regions = before;
            return None;
        }
        Some(pieces)
    }

    /// Takes memory for `count` values that are never freed, and fills it.
    pub fn take_slice<T>(&mut self, count: u32, value: impl Fn(u32) -> T) -> Option<&'static [T]> {
        const { assert!(align_of::<T>() <= PAGE_SIZE as usize, "a page's alignment is enough") };
        let range = self.take_uncleared(u64::from(count) * size_of::<T>() as u64)?;
        let first: *mut T = direct_map::pointer(range.start);
        for n in 0..count {
            // SAFETY: within the range, which is in the direct map and ours alone; aligned like its
            // first page.
            unsafe { first.add(n as usize).write(value(n)) };
        }
        // SAFETY: the values were just written, and the range is never returned.
        Some(unsafe { core::slice::from_raw_parts(first, count as usize) })
    }

    /// Takes one zeroed page.
    pub fn take_page(&mut self) -> Option<Hpa> {
        self.take(PAGE_SIZE).map(|range| range.start)
    }

    /// Makes a part of the memory the heap, sized for the machine; once.
    ///
    /// # Panics
    /// If the machine has no contiguous piece of that size: the hypervisor cannot work then.
    pub fn make_heap(&mut self) {
        let range = self
            .take_uncleared(heap::bytes_for(self.total))
            .expect("the machine has memory for the heap");
        let len = (range.end.as_u64() - range.start.as_u64()) as usize;
        // SAFETY: the range is in the direct map, ours alone, and never returned.
        unsafe { heap::init(direct_map::pointer(range.start), len) };
    }
}
