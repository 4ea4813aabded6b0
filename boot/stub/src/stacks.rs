//! One stack for each CPU, each above an unmapped guard page.
//!
//! So a stack overflow ends in a double fault on another stack, and does not overwrite other data.
// UNSAFETY: names the memory that the linker script and the entry code know by symbol.
#![expect(unsafe_code)]

use core::{cell::UnsafeCell, ptr::addr_of};

/// Maximum number of CPUs.
pub const MAX_CPUS: usize = 8;
/// Bytes from one stack's guard page to the next.
const STRIDE: usize = 128 * 1024;
const GUARD: usize = 4096;

#[repr(C, align(4096))]
struct Stacks(UnsafeCell<[[u8; STRIDE]; MAX_CPUS]>);

// SAFETY: no reference is ever made; each part is used only as the stack of its own CPU.
unsafe impl Sync for Stacks {}

static STACKS: Stacks = Stacks(UnsafeCell::new([[0; STRIDE]; MAX_CPUS]));

core::arch::global_asm!(
    ".global boot_stack_top",
    ".set boot_stack_top, {stacks} + {stride}",
    stacks = sym STACKS,
    stride = const STRIDE,
);

/// Returns the highest address of a CPU's stack.
pub fn top(cpu: usize) -> u64 {
    assert!(cpu < MAX_CPUS, "a stack for each CPU");
    addr_of!(STACKS) as u64 + ((cpu + 1) * STRIDE) as u64
}

/// Returns whether `address` lies in the guard page of one of the stacks.
pub fn is_guard(address: u64) -> bool {
    let offset = address.wrapping_sub(addr_of!(STACKS) as u64);
    offset < (STRIDE * MAX_CPUS) as u64 && offset % (STRIDE as u64) < GUARD as u64
}
