//! Start-up: initialises all parts in order, on the bare machine only.
//!
//! Options on the command line: `log=error|warn|info|debug|trace`, `selftest=...` (see
//! `init::selftest`).
// UNSAFETY: takes over the memory that the boot stub hands out.
#![expect(unsafe_code)]

mod selftest;

use crate::arch::vectors;
use crate::arch::{
    features, interrupts, percpu, percpu::CpuId, physmem::PhysicalMemory, pit, smp, time,
};
use crate::{
    archive::BootArchive,
    log::{
        exit::{self, ExitCode},
        history::{self, HistoryKind},
        symbols,
    },
};
use bootloader_api::BootInfo;
use log::{error, info, warn};
use stub::Handover;

/// Takes the machine over from the boot stub.
pub fn kmain(handover: Handover) -> ! {
    percpu::init(CpuId::BOOT);
    crate::log::init();
    if let Some(level) = option(handover.command_line, "log").and_then(|level| level.parse().ok()) {
        log::set_max_level(level);
    }
    if option(handover.command_line, "trace") == Some("cluster") {
        crate::members::trace::switch_on();
    }
    info!("Tidepool {}", env!("CARGO_PKG_VERSION"));
    if let Some(feature) = features::missing() {
        error!("this CPU lacks {feature}");
        exit::power_off(ExitCode::Failure);
    }
    // SAFETY: the stub maps all usable regions and excludes memory in use from them; this is the
    // only call.
    let mut memory = unsafe { PhysicalMemory::new(&handover.boot_info.memory_regions) };
    memory.make_heap();
    info!(
        "memory: {} MiB usable, command line `{}`",
        memory.usable_total() >> 20,
        handover.command_line
    );

    let archive = boot_archive(&handover.boot_info);

    smp::prepare_this_cpu(CpuId::BOOT);
    pit::mask_legacy_controllers();
    time::calibrate();
    smp::start_others(handover.boot_info.rsdp_addr.into_option());
    info!(
        "{} CPUs, time-stamp counter {}.{:03} MHz",
        percpu::count(),
        time::tsc_hz() / 1_000_000,
        time::tsc_hz() / 1_000 % 1_000
    );
    history::record_machine(
        HistoryKind::HypervisorStarted,
        0,
        [percpu::count() as u64, time::tsc_hz()],
    );
    if let Some(name) = option(handover.command_line, "selftest") {
        self_test(name, &handover, &mut memory);
    }
    match archive {
        Some(archive) => exit::power_off(crate::node::start::run(&mut memory, archive)),
        None => {
            error!("no boot archive: nothing to run");
            exit::power_off(ExitCode::Failure)
        }
    }
}

/// Runs a self-test instead of partitions.
fn self_test(name: &str, handover: &Handover, memory: &mut PhysicalMemory) -> ! {
    if name == "virt" {
        exit::power_off(crate::virt::selftest::run(memory));
    }
    smp::release(cpu_main);
    selftest::check_this_machine();
    if name == "disk" {
        exit::power_off(crate::block::selftest::run(memory, handover.command_line));
    }
    selftest::end_as_asked(handover.command_line);
    exit::power_off(ExitCode::Success)
}

/// Finds the boot archive. Without one there is nothing to run, but that is not yet an error here.
fn boot_archive(info: &BootInfo) -> Option<BootArchive> {
    let (address, len) = (info.ramdisk_addr.into_option()?, info.ramdisk_len as usize);
    // SAFETY: the stub reserves the module and gives its address in the direct map; the module is
    // never written.
    let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, len) };
    let archive = BootArchive::new(bytes).inspect_err(|error| error!("{error}")).ok()?;
    info!("boot archive: {} modules, {} KiB", archive.len(), len >> 10);
    let here = kmain as *const () as u64;
    if !archive
        .module(symbols::MODULE)
        .is_some_and(|module| symbols::register(module, "kernel::init::kmain", here))
    {
        warn!("no symbols of this build in the boot archive: backtraces will be bare");
    }
    Some(archive)
}

/// Returns the value of `name=value` on the command line.
fn option<'a>(command_line: &'a str, name: &str) -> Option<&'a str> {
    command_line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// Loop of each further CPU.
fn cpu_main(_: CpuId) -> ! {
    loop {
        interrupts::idle(None);
        if interrupts::take(vectors::KICK) > 0 {
            interrupts::kick(CpuId::BOOT);
        }
    }
}
