//! The code on the bare machine between the entry code and the kernel.

use crate::{
    DIRECT_MAP, Handover, KERNEL_BASE,
    protocol::{self, BootMemory, Findings},
    regions::{MAX_REGIONS, MemoryMap},
    tables,
};
use bootloader_api::{
    BootInfo,
    info::{MemoryRegion, Optional},
};
use core::{cell::UnsafeCell, slice};

core::arch::global_asm!(include_str!("boot.s"), options(att_syntax));
core::arch::global_asm!(include_str!("trampoline.s"), options(att_syntax));

/// The real-mode area: vectors, BIOS data, ROMs, and the trampoline's page.
const LOW_MEMORY: u64 = 0x10_0000;
/// Bytes that the boot tables map.
const BOOT_MAPPED: u64 = 1 << 32;

unsafe extern "Rust" {
    fn tidepool_kernel_main(handover: Handover) -> !;
}

/// Static memory that outlives the stub.
struct Kept<T>(UnsafeCell<T>);

// SAFETY: each is borrowed once, by `boot_main`, which runs once on one CPU.
unsafe impl<T> Sync for Kept<T> {}

static REGIONS: Kept<[MemoryRegion; MAX_REGIONS]> =
    Kept(UnsafeCell::new([MemoryRegion::empty(); MAX_REGIONS]));
static COMMAND_LINE: Kept<[u8; 1024]> = Kept(UnsafeCell::new([0; 1024]));

/// Access to the machine's memory through the boot tables.
struct MappedMemory;

impl BootMemory for MappedMemory {
    fn bytes(&self, address: u64, len: u64) -> Option<&[u8]> {
        let end = address.checked_add(len)?;
        if address == 0 || end > BOOT_MAPPED {
            return None;
        }
        // SAFETY: the boot tables map the range; nothing writes it while the stub runs.
        Some(unsafe { slice::from_raw_parts((DIRECT_MAP + address) as *const u8, len as usize) })
    }
}

// SAFETY: `boot.s` jumps to this symbol, once, with these two arguments.
#[unsafe(no_mangle)]
extern "C" fn boot_main(protocol: u32, information: u32) -> ! {
    let mut map = MemoryMap::new();
    let found = read_loader(protocol, u64::from(information), &mut map);
    let command_line = keep_command_line(found.command_line);
    map.reserve(0..LOW_MEMORY);
    map.reserve(tables::image());
    map.reserve(found.information.clone());
    if let Some(module) = &found.module {
        map.reserve(module.clone());
    }
    map.cut_at(tables::DIRECT_MAP_LIMIT);
    tables::build_and_load(&mut map);
    let handover = Handover { boot_info: boot_info(map, &found), command_line };
    // SAFETY: `entry!` defines the function with this signature.
    unsafe { tidepool_kernel_main(handover) }
}

fn read_loader(protocol: u32, information: u64, map: &mut MemoryMap) -> Findings<'static> {
    let entry = |start, len, kind| map.add_firmware_entry(start, len, kind);
    match protocol {
        protocol::PVH => protocol::parse_pvh(&MappedMemory, information, entry),
        protocol::MULTIBOOT2 => protocol::parse_multiboot2(&MappedMemory, information, entry),
        _ => panic!("started by neither PVH nor Multiboot2"),
    }
    .expect("the loader's information can be read")
}

fn keep_command_line(text: &[u8]) -> &'static str {
    // SAFETY: the only borrow (see `Kept`).
    let kept = unsafe { &mut *COMMAND_LINE.0.get() };
    let len = text.len().min(kept.len());
    kept[..len].copy_from_slice(&text[..len]);
    match str::from_utf8(&kept[..len]) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&kept[..error.valid_up_to()]).unwrap_or_default(),
    }
}

fn boot_info(map: MemoryMap, found: &Findings) -> BootInfo {
    // SAFETY: the only borrow (see `Kept`).
    let regions = map.write_to(unsafe { &mut *REGIONS.0.get() });
    let mut info = BootInfo::new(regions.into());
    info.physical_memory_offset = Optional::Some(DIRECT_MAP);
    info.rsdp_addr = found.rsdp.into();
    info.ramdisk_addr = found.module.as_ref().map(|module| DIRECT_MAP + module.start).into();
    info.ramdisk_len = found.module.as_ref().map_or(0, |module| module.end - module.start);
    info.kernel_addr = tables::image().start;
    info.kernel_len = tables::image().end - tables::image().start;
    info.kernel_image_offset = KERNEL_BASE;
    info
}
