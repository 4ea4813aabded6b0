//! Starts the other CPUs.
//!
//! ```text
//! boot CPU                                         the CPU being started
//! place trampoline
//! INIT, 10 ms, start-up IPI (twice) ─────────────> real mode, long mode, own stack (stub)
//! waits with a time-out                            enter(): own tables, APIC, extended state
//!   <──────────────────────────────────────────── came_online()
//! next CPU ...                                     waits for release()
//! release() ─────────────────────────────────────> main(cpu)
//! ```
// UNSAFETY: reads firmware tables through the direct map.
#![expect(unsafe_code)]

use super::{
    acpi::{self, FirmwareMemory},
    apic, descriptors, direct_map, fpu, instr, interrupts, percpu,
    percpu::{CpuId, MAX_CPUS},
    time,
};
use crate::addr::Hpa;
use crate::time::{Ns, Ticks};
use core::sync::atomic::{AtomicU64, Ordering};
use log::warn;
use spin::Once;
use stub::trampoline;

/// The function that a started CPU runs once released.
static MAIN: Once<fn(CpuId) -> !> = Once::new();
/// The time-stamp counter, as read by the CPU that was started last.
static STARTED_AT_TSC: AtomicU64 = AtomicU64::new(0);

/// Time-out for the start of a CPU: emulators need some milliseconds.
const START_TIMEOUT_NS: Ns = Ns::from_ms(500);

/// Prepares the calling CPU; must be the first call on every CPU.
pub fn prepare_this_cpu(cpu: CpuId) {
    percpu::init(cpu);
    descriptors::init(cpu);
    apic::init();
    interrupts::note_apic_id(cpu);
    fpu::init();
}

/// Starts the CPUs in the firmware's tables; they then wait for [`release`].
pub fn start_others(rsdp: Option<u64>) {
    let ids = rsdp.map(|rsdp| acpi::cpus(&MappedFirmware, rsdp)).unwrap_or_default();
    for apic_id in ids.into_iter().filter(|&id| id != apic::id()) {
        let index = percpu::count();
        if index == MAX_CPUS {
            break;
        }
        if !start(CpuId::new(index), apic_id) {
            // This CPU may still start and use its trampoline, so the next one must not overwrite
            // that.
            warn!("CPU with APIC id {apic_id} does not start; {index} are used");
            break;
        }
    }
}

/// Lets the started CPUs run `main`.
pub fn release(main: fn(CpuId) -> !) {
    MAIN.call_once(|| main);
}

fn start(cpu: CpuId, apic_id: u32) -> bool {
    trampoline::place(cpu.index(), enter);
    let before = instr::rdtsc();
    apic::send_init(apic_id);
    time::spin_ns(Ns::from_ms(10));
    for _ in 0..2 {
        apic::send_startup(apic_id, trampoline::PAGE);
        if wait_for(cpu, Ns::from_us(200)) {
            break;
        }
    }
    let online = wait_for(cpu, START_TIMEOUT_NS);
    let seen = Ticks::new(STARTED_AT_TSC.load(Ordering::Acquire));
    if online && !(before..=instr::rdtsc()).contains(&seen) {
        warn!("the time-stamp counter of CPU {} is not in step", cpu.index());
    }
    online
}

fn wait_for(cpu: CpuId, timeout_ns: Ns) -> bool {
    let end = time::now_ns() + timeout_ns;
    while percpu::count() <= cpu.index() {
        if time::now_ns() > end {
            return false;
        }
        instr::pause();
    }
    true
}

/// The trampoline jumps here.
extern "C" fn enter(index: usize) -> ! {
    let cpu = CpuId::new(index);
    prepare_this_cpu(cpu);
    STARTED_AT_TSC.store(instr::rdtsc().as_u64(), Ordering::Release);
    percpu::came_online();
    loop {
        if let Some(main) = MAIN.get() {
            main(cpu);
        }
        instr::pause();
    }
}

/// The machine's memory through the direct map.
struct MappedFirmware;

impl FirmwareMemory for MappedFirmware {
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        // The stub always maps this range. Tables lie within it, and a wild pointer must not fault.
        const MAPPED: u64 = 1 << 32;
        let end = address.checked_add(len as u64)?;
        // SAFETY: mapped, and the firmware's tables are never written.
        (end <= MAPPED).then(|| unsafe {
            core::slice::from_raw_parts(direct_map::pointer(Hpa::new(address)), len)
        })
    }
}
