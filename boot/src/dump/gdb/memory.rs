//! A dump's memory as its vCPU saw it: physical pages from their blocks, virtual addresses through
//! the guest's page tables.
//!
//! SDM 3A "Paging": four or five levels of 512 entries, 4 KiB, 2 MiB and 1 GiB pages.

use super::super::Dump;
use anyhow::Result;
use kernel::addr::{Gfn, PAGE_SIZE, PageIndex};
use kernel::dump::describe::CorePages;
use kernel::dump::elf::DumpPageState;

/// Bits of an entry that hold an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PRESENT: u64 = 1;
/// The entry maps a page, not a table (levels 2 and 3).
const LARGE: u64 = 1 << 7;
/// CR0: paging is on.
const CR0_PG: u64 = 1 << 31;
/// CR4: five levels.
const CR4_LA57: u64 = 1 << 12;

/// A source of physical pages.
pub trait PhysicalPages {
    /// Reads the page that begins at `address`; `None` where the dump does not have it.
    fn page(&self, address: u64) -> Option<Box<[u8; PAGE_SIZE as usize]>>;
}

impl PhysicalPages for Dump {
    fn page(&self, address: u64) -> Option<Box<[u8; PAGE_SIZE as usize]>> {
        let index = self.index_of(Gfn::new(address / PAGE_SIZE))?;
        let mut page = Box::new([0; PAGE_SIZE as usize]);
        match self.known_content(index).ok()? {
            DumpPageState::Block => self.read_block(index, &mut page[..]).ok()?,
            DumpPageState::Zero => (),
            DumpPageState::Missing => return None,
        }
        Some(page)
    }
}

impl Dump {
    /// Returns the index in the dump of guest page `gfn`.
    fn index_of(&self, gfn: Gfn) -> Option<PageIndex> {
        let (mut low, mut high) = (0, self.page_count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.gfn(PageIndex(middle)) < gfn { low = middle + 1 } else { high = middle }
        }
        let index = PageIndex(low);
        (low < self.page_count() && self.gfn(index) == gfn).then_some(index)
    }

    fn read_block(&self, index: PageIndex, page: &mut [u8]) -> Result<()> {
        self.image.read(self.contents.layout.blocks().start + u64::from(index.0) * PAGE_SIZE, page)
    }
}

/// The registers that control a vCPU's address translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PagingRegisters {
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
}

impl PagingRegisters {
    /// Returns the physical address of `address`, where the guest has mapped it and the dump has
    /// the tables.
    pub fn translate(&self, memory: &impl PhysicalPages, address: u64) -> Option<u64> {
        if self.cr0 & CR0_PG == 0 {
            return Some(address);
        }
        let levels = if self.cr4 & CR4_LA57 == 0 { 4 } else { 5 };
        let mut table = self.cr3 & ADDRESS;
        for level in (1..=levels).rev() {
            let shift = 12 + 9 * (level - 1);
            let slot = (address >> shift & 511) as usize * 8;
            let entry = u64::from_le_bytes(*memory.page(table)?[slot..].first_chunk()?);
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 1 || (level <= 3 && entry & LARGE != 0) {
                let within = (1 << shift) - 1;
                return Some((entry & ADDRESS & !within) | (address & within));
            }
            table = entry & ADDRESS;
        }
        None
    }

    /// Reads up to `length` bytes from virtual address `start`, up to the first gap in the dump.
    pub fn read(&self, memory: &impl PhysicalPages, start: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let address = start.wrapping_add(bytes.len() as u64);
            let page = self
                .translate(memory, address)
                .and_then(|physical| memory.page(physical & !(PAGE_SIZE - 1)));
            let Some(page) = page else { break };
            let from = (address % PAGE_SIZE) as usize;
            let count = (length - bytes.len()).min(PAGE_SIZE as usize - from);
            bytes.extend_from_slice(&page[from..from + count]);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Physical pages by address.
    #[derive(Default)]
    struct PageMap(BTreeMap<u64, Box<[u8; 4096]>>);

    impl PageMap {
        fn put(&mut self, table: u64, slot: usize, entry: u64) {
            let page = self.0.entry(table).or_insert_with(|| Box::new([0; 4096]));
            page[slot * 8..slot * 8 + 8].copy_from_slice(&entry.to_le_bytes());
        }
    }

    impl PhysicalPages for PageMap {
        fn page(&self, address: u64) -> Option<Box<[u8; 4096]>> {
            self.0.get(&address).cloned()
        }
    }

    /// From 0xffff_8000_0000_0000 on: a page at 0x9000, no page, a large page at 0x20_0000, mapped
    /// by tables of four levels.
    fn tables() -> (PageMap, PagingRegisters) {
        let mut pages = PageMap::default();
        pages.put(0x1000, 256, 0x2000 | PRESENT);
        pages.put(0x2000, 0, 0x3000 | PRESENT);
        pages.put(0x3000, 0, 0x4000 | PRESENT);
        pages.put(0x3000, 1, 0x20_0000 | PRESENT | LARGE);
        pages.put(0x4000, 0, 0x9000 | PRESENT | 1 << 63);
        (pages, PagingRegisters { cr0: CR0_PG, cr3: 0x1018, cr4: 0 })
    }

    const BASE: u64 = 0xffff_8000_0000_0000;

    #[test]
    fn small_and_large_pages_are_found_and_gaps_are_not() {
        let (pages, paging) = tables();
        assert_eq!(paging.translate(&pages, BASE + 0x123), Some(0x9123));
        assert_eq!(paging.translate(&pages, BASE + 0x1000), None);
        assert_eq!(paging.translate(&pages, BASE + 0x20_0000 + 0x12_3456), Some(0x32_3456));
        assert_eq!(paging.translate(&pages, 0), None);
        assert_eq!(PagingRegisters { cr0: 0, ..paging }.translate(&pages, 0x9123), Some(0x9123));
    }

    #[test]
    fn five_levels_have_one_table_more() {
        let (mut pages, paging) = tables();
        pages.put(0x5000, 511, 0x1000 | PRESENT);
        let five = PagingRegisters { cr3: 0x5000, cr4: CR4_LA57, ..paging };
        assert_eq!(five.translate(&pages, BASE + 0x123), Some(0x9123));
    }

    #[test]
    fn a_read_ends_where_the_dump_has_no_page() {
        let (mut pages, paging) = tables();
        pages.0.insert(0x9000, Box::new([7; 4096]));
        assert_eq!(paging.read(&pages, BASE + 4090, 100), [7; 6]);
        assert!(paging.read(&pages, BASE + 0x20_0000, 1).is_empty());
    }
}
