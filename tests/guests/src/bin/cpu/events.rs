//! Interrupts, NMIs and faults: each is delivered once, at the place that the manuals define.
//! SDM 3A "Nonmaskable Interrupt (NMI)", SDM 3B "Instruction Breakpoint Exception Condition", APM 2
//! "Non-Maskable-Interrupt Exception (NMI)".

use super::{PROTECTION, RAX, RCX, expect, try_with};
use core::sync::atomic::{AtomicU64, Ordering};
use guests::instr;
use guests::trap::{self, Handled, TrapFrame};

const NMI: u64 = 2;
const VECTOR: u64 = 0x34;
const RESUME_FLAG: u64 = 1 << 16;
const INTERRUPT_FLAG: u64 = 1 << 9;

const COMMAND: u64 = 0x300;
const TO_SELF: u32 = 1 << 18;
const DELIVER_NMI: u32 = 4 << 8;

static COUNT: AtomicU64 = AtomicU64::new(0);
static MEANWHILE: AtomicU64 = AtomicU64::new(0);
static INSIDE: AtomicU64 = AtomicU64::new(0);
static NESTED: AtomicU64 = AtomicU64::new(0);
static STACK: AtomicU64 = AtomicU64::new(0);

fn look_away() {
    const LINE_STATUS: u16 = 0x3fd;
    (0..8).for_each(|_| {
        instr::inb(LINE_STATUS);
    });
}

/// Handles NMIs. The first one sends another, which must be held pending until the first one's
/// IRET.
fn on_nmi(frame: &mut TrapFrame) -> Handled {
    if frame.vector != NMI {
        return Handled::No;
    }
    NESTED.fetch_add(INSIDE.swap(1, Ordering::SeqCst), Ordering::SeqCst);
    if COUNT.fetch_add(1, Ordering::SeqCst) == 0 {
        instr::write_apic(COMMAND, TO_SELF | DELIVER_NMI);
        look_away();
        MEANWHILE.store(COUNT.load(Ordering::SeqCst), Ordering::SeqCst);
    }
    // The second NMI must come after the IRET: its stack pointer is then the same as the first
    // one's.
    let first = STACK.swap(frame.rsp, Ordering::SeqCst);
    NESTED.fetch_add(u64::from(first != 0 && first != frame.rsp), Ordering::SeqCst);
    INSIDE.store(0, Ordering::SeqCst);
    Handled::Yes
}

fn nmis(rounds: u64) {
    trap::handle(on_nmi);
    for round in 0..rounds {
        COUNT.store(0, Ordering::SeqCst);
        STACK.store(0, Ordering::SeqCst);
        instr::write_apic(COMMAND, TO_SELF | DELIVER_NMI);
        look_away();
        expect(format_args!("NMIs of round {round}"), COUNT.load(Ordering::SeqCst), 2);
        expect(format_args!("NMIs during the first"), MEANWHILE.load(Ordering::SeqCst), 1);
    }
    expect(format_args!("NMIs within NMIs"), NESTED.load(Ordering::SeqCst), 0);
}

fn on_interrupt(frame: &mut TrapFrame) -> Handled {
    if frame.vector != VECTOR {
        return Handled::No;
    }
    COUNT.fetch_add(1, Ordering::SeqCst);
    NESTED.fetch_add(INSIDE.swap(1, Ordering::SeqCst), Ordering::SeqCst);
    instr::write_apic_eoi();
    look_away();
    INSIDE.store(0, Ordering::SeqCst);
    Handled::Yes
}

/// An interrupt is pending and the kernel writes CR8: only the priority changes. Later the
/// interrupt is taken once.
fn task_priority() {
    trap::handle(on_interrupt);
    instr::write_apic(0xf0, 0x1ff);
    COUNT.store(0, Ordering::SeqCst);
    let count = || COUNT.load(Ordering::SeqCst);
    instr::write_apic(COMMAND, TO_SELF | VECTOR as u32);
    look_away();
    instr::set_cr8(5);
    expect(format_args!("masked by IF and by CR8"), (count(), instr::cr8()), (0, 5));
    instr::interrupt_window();
    expect(format_args!("masked by CR8"), count(), 0);
    instr::set_cr8(0);
    instr::interrupt_window();
    expect(format_args!("taken when nothing masks it"), count(), 1);
    instr::write_apic(COMMAND, TO_SELF | VECTOR as u32);
    instr::set_cr8(3);
    instr::interrupt_window();
    expect(format_args!("masked by its own class"), count(), 1);
    instr::set_cr8(2);
    instr::interrupt_window();
    expect(format_args!("taken below its class"), count(), 2);
    instr::set_cr8(0);
}

/// Checks that each interrupt is delivered once, with and without a wait for the interrupt window.
pub(crate) fn once(rounds: u64) {
    trap::handle(on_interrupt);
    instr::write_apic(0xf0, 0x1ff);
    COUNT.store(0, Ordering::SeqCst);
    for _ in 0..rounds {
        instr::write_apic(COMMAND, TO_SELF | VECTOR as u32);
        instr::sti_hlt();
        instr::sti();
        instr::write_apic(COMMAND, TO_SELF | VECTOR as u32);
        instr::cli();
    }
    expect(format_args!("interrupts"), COUNT.load(Ordering::SeqCst), 2 * rounds);
    expect(format_args!("interrupts within interrupts"), NESTED.load(Ordering::SeqCst), 0);
}

/// An exit in the STI shadow, for a page that was never touched, must not delay an interrupt: the
/// guest spins after it.
fn behind_the_shadow() {
    /// RAM that neither loader nor kernel uses.
    const UNTOUCHED: u64 = 8 << 20;
    const LIMIT: u64 = 100_000_000;
    const SOON: u64 = 100;
    trap::handle(on_interrupt);
    instr::write_apic(0xf0, 0x1ff);
    for round in 0..8 {
        COUNT.store(0, Ordering::SeqCst);
        instr::write_apic(COMMAND, TO_SELF | VECTOR as u32);
        let turns = instr::sti_write_spin((UNTOUCHED + (round << 12)) as *mut u8, &COUNT, LIMIT);
        expect(
            format_args!("an interrupt behind a shadow, late by {turns} turns"),
            turns < SOON,
            true,
        );
        expect(format_args!("interrupts of round {round}"), COUNT.load(Ordering::SeqCst), 1);
    }
}

/// A fault pushes RF, whether the CPU or the hypervisor raises it.
fn resume_flag() {
    let outcome = try_with(&[0x0f, 0x32], &[(RCX, 0xdead_beef)]);
    expect(
        format_args!("#GP pushes RF"),
        (outcome.vector, outcome.rflags & RESUME_FLAG),
        (PROTECTION, RESUME_FLAG),
    );
    // The one of VMRUN and VMLAUNCH that causes an exit.
    let outcome = try_with(&[0x0f, 0x01, if super::is_amd() { 0xd8 } else { 0xc2 }], &[]);
    expect(
        format_args!("#UD pushes RF"),
        (outcome.vector, outcome.rflags & RESUME_FLAG),
        (super::UNDEFINED, RESUME_FLAG),
    );
    expect(format_args!("and is where the instruction is"), (outcome.at, outcome.error), (0, 0));
    // An emulated instruction clears RF: a later interrupt or PUSHF pushes it as 0.
    let outcome = try_with(&[0x0f, 0xa2, 0x9c, 0x58], &[(RAX, 0)]);
    expect(
        format_args!("RF behind CPUID"),
        outcome.rax & (RESUME_FLAG | INTERRUPT_FLAG),
        INTERRUPT_FLAG,
    );
}

/// Runs the checks, with two NMIs in each of `nmi_rounds` rounds.
pub(crate) fn check(nmi_rounds: u64) {
    nmis(nmi_rounds);
    task_priority();
    once(200);
    behind_the_shadow();
    resume_flag();
}
