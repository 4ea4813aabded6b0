//! The stand-in for a PC's firmware: its entry point. Kernels jump to it to have the machine reset.
//!
//! Linux on hardware-reduced ACPI reboots this way by default (`arch/x86/kernel/reboot.c`:
//! BOOT_EFI, without EFI BOOT_BIOS), in real mode at F000:FFF0. The memory map marks the place
//! reserved, so the code survives a change of kernels.

use alloc::vec::Vec;

use super::plan::{CopyContent, LoadCopy};
use crate::addr::Gpa;
use crate::partition::devices::map::{FIRST_MIB, RESET_ENTRY, RESET_VALUE, port};

/// Returns the 16-bit code at the entry point: it requests a reset and waits for it.
pub(super) fn reset_entry() -> LoadCopy {
    let [low, high] = port::RESET.to_le_bytes();
    let code: [&[u8]; 4] = [
        &[0xba, low, high],        // mov $RESET, %dx
        &[0xb0, RESET_VALUE],      // mov $RESET_VALUE, %al
        &[0xee],                   // out %al, %dx
        &[0xfa, 0xf4, 0xeb, 0xfc], // cli; 1: hlt; jmp to the cli
    ];
    let code: Vec<u8> = code.concat();
    debug_assert!(RESET_ENTRY + code.len() as u64 <= FIRST_MIB);
    LoadCopy { to: Gpa::new(RESET_ENTRY), content: CopyContent::Made(code) }
}
