//! Memory that a node takes from its machine beside the pool, the archive and memory-backed disks: what grows with the configuration.
//!
//! The host command gives a machine this much, or refuses one that is too small; the hypervisor takes exactly this at its start, and
//! nothing that grows with a pool or a partition later.

use crate::addr::PAGE_SIZE;
use crate::dump::window::WINDOW_BYTES;
use crate::mm::table::TableReserve;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// Bytes of the frame table a frame: see [`crate::mm::frames`].
pub const FRAME_BYTES: u64 = 12;
/// Bytes of the buffer that a space's task works with.
pub const SPACE_BUFFER: usize = 80 << 10;
/// Most dump images beside the live partitions that second-level tables are set aside for; further ones wait.
const MOST_IMAGES: usize = 8;

/// Bytes of the hypervisor's heap that a dump in each of `spaces` spaces needs at most, all at the same time: a window of the bitmap,
/// and the buffer that everything around the blocks goes through.
pub const fn dump_buffers(spaces: usize) -> usize {
    spaces.saturating_mul(WINDOW_BYTES + SPACE_BUFFER)
}

/// Bytes of a machine's memory, by what they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryNeeds {
    /// The frame tables of the pool and of the second-level tables.
    pub frames: u64,
    /// Pages of second-level tables.
    pub tables: u64,
}

impl MemoryNeeds {
    /// Computes what a pool of `pool` bytes and partitions of these bytes need, with paging spaces that hold a partition of these
    /// bytes at most.
    pub fn of(pool: u64, partitions: &[u64], spaces: &[u64]) -> Self {
        let tables = table_pages(partitions, spaces);
        Self { frames: frame_table_bytes(pool / PAGE_SIZE) + frame_table_bytes(tables), tables: tables * PAGE_SIZE }
    }

    /// Returns all of it.
    pub const fn total(&self) -> u64 {
        self.frames + self.tables
    }
}

/// Returns the bytes that a table of `frames` frames takes: its two parts begin with a page each.
const fn frame_table_bytes(frames: u64) -> u64 {
    (frames * 8).next_multiple_of(PAGE_SIZE) + (frames * 4).next_multiple_of(PAGE_SIZE)
}

/// Returns the pages of second-level tables that are set aside: enough for every partition's live memory, and for a memory (live, or
/// one that drains as a dump) in every space; and for one more that is being taken apart.
pub fn table_pages(partitions: &[u64], spaces: &[u64]) -> u64 {
    let pages = |bytes: u64| TableReserve::pages_for(bytes / PAGE_SIZE);
    let largest = partitions.iter().copied().max().unwrap_or(PAGE_SIZE);
    let mut held: Vec<u64> = spaces.iter().map(|room| (*room).min(largest)).collect();
    held.sort_unstable_by_key(|room| Reverse(*room));
    let live: u64 = partitions.iter().copied().map(pages).sum();
    let in_spaces: u64 = held.iter().take(partitions.len() + MOST_IMAGES).copied().map(pages).sum();
    live.max(in_spaces) + pages(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn a_frame_of_the_pool_needs_twelve_bytes() {
        for gib in [1, 16, 512] {
            let with = |pool| MemoryNeeds::of(pool, &[], &[]).frames;
            assert_eq!(with(gib * GIB) - with(0), gib * GIB / PAGE_SIZE * FRAME_BYTES);
        }
    }

    #[test]
    fn tables_follow_what_spaces_can_hold() {
        let of = |partitions: &[u64], spaces: &[u64]| table_pages(partitions, spaces);
        let one = TableReserve::pages_for(128 * GIB / PAGE_SIZE);
        assert_eq!(of(&[128 * GIB], &[130 * GIB]), 2 * one);
        assert_eq!(of(&[128 * GIB], &[130 * GIB, 1 << 50]), 3 * one, "no space makes a memory larger");
        let small = TableReserve::pages_for(6 * MIB / PAGE_SIZE);
        assert_eq!(of(&[128 * GIB, 6 * MIB], &[130 * GIB, 6 * MIB, 130 * GIB]), 3 * one + small);
        assert_eq!(of(&[6 * MIB], &[]), 2 * small);
        let many = [GIB; 64];
        assert_eq!(of(&[GIB, GIB], &many), 11 * TableReserve::pages_for(GIB / PAGE_SIZE));
    }

    #[test]
    fn the_least_heap_has_room_for_a_dump_in_every_space() {
        let least = crate::arch::heap::bytes_for(0) as usize;
        // Configuration, devices and partitions are given 4 MiB.
        assert!(dump_buffers(crate::paging::MAX_SPACES) + crate::arch::heap::RESERVE + (4 << 20) <= least);
    }

    #[test]
    fn live_memory_always_has_its_tables() {
        let live = [GIB, 2 * GIB, 3 * GIB];
        let least: u64 = live.iter().map(|bytes| TableReserve::pages_for(bytes / PAGE_SIZE)).sum();
        assert!(table_pages(&live, &[]) > least && table_pages(&live, &[MIB]) > least);
    }
}
