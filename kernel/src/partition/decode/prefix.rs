//! Prefixes, and the operand and address sizes that result.

use super::reader::InstructionReader;
use super::{CodeSize, DecodeError, Repeat, SegmentName};
use crate::virt::AccessWidth;

/// The prefixes of one instruction.
pub(super) struct Prefixes {
    pub size: CodeSize,
    operand_override: bool,
    address_override: bool,
    pub repeat: Repeat,
    pub segment: Option<SegmentName>,
    /// REX, zero without one. Bits: 0100 W R X B.
    pub rex: u8,
}

impl Prefixes {
    /// Reads the prefixes and the first opcode byte.
    pub(super) fn read(
        reader: &mut InstructionReader<'_>,
        size: CodeSize,
    ) -> Result<(Self, u8), DecodeError> {
        let mut prefixes = Self {
            size,
            operand_override: false,
            address_override: false,
            repeat: Repeat::Once,
            segment: None,
            rex: 0,
        };
        loop {
            let byte = reader.byte()?;
            // A REX prefix counts only directly before the opcode.
            if size == CodeSize::Bits64 && byte & 0xf0 == 0x40 {
                prefixes.rex = byte;
            } else if prefixes.legacy(byte) {
                prefixes.rex = 0;
            } else {
                return Ok((prefixes, byte));
            }
        }
    }

    /// Takes a legacy prefix; tells whether `byte` is one.
    fn legacy(&mut self, byte: u8) -> bool {
        match byte {
            0x66 => self.operand_override = true,
            0x67 => self.address_override = true,
            0xf2 => self.repeat = Repeat::WhileNotEqual,
            0xf3 => self.repeat = Repeat::WhileEqual,
            0xf0 => {}
            // In 64-bit mode these four are ignored, and do not undo FS or GS.
            0x26 | 0x2e | 0x36 | 0x3e if self.size == CodeSize::Bits64 => {}
            0x26 => self.segment = Some(SegmentName::Es),
            0x2e => self.segment = Some(SegmentName::Cs),
            0x36 => self.segment = Some(SegmentName::Ss),
            0x3e => self.segment = Some(SegmentName::Ds),
            0x64 => self.segment = Some(SegmentName::Fs),
            0x65 => self.segment = Some(SegmentName::Gs),
            _ => return false,
        }
        true
    }

    pub(super) const fn wide(&self) -> bool {
        self.rex & 8 != 0
    }

    /// Returns the width of a full-size operand.
    pub(super) fn operand(&self) -> AccessWidth {
        match (self.size, self.operand_override) {
            (CodeSize::Bits64, _) if self.wide() => AccessWidth::Qword,
            (CodeSize::Bits16, false) | (CodeSize::Bits32 | CodeSize::Bits64, true) => {
                AccessWidth::Word
            }
            _ => AccessWidth::Dword,
        }
    }

    /// Returns the width of addresses.
    pub(super) const fn address(&self) -> AccessWidth {
        match (self.size, self.address_override) {
            (CodeSize::Bits64, false) => AccessWidth::Qword,
            (CodeSize::Bits16, false) | (CodeSize::Bits32, true) => AccessWidth::Word,
            _ => AccessWidth::Dword,
        }
    }
}
