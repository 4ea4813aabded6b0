//! Starts further CPUs: their real-mode code and its parameters.
//!
//! ```text
//! place(cpu, entry) ─> caller sends INIT and start-up IPIs with PAGE ─> real mode ─> long mode on the boot tables
//!                                                                   ─> final tables, own stack ─> entry(cpu)
//! ```
//!
//! One CPU at a time: call `place` again only after the CPU before has reported or was given up.
// UNSAFETY: writes code to low physical memory, which the memory map keeps free for it.
#![expect(unsafe_code)]

use crate::{DIRECT_MAP, stacks, tables};
use core::ptr::addr_of;

/// Physical address of the trampoline; `trampoline.s` has the same constant. The first MiB is never
/// usable memory.
pub const TRAMPOLINE: u64 = 0x8000;
/// The vector in start-up IPIs.
pub const PAGE: u8 = (TRAMPOLINE >> 12) as u8;

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_block: u8;
    static trampoline_end: u8;
    static boot_pml4: u8;
}

/// Writes the trampoline for `cpu`, which then calls `entry(cpu)` on its own stack.
///
/// # Panics
/// If `cpu` is beyond [`stacks::MAX_CPUS`] (our bug).
pub fn place(cpu: usize, entry: extern "C" fn(usize) -> !) {
    let start = addr_of!(trampoline_start);
    let len = addr_of!(trampoline_end) as usize - start as usize;
    let target = (DIRECT_MAP + TRAMPOLINE) as *mut u8;
    // SAFETY: both ranges are mapped; the target page is reserved for this and no CPU executes it
    // now.
    unsafe { core::ptr::copy_nonoverlapping(start, target, len) };
    let boot_tables = addr_of!(boot_pml4) as u64;
    let block = [boot_tables, tables::root(), stacks::top(cpu), entry as usize as u64, cpu as u64];
    let offset = addr_of!(trampoline_block) as usize - start as usize;
    for (i, word) in block.into_iter().enumerate() {
        // SAFETY: the block has five words, inside the page just written.
        unsafe { target.add(offset + 8 * i).cast::<u64>().write_volatile(word) };
    }
}
