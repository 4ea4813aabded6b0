//! Reads an instruction's bytes one after the other.

use super::{DecodeError, MAX_LENGTH};
use crate::virt::Width;

pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the bytes read so far, which is the instruction's length at its end.
    pub const fn consumed(&self) -> u8 {
        self.at as u8
    }

    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        if self.at == MAX_LENGTH {
            return Err(DecodeError::Unknown);
        }
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// Skips `count` bytes (a displacement, an immediate that nobody needs).
    pub fn skip(&mut self, count: usize) -> Result<(), DecodeError> {
        (0..count).try_for_each(|_| self.byte().map(|_| ()))
    }

    /// Reads a constant of `width`, sign-extended; a qword operand has a dword constant.
    pub fn immediate(&mut self, width: Width) -> Result<u64, DecodeError> {
        let bytes = width.bytes().min(4);
        let mut value = 0;
        for i in 0..bytes {
            value |= u64::from(self.byte()?) << (8 * i);
        }
        let unused = 64 - 8 * bytes as u32;
        Ok((((value << unused) as i64) >> unused) as u64)
    }
}
