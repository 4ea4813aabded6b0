//! The list of a suspended partition's last used pages, most recently used first: they are read
//! again after the resume, before the guest asks for them.
//!
//! ```text
//!   window (u32) │ pages of the window, one bit each (u16) │ ...      a window: 16 pages
//! ```
//!
//! The list is a hint: it may be cut off, and a page may be in it that is not in its block any
//! more. It is bounded, however large the memory is.

use super::state_note::{StateError, StateNote, StatePart, StateWriter};
use crate::arch::heap;
use alloc::vec::Vec;

const VERSION: u16 = 1;
/// Bytes of an entry.
const ENTRY: usize = 6;
/// Most entries: 96 KiB for up to 1 GiB of pages.
const MOST: usize = 16384;

/// The list.
#[derive(Clone, Debug, Default)]
pub struct HotList {
    bytes: Vec<u8>,
}

impl HotList {
    /// Appends pages of a window. Beyond the list's bound, and without room in the heap, they are
    /// left out.
    pub fn push(&mut self, window: u32, pages: u16) {
        let is_full = self.bytes.len() >= MOST * ENTRY;
        if pages == 0 || is_full || self.bytes.try_reserve(ENTRY).is_err() {
            return;
        }
        self.bytes.extend_from_slice(&window.to_le_bytes());
        self.bytes.extend_from_slice(&pages.to_le_bytes());
    }

    /// Appends another list.
    pub fn append(&mut self, other: &Self) {
        other.windows().for_each(|(window, pages)| self.push(window, pages));
    }

    /// Cuts the list off so that its part of a note takes at most `most` bytes.
    pub fn cut(&mut self, most: usize) {
        const FRONT: usize = 16;
        self.bytes.truncate(most.saturating_sub(FRONT) / ENTRY * ENTRY);
    }

    /// Returns the windows with their pages, most recently used first.
    pub fn windows(&self) -> impl Iterator<Item = (u32, u16)> {
        self.bytes.as_chunks::<ENTRY>().0.iter().map(|[a, b, c, d, low, high]| {
            (u32::from_le_bytes([*a, *b, *c, *d]), u16::from_le_bytes([*low, *high]))
        })
    }

    /// Appends the part to a note.
    pub fn save(&self, note: &mut StateWriter) {
        note.part(StatePart::HotPages, VERSION, |part| part.counted(&self.bytes));
    }

    /// Reads the part. Without one, and without room in the heap, the list is empty.
    ///
    /// # Errors
    /// [`StateError`]: the part is not one.
    pub fn read(note: &StateNote<'_>) -> Result<Self, StateError> {
        let read = note.part(StatePart::HotPages, VERSION, |part| {
            let all = part.counted(MOST * ENTRY)?;
            part.check(all.len().is_multiple_of(ENTRY))?;
            let bytes = heap::zeroed(all.len()).ok().map(|mut bytes| {
                bytes.copy_from_slice(all);
                bytes
            });
            Ok(Self { bytes: bytes.unwrap_or_default() })
        });
        match read {
            Err(StateError::Missing(_)) => Ok(Self::default()),
            read => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::state_note::StateNoteKind;

    fn read_back(list: &HotList) -> Vec<(u32, u16)> {
        let mut writer = StateWriter::default();
        writer.note(StateNoteKind::Memory, 0, |note| list.save(note));
        let notes = writer.finish().unwrap();
        let note = StateNote::all(&notes, StateNoteKind::Memory).next().unwrap();
        HotList::read(&StateNote::read(note).unwrap()).unwrap().windows().collect()
    }

    #[test]
    fn the_order_is_kept_and_the_length_is_bounded() {
        let mut list = HotList::default();
        assert_eq!(read_back(&list), []);
        for (window, pages) in [(9, 3), (2, 0), (1 << 28, 0x8001)] {
            list.push(window, pages);
        }
        let mut all = HotList::default();
        all.push(7, 1);
        all.append(&list);
        assert_eq!(read_back(&all), [(7, 1), (9, 3), (1 << 28, 0x8001)]);
        (0..20_000).for_each(|n| all.push(n, 1));
        assert_eq!(read_back(&all).len(), MOST);
        all.cut(100);
        assert_eq!(read_back(&all).len(), 14);
        all.cut(3);
        assert_eq!(read_back(&all), []);
    }
}
