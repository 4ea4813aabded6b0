//! From power-on to the kernel.
//!
//! One higher-half ELF64 that QEMU starts by PVH and GRUB by Multiboot2. The entry code (`boot.s`) goes to long
//! mode on rough tables; [`boot_main`] reads what the loader says ([`protocol`]), takes what is in use out of
//! the memory map ([`regions`]), switches to the final tables ([`tables`]) and calls the kernel that
//! [`entry!`] names. [`trampoline`] later brings the other CPUs the same way.
//!
//! ```text
//! physical     0 .. 1 MiB     firmware's, and the trampoline's page: never usable memory
//!              2 MiB ..       the image: entry code and boot tables, then the kernel
//! virtual      KERNEL_BASE + physical address of the image; DIRECT_MAP + any physical address
//! ```
#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]
// UNSAFETY: the first code on the machine: entered from assembly, reads the loader's physical pointers.
#![allow(unsafe_code)]

#[cfg(target_os = "none")]
mod bare;
pub mod protocol;
pub mod regions;
#[cfg(target_os = "none")]
pub mod stacks;
#[cfg(target_os = "none")]
mod tables;
#[cfg(target_os = "none")]
pub mod trampoline;

use bootloader_api::BootInfo;

/// Where all of physical memory is mapped.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Where the kernel's image is mapped: this plus its physical address.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// What the kernel is given.
#[derive(Debug)]
pub struct Handover {
    /// Memory map, direct map, ACPI root pointer, boot archive. Physical addresses of the archive are already
    /// translated: `ramdisk_addr` is virtual, as `bootloader_api` has it.
    pub boot_info: BootInfo,
    /// The command line; what is not UTF-8 is left out.
    pub command_line: &'static str,
}

/// Names the function that the stub calls: `fn(Handover) -> !`.
#[macro_export]
macro_rules! entry {
    ($path:path) => {
        // UNSAFETY: the stub finds the kernel by a symbol.
        #[allow(unsafe_code)]
        // SAFETY: the stub declares this symbol with the same signature and calls it once.
        #[unsafe(no_mangle)]
        fn tidepool_kernel_main(handover: $crate::Handover) -> ! {
            let kernel: fn($crate::Handover) -> ! = $path;
            kernel(handover)
        }
    };
}
