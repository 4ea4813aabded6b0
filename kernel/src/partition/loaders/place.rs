//! The addresses that the loaders, not the kernel, choose.
//!
//! ```text
//!   0x1000  boot information: boot_params (Linux) or start_info, modules, memory map (PVH)
//!   0x2000  command line
//!   0x3000  GDT
//!   0x4000  page tables: PML4, PDPT, four page directories (Linux)
//!   0xa000  end of the loader's area
//!   ...     kernel, from 1 MiB on; parts of an ELF file also between here and the firmware's area
//!   ...     initrd, as high as the kernel allows
//!   end-8K  ERST exchange buffer
//! ```

use super::LoadError;
use crate::addr::PAGE_SIZE;
use crate::mm::layout::RamLayout;
use crate::partition::devices::map::{ERST_BUFFER_BYTES, FIRMWARE_BASE, FIRST_MIB, erst_buffer};

pub(super) const BOOT_INFO: u64 = 0x1000;
pub(super) const COMMAND_LINE: u64 = 0x2000;
pub(super) const COMMAND_LINE_BYTES: u64 = 0x1000;
pub(super) const GDT: u64 = 0x3000;
pub(super) const PAGE_TABLES: u64 = 0x4000;
const LOADER_END: u64 = 0xa000;

/// Returns the end of the RAM from 1 MiB on that kernel and initrd may use; [`check_memory`] has
/// passed.
pub(super) fn usable_end(layout: &RamLayout) -> u64 {
    erst_buffer(layout).as_u64()
}

/// Checks that the memory holds the first MiB, where the loader and the firmware have their areas,
/// and the exchange buffer behind it.
pub(super) fn check_memory(layout: &RamLayout) -> Result<(), LoadError> {
    if erst_buffer(layout).as_u64() < FIRST_MIB { Err(too_small(FIRST_MIB)) } else { Ok(()) }
}

/// Checks that `base..base + bytes` is RAM that a kernel may use: above 1 MiB, or between the
/// loader's area and the firmware's. Returns its end.
pub(super) fn kernel_end(base: u64, bytes: u64, layout: &RamLayout) -> Result<u64, LoadError> {
    let end = base.checked_add(bytes).ok_or(LoadError::BadAddress(base))?;
    let is_low = base >= LOADER_END && end <= FIRMWARE_BASE;
    if base < FIRST_MIB && !is_low {
        return Err(LoadError::BadAddress(base));
    }
    if end > usable_end(layout) { Err(too_small(end)) } else { Ok(end) }
}

/// Places `bytes` of initrd as high as possible: below `limit`, above `kernel_end` and 1 MiB.
pub(super) fn initrd_base(
    bytes: u64,
    kernel_end: u64,
    limit: u64,
    layout: &RamLayout,
) -> Result<u64, LoadError> {
    let kernel_end = kernel_end.max(FIRST_MIB);
    let needed = kernel_end.saturating_add(PAGE_SIZE).saturating_add(bytes);
    let top = usable_end(layout).min(limit);
    let base = top.checked_sub(bytes).map(|base| base & !(PAGE_SIZE - 1));
    base.filter(|&base| base >= kernel_end).ok_or(too_small(needed))
}

fn too_small(end: u64) -> LoadError {
    LoadError::MemoryTooSmall(end.saturating_add(ERST_BUFFER_BYTES))
}
