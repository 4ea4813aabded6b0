//! ModRM, SIB and displacement.
//!
//! An exit reports the address of an access, and string instructions have their addresses in
//! registers. So emulation needs only the length and the register that is the other operand. The
//! parts of the address serve the guest's breakpoints alone.

use super::prefix::Prefixes;
use super::reader::InstructionReader;
use super::{
    AddressBase, CodeSize, DecodeError, MemoryOperand, RegisterOperand, RegisterPart, SegmentName,
};
use crate::virt::{AccessWidth, Gpr};

const GPRS: [Gpr; 16] = [
    Gpr::Rax,
    Gpr::Rcx,
    Gpr::Rdx,
    Gpr::Rbx,
    Gpr::Rsp,
    Gpr::Rbp,
    Gpr::Rsi,
    Gpr::Rdi,
    Gpr::R8,
    Gpr::R9,
    Gpr::R10,
    Gpr::R11,
    Gpr::R12,
    Gpr::R13,
    Gpr::R14,
    Gpr::R15,
];

/// The operand that the r/m field names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RmOperand {
    /// Memory: the operand of every instruction that exits for a device.
    Memory,
    /// A register.
    Register,
}

/// The ModRM byte.
pub(super) struct ModRm {
    pub operand: RmOperand,
    /// The reg field without REX.R: an opcode extension.
    pub extension: u8,
    reg: u8,
    rex: u8,
}

impl ModRm {
    /// Reads the byte, and the SIB byte and displacement that belong to it.
    pub(super) fn read(
        reader: &mut InstructionReader<'_>,
        prefixes: &Prefixes,
    ) -> Result<Self, DecodeError> {
        let byte = reader.byte()?;
        let (mode, reg, rm) = (byte >> 6, (byte >> 3) & 7, byte & 7);
        let operand = if mode == 3 { RmOperand::Register } else { RmOperand::Memory };
        if operand == RmOperand::Memory {
            reader.operand = Some(match prefixes.address() {
                AccessWidth::Word => memory_16(mode, rm, reader)?,
                _ => memory(mode, rm, reader, prefixes)?,
            });
        }
        Ok(Self {
            operand,
            extension: reg,
            reg: reg | ((prefixes.rex & 4) << 1),
            rex: prefixes.rex,
        })
    }

    /// Returns the register of the reg field as an operand of `width`.
    pub(super) fn register(&self, width: AccessWidth) -> RegisterOperand {
        register(self.reg, width, self.rex)
    }
}

/// Returns register `number`. Without REX the byte registers 4 to 7 are AH, CH, DH and BH.
pub(super) fn register(number: u8, width: AccessWidth, rex: u8) -> RegisterOperand {
    if width == AccessWidth::Byte && rex == 0 && (4..8).contains(&number) {
        RegisterOperand { gpr: GPRS[usize::from(number - 4)], part: RegisterPart::HighByte }
    } else {
        RegisterOperand { gpr: GPRS[usize::from(number & 15)], part: RegisterPart::Low }
    }
}

/// SDM 2A "16-Bit Addressing Forms with the ModR/M Byte".
fn memory_16(
    mode: u8,
    rm: u8,
    reader: &mut InstructionReader<'_>,
) -> Result<MemoryOperand, DecodeError> {
    use Gpr::{Rbp, Rbx, Rdi, Rsi};
    let (base, index) = [
        (Some(Rbx), Some(Rsi)),
        (Some(Rbx), Some(Rdi)),
        (Some(Rbp), Some(Rsi)),
        (Some(Rbp), Some(Rdi)),
        (Some(Rsi), None),
        (Some(Rdi), None),
        (Some(Rbp), None),
        (Some(Rbx), None),
    ][usize::from(rm)];
    let (base, bytes) = match (mode, rm) {
        (0, 6) => (None, 2),
        _ => (base, usize::from(mode)),
    };
    let displacement = reader.constant(bytes)?;
    let base = base.map_or(AddressBase::None, AddressBase::Register);
    Ok(MemoryOperand {
        base,
        index: index.map(|gpr| (gpr, 0)),
        displacement,
        segment: segment_of(base),
    })
}

/// SDM 2A "32-Bit Addressing Forms with the ModR/M Byte", "... with the SIB Byte"; "RIP-Relative
/// Addressing".
fn memory(
    mode: u8,
    rm: u8,
    reader: &mut InstructionReader<'_>,
    prefixes: &Prefixes,
) -> Result<MemoryOperand, DecodeError> {
    const STACK: u8 = 4;
    let (x, b) = ((prefixes.rex & 2) << 2, (prefixes.rex & 1) << 3);
    let (base, index) = match rm {
        4 => {
            let sib = reader.byte()?;
            let index = sib >> 3 & 7 | x;
            (sib & 7, (index != STACK).then_some((Gpr::from_number(index), sib >> 6)))
        }
        _ => (rm, None),
    };
    let is_absolute = mode == 0 && base == 5;
    let bytes = [if is_absolute { 4 } else { 0 }, 1, 4][usize::from(mode.min(2))];
    let base = match (is_absolute, rm, prefixes.size) {
        (false, ..) => AddressBase::Register(Gpr::from_number(base | b)),
        (true, 5, CodeSize::Bits64) => AddressBase::Next,
        (true, ..) => AddressBase::None,
    };
    Ok(MemoryOperand {
        base,
        index,
        displacement: reader.constant(bytes)?,
        segment: segment_of(base),
    })
}

/// Returns the segment of an address without an override.
fn segment_of(base: AddressBase) -> SegmentName {
    match base {
        AddressBase::Register(Gpr::Rsp | Gpr::Rbp) => SegmentName::Ss,
        _ => SegmentName::Ds,
    }
}
