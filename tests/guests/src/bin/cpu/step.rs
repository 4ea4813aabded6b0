//! One debug exception after every instruction, also after those that the hypervisor emulates.
//! SDM 3B "Single-Step Exception Condition".

use super::{DONE, RCX, RDX, RSI, expect};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use guests::attempt::{REGISTERS, observe, place};
use guests::instr;
use guests::trap::{Handled, TrapFrame};

const MOST: usize = 16;
static STEPS: AtomicUsize = AtomicUsize::new(0);
static AT: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
static CAUSES: AtomicU64 = AtomicU64::new(0);
static BUFFER: [u8; 16] = [b'x'; 16];

const DEBUG: u64 = 1;
/// Vector of the INT n test.
const SOFTWARE: u64 = 0x35;
const DR6_SINGLE_STEP: u64 = 1 << 14;
/// pushfq; or dword [rsp], 0x100; popfq
const SET: [u8; 9] = [0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d];
/// pushfq; and dword [rsp], ~0x100; popfq
const CLEAR: [u8; 9] = [0x9c, 0x81, 0x24, 0x24, 0xff, 0xfe, 0xff, 0xff, 0x9d];

/// Records a step.
fn note(frame: &mut TrapFrame) -> Handled {
    match frame.vector {
        SOFTWARE => return Handled::Yes,
        DEBUG => {}
        _ => return Handled::No,
    }
    let step = STEPS.fetch_add(1, Ordering::SeqCst);
    if let Some(at) = AT.get(step) {
        at.store(frame.rip.wrapping_sub(place()), Ordering::SeqCst);
    }
    CAUSES.fetch_and(instr::take_dr6(), Ordering::SeqCst);
    Handled::Yes
}

/// Steps through `code`; `wanted` are the offsets at which a step ends, the last one being the end.
fn steps(name: &str, code: &[u8], wanted: &[u64], set: &[(usize, u64)]) {
    let mut bytes = [0x90; 64];
    let end = SET.len() + code.len();
    bytes[..SET.len()].copy_from_slice(&SET);
    bytes[SET.len()..end].copy_from_slice(code);
    bytes[end..end + CLEAR.len()].copy_from_slice(&CLEAR);
    let mut registers = [0; REGISTERS];
    set.iter().for_each(|&(register, value)| registers[register] = value);
    STEPS.store(0, Ordering::SeqCst);
    CAUSES.store(u64::MAX, Ordering::SeqCst);
    let outcome = observe(&registers, &bytes[..end + CLEAR.len()], note);
    expect(format_args!("{name} ends"), outcome.vector, DONE);
    // The PUSHFQ, AND and POPFQ at the end are stepped over, too.
    expect(format_args!("steps over {name}"), STEPS.load(Ordering::SeqCst), wanted.len() + 3);
    for (step, &offset) in wanted.iter().enumerate() {
        let at = AT[step].load(Ordering::SeqCst).wrapping_sub(SET.len() as u64);
        expect(format_args!("step {step} over {name}"), at, offset);
    }
    expect(
        format_args!("DR6.BS after {name}"),
        CAUSES.load(Ordering::SeqCst) & DR6_SINGLE_STEP,
        DR6_SINGLE_STEP,
    );
}

/// Runs the checks.
pub(crate) fn check() {
    const LINE_STATUS: u64 = 0x3fd;
    const EMPTY_PORT: u64 = 0x80;
    let buffer = BUFFER.as_ptr() as u64;
    steps("NOP", &[0x90], &[1], &[]);
    steps("CPUID", &[0x0f, 0xa2], &[2], &[]);
    steps("CPUID of a leaf that follows the state", &[0xb0, 1, 0x0f, 0xa2], &[2, 4], &[]);
    steps("IN", &[0xec], &[1], &[(RDX, LINE_STATUS)]);
    steps("OUT", &[0xee], &[1], &[(RDX, EMPTY_PORT)]);
    steps("OUTSB", &[0x6e], &[1], &[(RDX, EMPTY_PORT), (RSI, buffer)]);
    steps(
        "REP OUTSB of 3",
        &[0xf3, 0x6e],
        &[0, 0, 2],
        &[(RDX, EMPTY_PORT), (RSI, buffer), (RCX, 3)],
    );
    steps("RDMSR", &[0x0f, 0x32], &[2], &[(RCX, 0x1b)]);
    steps("WRMSR", &[0xb1, 0x8b, 0x0f, 0x30], &[2, 4], &[]);
    // mov eax, [rsi]; mov [rsi + 0x10], eax: reads the local APIC's ID, and writes to a register
    // without effect
    steps("MMIO", &[0x8b, 0x46, 0x20, 0x89, 0x46, 0x20], &[3, 6], &[(RSI, 0xfee0_0000)]);
    steps("WBINVD", &[0x0f, 0x09], &[2], &[]);
    // mov rax, cr4; mov cr4, rax; mov rax, cr8; mov cr8, rax
    steps("MOV CR4", &[0x0f, 0x20, 0xe0, 0x0f, 0x22, 0xe0], &[3, 6], &[]);
    steps("MOV CR8", &[0x44, 0x0f, 0x20, 0xc0, 0x44, 0x0f, 0x22, 0xc0], &[4, 8], &[]);
    // INT n clears TF at its entry, so the step ends after the instruction to which its handler
    // returns.
    steps("INT n", &[0xcd, 0x35, 0x90], &[3], &[]);
    // MOV SS delays its step until after the next instruction; not under QEMU's emulation.
    if !super::is_amd() {
        steps("MOV SS and CPUID", &[0x8c, 0xd0, 0x8e, 0xd0, 0x0f, 0xa2], &[2, 6], &[]);
    }
    // The step ends the HLT at once.
    steps("HLT", &[0xf4], &[1], &[]);
    // Two emulated instructions in a row: each one has a step of its own.
    steps("CPUID twice", &[0x0f, 0xa2, 0x0f, 0xa2], &[2, 4], &[]);
}
