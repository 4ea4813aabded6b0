//! The final page tables of the hypervisor.
//!
//! ```text
//! 0xffffffff80200000  kernel image, 4 KiB pages: text r-x, rodata r--, data rw-, stacks rw- with holes as guards
//! 0xffff800000000000  direct map of physical memory, rw-: 2 MiB pages below 4 GiB (the memory types change there),
//!                     above it 1 GiB pages if the CPU has them
//! everything else     not mapped: a null pointer faults
//! ```
// UNSAFETY: writes the page tables this code runs on, through the boot tables' mapping.
#![expect(unsafe_code)]

use crate::{DIRECT_MAP, KERNEL_BASE, regions::MemoryMap, stacks};
use core::{
    cell::UnsafeCell,
    ops::Range,
    ptr::addr_of,
    sync::atomic::{AtomicU64, Ordering},
};

/// End of the direct map: one table covers 512 GiB.
pub(crate) const DIRECT_MAP_LIMIT: u64 = 512 * GIB;
const GIB: u64 = 1 << 30;
const PAGE: u64 = 4096;
/// Page tables for a kernel image of up to 32 MiB.
const IMAGE_TABLES: usize = 16;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

#[repr(C, align(4096))]
struct BootPageTable(UnsafeCell<[u64; 512]>);

// SAFETY: written by the boot CPU before any other runs, then read by MMUs alone.
unsafe impl Sync for BootPageTable {}

impl BootPageTable {
    const fn new() -> Self {
        Self(UnsafeCell::new([0; 512]))
    }

    fn set(&self, index: usize, entry: u64) {
        assert!(index < 512, "page table index");
        // SAFETY: in bounds; only the boot CPU is running (see `Sync` above).
        unsafe { self.0.get().cast::<u64>().add(index).write_volatile(entry) };
    }

    /// Returns the physical address: the image is mapped at [`KERNEL_BASE`] plus its physical
    /// address.
    fn physical(&self) -> u64 {
        addr_of!(*self) as u64 - KERNEL_BASE
    }
}

static ROOT: BootPageTable = BootPageTable::new();
static DIRECT: BootPageTable = BootPageTable::new();
static DIRECT_LOW: [BootPageTable; 4] = [const { BootPageTable::new() }; 4];
static KERNEL: BootPageTable = BootPageTable::new();
static IMAGE_DIRECTORY: BootPageTable = BootPageTable::new();
static IMAGE: [BootPageTable; IMAGE_TABLES] = [const { BootPageTable::new() }; IMAGE_TABLES];
/// The value of CR3 on every CPU after its start.
static CR3: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static __text_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __kernel_end: u8;
}

/// Returns the physical range of the kernel's image, including the entry code.
pub(crate) fn image() -> Range<u64> {
    0x20_0000..addr_of!(__kernel_end) as u64 - KERNEL_BASE
}

/// Returns the value of CR3 that every CPU loads.
pub(crate) fn root() -> u64 {
    CR3.load(Ordering::Acquire)
}

/// Builds the tables and switches to them. Where the CPU lacks 1 GiB pages, takes pages from `map`
/// for page directories of 2 MiB pages above 4 GiB.
pub(crate) fn build_and_load(map: &mut MemoryMap) {
    map_image();
    map_direct(map);
    ROOT.set(256, DIRECT.physical() | PRESENT | WRITABLE);
    ROOT.set(511, KERNEL.physical() | PRESENT | WRITABLE);
    CR3.store(ROOT.physical(), Ordering::Release);
    // SAFETY: the new tables map this code, its data and this stack as the old ones do.
    unsafe {
        core::arch::asm!("mov cr3, {}", in(reg) ROOT.physical(), options(nostack, preserves_flags))
    };
}

fn map_image() {
    let (text, rodata) = (addr_of!(__text_start) as u64, addr_of!(__rodata_start) as u64);
    let (data, end) = (addr_of!(__data_start) as u64, addr_of!(__kernel_end) as u64);
    assert!(
        end - KERNEL_BASE <= (IMAGE_TABLES as u64) << 21,
        "kernel image larger than its tables"
    );
    for address in (text..end).step_by(PAGE as usize) {
        let rights = match address {
            _ if stacks::is_guard(address) => continue,
            _ if address < rodata => PRESENT,
            _ if address < data => PRESENT | NO_EXECUTE,
            _ => PRESENT | WRITABLE | NO_EXECUTE,
        };
        let page = (address - KERNEL_BASE) / PAGE;
        IMAGE[page as usize / 512].set(page as usize % 512, (address - KERNEL_BASE) | rights);
    }
    for (i, table) in IMAGE.iter().enumerate() {
        IMAGE_DIRECTORY.set(i, table.physical() | PRESENT | WRITABLE);
    }
    KERNEL.set(510, IMAGE_DIRECTORY.physical() | PRESENT | WRITABLE);
}

fn map_direct(map: &mut MemoryMap) {
    for (gib, table) in DIRECT_LOW.iter().enumerate() {
        for i in 0..512 {
            table.set(i, large_page(gib, i));
        }
        DIRECT.set(gib, table.physical() | PRESENT | WRITABLE);
    }
    for gib in 4..map.top().min(DIRECT_MAP_LIMIT).div_ceil(GIB) as usize {
        let entry = if has_gib_pages() { Some(large_page(gib, 0)) } else { directory(map, gib) };
        match entry {
            Some(entry) => DIRECT.set(gib, entry),
            None => return map.cut_at(gib as u64 * GIB),
        }
    }
}

fn large_page(gib: usize, index: usize) -> u64 {
    ((gib as u64) * GIB + ((index as u64) << 21)) | PRESENT | WRITABLE | LARGE | NO_EXECUTE
}

/// Builds a page directory for one GiB in a page from `map`; returns its entry, or `None` where no
/// page is free.
fn directory(map: &mut MemoryMap, gib: usize) -> Option<u64> {
    let page = map.allocate_below(4 * GIB, 1)?;
    for i in 0..512 {
        let slot = (DIRECT_MAP + page) as *mut u64;
        // SAFETY: the page is memory that nothing else uses, below 4 GiB, where the boot tables map
        // it.
        unsafe { slot.add(i).write_volatile(large_page(gib, i)) };
    }
    Some(page | PRESENT | WRITABLE)
}

fn has_gib_pages() -> bool {
    core::arch::x86_64::__cpuid(0x8000_0001).edx & 1 << 26 != 0
}
