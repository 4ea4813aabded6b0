//! The local APIC: end of interrupt, interrupts to other CPUs, the timer's registers.
//!
//! x2APIC if the CPU has it, otherwise the registers in memory; [`init`] chooses once, the same for
//! all CPUs.
//! SDM 3A "Advanced Programmable Interrupt Controller (APIC)".
// UNSAFETY: device registers in memory and in MSRs.
#![expect(unsafe_code)]

use super::apic_words::{InterruptCommand, LocalVector, delivery, shorthand, timer_mode};
use super::{direct_map, instr};
use crate::addr::Hpa;
use crate::time::Ticks;
use core::num::NonZero;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use volatile::VolatilePtr;

const IA32_APIC_BASE: u32 = 0x1b;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const X2APIC_MSRS: u32 = 0x800;
const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// A register, by its offset in memory; the MSR's number is the offset / 16.
#[derive(Clone, Copy)]
#[repr(u32)]
enum ApicRegister {
    Id = 0x20,
    TaskPriority = 0x80,
    EndOfInterrupt = 0xb0,
    SpuriousVector = 0xf0,
    Command = 0x300,
    CommandHigh = 0x310,
    Timer = 0x320,
    Lint0 = 0x350,
    Lint1 = 0x360,
    Error = 0x370,
    InitialCount = 0x380,
    CurrentCount = 0x390,
    Divide = 0x3e0,
}

const MASKED: u32 = LocalVector::new().with_masked(true).into_bits();
const SOFTWARE_ENABLE: u32 = 1 << 8;
const DIVIDE_BY_1: u32 = 0b1011;

/// Virtual address of the registers, or 0 for x2APIC.
static REGISTERS: AtomicUsize = AtomicUsize::new(0);

/// Enables this CPU's APIC with everything masked.
pub fn init() {
    // SAFETY: all 64-bit CPUs have the register.
    let base = unsafe { instr::rdmsr(IA32_APIC_BASE) };
    let x2apic = instr::cpuid(1, 0).ecx & 1 << 21 != 0;
    let wanted = base | BASE_ENABLE | if x2apic { BASE_X2APIC } else { 0 };
    if !x2apic {
        let registers = direct_map::pointer::<u8>(Hpa::new(base & BASE_ADDRESS));
        REGISTERS.store(registers.expose_provenance(), Ordering::Release);
    }
    // SAFETY: enabling, and from enabled to x2APIC, are legal transitions.
    unsafe { instr::wrmsr(IA32_APIC_BASE, wanted) };
    write(ApicRegister::TaskPriority, 0);
    for entry in
        [ApicRegister::Timer, ApicRegister::Lint0, ApicRegister::Lint1, ApicRegister::Error]
    {
        write(entry, MASKED);
    }
    write(ApicRegister::SpuriousVector, SOFTWARE_ENABLE | u32::from(super::vectors::SPURIOUS));
}

/// Returns this CPU's APIC identifier.
pub fn id() -> u32 {
    let id = read(ApicRegister::Id);
    if is_x2apic() { id } else { id >> 24 }
}

/// Ends the interrupt being handled.
pub fn end_of_interrupt() {
    write(ApicRegister::EndOfInterrupt, 0);
}

/// Sends an interrupt to the CPU with APIC identifier `to`.
pub fn send(to: u32, vector: u8) {
    command(fixed(to, vector));
}

/// Sends INIT to a CPU.
pub fn send_init(to: u32) {
    command(fixed(to, 0).with_delivery_mode(delivery::INIT));
}

/// Sends a start-up interrupt: the CPU begins in real mode at page `page`.
pub fn send_startup(to: u32, page: u8) {
    command(fixed(to, page).with_delivery_mode(delivery::STARTUP));
}

/// Sends an NMI to all other CPUs.
pub fn send_nmi_to_others() {
    let nmi = fixed(0, 0).with_delivery_mode(delivery::NMI);
    command(nmi.with_shorthand(shorthand::ALL_BUT_SELF));
}

/// How the timer continues when its count reaches 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Countdown {
    /// It stops.
    Once,
    /// It starts again.
    Repeated,
}

/// Sets the timer to send `vector` after `count` ticks; 0 stops it.
pub fn start_timer(vector: u8, count: u32, countdown: Countdown) {
    let mode = match countdown {
        Countdown::Once => timer_mode::ONE_SHOT,
        Countdown::Repeated => timer_mode::PERIODIC,
    };
    write(ApicRegister::Divide, DIVIDE_BY_1);
    write(ApicRegister::Timer, timer_entry(vector, mode));
    write(ApicRegister::InitialCount, count);
}

/// Starts the timer from the largest count, with its interrupt masked.
pub fn start_silent_timer() {
    write(ApicRegister::Divide, DIVIDE_BY_1);
    write(ApicRegister::Timer, MASKED);
    write(ApicRegister::InitialCount, u32::MAX);
}

/// Returns the count that the timer was last started with.
pub fn timer_initial_count() -> u32 {
    read(ApicRegister::InitialCount)
}

/// Returns the rest of the timer's count.
pub fn timer_count() -> u32 {
    read(ApicRegister::CurrentCount)
}

/// Sets the timer to send `vector` when the time-stamp counter reaches `tsc`; 0 stops it.
///
/// # Safety
/// The CPU has TSC-deadline mode.
pub unsafe fn start_deadline_timer(vector: u8, tsc: Ticks) {
    write(ApicRegister::Timer, timer_entry(vector, timer_mode::TSC_DEADLINE));
    // The write above may be delayed if it goes to memory; SDM 3A "TSC-Deadline Mode" requires a
    // fence.
    core::sync::atomic::fence(Ordering::SeqCst);
    // SAFETY: the caller's promise.
    unsafe { instr::wrmsr(IA32_TSC_DEADLINE, tsc.as_u64()) };
}

const fn timer_entry(vector: u8, mode: u8) -> u32 {
    LocalVector::new().with_vector(vector).with_timer_mode(mode).into_bits()
}

/// Returns the command that sends a fixed interrupt.
const fn fixed(to: u32, vector: u8) -> InterruptCommand {
    InterruptCommand::new().with_destination(to).with_vector(vector).with_assert(true)
}

// Out of line, so that loops over CPUs of which none is kicked stay short.
#[inline(never)]
fn command(command: InterruptCommand) {
    if is_x2apic() {
        // WRMSR to the APIC is not ordered after earlier stores. The fence makes them visible
        // before the interrupt arrives.
        core::sync::atomic::fence(Ordering::SeqCst);
        // SAFETY: the command register in x2APIC mode.
        return unsafe {
            instr::wrmsr(X2APIC_MSRS + ApicRegister::Command as u32 / 16, command.into_bits())
        };
    }
    // Bounded wait: a command that stays pending is lost. The hypervisor then fails later, but does
    // not hang here.
    for _ in 0..1_000_000 {
        if !InterruptCommand::from(u64::from(read(ApicRegister::Command))).pending() {
            break;
        }
        instr::pause();
    }
    write(ApicRegister::CommandHigh, command.destination() << 24);
    write(ApicRegister::Command, command.into_bits() as u32);
}

fn is_x2apic() -> bool {
    registers().is_none()
}

/// Returns the address of the registers in memory; `None` in x2APIC mode.
fn registers() -> Option<NonZero<usize>> {
    NonZero::new(REGISTERS.load(Ordering::Acquire))
}

/// Returns a register in memory. Each CPU reaches its own APIC there.
fn in_memory(base: NonZero<usize>, register: ApicRegister) -> VolatilePtr<'static, u32> {
    // The sum never saturates: the page is in the direct map.
    let register = NonNull::with_exposed_provenance(base.saturating_add(register as usize));
    // SAFETY: the APIC's page in the direct map, uncached by the firmware's MTRRs; it is mapped for
    // ever, and no other CPU reaches this CPU's registers.
    unsafe { VolatilePtr::new(register) }
}

fn read(register: ApicRegister) -> u32 {
    match registers() {
        // SAFETY: the APIC is in x2APIC mode and has the register.
        None => unsafe { instr::rdmsr(X2APIC_MSRS + register as u32 / 16) as u32 },
        Some(base) => in_memory(base, register).read(),
    }
}

fn write(register: ApicRegister, value: u32) {
    match registers() {
        // SAFETY: the APIC is in x2APIC mode and has the register; it reaches no memory.
        None => unsafe { instr::wrmsr(X2APIC_MSRS + register as u32 / 16, u64::from(value)) },
        Some(base) => in_memory(base, register).write(value),
    }
}
