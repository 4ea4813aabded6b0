//! Checks that the CPU behaves as the manuals say, where the hypervisor takes part.
//!
//! Every failed check is logged; the verdict comes after all checks. With `exotic=1` the kernel
//! then executes an instruction at an unassigned address that the hypervisor does not emulate. That
//! must crash the partition with that reason. `nmi_rounds=N` is the number of rounds of two NMIs,
//! three by default. `interrupts=N` only checks that twice N interrupts are delivered once each.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![expect(unsafe_code)] // UNSAFETY: instructions that Rust lacks, device registers

#[cfg(target_os = "none")]
mod data;
#[cfg(target_os = "none")]
mod empty;
#[cfg(target_os = "none")]
mod events;
#[cfg(target_os = "none")]
mod hidden;
#[cfg(target_os = "none")]
mod registers;
#[cfg(target_os = "none")]
mod step;
#[cfg(target_os = "none")]
mod time;
#[cfg(target_os = "none")]
mod traps;
#[cfg(target_os = "none")]
mod zeros;

guests::kernel!(run);

#[cfg(target_os = "none")]
use core::sync::atomic::{AtomicU32, Ordering};
#[cfg(target_os = "none")]
use guests::attempt::{REGISTERS, TrapOutcome, observe};
#[cfg(target_os = "none")]
use guests::trap::Handled;

#[cfg(target_os = "none")]
static FAILED: AtomicU32 = AtomicU32::new(0);
#[cfg(target_os = "none")]
static CHECKED: AtomicU32 = AtomicU32::new(0);

#[cfg(target_os = "none")]
const UNDEFINED: u64 = 6;
#[cfg(target_os = "none")]
const PROTECTION: u64 = 13;
/// Vector of the #BP at the end of the code.
#[cfg(target_os = "none")]
const DONE: u64 = 3;
#[cfg(target_os = "none")]
const RAX: usize = 0;
#[cfg(target_os = "none")]
const RCX: usize = 2;
#[cfg(target_os = "none")]
const RDX: usize = 3;
#[cfg(target_os = "none")]
const RSI: usize = 5;
#[cfg(target_os = "none")]
const RDI: usize = 6;

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    if let Some(rounds) = machine.option("interrupts") {
        events::once(rounds);
        return verdict();
    }
    step::check();
    hidden::check();
    registers::check();
    time::check();
    traps::check();
    data::check();
    events::check(machine.option("nmi_rounds").unwrap_or(3));
    empty::check();
    zeros::check(machine);
    if FAILED.load(Ordering::SeqCst) == 0 && machine.option("exotic") == Some(1) {
        empty::exotic();
    }
    verdict()
}

#[cfg(target_os = "none")]
fn verdict() -> guests::TestVerdict {
    let (failed, checked) = (FAILED.load(Ordering::SeqCst), CHECKED.load(Ordering::SeqCst));
    guests::log!("{checked} checks, {failed} failed");
    if failed == 0 { guests::pass() } else { guests::report::fail_with(failed) }
}

/// Records one check.
#[cfg(target_os = "none")]
fn expect<T: PartialEq + core::fmt::Debug>(what: core::fmt::Arguments<'_>, found: T, wanted: T) {
    CHECKED.fetch_add(1, Ordering::SeqCst);
    if found != wanted {
        FAILED.fetch_add(1, Ordering::SeqCst);
        guests::log!("WRONG {what}: {found:x?}, wanted {wanted:x?}");
    }
}

/// Runs `code` with the registers in `set`.
#[cfg(target_os = "none")]
fn try_with(code: &[u8], set: &[(usize, u64)]) -> TrapOutcome {
    let mut registers = [0; REGISTERS];
    set.iter().for_each(|&(register, value)| registers[register] = value);
    observe(&registers, code, |_| Handled::No)
}

#[cfg(target_os = "none")]
fn try_rdmsr(register: u32) -> Result<u64, u64> {
    let outcome = try_with(&[0x0f, 0x32], &[(RCX, register.into())]);
    if outcome.vector == DONE { Ok(outcome.rdx << 32 | outcome.rax) } else { Err(outcome.vector) }
}

#[cfg(target_os = "none")]
fn try_wrmsr(register: u32, value: u64) -> Result<(), u64> {
    let outcome = try_with(
        &[0x0f, 0x30],
        &[(RCX, register.into()), (RAX, value & 0xffff_ffff), (RDX, value >> 32)],
    );
    if outcome.vector == DONE { Ok(()) } else { Err(outcome.vector) }
}

/// Returns whether the CPU is AMD's.
#[cfg(target_os = "none")]
fn is_amd() -> bool {
    guests::instr::cpuid(0, 0).ebx == u32::from_le_bytes(*b"Auth")
}
