//! Start-up: what comes up in which order, on the bare machine only.

// UNSAFETY: takes over the memory that the boot stub hands out.
#![allow(unsafe_code)]

use crate::arch::{
    exit::{self, ExitCode},
    percpu,
    physmem::PhysicalMemory,
};
use log::info;
use stub::Handover;

/// Bytes of the hypervisor's own heap: configuration, names, tables of partitions. Never guest memory.
const HEAP_BYTES: u64 = 8 << 20;

/// Takes the machine over from the boot stub.
pub fn kmain(handover: Handover) -> ! {
    percpu::init(percpu::CpuId::BOOT);
    crate::log::init();
    info!("Tidepool {}", env!("CARGO_PKG_VERSION"));
    // SAFETY: the stub maps all usable regions and keeps what is in use out of them; this is the only call.
    let mut memory = unsafe { PhysicalMemory::new(&handover.boot_info.memory_regions) };
    memory.make_heap(HEAP_BYTES);
    info!("memory: {} MiB usable, command line `{}`", memory.usable_total() >> 20, handover.command_line);
    exit::power_off(ExitCode::Success)
}
