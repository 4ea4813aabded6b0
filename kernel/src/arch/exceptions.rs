//! Where `entry.s` leads: interrupts set flags, exceptions of the hypervisor itself are its end.
//!
//! ```text
//! stop_others() ── NMI ──> each other CPU notes where it was and stops for good
//! ```
// UNSAFETY: defines the symbol that assembly calls.
#![allow(unsafe_code)]

use super::{
    apic,
    frame::{Frame, exception_name},
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
static FATAL: Once<Frame> = Once::new();

// SAFETY: called by `entry.s` alone, with the frame it built.
#[unsafe(no_mangle)]
extern "C" fn interrupt_dispatch(frame: &mut Frame) {
    match frame.vector {
        NMI => nmi(frame),
        vector if vector >= FIRST_INTERRUPT => interrupts::arrived(vector as u8),
        _ => fatal(frame),
    }
}

/// Stops this CPU where another one asks for it. Any other NMI is counted and forgotten: the hypervisor has no
/// source of its own.
fn nmi(frame: &Frame) {
    if STOPPING.load(Ordering::Acquire) {
        STOPPED_AT.this().store(frame.rip, Ordering::Release);
        instr::stop();
    }
    interrupts::count(NMI as u8);
}

fn fatal(frame: &Frame) -> ! {
    // The first exception is the one told about.
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

/// Returns the registers of the exception that ended the hypervisor, if one did.
pub fn fatal_frame() -> Option<&'static Frame> {
    FATAL.get()
}

/// Stops all other CPUs for good: for a hypervisor that is about to end.
pub fn stop_others() {
    STOPPING.store(true, Ordering::Release);
    if percpu::count() > 1 {
        apic::send_nmi_to_others();
    }
}

/// Returns where a CPU was when [`stop_others`] reached it.
pub fn stopped_at(cpu: CpuId) -> Option<u64> {
    Some(STOPPED_AT.of(cpu).load(Ordering::Acquire)).filter(|&rip| rip != 0)
}
