//! Reads an instruction's bytes one after the other.

use super::{DecodeError, MAX_LENGTH, MemoryOperand};
use crate::virt::AccessWidth;

pub(super) struct InstructionReader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The memory operand, if one has been read.
    pub operand: Option<MemoryOperand>,
}

impl<'a> InstructionReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, operand: None }
    }

    /// Returns the number of bytes read so far: at the end, the instruction's length.
    pub(super) const fn consumed(&self) -> u8 {
        self.at as u8
    }

    /// Returns the next byte without reading it.
    pub(super) fn peek(&self) -> Result<u8, DecodeError> {
        match self.at {
            MAX_LENGTH => Err(DecodeError::Unknown),
            at => self.bytes.get(at).copied().ok_or(DecodeError::Truncated),
        }
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        if self.at == MAX_LENGTH {
            return Err(DecodeError::Unknown);
        }
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// Skips `count` bytes that do not matter (a displacement, an immediate).
    pub(super) fn skip(&mut self, count: usize) -> Result<(), DecodeError> {
        (0..count).try_for_each(|_| self.byte().map(|_| ()))
    }

    /// Reads a sign-extended constant of `bytes` bytes.
    pub(super) fn constant(&mut self, bytes: usize) -> Result<u64, DecodeError> {
        let mut value = 0;
        for i in 0..bytes {
            value |= u64::from(self.byte()?) << (8 * i);
        }
        Ok(match bytes {
            0 => 0,
            _ => ((value << (64 - 8 * bytes)) as i64 >> (64 - 8 * bytes)) as u64,
        })
    }

    /// Reads a sign-extended constant of `width`; a qword operand has a dword constant.
    pub(super) fn immediate(&mut self, width: AccessWidth) -> Result<u64, DecodeError> {
        self.constant(width.bytes().min(4))
    }
}
