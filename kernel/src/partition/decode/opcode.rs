//! The opcode table.

use super::modrm::{ModRm, RmOperand, register};
use super::prefix::Prefixes;
use super::reader::InstructionReader;
use super::{
    AddressBase, Alu, BitOp, BitScan, CodeSize, ConditionCode, DecodeError, Factor,
    InstructionKind, MemoryOperand, OperandExtension, RegisterOperand, Repeat, SegmentName,
    ShiftCount, ShiftOperation, SourceOperand, Unary,
};
use crate::virt::{AccessWidth, Gpr};

type DecodedOpcode = Result<(InstructionKind, AccessWidth), DecodeError>;

const ALU: [Alu; 8] =
    [Alu::Add, Alu::Or, Alu::Adc, Alu::Sbb, Alu::And, Alu::Sub, Alu::Xor, Alu::Cmp];

/// Reads the rest of the instruction with the one-byte opcode `opcode`.
pub(super) fn read(
    opcode: u8,
    reader: &mut InstructionReader<'_>,
    prefixes: &Prefixes,
) -> DecodedOpcode {
    // In most opcodes bit 0 selects full size instead of a byte.
    let width = if opcode & 1 == 0 { AccessWidth::Byte } else { prefixes.operand() };
    match opcode {
        0x0f => two_bytes(reader, prefixes),
        0x00..=0x3f if opcode & 7 < 4 => {
            let op = ALU[usize::from(opcode >> 3)];
            let to_memory = opcode & 2 == 0;
            with_register(reader, prefixes, width, |register| match to_memory {
                true => InstructionKind::AluMemory(op, SourceOperand::Register(register)),
                false => InstructionKind::AluRegister(op, register),
            })
        }
        0x63 if prefixes.size == CodeSize::Bits64 => {
            extended_load(reader, prefixes, AccessWidth::Dword, OperandExtension::Sign)
        }
        0x69 => multiply(reader, prefixes, width),
        0x6b => multiply(reader, prefixes, AccessWidth::Byte),
        0x6c | 0x6d => Ok((InstructionKind::InString, port_width(opcode, prefixes))),
        0x6e | 0x6f => Ok((InstructionKind::OutString, port_width(opcode, prefixes))),
        0x80 | 0x81 => with_immediate(reader, prefixes, width, width, |op, value| {
            Some(InstructionKind::AluMemory(op, value))
        }),
        0x83 => with_immediate(reader, prefixes, width, AccessWidth::Byte, |op, value| {
            Some(InstructionKind::AluMemory(op, value))
        }),
        0x84 | 0x85 => with_register(reader, prefixes, width, |register| {
            InstructionKind::Test(SourceOperand::Register(register))
        }),
        0x86 | 0x87 => with_register(reader, prefixes, width, InstructionKind::Exchange),
        0x88 | 0x89 => with_register(reader, prefixes, width, |register| {
            InstructionKind::Store(SourceOperand::Register(register))
        }),
        0x8a | 0x8b => with_register(reader, prefixes, width, |register| {
            load(register, OperandExtension::Zero, width)
        }),
        0x8f => on_stack(reader, prefixes, 0, InstructionKind::Pop),
        0xa0..=0xa3 => accumulator_at_offset(opcode, width, reader, prefixes),
        0xa4 | 0xa5 => Ok((InstructionKind::MoveString, width)),
        0xa6 | 0xa7 => Ok((InstructionKind::CompareStrings, width)),
        0xaa | 0xab => Ok((InstructionKind::StoreString, width)),
        0xac | 0xad => Ok((InstructionKind::LoadString, width)),
        0xae | 0xaf => Ok((InstructionKind::ScanString, width)),
        0xc0 | 0xc1 | 0xd0..=0xd3 => shift(opcode, reader, prefixes, width),
        // Only extension 0 is MOV.
        0xc6 | 0xc7 => with_immediate(reader, prefixes, width, width, |op, value| {
            (op == Alu::Add).then_some(InstructionKind::Store(value))
        }),
        // IN and OUT with a constant port; with DX; HLT.
        0xe4..=0xe7 => reader.skip(1).map(|()| (InstructionKind::Other, AccessWidth::Byte)),
        0xec..=0xef | 0xf4 => Ok((InstructionKind::Other, AccessWidth::Byte)),
        0xf6 | 0xf7 => test_or_unary(reader, prefixes, width),
        0xff if reader.peek()? >> 3 & 7 == 6 => {
            on_stack(reader, prefixes, 6, InstructionKind::Push)
        }
        0xfe | 0xff => {
            let modrm = ModRm::read(reader, prefixes)?;
            let op = [Unary::Inc, Unary::Dec]
                .get(usize::from(modrm.extension))
                .ok_or(DecodeError::Unknown)?;
            Ok((for_memory(&modrm, InstructionKind::Unary(*op)), width))
        }
        _ => Err(DecodeError::Unknown),
    }
}

fn two_bytes(reader: &mut InstructionReader<'_>, prefixes: &Prefixes) -> DecodedOpcode {
    let other = Ok((InstructionKind::Other, AccessWidth::Byte));
    let (opcode, full) = (reader.byte()?, prefixes.operand());
    let width = if opcode & 1 == 0 { AccessWidth::Byte } else { full };
    match opcode {
        // VMCALL, VMMCALL, XSETBV and the like have register form; their memory forms load or store
        // descriptor tables.
        0x01 if reader.peek()? >> 3 == 0b11_110 => {
            let gpr = general(reader.byte()?, prefixes);
            Ok((InstructionKind::LoadStatusWord(gpr), AccessWidth::Byte))
        }
        0x01 => ModRm::read(reader, prefixes).and(other),
        // INVD, WBINVD, WRMSR, RDTSC, RDMSR, RDPMC, CPUID.
        0x08 | 0x09 | 0x30..=0x33 | 0xa2 => other,
        // MOV to and from control and debug registers: always register form; the mode field is
        // ignored.
        0x20..=0x23 => {
            let byte = reader.byte()?;
            let (gpr, number) = (general(byte, prefixes), byte >> 3 & 7 | (prefixes.rex & 4) << 1);
            Ok((
                if opcode == 0x22 {
                    InstructionKind::ToControl(number, gpr)
                } else {
                    InstructionKind::System(gpr)
                },
                AccessWidth::Byte,
            ))
        }
        0x38 => three_bytes(reader, prefixes),
        0x40..=0x4f => with_register(reader, prefixes, full, |register| {
            InstructionKind::ConditionalLoad(ConditionCode(opcode & 15), register)
        }),
        0x90..=0x9f => with_register(reader, prefixes, AccessWidth::Byte, |_| {
            InstructionKind::SetByte(ConditionCode(opcode & 15))
        }),
        0xa3 | 0xab | 0xb3 | 0xbb => with_register(reader, prefixes, full, |register| {
            InstructionKind::Bit(bit_op(opcode >> 3), SourceOperand::Register(register))
        }),
        0xaf => with_register(reader, prefixes, full, |register| {
            InstructionKind::Multiply(register, Factor::Itself)
        }),
        0xb0 | 0xb1 => with_register(reader, prefixes, width, InstructionKind::CompareExchange),
        0xb8 if prefixes.repeat == Repeat::WhileEqual => {
            with_register(reader, prefixes, full, |r| InstructionKind::Scan(BitScan::Count, r))
        }
        0xba => bit_by_constant(reader, prefixes),
        // With F3 these are TZCNT and LZCNT, on CPUs that have them.
        0xbc if prefixes.repeat == Repeat::Once => {
            with_register(reader, prefixes, full, |r| InstructionKind::Scan(BitScan::Forward, r))
        }
        0xbd if prefixes.repeat == Repeat::Once => {
            with_register(reader, prefixes, full, |r| InstructionKind::Scan(BitScan::Reverse, r))
        }
        0xc0 | 0xc1 => with_register(reader, prefixes, width, InstructionKind::ExchangeAdd),
        0xb6 => extended_load(reader, prefixes, AccessWidth::Byte, OperandExtension::Zero),
        0xb7 => extended_load(reader, prefixes, AccessWidth::Word, OperandExtension::Zero),
        0xbe => extended_load(reader, prefixes, AccessWidth::Byte, OperandExtension::Sign),
        0xbf => extended_load(reader, prefixes, AccessWidth::Word, OperandExtension::Sign),
        // MOVNTI.
        0xc3 => {
            let width = if prefixes.wide() { AccessWidth::Qword } else { AccessWidth::Dword };
            with_register(reader, prefixes, width, |register| {
                InstructionKind::Store(SourceOperand::Register(register))
            })
        }
        _ => Err(DecodeError::Unknown),
    }
}

/// Returns the general register that a ModRM byte names in its r/m field.
fn general(modrm: u8, prefixes: &Prefixes) -> Gpr {
    Gpr::from_number(modrm & 7 | (prefixes.rex & 1) << 3)
}

/// MOVBE. With F2 the same opcodes are CRC32.
fn three_bytes(reader: &mut InstructionReader<'_>, prefixes: &Prefixes) -> DecodedOpcode {
    let kind = match reader.byte()? {
        0xf0 if prefixes.repeat == Repeat::Once => InstructionKind::LoadSwapped,
        0xf1 if prefixes.repeat == Repeat::Once => InstructionKind::StoreSwapped,
        _ => return Err(DecodeError::Unknown),
    };
    with_register(reader, prefixes, prefixes.operand(), kind)
}

const fn bit_op(number: u8) -> BitOp {
    match number & 3 {
        0 => BitOp::Test,
        1 => BitOp::Set,
        2 => BitOp::Reset,
        _ => BitOp::Complement,
    }
}

fn bit_by_constant(reader: &mut InstructionReader<'_>, prefixes: &Prefixes) -> DecodedOpcode {
    let modrm = ModRm::read(reader, prefixes)?;
    let bit = SourceOperand::Immediate(reader.immediate(AccessWidth::Byte)?);
    if modrm.extension < 4 {
        return Err(DecodeError::Unknown);
    }
    Ok((for_memory(&modrm, InstructionKind::Bit(bit_op(modrm.extension), bit)), prefixes.operand()))
}

fn multiply(
    reader: &mut InstructionReader<'_>,
    prefixes: &Prefixes,
    constant: AccessWidth,
) -> DecodedOpcode {
    let (modrm, width) = (ModRm::read(reader, prefixes)?, prefixes.operand());
    let factor = Factor::Constant(reader.immediate(constant)?);
    Ok((for_memory(&modrm, InstructionKind::Multiply(modrm.register(width), factor)), width))
}

fn shift(
    opcode: u8,
    reader: &mut InstructionReader<'_>,
    prefixes: &Prefixes,
    width: AccessWidth,
) -> DecodedOpcode {
    let modrm = ModRm::read(reader, prefixes)?;
    let count = match opcode {
        0xc0 | 0xc1 => ShiftCount::Constant(reader.immediate(AccessWidth::Byte)? as u8),
        0xd0 | 0xd1 => ShiftCount::Constant(1),
        _ => ShiftCount::Cl,
    };
    let op = match modrm.extension {
        0 => ShiftOperation::RotateLeft,
        1 => ShiftOperation::RotateRight,
        2 => ShiftOperation::RotateCarryLeft,
        3 => ShiftOperation::RotateCarryRight,
        5 => ShiftOperation::Right,
        7 => ShiftOperation::ArithmeticRight,
        _ => ShiftOperation::Left,
    };
    Ok((for_memory(&modrm, InstructionKind::Shift(op, count)), width))
}

/// PUSH and POP of memory: in 64-bit code a qword without any prefix.
fn on_stack(
    reader: &mut InstructionReader<'_>,
    prefixes: &Prefixes,
    extension: u8,
    kind: InstructionKind,
) -> DecodedOpcode {
    let modrm = ModRm::read(reader, prefixes)?;
    if modrm.extension != extension {
        return Err(DecodeError::Unknown);
    }
    let width = match (prefixes.size, prefixes.operand()) {
        (CodeSize::Bits64, AccessWidth::Dword) => AccessWidth::Qword,
        (_, width) => width,
    };
    Ok((for_memory(&modrm, kind), width))
}

const fn load(
    register: RegisterOperand,
    extend: OperandExtension,
    to: AccessWidth,
) -> InstructionKind {
    InstructionKind::Load { register, extend, to }
}

/// Returns `kind` for a memory operand. An instruction whose r/m operand is a register does not
/// touch memory: only its length matters.
fn for_memory(modrm: &ModRm, kind: InstructionKind) -> InstructionKind {
    if modrm.operand == RmOperand::Memory { kind } else { InstructionKind::Other }
}

fn with_register(
    reader: &mut InstructionReader<'_>,
    prefixes: &Prefixes,
    width: AccessWidth,
    kind: impl FnOnce(RegisterOperand) -> InstructionKind,
) -> DecodedOpcode {
    let modrm = ModRm::read(reader, prefixes)?;
    Ok((for_memory(&modrm, kind(modrm.register(width))), width))
}

/// Reads a group with an immediate of width `constant`. The extension, as an ALU operation, selects
/// within the group.
fn with_immediate(
    reader: &mut InstructionReader<'_>,
    prefixes: &Prefixes,
    width: AccessWidth,
    constant: AccessWidth,
    kind: impl FnOnce(Alu, SourceOperand) -> Option<InstructionKind>,
) -> DecodedOpcode {
    let modrm = ModRm::read(reader, prefixes)?;
    let value = SourceOperand::Immediate(reader.immediate(constant)?);
    let kind = kind(ALU[usize::from(modrm.extension)], value).ok_or(DecodeError::Unknown)?;
    Ok((for_memory(&modrm, kind), width))
}

fn extended_load(
    reader: &mut InstructionReader<'_>,
    prefixes: &Prefixes,
    from: AccessWidth,
    extend: OperandExtension,
) -> DecodedOpcode {
    let to = prefixes.operand();
    // MOVSXD with a 16-bit operand reads 16 bits.
    let from = if from == AccessWidth::Dword && to == AccessWidth::Word {
        AccessWidth::Word
    } else {
        from
    };
    with_register(reader, prefixes, to, |register| load(register, extend, to))
        .map(|(kind, _)| (kind, from))
}

/// MOV between the accumulator and an absolute address.
fn accumulator_at_offset(
    opcode: u8,
    width: AccessWidth,
    reader: &mut InstructionReader<'_>,
    prefixes: &Prefixes,
) -> DecodedOpcode {
    let displacement = reader.constant(prefixes.address().bytes())?;
    reader.operand = Some(MemoryOperand {
        base: AddressBase::None,
        index: None,
        displacement,
        segment: SegmentName::Ds,
    });
    let accumulator = register(0, width, prefixes.rex);
    let kind = match opcode & 2 {
        0 => load(accumulator, OperandExtension::Zero, width),
        _ => InstructionKind::Store(SourceOperand::Register(accumulator)),
    };
    Ok((kind, width))
}

fn test_or_unary(
    reader: &mut InstructionReader<'_>,
    prefixes: &Prefixes,
    width: AccessWidth,
) -> DecodedOpcode {
    let modrm = ModRm::read(reader, prefixes)?;
    let kind = match modrm.extension {
        0 | 1 => InstructionKind::Test(SourceOperand::Immediate(reader.immediate(width)?)),
        2 => InstructionKind::Unary(Unary::Not),
        3 => InstructionKind::Unary(Unary::Neg),
        4 => InstructionKind::MultiplyWide(OperandExtension::Zero),
        5 => InstructionKind::MultiplyWide(OperandExtension::Sign),
        _ => return Err(DecodeError::Unknown),
    };
    Ok((for_memory(&modrm, kind), width))
}

/// Ports are a dword wide at most.
fn port_width(opcode: u8, prefixes: &Prefixes) -> AccessWidth {
    match (opcode & 1, prefixes.operand()) {
        (0, _) => AccessWidth::Byte,
        (_, AccessWidth::Word) => AccessWidth::Word,
        _ => AccessWidth::Dword,
    }
}
