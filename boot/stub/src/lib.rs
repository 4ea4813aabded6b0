//! From power-on to the kernel.
//!
//! One higher-half ELF64 that QEMU starts by PVH and GRUB by Multiboot2. The entry code (`boot.s`)
//! switches to long mode with provisional tables. `boot_main` reads the loader's information
//! ([`protocol`]), removes used ranges from the memory map ([`regions`]), switches to the final
//! tables (`tables`) and calls the kernel that [`entry!`] names. `trampoline` later starts the
//! other CPUs in the same way.
//!
//! ```text
//! physical     0 .. 1 MiB     firmware's, and the trampoline's page: never usable memory
//!              2 MiB ..       the image: entry code and boot tables, then the kernel
//! virtual      KERNEL_BASE + physical address of the image; DIRECT_MAP + any physical address
//! ```
#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]
// UNSAFETY: the first code on the machine: entered from assembly, reads the loader's physical
// pointers.
#![cfg_attr(target_os = "none", expect(unsafe_code))]

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

/// Virtual address at which all physical memory is mapped.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Offset of the kernel image's virtual addresses from its physical addresses.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// The stub's information for the kernel.
#[derive(Debug)]
pub struct Handover {
    /// Memory map, direct map, ACPI root pointer, boot archive. The archive's address is already
    /// translated: `ramdisk_addr` is virtual, as `bootloader_api` defines it.
    pub boot_info: BootInfo,
    /// The command line; bytes that are not UTF-8 are left out.
    pub command_line: &'static str,
}

/// Names the kernel's entry function for the stub: `fn(Handover) -> !`.
#[macro_export]
macro_rules! entry {
    ($path:path) => {
        // UNSAFETY: the stub finds the kernel by a symbol.
        #[expect(unsafe_code)]
        // SAFETY: the stub declares this symbol with the same signature and calls it once.
        #[unsafe(no_mangle)]
        fn tidepool_kernel_main(handover: $crate::Handover) -> ! {
            let kernel: fn($crate::Handover) -> ! = $path;
            kernel(handover)
        }
    };
}
