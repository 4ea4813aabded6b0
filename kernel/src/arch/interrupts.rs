//! External interrupts: assignment of vectors, what a handler does, and how a CPU waits.
//!
//! Interrupts are off while the hypervisor works. They are taken in two places: in [`window`],
//! briefly, after an exit has reported a pending one; and in [`idle`]. A handler ends the interrupt
//! and counts it; the user of the vector takes the count with [`take`].
//!
//! ```text
//! guest runs ──exit: host interrupt──> window() ──> arrived(vector): count, end of interrupt ──> take(vector)
//! nothing to run ──> take(..) of all causes, none ──> idle(deadline): sti; hlt ─────────────────────┘
//! ```
//!
//! No wake-up is lost: interrupts are off between the last check of the counts and HLT, and a
//! pending one ends HLT at once.
// UNSAFETY: enables interrupts, which requires this CPU's tables to be loaded.
#![expect(unsafe_code)]

use super::vectors;
use super::{
    apic, instr,
    percpu::{CpuId, MAX_CPUS, PerCpu},
    time,
};
use crate::time::Ns;
use core::sync::atomic::{AtomicU32, Ordering};

struct VectorCounts([AtomicU32; 256]);

static ARRIVED: PerCpu<VectorCounts> =
    PerCpu::new([const { VectorCounts([const { AtomicU32::new(0) }; 256]) }; MAX_CPUS]);
static APIC_IDS: PerCpu<AtomicU32> = PerCpu::new([const { AtomicU32::new(0) }; MAX_CPUS]);

/// Handles an interrupt; called by the entry code.
#[cfg(target_os = "none")]
pub(super) fn arrived(vector: u8) {
    count(vector);
    // A spurious interrupt is not in service: an end of interrupt would end another one.
    if vector != vectors::SPURIOUS {
        apic::end_of_interrupt();
    }
}

/// Counts an interrupt.
#[cfg(target_os = "none")]
pub(super) fn count(vector: u8) {
    ARRIVED.this().0[usize::from(vector)].fetch_add(1, Ordering::Release);
}

/// Returns how often a vector has arrived on this CPU since the last call.
pub fn take(vector: u8) -> u32 {
    let count = &ARRIVED.this().0[usize::from(vector)];
    // The count is mostly 0, and a read is cheaper than an exchange.
    if count.load(Ordering::Acquire) == 0 { 0 } else { count.swap(0, Ordering::AcqRel) }
}

/// Takes all pending interrupts.
pub fn window() {
    // SAFETY: start-up loads this CPU's tables before any caller runs.
    unsafe { instr::interrupt_window() };
}

/// One iteration of a loop that waits for a device without idling.
///
/// It opens an interrupt window too. When we are nested under Bochs, a VM entry of the outer
/// hypervisor with IF clear masks external interrupts for that hypervisor as well, until IF has
/// been set once. Without the window, a loop that waits for a device of the outer hypervisor would
/// keep it from running.
pub fn spin() {
    #[cfg(test)]
    super::time::test_clock::pass();
    instr::pause();
    // On the host this is a test, which has no interrupts of ours.
    #[cfg(target_os = "none")]
    window();
}

/// Waits for an interrupt, until `deadline_ns` if given. May return early.
pub fn idle(deadline_ns: Option<Ns>) {
    match deadline_ns {
        Some(deadline) => time::arm(deadline),
        None => time::disarm(),
    }
    // SAFETY: as in `window`.
    unsafe { instr::wait_for_interrupt() };
}

/// Makes a CPU leave guest mode or its idle wait and check its flags.
pub fn kick(cpu: CpuId) {
    // A test has one CPU, without an APIC.
    #[cfg(test)]
    if cpu == CpuId::BOOT {
        return instr::raise_kick();
    }
    apic::send(apic_id(cpu), vectors::KICK);
}

/// Returns a CPU's APIC identifier, the destination of devices' messages.
pub fn apic_id(cpu: CpuId) -> u32 {
    APIC_IDS.of(cpu).load(Ordering::Acquire)
}

/// Records this CPU's APIC identifier.
#[cfg(target_os = "none")]
pub(super) fn note_apic_id(cpu: CpuId) {
    APIC_IDS.of(cpu).store(apic::id(), Ordering::Release);
}
