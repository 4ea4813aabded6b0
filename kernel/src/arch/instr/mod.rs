//! Single instructions as functions: apart from the world switches, the only inline assembly.
//!
//! This module makes no decisions. An instruction that cannot break memory safety is a safe
//! function; any other states its requirements. `vmx` and `svm` hold the instructions of one
//! vendor's virtualisation each.
// UNSAFETY: there is no other way to execute these instructions.
#![expect(unsafe_code)]

mod checksum;
#[cfg(test)]
mod hosted;
#[cfg(miri)]
mod miri;
mod port;
mod random;
mod state;
pub mod svm;
pub mod vmx;
mod zero;

pub use checksum::{crc32c, crc32c_page};
#[cfg(test)]
pub use hosted::{interrupt_window, is_kicked, raise_kick, xgetbv, xrstor, xsave, xsetbv};
#[cfg(miri)]
pub use miri::{copy_words, rdtsc, zero_page};
pub use port::{in8, in32, out8, out32};
pub use random::random;
pub use state::{rdmsr, wrmsr};
#[cfg(not(test))]
pub use state::{xgetbv, xrstor, xsave, xsetbv};
pub use zero::is_zero_page;

use crate::time::Ticks;
use core::arch::asm;

pub use core::arch::x86_64::CpuidResult;

/// Reads the time-stamp counter after all earlier instructions have completed.
///
/// SDM 2B "RDTSC": LFENCE orders it; AMD makes LFENCE so by default since Zen.
#[cfg(not(miri))]
pub fn rdtsc() -> Ticks {
    #[cfg(test)]
    if let Some(ticks) = super::time::test_clock::look() {
        return ticks;
    }
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe {
        asm!(
            "lfence", "rdtsc", out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags)
        )
    };
    Ticks::new(u64::from(high) << 32 | u64::from(low))
}

/// Returns a CPUID leaf.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    core::arch::x86_64::__cpuid_count(leaf, subleaf)
}

/// Tells the core that this is a spin loop.
pub fn pause() {
    core::hint::spin_loop();
}

/// Masks external interrupts on this CPU.
pub fn cli() {
    // SAFETY: masking interrupts cannot break memory safety; not `nomem`, so that it is a compiler
    // barrier.
    unsafe { asm!("cli", options(nostack)) };
}

/// Unmasks external interrupts for two instructions, so that every pending interrupt is taken.
///
/// # Safety
/// This CPU's interrupt table and per-CPU area are loaded.
#[cfg(not(test))]
pub unsafe fn interrupt_window() {
    // SAFETY: the caller's promise. The first NOP is in STI's shadow; interrupts are taken before
    // CLI.
    unsafe { asm!("sti", "nop", "nop", "cli", options(nostack)) };
}

/// Waits for an interrupt with interrupts unmasked, and masks them again.
///
/// # Safety
/// This CPU's interrupt table and per-CPU area are loaded.
pub unsafe fn wait_for_interrupt() {
    // SAFETY: the caller's promise. STI's shadow covers HLT: no interrupt is taken between them.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// Stops this CPU for good; after an NMI it stops again.
pub fn stop() -> ! {
    loop {
        // SAFETY: ends this CPU's work, as requested.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Returns RFLAGS.
pub fn rflags() -> u64 {
    let flags: u64;
    // SAFETY: pushes and pops one word.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    flags
}

/// Returns the frame pointer, the start of the chain of stack frames.
#[inline(always)]
pub fn frame_pointer() -> u64 {
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    rbp
}

/// Returns the word that GS base points to.
///
/// # Safety
/// GS base points to a readable word.
#[inline]
pub unsafe fn gs_word() -> u64 {
    let word: u64;
    // SAFETY: the caller's promise.
    unsafe { asm!("mov {}, gs:[0]", out(reg) word, options(nostack, preserves_flags, readonly)) };
    word
}

/// Writes zeros over a page.
///
/// # Safety
/// `page` is page-aligned, mapped writable for 4096 bytes, and nothing else uses them.
#[cfg(not(miri))]
pub unsafe fn zero_page(page: *mut u8) {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        asm!(
            "rep stosq", inout("rcx") 512 => _, inout("rdi") page => _, in("rax") 0,
            options(nostack, preserves_flags)
        )
    };
}

/// Copies `words` words of eight bytes.
///
/// # Safety
/// `from` is mapped readable and `to` writable for as much, and the ranges do not overlap. `from`
/// may be written meanwhile (the guest keeps a page that is being cleaned): the copy may then
/// contain any part of these writes.
#[cfg(not(miri))]
pub unsafe fn copy_words(from: *const u8, to: *mut u8, words: u64) {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        asm!(
            "rep movsq", inout("rcx") words => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(4096))]
    struct AlignedTestPage([u8; 4096]);

    #[test]
    fn a_page_is_zeroed_to_its_last_byte() {
        let mut page = AlignedTestPage([0xff; 4096]);
        // SAFETY: a page of our own.
        unsafe { zero_page(page.0.as_mut_ptr()) };
        assert_eq!(page.0, [0; 4096]);
    }

    #[test]
    fn the_counter_moves_on() {
        let before = rdtsc();
        assert!(rdtsc() >= before);
    }
}
