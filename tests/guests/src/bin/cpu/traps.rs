//! Traps by software, and the debug registers. SDM 3A "Interrupt and Exception Handling", SDM 3B
//! "Debug Registers".

use super::{DONE, PROTECTION, RAX, UNDEFINED, expect, is_amd, try_with};
use core::sync::atomic::{AtomicU64, Ordering};
use guests::attempt::{REGISTERS, TrapOutcome, observe, place};
use guests::instr::{self, control_registers};
use guests::trap::{Handled, TrapFrame};

const DEBUG: u64 = 1;
const RESUME_FLAG: u64 = 1 << 16;
const DR6_INIT: u64 = 0xffff_0ff0;
pub(crate) const DR7_OFF: u64 = 0x400;
const GENERAL_DETECT: u64 = 1 << 13;

static HITS: AtomicU64 = AtomicU64::new(0);
static HIT_AT: AtomicU64 = AtomicU64::new(0);
static CAUSES: AtomicU64 = AtomicU64::new(0);

fn ended(outcome: &TrapOutcome) -> (u64, u64, u64) {
    (outcome.vector, outcome.error, outcome.at)
}

/// INT n is a trap after the instruction and pushes no error code. It is no interrupt: it cannot be
/// masked, and INT 2 blocks no NMI.
fn software_interrupts() {
    /// A vector beyond the table's last, 63: the error code is the vector's selector in the IDT.
    const BEYOND: u64 = 0x80 << 3 | 2;
    for (name, code, wanted) in [
        ("INT3", &[0xcc][..], (DONE, 0, 1)),
        ("INT 3 of two bytes", &[0xcd, 3], (3, 0, 2)),
        ("INT 2", &[0xcd, 2], (2, 0, 2)),
        ("INT 1", &[0xcd, 1], (DEBUG, 0, 2)),
        ("INT 0x35", &[0xcd, 0x35], (0x35, 0, 2)),
        ("INT 0x35 with interrupts off", &[0xfa, 0xcd, 0x35], (0x35, 0, 3)),
        ("INTO in 64-bit mode", &[0xce], (UNDEFINED, 0, 0)),
    ] {
        expect(format_args!("{name}"), ended(&try_with(code, &[])), wanted);
    }
    let beyond = try_with(&[0xcd, 0x80], &[]);
    expect(format_args!("INT beyond the table"), (beyond.vector, beyond.at), (PROTECTION, 0));
    // QEMU's emulation pushes another error code, and treats INT1 as an undefined instruction.
    if !is_amd() {
        expect(format_args!("its error code"), beyond.error, BEYOND);
        let outcome = try_with(&[0xf1], &[]);
        expect(
            format_args!("INT1"),
            (ended(&outcome), instr::take_dr6() & 0x600f),
            ((DEBUG, 0, 1), 0),
        );
    }
}

/// Writes a debug register; returns the vector that ended the MOV.
pub(crate) fn write_dr(number: u8, value: u64) -> u64 {
    try_with(&[0x0f, 0x23, 0xc0 | number << 3], &[(RAX, value)]).vector
}

fn read_dr(number: u8) -> (u64, u64) {
    let outcome = try_with(&[0x0f, 0x21, 0xc0 | number << 3], &[]);
    (outcome.vector, outcome.rax)
}

fn debug_registers() {
    const DEBUG_EXTENSIONS: u64 = 1 << 3;
    for number in 0..4 {
        let value = 0x1234_5678_9abc_u64 + u64::from(number);
        expect(format_args!("DR{number} written"), write_dr(number, value), DONE);
        expect(format_args!("DR{number} read"), read_dr(number), (DONE, value));
    }
    for number in [6, 7] {
        expect(format_args!("DR{number} with an upper bit"), write_dr(number, 1 << 32), PROTECTION);
    }
    expect(format_args!("DR6 cleared"), (write_dr(6, 0), read_dr(6)), (DONE, (DONE, DR6_INIT)));
    expect(
        format_args!("DR7 with fixed bits"),
        (write_dr(7, 0xd000), read_dr(7)),
        (DONE, (DONE, DR7_OFF)),
    );
    expect(format_args!("DR4 is DR6"), read_dr(4), (DONE, DR6_INIT));
    expect(format_args!("DR5 is DR7"), read_dr(5), (DONE, DR7_OFF));
    let (_, _, cr4) = control_registers();
    try_with(&[0x0f, 0x22, 0xe0], &[(RAX, cr4 | DEBUG_EXTENSIONS)]);
    for number in [4, 5] {
        let found = (read_dr(number).0, write_dr(number, DR7_OFF));
        expect(format_args!("DR{number} under CR4.DE"), found, (UNDEFINED, UNDEFINED));
    }
    try_with(&[0x0f, 0x22, 0xe0], &[(RAX, cr4)]);
}

/// Records a debug exception, and sets RF so that the same instruction raises no other one.
fn note(frame: &mut TrapFrame) -> Handled {
    if frame.vector != DEBUG {
        return Handled::No;
    }
    HITS.fetch_add(1, Ordering::SeqCst);
    HIT_AT.store(frame.rip.wrapping_sub(place()), Ordering::SeqCst);
    CAUSES.store(instr::take_dr6(), Ordering::SeqCst);
    frame.rflags |= RESUME_FLAG;
    Handled::Yes
}

/// mov dr0, rax; mov eax, value of DR7; mov dr7, rax: `rest` begins behind these.
fn with_dr7(name: &str, dr7: u32, dr0: u64, rest: &[u8], wanted_at: u64, cause: u64) {
    const SET: usize = 11;
    let mut code = [0x90; 32];
    code[..4].copy_from_slice(&[0x0f, 0x23, 0xc0, 0xb8]);
    code[4..8].copy_from_slice(&dr7.to_le_bytes());
    code[8..SET].copy_from_slice(&[0x0f, 0x23, 0xf8]);
    code[SET..SET + rest.len()].copy_from_slice(rest);
    let mut registers = [0; REGISTERS];
    registers[RAX] = if dr0 == 0 { 0 } else { place() + SET as u64 + dr0 - 1 };
    HITS.store(0, Ordering::SeqCst);
    let outcome = observe(&registers, &code[..SET + rest.len()], note);
    let found = (
        outcome.vector,
        HITS.load(Ordering::SeqCst),
        HIT_AT.load(Ordering::SeqCst).wrapping_sub(SET as u64),
    );
    expect(format_args!("{name}"), found, (DONE, 1, wanted_at));
    expect(format_args!("DR6 of {name}"), CAUSES.load(Ordering::SeqCst) & 0x600f, cause);
    write_dr(7, DR7_OFF);
}

/// Breakpoints fire once, also at instructions that the hypervisor emulates. Not under QEMU's
/// emulation.
fn breakpoints() {
    const LOCAL_0: u32 = 0x401;
    if is_amd() {
        return;
    }
    with_dr7("a breakpoint at NOP", LOCAL_0, 1, &[0x90], 0, 1);
    with_dr7("a breakpoint at CPUID", LOCAL_0, 1, &[0x0f, 0xa2], 0, 1);
    with_dr7("a breakpoint behind CPUID", LOCAL_0, 3, &[0x0f, 0xa2, 0x90], 2, 1);
    with_dr7("a breakpoint at MOV CR8", LOCAL_0, 1, &[0x44, 0x0f, 0x20, 0xc0], 0, 1);
    // mov rax, dr7 with general detect enabled: the handler reads DR7 without GD.
    with_dr7(
        "general detection",
        0x400 | GENERAL_DETECT as u32,
        0,
        &[0x0f, 0x21, 0xf8],
        0,
        GENERAL_DETECT,
    );
}

/// Runs the checks.
pub(crate) fn check() {
    software_interrupts();
    debug_registers();
    breakpoints();
}
