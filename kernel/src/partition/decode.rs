//! Decodes the guest's instructions, as far as the hypervisor carries them out itself.
//!
//! Three things are needed: the operands of an access to a device's memory, the form of INS and
//! OUTS, and the length of the instructions that exit by themselves (CPUID, RDMSR ...), because SVM
//! without NRIPS reports no next RIP. Every other instruction is [`DecodeError::Unknown`]. A guest
//! that touches a device with one crashes for that reason.
//!
//! A table of just these forms was chosen over a complete decoder: decision record 0005 has the
//! comparison. A complete one (iced-x86) checks it in the tests. SDM 2 "Instruction Format",
//! appendix A "Opcode Map".
//!
//! Pure; the bytes come from [`super::fetch`], the result goes to [`super::emulate`].

mod modrm;
mod opcode;
pub mod plain;
mod prefix;
mod reader;

#[cfg(test)]
mod tests;

use crate::virt::{AccessWidth, CpuState, Gpr};
use prefix::Prefixes;
use reader::InstructionReader;

/// Longest instruction.
pub const MAX_LENGTH: usize = 15;

const SEGMENT_LONG: u32 = 1 << 13;
const SEGMENT_DEFAULT_32: u32 = 1 << 14;
const EFER_LMA: u64 = 1 << 10;

/// The code segment's default size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say all")]
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
    /// The instruction goes on behind the given bytes.
    Truncated,
    /// The instruction is none of the known forms, or too long.
    Unknown,
}

/// Names of the segment registers, in encoding order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say all")]
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
pub struct RegisterOperand {
    /// The register.
    pub gpr: Gpr,
    /// Its low bits, or bits 15:8 instead of 7:0 (AH, CH, DH, BH).
    pub part: RegisterPart,
}

/// The part of a register that an operand uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterPart {
    /// The low bits, as many as the operand's width.
    Low,
    /// Bits 15:8.
    HighByte,
}

/// The other operand of a two-operand instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceOperand {
    /// A register.
    Register(RegisterOperand),
    /// A constant, sign-extended.
    Immediate(u64),
}

/// The bits that fill a register wider than the value read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OperandExtension {
    /// Zeros.
    Zero,
    /// Copies of the sign bit.
    Sign,
}

/// Two-operand arithmetic, in encoding order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say all")]
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
#[expect(missing_docs, reason = "the names say all")]
pub enum Unary {
    Not,
    Neg,
    Inc,
    Dec,
}

/// The effect of a bit instruction on the bit, in encoding order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say all")]
pub enum BitOp {
    Test,
    Set,
    Reset,
    Complement,
}

/// The other factor of a signed multiplication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Factor {
    /// The register that takes the product.
    Itself,
    /// A constant, sign-extended.
    Constant(u64),
}

/// Shifts and rotations, in encoding order. The seventh encoding repeats the fifth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say all")]
pub enum ShiftOperation {
    RotateLeft,
    RotateRight,
    RotateCarryLeft,
    RotateCarryRight,
    Left,
    Right,
    ArithmeticRight,
}

/// The number of bits to shift by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShiftCount {
    /// A constant.
    Constant(u8),
    /// CL.
    Cl,
}

/// The result of a bit scan or bit count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitScan {
    /// BSF: the lowest bit that is set.
    Forward,
    /// BSR: the highest bit that is set.
    Reverse,
    /// POPCNT: the number of bits that are set.
    Count,
}

/// A condition, by the low four bits of its opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConditionCode(pub u8);

/// The operation of an instruction. "Memory" is its one memory operand, as wide as
/// [`Instruction::width`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstructionKind {
    /// Memory = source.
    Store(SourceOperand),
    /// Register = memory, extended to `to`.
    Load {
        /// The register.
        register: RegisterOperand,
        /// The bits above the value read.
        extend: OperandExtension,
        /// The width of the register operand.
        to: AccessWidth,
    },
    /// Memory = memory op source, and flags.
    AluMemory(Alu, SourceOperand),
    /// Register = register op memory, and flags.
    AluRegister(Alu, RegisterOperand),
    /// Flags of memory & source.
    Test(SourceOperand),
    /// Memory <-> register.
    Exchange(RegisterOperand),
    /// Memory = op memory.
    Unary(Unary),
    /// Carry = a bit of memory, then the bit changes. The address of the access already includes a
    /// bit offset beyond the operand.
    Bit(BitOp, SourceOperand),
    /// Compares the accumulator with memory. If equal, memory = register; else accumulator =
    /// memory.
    CompareExchange(RegisterOperand),
    /// Memory = memory + register, register = memory, and flags.
    ExchangeAdd(RegisterOperand),
    /// Register = memory * the other factor, signed.
    Multiply(RegisterOperand, Factor),
    /// rDX:rAX = rAX * memory.
    MultiplyWide(OperandExtension),
    /// Memory = memory shifted or rotated, and flags.
    Shift(ShiftOperation, ShiftCount),
    /// Register = memory where the condition holds.
    ConditionalLoad(ConditionCode, RegisterOperand),
    /// Memory = 1 where the condition holds, else 0.
    SetByte(ConditionCode),
    /// Register = the result of the scan of memory, and flags.
    Scan(BitScan, RegisterOperand),
    /// Register = memory with its bytes swapped.
    LoadSwapped(RegisterOperand),
    /// Memory = register with its bytes swapped.
    StoreSwapped(RegisterOperand),
    /// Pushes memory on the stack.
    Push,
    /// Pops the stack's top into memory.
    Pop,
    /// CMPS.
    CompareStrings,
    /// SCAS.
    ScanString,
    /// LODS.
    LoadString,
    /// MOVS.
    MoveString,
    /// STOS.
    StoreString,
    /// INS.
    InString,
    /// OUTS.
    OutString,
    /// MOV from a control or debug register to this general register, or from this one to a debug
    /// register.
    System(Gpr),
    /// MOV to the control register of this number.
    ToControl(u8, Gpr),
    /// LMSW of this register.
    LoadStatusWord(Gpr),
    /// Any other known instruction: only its length matters.
    Other,
}

/// Repetition prefix of a string instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// Once.
    Once,
    /// F3: as often as rCX says; comparing instructions only while ZF is set.
    WhileEqual,
    /// F2: likewise, while ZF is clear.
    WhileNotEqual,
}

/// The base of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressBase {
    /// Zero.
    None,
    /// A register.
    Register(Gpr),
    /// The address of the next instruction.
    Next,
}

/// The parts of a memory operand's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryOperand {
    /// The base.
    pub base: AddressBase,
    /// The index register, and the number of bits it is shifted by.
    pub index: Option<(Gpr, u8)>,
    /// A constant, sign-extended.
    pub displacement: u64,
    /// The segment, unless it is overridden.
    pub segment: SegmentName,
}

/// A decoded instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Bytes.
    pub length: u8,
    /// The operation.
    pub kind: InstructionKind,
    /// The width of its memory operand.
    pub width: AccessWidth,
    /// The width of addresses (and of rCX, rSI, rDI as counters).
    pub address: AccessWidth,
    /// Repetition.
    pub repeat: Repeat,
    /// Segment override.
    pub segment: Option<SegmentName>,
    /// Its memory operand, if ModRM or an offset names one.
    pub operand: Option<MemoryOperand>,
}

/// Decodes the instruction that `bytes` begins with.
///
/// # Errors
/// [`DecodeError`]; with all [`MAX_LENGTH`] bytes given it is never [`DecodeError::Truncated`].
pub fn decode(bytes: &[u8], size: CodeSize) -> Result<Instruction, DecodeError> {
    let mut reader = InstructionReader::new(bytes);
    let (prefixes, opcode) = Prefixes::read(&mut reader, size)?;
    let (kind, width) = opcode::read(opcode, &mut reader, &prefixes)?;
    Ok(Instruction {
        length: reader.consumed(),
        kind,
        width,
        address: prefixes.address(),
        repeat: prefixes.repeat,
        segment: prefixes.segment,
        operand: reader.operand,
    })
}
