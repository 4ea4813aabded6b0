//! Handlers called by `entry.s`: interrupts set flags, exceptions in the hypervisor are fatal.
//!
//! ```text
//! stop_others() ── NMI ──> each other CPU records its RIP and stops for good
//! ```
// UNSAFETY: defines the symbol that assembly calls.
#![expect(unsafe_code)]

use super::{
    apic,
    frame::{TrapFrame, exception_name},
    instr, interrupts, percpu,
    percpu::{CpuId, MAX_CPUS, PerCpu},
};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::Once;
use x86_64::registers::control::Cr2;

const NMI: u64 = 2;
const FIRST_INTERRUPT: u64 = 32;

static STOPPING: AtomicBool = AtomicBool::new(false);
static STOPPED_AT: PerCpu<AtomicU64> = PerCpu::new([const { AtomicU64::new(0) }; MAX_CPUS]);
static FATAL: Once<TrapFrame> = Once::new();

// SAFETY: called only by `entry.s`, with the frame it built.
#[unsafe(no_mangle)]
extern "C" fn interrupt_dispatch(frame: &mut TrapFrame) {
    match frame.vector {
        NMI => nmi(frame),
        vector if vector >= FIRST_INTERRUPT => interrupts::arrived(vector as u8),
        _ => fatal(frame),
    }
}

/// Stops this CPU if another one has requested it. Any other NMI is only counted: the hypervisor
/// has no NMI source of its own.
fn nmi(frame: &TrapFrame) {
    if STOPPING.load(Ordering::Acquire) {
        STOPPED_AT.this().store(frame.rip, Ordering::Release);
        instr::stop();
    }
    interrupts::count(NMI as u8);
}

fn fatal(frame: &TrapFrame) -> ! {
    // Only the first exception is reported.
    FATAL.call_once(|| *frame);
    panic!(
        "exception {} {}, error code {:#x}, cr2 {:#x}, rip {:#x}",
        frame.vector,
        exception_name(frame.vector),
        frame.error_code,
        Cr2::read_raw(),
        frame.rip
    )
}

/// Returns the registers at the exception that ended the hypervisor, if there was one.
pub fn fatal_frame() -> Option<&'static TrapFrame> {
    FATAL.get()
}

/// Stops all other CPUs for good, when the hypervisor is about to end.
pub fn stop_others() {
    STOPPING.store(true, Ordering::Release);
    if percpu::count() > 1 {
        apic::send_nmi_to_others();
    }
}

/// Returns the RIP at which [`stop_others`] stopped a CPU.
pub fn stopped_at(cpu: CpuId) -> Option<u64> {
    Some(STOPPED_AT.of(cpu).load(Ordering::Acquire)).filter(|&rip| rip != 0)
}
