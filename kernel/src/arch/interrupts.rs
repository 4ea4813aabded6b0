//! External interrupts: who has which vector, what a handler leaves behind, how a CPU waits.
//!
//! Interrupts are off while the hypervisor works. They are taken in two places: [`window`], for an instant, after an exit
//! said that one is pending; and [`idle`]. A handler ends the interrupt and counts it; whoever owns the vector
//! takes the count with [`take`].
//!
//! ```text
//! guest runs ──exit: host interrupt──> window() ──> arrived(vector): count, end of interrupt ──> take(vector)
//! nothing to run ──> take(..) of all causes, none ──> idle(deadline): sti; hlt ─────────────────────┘
//! ```
//!
//! No wake-up is lost: between the last look at the counts and HLT interrupts are off, and a pending one ends HLT at once.
// UNSAFETY: lets interrupts in, which needs this CPU's tables to be loaded.
#![allow(unsafe_code)]

use super::{
    apic, instr,
    percpu::{CpuId, MAX_CPUS, PerCpu},
    time,
};
use core::sync::atomic::{AtomicU32, Ordering};

/// The one-shot timer.
pub const TIMER: u8 = 0x30;
/// Another CPU wants this one to look at its flags.
pub const KICK: u8 = 0x31;
/// The first disk; each queue has a vector from here on.
pub const DISK: u8 = 0x40;
/// One beyond the last disk's vector.
pub const DISK_END: u8 = 0x60;
/// The APIC's word for "it was nothing".
pub const SPURIOUS: u8 = 0xff;

struct Counts([AtomicU32; 256]);

static ARRIVED: PerCpu<Counts> = PerCpu::new([const { Counts([const { AtomicU32::new(0) }; 256]) }; MAX_CPUS]);
static APIC_IDS: PerCpu<AtomicU32> = PerCpu::new([const { AtomicU32::new(0) }; MAX_CPUS]);

/// Handles an interrupt: from the entry code.
#[cfg(target_os = "none")]
pub(super) fn arrived(vector: u8) {
    count(vector);
    // A spurious one is not in service: ending it would end another.
    if vector != SPURIOUS {
        apic::end_of_interrupt();
    }
}

/// Counts an interrupt.
#[cfg(target_os = "none")]
pub(super) fn count(vector: u8) {
    ARRIVED.this().0[usize::from(vector)].fetch_add(1, Ordering::Release);
}

/// Returns how often a vector arrived on this CPU since the last call.
pub fn take(vector: u8) -> u32 {
    let count = &ARRIVED.this().0[usize::from(vector)];
    // Mostly nothing: a read is cheaper than an exchange.
    if count.load(Ordering::Acquire) == 0 { 0 } else { count.swap(0, Ordering::AcqRel) }
}

/// Returns how often a vector arrived on any CPU since the last call: for devices, whose interrupts may go to one CPU
/// and be served by another.
pub fn take_anywhere(vector: u8) -> u32 {
    let counts = (0..MAX_CPUS).map(|cpu| &ARRIVED.of(CpuId::new(cpu)).0[usize::from(vector)]);
    counts.map(|count| if count.load(Ordering::Acquire) == 0 { 0 } else { count.swap(0, Ordering::AcqRel) }).sum()
}

/// Takes all pending interrupts.
pub fn window() {
    // SAFETY: start-up loads this CPU's tables before anything here runs.
    unsafe { instr::interrupt_window() };
}

/// A turn of a loop that waits for a device without idling.
///
/// A window besides the pause: Bochs, on a VM entry with IF clear, masks external interrupts for the hypervisor around us too,
/// until IF was set once. Without it, a loop that waits for that hypervisor's devices keeps it from running.
pub fn spin() {
    #[cfg(test)]
    super::time::test_clock::pass();
    instr::pause();
    // On the host this is a test, whose interrupts are not ours.
    #[cfg(target_os = "none")]
    window();
}

/// Waits for an interrupt, until `deadline_ns` if there is one. May return early.
pub fn idle(deadline_ns: Option<u64>) {
    match deadline_ns {
        Some(deadline) => time::arm(deadline),
        None => time::disarm(),
    }
    // SAFETY: as in `window`.
    unsafe { instr::wait_for_interrupt() };
}

/// Makes a CPU leave guest mode or its idle wait and look at its flags.
pub fn kick(cpu: CpuId) {
    apic::send(apic_id(cpu), KICK);
}

/// Returns a CPU's APIC identifier: where devices' messages go.
pub fn apic_id(cpu: CpuId) -> u32 {
    APIC_IDS.of(cpu).load(Ordering::Acquire)
}

/// Notes this CPU's APIC identifier.
#[cfg(target_os = "none")]
pub(super) fn note_apic_id(cpu: CpuId) {
    APIC_IDS.of(cpu).store(apic::id(), Ordering::Release);
}
