//! Maps device registers outside the direct map: UEFI firmware puts base address registers far
//! above all memory.
//!
//! The window is 32 MiB of virtual addresses after the direct map. Its pages are allocated in order
//! and never freed. Their entries make them uncached (PCD and PWT), whatever the MTRRs say about
//! addresses that high (SDM 3A "Memory Cache Control").
//!
//! ```text
//!   0xffffc00000000000  window: one table of each upper level, 16 page tables
//! ```

// UNSAFETY: writes page tables that all CPUs use; only entries that were not present.
#![cfg_attr(target_os = "none", expect(unsafe_code))]

use crate::addr::{Hpa, Hva, PAGE_SIZE};
use arrayvec::ArrayVec;

/// Virtual address of the window.
const BASE: u64 = 0xffff_c000_0000_0000;
/// Page tables of the window.
const TABLES: usize = 16;
/// Pages of the window.
const PAGES: u64 = TABLES as u64 * 512;
/// Most ranges: four BARs of sixteen functions.
const RANGES: usize = 64;

/// Pages of registers in the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterRange {
    first: Hpa,
    pages: u64,
    /// Number of its first page in the window.
    at: u64,
}

/// Allocation of the window.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WindowPlan {
    ranges: ArrayVec<RegisterRange, RANGES>,
    used: u64,
}

/// Virtual address of registers, and whether their pages must still be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterPlacement {
    /// They are mapped already.
    Mapped(Hva),
    /// These pages must be mapped.
    New(Hva, RegisterRange),
}

impl WindowPlan {
    /// Finds a place for `len` bytes at `start`; `None` if the window is full.
    pub fn place(&mut self, start: Hpa, len: u64) -> Option<RegisterPlacement> {
        let first = start.as_u64() & !(PAGE_SIZE - 1);
        let pages = (start.as_u64().checked_add(len)?.checked_next_multiple_of(PAGE_SIZE)? - first)
            / PAGE_SIZE;
        let seen = |range: &RegisterRange| {
            let offset = start.as_u64().wrapping_sub(range.first.as_u64());
            Hva::new(BASE + range.at * PAGE_SIZE + offset)
        };
        let end = |range: &RegisterRange| range.first.as_u64() + range.pages * PAGE_SIZE;
        let holds = |range: &&RegisterRange| {
            range.first.as_u64() <= first && first + pages * PAGE_SIZE <= end(range)
        };
        if let Some(range) = self.ranges.iter().find(holds) {
            return Some(RegisterPlacement::Mapped(seen(range)));
        }
        let range = RegisterRange { first: Hpa::new(first), pages, at: self.used };
        self.used.checked_add(pages).filter(|used| *used <= PAGES)?;
        self.ranges.try_push(range).ok()?;
        self.used += pages;
        Some(RegisterPlacement::New(seen(&range), range))
    }
}

#[cfg(target_os = "none")]
mod tables {
    use super::{BASE, PAGE_SIZE, RegisterPlacement, RegisterRange, TABLES, WindowPlan};
    use crate::addr::{Hpa, Hva};
    use crate::arch::direct_map;
    use crate::sync::{RankedLock, rank};
    use core::ptr::addr_of;
    use core::sync::atomic::{AtomicU64, Ordering};
    use x86_64::registers::control::Cr3;

    const PRESENT: u64 = 1;
    const WRITABLE: u64 = 1 << 1;
    /// Write-through and cache-disable: entry 3 of the PAT, uncached since reset.
    const UNCACHED: u64 = 1 << 3 | 1 << 4;
    const NO_EXECUTE: u64 = 1 << 63;
    /// The window's entry of the top table.
    const SLOT: usize = (BASE >> 39 & 511) as usize;

    #[repr(C, align(4096))]
    struct WindowTable([AtomicU64; 512]);

    impl WindowTable {
        const fn new() -> Self {
            Self([const { AtomicU64::new(0) }; 512])
        }
        fn entry(&self) -> u64 {
            direct_map::image_hpa(Hva::new(addr_of!(*self) as u64)).as_u64() | PRESENT | WRITABLE
        }
    }

    static POINTERS: WindowTable = WindowTable::new();
    static DIRECTORY: WindowTable = WindowTable::new();
    static PAGE_TABLES: [WindowTable; TABLES] = [const { WindowTable::new() }; TABLES];
    static PLAN: RankedLock<Option<WindowPlan>, { rank::EVENTS }> = RankedLock::new(None);

    /// Returns the hypervisor's address of `len` bytes of registers at `start`; `None` if the
    /// window is full.
    pub fn map(start: Hpa, len: u64) -> Option<Hva> {
        if start.as_u64().checked_add(len)? <= direct_map::DEVICES_END {
            return Some(direct_map::hva(start));
        }
        let mut plan = PLAN.lock();
        match plan.get_or_insert_default().place(start, len)? {
            RegisterPlacement::Mapped(at) => Some(at),
            RegisterPlacement::New(at, range) => {
                enter(&range);
                Some(at)
            }
        }
    }

    /// Writes the entries of a range's pages. None was present before, so no TLB can hold a stale
    /// translation.
    fn enter(range: &RegisterRange) {
        for n in 0..range.pages {
            let page = (range.at + n) as usize;
            let entry =
                (range.first.as_u64() + n * PAGE_SIZE) | PRESENT | WRITABLE | UNCACHED | NO_EXECUTE;
            PAGE_TABLES[page / 512].0[page % 512].store(entry, Ordering::Release);
        }
        for (n, table) in PAGE_TABLES.iter().enumerate() {
            DIRECTORY.0[n].store(table.entry(), Ordering::Release);
        }
        POINTERS.0[0].store(DIRECTORY.entry(), Ordering::Release);
        let root =
            direct_map::pointer::<AtomicU64>(Hpa::new(Cr3::read_raw().0.start_address().as_u64()));
        // SAFETY: the top table that the stub built for all CPUs; its entries are aligned words
        // that are only read and written whole.
        let slot = unsafe { &*root.add(SLOT) };
        slot.store(POINTERS.entry(), Ordering::Release);
    }
}

#[cfg(target_os = "none")]
pub use tables::map;

#[cfg(test)]
mod tests {
    use super::*;

    fn range(plan: &mut WindowPlan, start: u64, len: u64) -> Option<RegisterPlacement> {
        plan.place(Hpa::new(start), len)
    }

    #[test]
    fn registers_get_whole_pages_and_are_seen_at_their_offset() {
        let mut plan = WindowPlan::default();
        let first = RegisterRange { first: Hpa::new(0xe0_0000_1000), pages: 2, at: 0 };
        assert_eq!(
            range(&mut plan, 0xe0_0000_1ff8, 16),
            Some(RegisterPlacement::New(Hva::new(BASE + 0xff8), first))
        );
        let second = RegisterRange { first: Hpa::new(0xe0_0001_0000), pages: 1, at: 2 };
        assert_eq!(
            range(&mut plan, 0xe0_0001_0000, 4096),
            Some(RegisterPlacement::New(Hva::new(BASE + 0x2000), second))
        );
    }

    #[test]
    fn registers_that_are_mapped_take_no_more_room() {
        let mut plan = WindowPlan::default();
        range(&mut plan, 0xe0_0000_0000, 0x4000);
        assert_eq!(
            range(&mut plan, 0xe0_0000_3ffc, 4),
            Some(RegisterPlacement::Mapped(Hva::new(BASE + 0x3ffc)))
        );
        assert_eq!(plan.used, 4);
    }

    #[test]
    fn a_full_window_and_addresses_that_end_nowhere_are_refused() {
        let mut plan = WindowPlan::default();
        assert!(range(&mut plan, 1 << 40, PAGES * PAGE_SIZE).is_some());
        assert_eq!(range(&mut plan, 1 << 41, 1), None);
        assert_eq!(range(&mut WindowPlan::default(), u64::MAX, 1), None);
        assert_eq!(range(&mut WindowPlan::default(), u64::MAX - 1, 1), None);
        let mut many = WindowPlan::default();
        assert!((0..RANGES as u64).all(|n| range(&mut many, (1 << 40) + n * 8192, 1).is_some()));
        assert_eq!(range(&mut many, 1 << 42, 1), None);
    }
}
