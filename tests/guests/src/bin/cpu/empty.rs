//! At unassigned addresses reads return ones and writes are ignored, by any instruction.

use super::{DONE, RAX, RCX, RDI, RDX, RSI, expect, try_with};

/// An address in the device hole without a device.
const NOWHERE: u64 = 0xc000_0000;

const CARRY: u64 = 1;
const ZERO: u64 = 1 << 6;

/// Name, code with its memory operand at [RSI], RAX before, RAX after, mask of flags to compare,
/// flags after.
type Form = (&'static str, &'static [u8], u64, u64, u64, u64);

#[rustfmt::skip]
const FORMS: &[Form] = &[
    ("MOV load", &[0x48, 0x8b, 0x06], 1, u64::MAX, 0, 0),
    ("MOV store", &[0x48, 0x89, 0x06], 1, 1, 0, 0),
    ("ADD load", &[0x03, 0x06], 1, 0, CARRY | ZERO, CARRY | ZERO),
    ("CMP", &[0x83, 0x3e, 0xff], 1, 1, CARRY | ZERO, ZERO),
    ("BT register", &[0x0f, 0xa3, 0x06], 1, 1, CARRY, CARRY),
    ("BT immediate", &[0x0f, 0xba, 0x26, 3], 1, 1, CARRY, CARRY),
    ("BTS", &[0x0f, 0xab, 0x06], 1, 1, CARRY, CARRY),
    ("BTR", &[0x0f, 0xb3, 0x06], 1, 1, CARRY, CARRY),
    ("LOCK BTC immediate", &[0xf0, 0x0f, 0xba, 0x3e, 3], 1, 1, CARRY, CARRY),
    ("CMPXCHG that fails", &[0x0f, 0xb1, 0x06], 1, 0xffff_ffff, ZERO, 0),
    ("CMPXCHG that succeeds", &[0x48, 0x0f, 0xb1, 0x06], u64::MAX, u64::MAX, ZERO, ZERO),
    ("LOCK XADD", &[0xf0, 0x0f, 0xc1, 0x06], 1, 0xffff_ffff, ZERO | CARRY, ZERO | CARRY),
    ("XCHG", &[0x87, 0x06], 1, 0xffff_ffff, 0, 0),
    ("IMUL", &[0x0f, 0xaf, 0x06], 5, 0xffff_fffb, 0, 0),
    ("IMUL by a constant", &[0x6b, 0x06, 3], 0, 0xffff_fffd, 0, 0),
    ("MUL", &[0xf7, 0x26], 2, 0xffff_fffe, CARRY, CARRY),
    ("PUSH and POP", &[0xff, 0x36, 0x58], 1, u64::MAX, 0, 0),
    ("POP to memory", &[0x50, 0x8f, 0x06], 7, 7, 0, 0),
    ("MOVZX", &[0x0f, 0xb6, 0x06], 1, 0xff, 0, 0),
    ("MOVSX", &[0x48, 0x0f, 0xbe, 0x06], 1, u64::MAX, 0, 0),
    ("CMOVE", &[0x39, 0xc0, 0x0f, 0x44, 0x06], 1, 0xffff_ffff, 0, 0),
    ("SETE", &[0x0f, 0x94, 0x06], 1, 1, 0, 0),
    ("SHL by 1", &[0xd1, 0x26], 1, 1, CARRY, CARRY),
    ("SAR by a constant", &[0xc1, 0x3e, 4], 1, 1, CARRY, CARRY),
    ("INC", &[0xff, 0x06], 1, 1, ZERO, ZERO),
    ("NEG", &[0xf7, 0x1e], 1, 1, CARRY, CARRY),
    ("TEST", &[0xf6, 0x06, 0x80], 1, 1, ZERO, 0),
    ("BSF", &[0x0f, 0xbc, 0x06], 9, 0, ZERO, 0),
    ("POPCNT", &[0xf3, 0x0f, 0xb8, 0x06], 9, 32, ZERO, 0),
    ("MOVBE", &[0x0f, 0x38, 0xf0, 0x06], 1, 0xffff_ffff, 0, 0),
    ("LODSD", &[0xad], 1, 0xffff_ffff, 0, 0),
];

fn forms() {
    for (name, code, before, behind, counting, flags) in FORMS {
        let outcome = try_with(code, &[(RSI, NOWHERE), (RAX, *before), (RDX, 0)]);
        let found = (outcome.vector, outcome.rax, outcome.rflags & counting);
        expect(format_args!("{name} where nothing is"), found, (DONE, *behind, *flags));
    }
}

fn strings() {
    let buffer = [0xff_u8; 8];
    let there = buffer.as_ptr() as u64;
    // REPE CMPSB between two unassigned addresses: all bytes are equal.
    let outcome = try_with(&[0xf3, 0xa6], &[(RSI, NOWHERE), (RDI, NOWHERE + 0x100), (RCX, 8)]);
    let found = (outcome.vector, outcome.rcx, outcome.rsi, outcome.rdi);
    expect(
        format_args!("REPE CMPSB where nothing is"),
        found,
        (DONE, 0, NOWHERE + 8, NOWHERE + 0x108),
    );
    let outcome = try_with(&[0xf2, 0xa6], &[(RSI, NOWHERE), (RDI, there), (RCX, 8)]);
    expect(
        format_args!("REPNE CMPSB stops at once"),
        (outcome.vector, outcome.rcx, outcome.rdi),
        (DONE, 7, there + 1),
    );
    let outcome = try_with(&[0xf3, 0xae], &[(RDI, NOWHERE), (RCX, 5), (RAX, 0xff)]);
    expect(
        format_args!("REPE SCASB"),
        (outcome.vector, outcome.rcx, outcome.rflags & ZERO),
        (DONE, 0, ZERO),
    );
    let outcome = try_with(&[0xf2, 0xae], &[(RDI, NOWHERE), (RCX, 5), (RAX, 0)]);
    expect(
        format_args!("REPNE SCASB"),
        (outcome.vector, outcome.rcx, outcome.rflags & ZERO),
        (DONE, 0, 0),
    );
    let outcome = try_with(&[0xf3, 0xac], &[(RSI, NOWHERE), (RCX, 300)]);
    expect(format_args!("REP LODSB"), (outcome.vector, outcome.rcx, outcome.rax), (DONE, 0, 0xff));
    let outcome = try_with(&[0xf3, 0xa4], &[(RSI, there), (RDI, NOWHERE), (RCX, 8)]);
    expect(
        format_args!("REP MOVSB"),
        (outcome.vector, outcome.rcx, outcome.rsi),
        (DONE, 0, there + 8),
    );
}

/// An instruction that is not emulated for devices: the partition crashes with that reason.
pub(crate) fn exotic() {
    // fld tbyte [rsi]
    let _ = try_with(&[0xdb, 0x2e], &[(RSI, NOWHERE)]);
    guests::log!("the exotic instruction has run");
}

/// Runs the checks.
pub(crate) fn check() {
    forms();
    strings();
}
