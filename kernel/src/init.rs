//! Start-up: what comes up in which order, on the bare machine only.

// UNSAFETY: takes over the memory that the boot stub hands out.
#![allow(unsafe_code)]

use crate::arch::{
    exit::{self, ExitCode},
    features, interrupts, percpu,
    percpu::CpuId,
    physmem::PhysicalMemory,
    pit, smp, time,
};
use log::{error, info};
use stub::Handover;

/// Bytes of the hypervisor's own heap: configuration, names, tables of partitions. Never guest memory.
const HEAP_BYTES: u64 = 8 << 20;

/// Takes the machine over from the boot stub.
pub fn kmain(handover: Handover) -> ! {
    percpu::init(CpuId::BOOT);
    crate::log::init();
    info!("Tidepool {}", env!("CARGO_PKG_VERSION"));
    if let Some(feature) = features::missing() {
        error!("this CPU lacks {feature}");
        exit::power_off(ExitCode::Failure);
    }
    // SAFETY: the stub maps all usable regions and keeps what is in use out of them; this is the only call.
    let mut memory = unsafe { PhysicalMemory::new(&handover.boot_info.memory_regions) };
    memory.make_heap(HEAP_BYTES);
    info!("memory: {} MiB usable, command line `{}`", memory.usable_total() >> 20, handover.command_line);

    smp::prepare_this_cpu(CpuId::BOOT);
    pit::mask_legacy_controllers();
    time::calibrate();
    smp::start_others(handover.boot_info.rsdp_addr.into_option());
    info!("{} CPUs, time-stamp counter {} MHz", percpu::count(), time::tsc_hz() / 1_000_000);
    if handover.command_line.split_whitespace().any(|word| word == "selftest=virt") {
        exit::power_off(crate::virt::selftest::run(&mut memory));
    }
    smp::release(cpu_main);

    let t = time::now_ns();
    interrupts::idle(Some(t + 5_000_000));
    info!("timer {} after {} us", interrupts::take(interrupts::TIMER), (time::now_ns() - t) / 1000);
    for cpu in percpu::others() {
        let t = time::now_ns();
        interrupts::kick(cpu);
        interrupts::idle(Some(t + 1_000_000_000));
        info!("kick {} answered by {} after {} us", cpu.index(), interrupts::take(interrupts::KICK), (time::now_ns() - t) / 1000);
    }
    exit::power_off(ExitCode::Success)
}

/// What a further CPU does.
fn cpu_main(_: CpuId) -> ! {
    loop {
        interrupts::idle(None);
        if interrupts::take(interrupts::KICK) > 0 {
            interrupts::kick(CpuId::BOOT);
        }
    }
}
