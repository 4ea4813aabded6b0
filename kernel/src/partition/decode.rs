//! Decoding the guest's instructions, as far as the hypervisor carries them out itself.
//!
//! Wanted are three things: the operands of an access to a device's memory, the form of INS and OUTS, and the length of what exits
//! by itself (CPUID, RDMSR ...), because SVM without NRIPS tells no next RIP. Everything else is [`DecodeError::Unknown`]: a guest
//! that touches a device with such an instruction crashes with that as its reason.
//!
//! A table of just these forms was chosen over a complete decoder: decision record 0005 has the comparison. A complete one
//! (iced-x86) checks it in the tests. SDM 2 "Instruction Format", appendix A "Opcode Map".
//!
//! Pure; the bytes come from [`super::fetch`], the result goes to [`super::emulate`].

mod modrm;
mod opcode;
mod prefix;
mod reader;

#[cfg(test)]
mod tests;

use crate::virt::{CpuState, Gpr, Width};
use prefix::Prefixes;
use reader::Reader;

/// Longest instruction.
pub const MAX_LENGTH: usize = 15;

const SEGMENT_LONG: u32 = 1 << 13;
const SEGMENT_DEFAULT_32: u32 = 1 << 14;
const EFER_LMA: u64 = 1 << 10;

/// The code segment's default size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum CodeSize {
    Bits16,
    Bits32,
    Bits64,
}

impl CodeSize {
    /// Returns the size of the code that the vCPU runs.
    pub const fn of(state: &CpuState) -> Self {
        if state.efer & EFER_LMA != 0 && state.cs.attributes & SEGMENT_LONG != 0 {
            CodeSize::Bits64
        } else if state.cs.attributes & SEGMENT_DEFAULT_32 != 0 {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        }
    }
}

/// Why an instruction is not decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// It goes on behind the given bytes.
    Truncated,
    /// It is none of the forms that matter, or too long.
    Unknown,
}

/// Names of the segment registers, in encoding order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum SegmentName {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

/// A general register as a byte, word, dword or qword operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register {
    /// Which.
    pub gpr: Gpr,
    /// Bits 15:8 instead of 7:0 (AH, CH, DH, BH).
    pub part: Part,
}

/// Which byte of a register a byte operand is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The low bits, as many as the width says.
    Low,
    /// Bits 15:8.
    HighByte,
}

/// The other operand of a two-operand instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A register.
    Register(Register),
    /// A constant, sign-extended.
    Immediate(u64),
}

/// What fills a register that is wider than what was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extend {
    /// Zeros.
    Zero,
    /// The sign.
    Sign,
}

/// Two-operand arithmetic, in encoding order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Alu {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
}

/// One-operand arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Unary {
    Not,
    Neg,
    Inc,
    Dec,
}

/// What an instruction does. "Memory" is its one memory operand, as wide as [`Instruction::width`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Memory = source.
    Store(Source),
    /// Register = memory, extended to `to`.
    Load {
        /// The register.
        register: Register,
        /// With what.
        extend: Extend,
        /// How wide the register operand is.
        to: Width,
    },
    /// Memory = memory op source, and flags.
    AluMemory(Alu, Source),
    /// Register = register op memory, and flags.
    AluRegister(Alu, Register),
    /// Flags of memory & source.
    Test(Source),
    /// Memory <-> register.
    Exchange(Register),
    /// Memory = op memory.
    Unary(Unary),
    /// MOVS.
    MoveString,
    /// STOS.
    StoreString,
    /// INS.
    InString,
    /// OUTS.
    OutString,
    /// Only its length matters.
    Other,
}

/// Repetition prefix of a string instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// Once.
    Once,
    /// As often as rCX says.
    Counted,
}

/// A decoded instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Bytes.
    pub length: u8,
    /// What it does.
    pub kind: Kind,
    /// How wide its memory operand is.
    pub width: Width,
    /// How wide addresses (and rCX, rSI, rDI as counters) are.
    pub address: Width,
    /// Repetition.
    pub repeat: Repeat,
    /// Segment override.
    pub segment: Option<SegmentName>,
}

/// Decodes the instruction that `bytes` begins with.
///
/// # Errors
/// [`DecodeError`]; with all [`MAX_LENGTH`] bytes given it is never [`DecodeError::Truncated`].
pub fn decode(bytes: &[u8], size: CodeSize) -> Result<Instruction, DecodeError> {
    let mut reader = Reader::new(bytes);
    let (prefixes, opcode) = Prefixes::read(&mut reader, size)?;
    let (kind, width) = opcode::read(opcode, &mut reader, &prefixes)?;
    Ok(Instruction {
        length: reader.consumed(),
        kind,
        width,
        address: prefixes.address(),
        repeat: prefixes.repeat,
        segment: prefixes.segment,
    })
}
