//! The instruction of nearly every access to a device's register: MOV between memory and a
//! register, or a constant, in 64-bit code, with REX and the operand-size prefix at most.
//!
//! For these it returns the same as [`decode`](super::decode), in a fifth of the instructions; for
//! all others it returns nothing.

use super::SourceOperand;
use super::modrm::register;
use crate::partition::decode::{RegisterOperand, RegisterPart};
use crate::virt::AccessWidth;

/// A MOV with a memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlainMove {
    /// Bytes.
    pub length: u8,
    /// The width of the operands.
    pub width: AccessWidth,
    /// Load or store.
    pub direction: MoveDirection,
}

/// The direction of a [`PlainMove`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MoveDirection {
    /// Memory = source.
    Store(SourceOperand),
    /// Register = memory.
    Load(RegisterOperand),
}

const OPERAND_SIZE: u8 = 0x66;

/// Decodes the instruction that `bytes` begins with, if it is a plain move.
#[inline(always)]
pub fn plain_move(bytes: &[u8; 16]) -> Option<PlainMove> {
    let mut at = usize::from(bytes[0] == OPERAND_SIZE);
    let rex = if bytes[at] & 0xf0 == 0x40 { bytes[at] } else { 0 };
    at += usize::from(rex != 0);
    let (opcode, modrm) = (bytes[at], bytes[at + 1]);
    let width = match (opcode & 1, rex & 8, bytes[0]) {
        (0, ..) => AccessWidth::Byte,
        (_, 0, OPERAND_SIZE) => AccessWidth::Word,
        (_, 0, _) => AccessWidth::Dword,
        _ => AccessWidth::Qword,
    };
    let behind = at + 2 + address_bytes(modrm, bytes[at + 2])?;
    let reg = (modrm >> 3) & 7;
    let (direction, length) = match opcode {
        0x88 | 0x89 => {
            (MoveDirection::Store(SourceOperand::Register(low(reg, width, rex)?)), behind)
        }
        0x8a | 0x8b => (MoveDirection::Load(low(reg, width, rex)?), behind),
        0xc6 | 0xc7 if reg == 0 => {
            let constant = SourceOperand::Immediate(immediate(bytes, behind, width));
            (MoveDirection::Store(constant), behind + width.bytes().min(4))
        }
        _ => return None,
    };
    Some(PlainMove { length: length as u8, width, direction })
}

/// Returns the number of SIB and displacement bytes behind a ModRM byte; `None` if it names a
/// register.
#[inline(always)]
const fn address_bytes(modrm: u8, sib: u8) -> Option<usize> {
    let has_sib = modrm & 7 == 4;
    let base = if has_sib { sib & 7 } else { modrm & 7 };
    let displacement = match modrm >> 6 {
        0 if base == 5 => 4,
        0 => 0,
        1 => 1,
        2 => 4,
        _ => return None,
    };
    Some(has_sib as usize + displacement)
}

/// Returns the register of the reg field; `None` for AH, CH, DH and BH, which the full decoder
/// handles.
#[inline(always)]
fn low(reg: u8, width: AccessWidth, rex: u8) -> Option<RegisterOperand> {
    let register = register(reg | ((rex & 4) << 1), width, rex);
    (register.part == RegisterPart::Low).then_some(register)
}

/// Returns the constant at `at`, sign-extended: as wide as the operand, but a dword for a qword.
#[inline(always)]
fn immediate(bytes: &[u8; 16], at: usize, width: AccessWidth) -> u64 {
    let dword = i32::from_le_bytes([
        bytes[at & 15],
        bytes[(at + 1) & 15],
        bytes[(at + 2) & 15],
        bytes[(at + 3) & 15],
    ]);
    match width {
        AccessWidth::Byte => dword as i8 as u64,
        AccessWidth::Word => dword as i16 as u64,
        AccessWidth::Dword | AccessWidth::Qword => dword as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::decode::{
        CodeSize, Instruction, InstructionKind, OperandExtension, decode,
    };

    /// Decodes a plain move with the full decoder, without its addresses and repetition.
    fn long(bytes: &[u8; 16]) -> Option<PlainMove> {
        let Instruction { length, kind, width, .. } =
            decode(&bytes[..15], CodeSize::Bits64).ok()?;
        let direction = match kind {
            InstructionKind::Store(source) => MoveDirection::Store(source),
            InstructionKind::Load { register, extend: OperandExtension::Zero, to }
                if to == width =>
            {
                MoveDirection::Load(register)
            }
            _ => return None,
        };
        Some(PlainMove { length, width, direction })
    }

    fn padded(bytes: &[u8]) -> [u8; 16] {
        let mut all = [0x90; 16];
        all[..bytes.len()].copy_from_slice(bytes);
        all
    }

    /// Tries every accepted prefix, opcode, ModRM and a choice of SIB bytes.
    #[test]
    fn it_says_what_the_whole_decoder_says_or_nothing() {
        let mut plain = 0;
        for prefixes in [&[][..], &[0x66]].into_iter().flat_map(|legacy| {
            let rex = (0x40..=0x4f).map(Some).chain([None]);
            rex.map(move |rex| legacy.iter().copied().chain(rex).collect::<Vec<u8>>())
        }) {
            for (opcode, modrm, sib) in (0..=255)
                .flat_map(|op| (0..=255).flat_map(move |m| [0x20, 0x25, 0xe4].map(|s| (op, m, s))))
            {
                let tail =
                    [opcode, modrm, sib, 0x81, 0x92, 0xa3, 0xb4, 0x85, 0x96, 0xa7, 0xb8, 0xc9];
                let bytes = padded(&[&prefixes[..], &tail].concat());
                if let Some(found) = plain_move(&bytes) {
                    assert_eq!(Some(found), long(&bytes), "{bytes:02x?}");
                    plain += 1;
                }
            }
        }
        // 34 prefixes, each with 192 forms of memory and 3 SIB bytes: four opcodes, and two more
        // (C6, C7) in one of their eight extensions.
        assert!(plain > 34 * 192 * 3 * 4, "{plain}");
    }

    #[test]
    fn other_prefixes_and_instructions_are_not_plain() {
        for bytes in [
            &[0x67, 0x89, 0x03][..],
            &[0xf0, 0x89, 0x03],
            &[0x65, 0x89, 0x03],
            &[0x48, 0x66, 0x89, 0x03],
            &[0x66, 0x66, 0x89, 0x03],
            &[0x89, 0xc3],
            &[0x88, 0x23],
            &[0xc7, 0x48, 0x01, 0x00],
            &[0x0f, 0xb6, 0x03],
            &[0x01, 0x03],
            &[0xa3],
        ] {
            assert_eq!(plain_move(&padded(bytes)), None, "{bytes:02x?}");
        }
    }

    #[test]
    fn constants_are_extended_by_their_sign() {
        let constant = |bytes| match plain_move(&padded(bytes)) {
            Some(PlainMove {
                direction: MoveDirection::Store(SourceOperand::Immediate(value)),
                length,
                ..
            }) => (value, length),
            other => panic!("{other:?}"),
        };
        assert_eq!(constant(&[0xc6, 0x03, 0x80]), (0xffff_ffff_ffff_ff80, 3));
        assert_eq!(constant(&[0x66, 0xc7, 0x03, 0x00, 0x80]), (0xffff_ffff_ffff_8000, 5));
        assert_eq!(constant(&[0xc7, 0x43, 0x10, 1, 0, 0, 0x80]), (0xffff_ffff_8000_0001, 7));
        let all = [0x48, 0xc7, 0x84, 0x25, 1, 2, 3, 4, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(constant(&all), (0x7fff_ffff, 12));
    }
}
