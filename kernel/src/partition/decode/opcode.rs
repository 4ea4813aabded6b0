//! The opcode table.

use super::modrm::{ModRm, Operand, register};
use super::prefix::Prefixes;
use super::reader::Reader;
use super::{
    AddressBase, Alu, BitOp, CodeSize, Condition, DecodeError, Extend, Factor, Kind, MemoryOperand, Register, Repeat, Scan,
    SegmentName, Shift, ShiftCount, Source, Unary,
};
use crate::virt::{Gpr, Width};

type Decoded = Result<(Kind, Width), DecodeError>;

const ALU: [Alu; 8] = [Alu::Add, Alu::Or, Alu::Adc, Alu::Sbb, Alu::And, Alu::Sub, Alu::Xor, Alu::Cmp];

/// Reads the rest of the instruction with the one-byte opcode `opcode`.
pub fn read(opcode: u8, reader: &mut Reader<'_>, prefixes: &Prefixes) -> Decoded {
    // In most opcodes bit 0 selects full size instead of a byte.
    let width = if opcode & 1 == 0 { Width::Byte } else { prefixes.operand() };
    match opcode {
        0x0f => two_bytes(reader, prefixes),
        0x00..=0x3f if opcode & 7 < 4 => {
            let op = ALU[usize::from(opcode >> 3)];
            let to_memory = opcode & 2 == 0;
            with_register(reader, prefixes, width, |register| match to_memory {
                true => Kind::AluMemory(op, Source::Register(register)),
                false => Kind::AluRegister(op, register),
            })
        }
        0x63 if prefixes.size == CodeSize::Bits64 => extended_load(reader, prefixes, Width::Dword, Extend::Sign),
        0x69 => multiply(reader, prefixes, width),
        0x6b => multiply(reader, prefixes, Width::Byte),
        0x6c | 0x6d => Ok((Kind::InString, port_width(opcode, prefixes))),
        0x6e | 0x6f => Ok((Kind::OutString, port_width(opcode, prefixes))),
        0x80 | 0x81 => with_immediate(reader, prefixes, width, width, |op, value| Some(Kind::AluMemory(op, value))),
        0x83 => with_immediate(reader, prefixes, width, Width::Byte, |op, value| Some(Kind::AluMemory(op, value))),
        0x84 | 0x85 => with_register(reader, prefixes, width, |register| Kind::Test(Source::Register(register))),
        0x86 | 0x87 => with_register(reader, prefixes, width, Kind::Exchange),
        0x88 | 0x89 => with_register(reader, prefixes, width, |register| Kind::Store(Source::Register(register))),
        0x8a | 0x8b => with_register(reader, prefixes, width, |register| load(register, Extend::Zero, width)),
        0x8f => on_stack(reader, prefixes, 0, Kind::Pop),
        0xa0..=0xa3 => accumulator_at_offset(opcode, width, reader, prefixes),
        0xa4 | 0xa5 => Ok((Kind::MoveString, width)),
        0xa6 | 0xa7 => Ok((Kind::CompareStrings, width)),
        0xaa | 0xab => Ok((Kind::StoreString, width)),
        0xac | 0xad => Ok((Kind::LoadString, width)),
        0xae | 0xaf => Ok((Kind::ScanString, width)),
        0xc0 | 0xc1 | 0xd0..=0xd3 => shift(opcode, reader, prefixes, width),
        // Only extension 0 is MOV.
        0xc6 | 0xc7 => with_immediate(reader, prefixes, width, width, |op, value| (op == Alu::Add).then_some(Kind::Store(value))),
        // IN and OUT with a constant port; with DX; HLT.
        0xe4..=0xe7 => reader.skip(1).map(|()| (Kind::Other, Width::Byte)),
        0xec..=0xef | 0xf4 => Ok((Kind::Other, Width::Byte)),
        0xf6 | 0xf7 => test_or_unary(reader, prefixes, width),
        0xff if reader.peek()? >> 3 & 7 == 6 => on_stack(reader, prefixes, 6, Kind::Push),
        0xfe | 0xff => {
            let modrm = ModRm::read(reader, prefixes)?;
            let op = [Unary::Inc, Unary::Dec].get(usize::from(modrm.extension)).ok_or(DecodeError::Unknown)?;
            Ok((for_memory(&modrm, Kind::Unary(*op)), width))
        }
        _ => Err(DecodeError::Unknown),
    }
}

fn two_bytes(reader: &mut Reader<'_>, prefixes: &Prefixes) -> Decoded {
    let other = Ok((Kind::Other, Width::Byte));
    let (opcode, full) = (reader.byte()?, prefixes.operand());
    let width = if opcode & 1 == 0 { Width::Byte } else { full };
    match opcode {
        // VMCALL, VMMCALL, XSETBV and the like have register form; their memory forms load or store
        // descriptor tables.
        0x01 if reader.peek()? >> 3 == 0b11_110 => {
            let gpr = general(reader.byte()?, prefixes);
            Ok((Kind::LoadStatusWord(gpr), Width::Byte))
        }
        0x01 => ModRm::read(reader, prefixes).and(other),
        // INVD, WBINVD, WRMSR, RDTSC, RDMSR, RDPMC, CPUID.
        0x08 | 0x09 | 0x30..=0x33 | 0xa2 => other,
        // MOV to and from control and debug registers: always register form; the mode field is
        // ignored.
        0x20..=0x23 => {
            let byte = reader.byte()?;
            let (gpr, number) = (general(byte, prefixes), byte >> 3 & 7 | (prefixes.rex & 4) << 1);
            Ok((if opcode == 0x22 { Kind::ToControl(number, gpr) } else { Kind::System(gpr) }, Width::Byte))
        }
        0x38 => three_bytes(reader, prefixes),
        0x40..=0x4f => with_register(reader, prefixes, full, |register| Kind::ConditionalLoad(Condition(opcode & 15), register)),
        0x90..=0x9f => with_register(reader, prefixes, Width::Byte, |_| Kind::SetByte(Condition(opcode & 15))),
        0xa3 | 0xab | 0xb3 | 0xbb => {
            with_register(reader, prefixes, full, |register| Kind::Bit(bit_op(opcode >> 3), Source::Register(register)))
        }
        0xaf => with_register(reader, prefixes, full, |register| Kind::Multiply(register, Factor::Itself)),
        0xb0 | 0xb1 => with_register(reader, prefixes, width, Kind::CompareExchange),
        0xb8 if prefixes.repeat == Repeat::WhileEqual => with_register(reader, prefixes, full, |r| Kind::Scan(Scan::Count, r)),
        0xba => bit_by_constant(reader, prefixes),
        // With F3 these are TZCNT and LZCNT, on CPUs that have them.
        0xbc if prefixes.repeat == Repeat::Once => with_register(reader, prefixes, full, |r| Kind::Scan(Scan::Forward, r)),
        0xbd if prefixes.repeat == Repeat::Once => with_register(reader, prefixes, full, |r| Kind::Scan(Scan::Reverse, r)),
        0xc0 | 0xc1 => with_register(reader, prefixes, width, Kind::ExchangeAdd),
        0xb6 => extended_load(reader, prefixes, Width::Byte, Extend::Zero),
        0xb7 => extended_load(reader, prefixes, Width::Word, Extend::Zero),
        0xbe => extended_load(reader, prefixes, Width::Byte, Extend::Sign),
        0xbf => extended_load(reader, prefixes, Width::Word, Extend::Sign),
        // MOVNTI.
        0xc3 => {
            let width = if prefixes.wide() { Width::Qword } else { Width::Dword };
            with_register(reader, prefixes, width, |register| Kind::Store(Source::Register(register)))
        }
        _ => Err(DecodeError::Unknown),
    }
}

/// Returns the general register that a ModRM byte names in its r/m field.
fn general(modrm: u8, prefixes: &Prefixes) -> Gpr {
    Gpr::from_number(modrm & 7 | (prefixes.rex & 1) << 3)
}

/// MOVBE. With F2 the same opcodes are CRC32.
fn three_bytes(reader: &mut Reader<'_>, prefixes: &Prefixes) -> Decoded {
    let kind = match reader.byte()? {
        0xf0 if prefixes.repeat == Repeat::Once => Kind::LoadSwapped,
        0xf1 if prefixes.repeat == Repeat::Once => Kind::StoreSwapped,
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

fn bit_by_constant(reader: &mut Reader<'_>, prefixes: &Prefixes) -> Decoded {
    let modrm = ModRm::read(reader, prefixes)?;
    let bit = Source::Immediate(reader.immediate(Width::Byte)?);
    if modrm.extension < 4 {
        return Err(DecodeError::Unknown);
    }
    Ok((for_memory(&modrm, Kind::Bit(bit_op(modrm.extension), bit)), prefixes.operand()))
}

fn multiply(reader: &mut Reader<'_>, prefixes: &Prefixes, constant: Width) -> Decoded {
    let (modrm, width) = (ModRm::read(reader, prefixes)?, prefixes.operand());
    let factor = Factor::Constant(reader.immediate(constant)?);
    Ok((for_memory(&modrm, Kind::Multiply(modrm.register(width), factor)), width))
}

fn shift(opcode: u8, reader: &mut Reader<'_>, prefixes: &Prefixes, width: Width) -> Decoded {
    let modrm = ModRm::read(reader, prefixes)?;
    let count = match opcode {
        0xc0 | 0xc1 => ShiftCount::Constant(reader.immediate(Width::Byte)? as u8),
        0xd0 | 0xd1 => ShiftCount::Constant(1),
        _ => ShiftCount::Cl,
    };
    let op = match modrm.extension {
        0 => Shift::RotateLeft,
        1 => Shift::RotateRight,
        2 => Shift::RotateCarryLeft,
        3 => Shift::RotateCarryRight,
        5 => Shift::Right,
        7 => Shift::ArithmeticRight,
        _ => Shift::Left,
    };
    Ok((for_memory(&modrm, Kind::Shift(op, count)), width))
}

/// PUSH and POP of memory: in 64-bit code a qword without any prefix.
fn on_stack(reader: &mut Reader<'_>, prefixes: &Prefixes, extension: u8, kind: Kind) -> Decoded {
    let modrm = ModRm::read(reader, prefixes)?;
    if modrm.extension != extension {
        return Err(DecodeError::Unknown);
    }
    let width = match (prefixes.size, prefixes.operand()) {
        (CodeSize::Bits64, Width::Dword) => Width::Qword,
        (_, width) => width,
    };
    Ok((for_memory(&modrm, kind), width))
}

const fn load(register: Register, extend: Extend, to: Width) -> Kind {
    Kind::Load { register, extend, to }
}

/// Returns `kind` for a memory operand. An instruction whose r/m operand is a register does not
/// touch memory: only its length matters.
fn for_memory(modrm: &ModRm, kind: Kind) -> Kind {
    if modrm.operand == Operand::Memory { kind } else { Kind::Other }
}

fn with_register(reader: &mut Reader<'_>, prefixes: &Prefixes, width: Width, kind: impl FnOnce(Register) -> Kind) -> Decoded {
    let modrm = ModRm::read(reader, prefixes)?;
    Ok((for_memory(&modrm, kind(modrm.register(width))), width))
}

/// Reads a group with an immediate of width `constant`. The extension, as an ALU operation, selects
/// within the group.
fn with_immediate(
    reader: &mut Reader<'_>,
    prefixes: &Prefixes,
    width: Width,
    constant: Width,
    kind: impl FnOnce(Alu, Source) -> Option<Kind>,
) -> Decoded {
    let modrm = ModRm::read(reader, prefixes)?;
    let value = Source::Immediate(reader.immediate(constant)?);
    let kind = kind(ALU[usize::from(modrm.extension)], value).ok_or(DecodeError::Unknown)?;
    Ok((for_memory(&modrm, kind), width))
}

fn extended_load(reader: &mut Reader<'_>, prefixes: &Prefixes, from: Width, extend: Extend) -> Decoded {
    let to = prefixes.operand();
    // MOVSXD with a 16-bit operand reads 16 bits.
    let from = if from == Width::Dword && to == Width::Word { Width::Word } else { from };
    with_register(reader, prefixes, to, |register| load(register, extend, to)).map(|(kind, _)| (kind, from))
}

/// MOV between the accumulator and an absolute address.
fn accumulator_at_offset(opcode: u8, width: Width, reader: &mut Reader<'_>, prefixes: &Prefixes) -> Decoded {
    let displacement = reader.constant(prefixes.address().bytes())?;
    reader.operand = Some(MemoryOperand { base: AddressBase::None, index: None, displacement, segment: SegmentName::Ds });
    let accumulator = register(0, width, prefixes.rex);
    let kind = match opcode & 2 {
        0 => load(accumulator, Extend::Zero, width),
        _ => Kind::Store(Source::Register(accumulator)),
    };
    Ok((kind, width))
}

fn test_or_unary(reader: &mut Reader<'_>, prefixes: &Prefixes, width: Width) -> Decoded {
    let modrm = ModRm::read(reader, prefixes)?;
    let kind = match modrm.extension {
        0 | 1 => Kind::Test(Source::Immediate(reader.immediate(width)?)),
        2 => Kind::Unary(Unary::Not),
        3 => Kind::Unary(Unary::Neg),
        4 => Kind::MultiplyWide(Extend::Zero),
        5 => Kind::MultiplyWide(Extend::Sign),
        _ => return Err(DecodeError::Unknown),
    };
    Ok((for_memory(&modrm, kind), width))
}

/// Ports are a dword wide at most.
fn port_width(opcode: u8, prefixes: &Prefixes) -> Width {
    match (opcode & 1, prefixes.operand()) {
        (0, _) => Width::Byte,
        (_, Width::Word) => Width::Word,
        _ => Width::Dword,
    }
}
