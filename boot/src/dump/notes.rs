//! The notes of a dump, one after the other.

use super::Dump;
use anyhow::Result;

/// A note's header: sizes of name and descriptor, type.
const HEADER: usize = 12;

/// A note.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ElfNote<'a> {
    /// Its name with the zero at its end.
    pub name: &'a [u8],
    /// Its type.
    pub kind: u32,
    /// Its content.
    pub descriptor: &'a [u8],
}

impl<'a> ElfNote<'a> {
    /// Splits the first note off; also returns the rest. `None` where no whole note is left.
    pub fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let (name, descriptor, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let start = HEADER.checked_add(name.checked_next_multiple_of(4)?)?;
        let end = start.checked_add(descriptor)?;
        let rest = bytes.get(end.checked_next_multiple_of(4)?..).unwrap_or_default();
        let (name, descriptor) = (bytes.get(HEADER..HEADER + name)?, bytes.get(start..end)?);
        Some((Self { name, kind, descriptor }, rest))
    }
}

impl Dump {
    /// Reads the segment of the notes.
    ///
    /// # Errors
    /// Where the image cannot be read.
    pub fn notes(&self) -> Result<Vec<u8>> {
        let extent = self.contents.layout.notes();
        let mut bytes = vec![0; u64::from(self.record.drain.notes_len).min(extent.len) as usize];
        self.image.read(extent.start, &mut bytes)?;
        Ok(bytes)
    }
}
