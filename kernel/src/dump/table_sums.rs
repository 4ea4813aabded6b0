//! The checksums of the tables around the blocks of a suspended partition, one for each piece of a
//! table. So a resume reads and checks only the pieces that the guest needs.
//!
//! ```text
//!   bitmap      │ piece │ piece │ pi        a piece: 4 KiB, more for memories beyond 120 GiB
//!   checksums   │ piece │ piece │ piece │ ...
//!   note        │ one CRC32C for each of them, sealed in the record with the other notes
//! ```
//!
//! Everything read here comes from a disk.

use super::state_note::{StateError, StateNote, StatePart, StateWriter};
use crate::arch::heap::{self, HeapError};
use crate::block::request::SECTOR_SIZE;
use crate::mm::crc::{Crc32c, crc32c, crc32c_on};
use crate::space::SpaceLayout;
use crate::space::layout::Extent;
use alloc::vec::Vec;

const VERSION: u16 = 1;
/// Bytes of the smallest piece, and of the largest.
const PIECES: core::ops::RangeInclusive<u32> = 4096..=32768;
/// Most pieces of both tables: their checksums have room among the notes.
const MOST_PIECES: u64 = 32768;

/// The table that a piece belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DumpTable {
    /// One bit a page.
    Bitmap,
    /// Four bytes a page.
    Checksums,
}

impl DumpTable {
    /// Returns the bytes of the table that are written.
    fn bytes(self, layout: &SpaceLayout) -> u64 {
        let pages = u64::from(layout.pages());
        match self {
            Self::Bitmap => pages.div_ceil(8).next_multiple_of(SECTOR_SIZE),
            Self::Checksums => pages * 4,
        }
    }

    fn extent(self, layout: &SpaceLayout) -> Extent {
        match self {
            Self::Bitmap => layout.bitmap(),
            Self::Checksums => layout.checksums(),
        }
    }
}

/// Sums pieces of a table as its bytes are written.
#[derive(Debug)]
pub struct PieceSummer {
    piece: usize,
    sums: Vec<u8>,
    sum: Crc32c,
    held: usize,
}

impl PieceSummer {
    /// Makes the summer of a table.
    ///
    /// # Errors
    /// [`HeapError`]: no room for its sums, or the memory is too large for them.
    pub fn new(layout: &SpaceLayout, table: DumpTable) -> Result<Self, HeapError> {
        let piece = piece_of(layout).ok_or(HeapError)?;
        let count = table.bytes(layout).div_ceil(piece.into()) as usize;
        let mut sums = heap::zeroed(count * 4)?;
        sums.clear();
        Ok(Self { piece: piece as usize, sums, sum: Crc32c::default(), held: 0 })
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(self.piece - self.held));
            self.sum = crc32c_on(self.sum, taken);
            (self.held, bytes) = (self.held + taken.len(), rest);
            if self.held == self.piece {
                self.end_piece();
            }
        }
    }

    fn end_piece(&mut self) {
        // The room was made at the start.
        self.sums.extend_from_slice(&self.sum.0.to_le_bytes());
        (self.sum, self.held) = (Crc32c::default(), 0);
    }

    /// Returns the sums as bytes.
    fn finish(mut self) -> Vec<u8> {
        if self.held > 0 {
            self.end_piece();
        }
        self.sums
    }
}

/// Returns the bytes of a piece; `None` if the memory is too large.
fn piece_of(layout: &SpaceLayout) -> Option<u32> {
    let bytes = DumpTable::Bitmap.bytes(layout) + DumpTable::Checksums.bytes(layout);
    let mut sizes = core::iter::successors(Some(*PIECES.start()), |piece| Some(piece * 2))
        .take_while(|piece| piece <= PIECES.end());
    sizes.find(|piece| bytes.div_ceil((*piece).into()) < MOST_PIECES)
}

/// The checksums of all pieces.
#[derive(Debug)]
pub struct TableSums {
    piece: u32,
    /// Pages that have a block.
    blocks: u64,
    bitmap: Vec<u8>,
    checksums: Vec<u8>,
}

/// A piece of a table in the space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TablePiece {
    /// Its number in the table.
    pub number: usize,
    /// Its first byte in the space.
    pub start: u64,
    /// Its length.
    pub len: usize,
}

impl TableSums {
    /// Bytes of the largest piece.
    pub const MOST: usize = *PIECES.end() as usize;

    /// Takes the sums of tables that are written.
    pub fn of(
        layout: &SpaceLayout,
        blocks: u64,
        bitmap: PieceSummer,
        checksums: PieceSummer,
    ) -> Result<Self, HeapError> {
        let piece = piece_of(layout).ok_or(HeapError)?;
        Ok(Self { piece, blocks, bitmap: bitmap.finish(), checksums: checksums.finish() })
    }

    /// Returns the number of pages that have a block.
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Appends the part to a note.
    pub fn save(&self, note: &mut StateWriter) {
        note.part(StatePart::TableSums, VERSION, |part| {
            part.u32(self.piece);
            part.u64(self.blocks);
            part.counted(&self.bitmap);
            part.counted(&self.checksums);
        });
    }

    /// Reads the part; `None` if the heap has no room for it.
    ///
    /// # Errors
    /// [`StateError`], also if the sums are those of tables of another size.
    pub fn read(note: &StateNote<'_>, layout: &SpaceLayout) -> Result<Option<Self>, StateError> {
        note.part(StatePart::TableSums, VERSION, |part| {
            let (piece, blocks) = (part.u32()?, part.u64()?);
            part.check(Some(piece) == piece_of(layout) && blocks <= layout.pages().into())?;
            let mut table = |table: DumpTable| {
                let len = table.bytes(layout).div_ceil(piece.into()) as usize * 4;
                let sums = part.counted(len)?;
                part.check(sums.len() == len)?;
                Ok(heap::zeroed(len).ok().map(|mut all| {
                    all.copy_from_slice(sums);
                    all
                }))
            };
            let (bitmap, checksums) = (table(DumpTable::Bitmap)?, table(DumpTable::Checksums)?);
            Ok(bitmap.zip(checksums).map(|(bitmap, checksums)| Self {
                piece,
                blocks,
                bitmap,
                checksums,
            }))
        })
    }

    /// Returns the piece that holds byte `at` of a table.
    pub fn piece_at(&self, layout: &SpaceLayout, table: DumpTable, at: u64) -> TablePiece {
        let piece = u64::from(self.piece);
        let first = at / piece * piece;
        TablePiece {
            number: (at / piece) as usize,
            start: table.extent(layout).start + first,
            len: table.bytes(layout).saturating_sub(first).min(piece) as usize,
        }
    }

    /// Returns whether the bytes of a piece are those that were written.
    pub fn is_right(&self, table: DumpTable, piece: TablePiece, bytes: &[u8]) -> bool {
        let sums = match table {
            DumpTable::Bitmap => &self.bitmap,
            DumpTable::Checksums => &self.checksums,
        };
        let sum = sums.get(piece.number * 4..).and_then(|rest| rest.first_chunk().copied());
        sum.map(u32::from_le_bytes) == Some(crc32c(bytes).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::state_note::StateNoteKind;

    fn layout(pages: u32) -> SpaceLayout {
        SpaceLayout::for_pages(1 << 45, pages).unwrap()
    }

    fn bytes_of(table: DumpTable, layout: &SpaceLayout) -> Vec<u8> {
        (0..table.bytes(layout)).map(|n| (n % 251) as u8 ^ (n >> 9) as u8).collect()
    }

    fn sums(layout: &SpaceLayout, step: usize) -> TableSums {
        let sum = |table| {
            let mut summer = PieceSummer::new(layout, table).unwrap();
            bytes_of(table, layout).chunks(step).for_each(|piece| summer.feed(piece));
            summer
        };
        TableSums::of(layout, 1, sum(DumpTable::Bitmap), sum(DumpTable::Checksums)).unwrap()
    }

    fn read_back(sums: &TableSums, layout: &SpaceLayout) -> Result<Option<TableSums>, StateError> {
        let mut writer = StateWriter::default();
        writer.note(StateNoteKind::Memory, 0, |note| sums.save(note));
        let notes = writer.finish().unwrap();
        let note = StateNote::all(&notes, StateNoteKind::Memory).next().unwrap();
        TableSums::read(&StateNote::read(note)?, layout)
    }

    #[test]
    fn each_piece_has_its_own_checksum_whatever_the_steps_were() {
        for pages in [1, 512, 1024, 1025, 40_000] {
            let layout = layout(pages);
            for step in [7, 512, 4096, 10_000] {
                let sums = read_back(&sums(&layout, step), &layout).unwrap().unwrap();
                assert_eq!(sums.blocks(), 1);
                for table in [DumpTable::Bitmap, DumpTable::Checksums] {
                    let bytes = bytes_of(table, &layout);
                    let start = table.extent(&layout).start;
                    for at in (0..bytes.len()).step_by(1000) {
                        let piece = sums.piece_at(&layout, table, at as u64);
                        let first = (piece.start - start) as usize;
                        let mut found = bytes[first..first + piece.len].to_vec();
                        assert!(sums.is_right(table, piece, &found));
                        found[at - first] ^= 1;
                        assert!(!sums.is_right(table, piece, &found));
                    }
                }
            }
        }
    }

    #[test]
    fn sums_of_another_memory_are_refused() {
        let (small, large) = (layout(1024), layout(2048));
        assert!(read_back(&sums(&small, 512), &large).is_err());
        let mut wrong = sums(&small, 512);
        wrong.piece = 8192;
        assert!(read_back(&wrong, &small).is_err());
        wrong = sums(&small, 512);
        wrong.blocks = 1025;
        assert!(read_back(&wrong, &small).is_err());
    }

    #[test]
    fn large_memories_have_large_pieces_and_few_sums() {
        // 64 MiB, 64 GiB, 256 GiB, 512 GiB. Beyond 1 TiB there is no size.
        let pieces = [14, 24, 26, 27].map(|bits| piece_of(&layout(1 << bits)));
        assert_eq!(pieces, [Some(4096), Some(4096), Some(16384), Some(32768)]);
        assert_eq!(piece_of(&layout(u32::MAX)), None);
    }
}
