//! ModRM, SIB and displacement.
//!
//! The address itself is not computed: an exit tells where the access went, and string instructions have theirs in registers. So
//! only the length counts, and which register is the other operand.

use super::prefix::Prefixes;
use super::reader::Reader;
use super::{DecodeError, Part, Register};
use crate::virt::{Gpr, Width};

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

/// What the r/m field names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// Memory: what an instruction that exits for a device has.
    Memory,
    /// A register.
    Register,
}

/// The ModRM byte.
pub struct ModRm {
    pub operand: Operand,
    /// The reg field without REX.R: an opcode extension.
    pub extension: u8,
    reg: u8,
    rex: u8,
}

impl ModRm {
    /// Reads the byte and all that belongs to it.
    pub fn read(reader: &mut Reader<'_>, prefixes: &Prefixes) -> Result<Self, DecodeError> {
        let byte = reader.byte()?;
        let (mode, reg, rm) = (byte >> 6, (byte >> 3) & 7, byte & 7);
        let operand = if mode == 3 { Operand::Register } else { Operand::Memory };
        if operand == Operand::Memory {
            let displacement = match prefixes.address() {
                Width::Word => displacement_16(mode, rm),
                _ => displacement_32(mode, rm, reader)?,
            };
            reader.skip(displacement)?;
        }
        Ok(Self { operand, extension: reg, reg: reg | ((prefixes.rex & 4) << 1), rex: prefixes.rex })
    }

    /// Returns the register of the reg field as an operand of `width`.
    pub fn register(&self, width: Width) -> Register {
        register(self.reg, width, self.rex)
    }
}

/// Returns register `number`; without REX the byte registers 4 to 7 are AH, CH, DH and BH.
pub fn register(number: u8, width: Width, rex: u8) -> Register {
    if width == Width::Byte && rex == 0 && (4..8).contains(&number) {
        Register { gpr: GPRS[usize::from(number - 4)], part: Part::HighByte }
    } else {
        Register { gpr: GPRS[usize::from(number & 15)], part: Part::Low }
    }
}

const fn displacement_16(mode: u8, rm: u8) -> usize {
    match (mode, rm) {
        (0, 6) | (2, _) => 2,
        (1, _) => 1,
        _ => 0,
    }
}

fn displacement_32(mode: u8, rm: u8, reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let base = if rm == 4 { reader.byte()? & 7 } else { rm };
    Ok(match (mode, base) {
        (0, 5) | (2, _) => 4,
        (1, _) => 1,
        _ => 0,
    })
}
