//! Memory that a node takes from its machine besides the pool, the archive and memory-backed disks.
//! It grows with the configuration.
//!
//! The host command gives a machine this much, or refuses a smaller one. The hypervisor takes
//! exactly this at its start, and later no more memory that grows with a pool or a partition.

use crate::addr::PAGE_SIZE;
use crate::config::SpareRoom;
use crate::dump::window::WINDOW_BYTES;
use crate::mm::table::TableReserve;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// Bytes of the frame table per frame: see [`crate::mm::frames`].
pub const FRAME_BYTES: u64 = 12;
/// Bytes of the work buffer of a space's task.
pub const SPACE_BUFFER: usize = 80 << 10;
/// Most dump images, in addition to the live partitions, for which second-level tables are
/// reserved; further ones wait.
const MOST_IMAGES: usize = 8;

/// Returns the most bytes of the hypervisor's heap that dumps in `spaces` spaces need at the same
/// time: for each a window of the bitmap, and the buffer for all data around the blocks.
pub const fn dump_buffers(spaces: usize) -> usize {
    spaces.saturating_mul(WINDOW_BYTES + SPACE_BUFFER)
}

/// Bytes of a machine's memory, by purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryNeeds {
    /// The frame tables of the pool and of the second-level tables.
    pub frames: u64,
    /// Pages of second-level tables.
    pub tables: u64,
}

impl MemoryNeeds {
    /// Computes the needs of a pool of `pool` bytes, of partitions and paging spaces of the given
    /// sizes, and of spare partitions. A space's size is that of the largest partition that fits
    /// it.
    pub fn of(pool: u64, partitions: &[u64], spaces: &[u64], spare: SpareRoom) -> Self {
        let tables = table_pages(partitions, spaces, spare);
        Self {
            frames: frame_table_bytes(pool / PAGE_SIZE) + frame_table_bytes(tables),
            tables: tables * PAGE_SIZE,
        }
    }

    /// Returns the sum.
    pub const fn total(&self) -> u64 {
        self.frames + self.tables
    }
}

/// Returns the bytes of a table of `frames` frames: each of its two parts begins on a page.
const fn frame_table_bytes(frames: u64) -> u64 {
    (frames * 8).next_multiple_of(PAGE_SIZE) + (frames * 4).next_multiple_of(PAGE_SIZE)
}

/// Returns the pages of second-level tables to reserve. They suffice for every partition's live
/// memory, and for one memory (live, or draining as a dump) in each space, up to one space per
/// partition and `MOST_IMAGES` more. One more memory may be in teardown. Spare partitions have
/// theirs twice: live, and as a dump or in teardown.
pub fn table_pages(partitions: &[u64], spaces: &[u64], spare: SpareRoom) -> u64 {
    let pages = |bytes: u64| TableReserve::pages_for(bytes / PAGE_SIZE);
    let largest = partitions.iter().copied().max().unwrap_or(PAGE_SIZE);
    let mut held: Vec<u64> = spaces.iter().map(|room| (*room).min(largest)).collect();
    held.sort_unstable_by_key(|room| Reverse(*room));
    let live: u64 = partitions.iter().copied().map(pages).sum();
    let in_spaces: u64 = held.iter().take(partitions.len() + MOST_IMAGES).copied().map(pages).sum();
    let in_spare = match u64::from(spare.partitions) {
        0 => 0,
        count => pages(spare.memory_bytes) + (count - 1) * pages(PAGE_SIZE),
    };
    live.max(in_spaces) + pages(largest) + 2 * in_spare
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn a_frame_of_the_pool_needs_twelve_bytes() {
        for gib in [1, 16, 512] {
            let with = |pool| MemoryNeeds::of(pool, &[], &[], SpareRoom::default()).frames;
            assert_eq!(with(gib * GIB) - with(0), gib * GIB / PAGE_SIZE * FRAME_BYTES);
        }
    }

    #[test]
    fn tables_follow_what_spaces_can_hold() {
        let of = |partitions: &[u64], spaces: &[u64]| {
            table_pages(partitions, spaces, SpareRoom::default())
        };
        let one = TableReserve::pages_for(128 * GIB / PAGE_SIZE);
        assert_eq!(of(&[128 * GIB], &[130 * GIB]), 2 * one);
        assert_eq!(
            of(&[128 * GIB], &[130 * GIB, 1 << 50]),
            3 * one,
            "no space makes a memory larger"
        );
        let small = TableReserve::pages_for(6 * MIB / PAGE_SIZE);
        assert_eq!(of(&[128 * GIB, 6 * MIB], &[130 * GIB, 6 * MIB, 130 * GIB]), 3 * one + small);
        assert_eq!(of(&[6 * MIB], &[]), 2 * small);
        let many = [GIB; 64];
        assert_eq!(of(&[GIB, GIB], &many), 11 * TableReserve::pages_for(GIB / PAGE_SIZE));
    }

    #[test]
    fn the_least_heap_has_room_for_a_dump_in_every_space() {
        let least = crate::arch::heap::bytes_for(0) as usize;
        // Configuration, devices and partitions get 4 MiB.
        assert!(
            dump_buffers(crate::paging::MAX_SPACES) + crate::arch::heap::RESERVE + (4 << 20)
                <= least
        );
    }

    #[test]
    fn live_memory_always_has_its_tables() {
        let live = [GIB, 2 * GIB, 3 * GIB];
        let least: u64 = live.iter().map(|bytes| TableReserve::pages_for(bytes / PAGE_SIZE)).sum();
        let of = |spaces: &[u64]| table_pages(&live, spaces, SpareRoom::default());
        assert!(of(&[]) > least && of(&[MIB]) > least);
    }

    #[test]
    fn spare_partitions_have_tables_for_their_memory_however_it_is_divided() {
        let pages = |bytes: u64| TableReserve::pages_for(bytes / PAGE_SIZE);
        let with = |partitions| {
            let spare = SpareRoom { partitions, memory_bytes: GIB };
            table_pages(&[MIB], &[], spare) - table_pages(&[MIB], &[], SpareRoom::default())
        };
        assert_eq!((with(0), with(1)), (0, 2 * pages(GIB)));
        assert!(with(4) >= 2 * 4 * pages(GIB / 4), "four equal ones");
        assert!(with(4) >= 2 * (pages(GIB - 3 * MIB) + 3 * pages(MIB)), "one large one");
    }
}
