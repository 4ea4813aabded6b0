//! The header of one selected dump in the boot-code bytes of its disk, so that tools can open the
//! raw image of a disk with several spaces.
//!
//! The 440 bytes hold an ELF header and six program headers, one of them for the notes, so five
//! runs of pages have to suffice. A dump's own header describes every run of zeros. This one takes
//! the blocks as they are, so the caller first makes the blocks of zero pages read as zeros.
//! Missing pages are left out: the longest five runs without them are taken, which cover all pages
//! of a complete dump.
//!
//! ```text
//!   pages   D Z D D Z Z . . D Z . D       D = block, Z = zero, . = missing
//!   runs    [---data---|zero]               zeros at a run's end need no blocks
//!                           [D|Z] [D]
//! ```

use super::describe::CorePages;
use super::elf::{CoreSegment, DumpPageState, EHDR_SIZE, PHDR_SIZE, encode_ehdr, encode_note_phdr};
use crate::addr::PageIndex;
use crate::block::gpt::BOOT_CODE_LEN;
use crate::space::{SpaceArea, SpaceLayout};
use arrayvec::ArrayVec;
use core::ops::Range;

/// Runs that fit next to the header and the notes' segment.
pub const MAX_RUNS: usize = (BOOT_CODE_LEN - EHDR_SIZE) / PHDR_SIZE - 1;
/// Offset of `p_offset` in the first program header, that of the notes.
const NOTE_OFFSET_AT: usize = EHDR_SIZE + 8;

/// The page runs in the header of a selected dump.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SelectedRuns {
    runs: ArrayVec<CoreSegment, MAX_RUNS>,
    left_out: u32,
}

impl SelectedRuns {
    /// Chooses the runs of a dump's pages.
    pub fn of(pages: &impl CorePages) -> Self {
        let mut selection = Self::default();
        let mut open: Option<CoreSegment> = None;
        for index in (0..pages.pages()).map(PageIndex) {
            let (gfn, content) = (pages.gfn(index), pages.content(index).0);
            let goes_on = |run: &CoreSegment| {
                let len = run.data + run.zero;
                run.index + len == index.0 && run.gfn.checked_add(len.into()) == Some(gfn)
            };
            if !open.as_ref().is_some_and(goes_on) || content == DumpPageState::Missing {
                selection.keep(open.take());
            }
            let run = open.get_or_insert(CoreSegment { gfn, index: index.0, data: 0, zero: 0 });
            match content {
                // The zero pages of the run up to here now need blocks.
                DumpPageState::Block => (run.data, run.zero) = (run.data + run.zero + 1, 0),
                DumpPageState::Zero => run.zero += 1,
                DumpPageState::Missing => open = None,
            }
        }
        selection.keep(open);
        selection.runs.sort_by_key(|run| run.index);
        selection
    }

    /// Adds a run. At the limit it replaces the shortest run, unless it is itself the shortest.
    fn keep(&mut self, run: Option<CoreSegment>) {
        let Some(run) = run else { return };
        let len = |run: &CoreSegment| run.data + run.zero;
        let Err(full) = self.runs.try_push(run) else { return };
        let run = full.element();
        let shortest = self.runs.iter_mut().min_by_key(|kept| len(kept));
        let dropped = match shortest {
            Some(shortest) if len(shortest) < len(&run) => core::mem::replace(shortest, run),
            _ => run,
        };
        self.left_out += len(&dropped);
    }

    /// Returns how many final pages are in none of the runs.
    pub const fn left_out(&self) -> u32 {
        self.left_out
    }

    /// Returns the ranges of pages whose blocks are taken as they are: blocks of zero pages in them
    /// must read as zeros.
    pub fn block_ranges(&self) -> impl Iterator<Item = Range<u32>> {
        self.runs.iter().map(|run| run.index..run.index + run.data)
    }

    /// Encodes the boot-code bytes for a dump in a space at `area`.
    pub fn encode(
        &self,
        layout: &SpaceLayout,
        notes_len: u64,
        area: SpaceArea,
    ) -> [u8; BOOT_CODE_LEN] {
        let mut bytes = [0; BOOT_CODE_LEN];
        bytes[..EHDR_SIZE].copy_from_slice(&encode_ehdr(self.runs.len() as u32 + 1, 0));
        let note = encode_note_phdr(area.start() + layout.notes().start, notes_len);
        let loads = self.runs.iter().map(|run| run.encode(area.start() + layout.blocks().start));
        let headers = core::iter::once(note).chain(loads);
        for (header, slot) in headers.zip(bytes[EHDR_SIZE..].as_chunks_mut::<PHDR_SIZE>().0) {
            *slot = header;
        }
        bytes
    }
}

/// Content of the boot-code bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootCode {
    /// Unused: zeros.
    Empty,
    /// The header of a selected dump whose notes lie at this byte of the disk.
    Selected(u64),
    /// A boot loader, or other data.
    Foreign,
}

impl BootCode {
    /// Classifies the first bytes of a disk.
    ///
    /// # Panics
    /// If `sector` has fewer than [`BOOT_CODE_LEN`] bytes.
    pub fn of(sector: &[u8]) -> Self {
        let bytes = &sector[..BOOT_CODE_LEN];
        if bytes.iter().all(|byte| *byte == 0) {
            return Self::Empty;
        }
        let word: [u8; 8] = core::array::from_fn(|n| bytes[NOTE_OFFSET_AT + n]);
        if bytes.starts_with(b"\x7fELF") {
            Self::Selected(u64::from_le_bytes(word))
        } else {
            Self::Foreign
        }
    }

    /// Returns whether the bytes are the header of a dump in the space at `area`.
    pub const fn selects(self, area: SpaceArea) -> bool {
        matches!(self, Self::Selected(notes) if area.holds(notes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gfn;
    use crate::block::SectorRange;

    struct FakeSelectedPages(&'static str, u64);

    impl CorePages for FakeSelectedPages {
        fn pages(&self) -> u32 {
            self.0.len() as u32
        }
        /// Puts a hole after `self.1` pages.
        fn gfn(&self, index: PageIndex) -> Gfn {
            Gfn::new(u64::from(index.0) + if u64::from(index.0) < self.1 { 0 } else { 1000 })
        }
        fn content(&self, index: PageIndex) -> (DumpPageState, u32) {
            match self.0.as_bytes()[index.0 as usize] {
                b'D' => (DumpPageState::Block, 1),
                b'Z' => (DumpPageState::Zero, 0),
                _ => (DumpPageState::Missing, 0),
            }
        }
    }

    fn runs(pages: &'static str, hole: u64) -> (Vec<(u64, u32, u32, u32)>, u32) {
        let selection = SelectedRuns::of(&FakeSelectedPages(pages, hole));
        let runs =
            selection.runs.iter().map(|r| (r.gfn.as_u64(), r.index, r.data, r.zero)).collect();
        (runs, selection.left_out())
    }

    #[test]
    fn a_whole_dump_has_a_run_for_each_range_of_ram() {
        assert_eq!(runs("ZDZDZZ", 99), (vec![(0, 0, 4, 2)], 0));
        assert_eq!(runs("ZDZDZZ", 3), (vec![(0, 0, 2, 1), (1003, 3, 1, 2)], 0));
        assert_eq!(runs("ZZ", 99), (vec![(0, 0, 0, 2)], 0));
    }

    #[test]
    fn missing_pages_are_in_no_run_and_the_longest_runs_stay() {
        assert_eq!(runs("D.DZ..Z.", 99), (vec![(0, 0, 1, 0), (2, 2, 1, 1), (6, 6, 0, 1)], 0));
        let (found, left_out) = runs("D.DD.DDD.DZZZ.D.DD.DDDDD", 99);
        assert_eq!(found.iter().map(|run| run.1).collect::<Vec<_>>(), [2, 5, 9, 16, 19]);
        assert_eq!(left_out, 2);
        assert_eq!(runs("....", 99), (vec![], 0));
    }

    #[test]
    fn the_header_points_into_the_space_and_fits_the_boot_code() {
        assert_eq!(MAX_RUNS, 5);
        let area = SpaceArea::part(SectorRange { first: 2048, count: 65536 }).unwrap();
        let layout = SpaceLayout::for_pages(area.bytes(), 24).unwrap();
        let bytes = SelectedRuns::of(&FakeSelectedPages("D.DD.DDD.DZZZ.D.DD.DDDDD", 99))
            .encode(&layout, 700, area);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((word(32), bytes[56]), (64, 6));
        assert_eq!((word(64 + 8), word(64 + 32)), ((1 << 20) + layout.notes().start, 700));
        assert_eq!(word(120 + 8), (1 << 20) + layout.blocks().start + 2 * 4096);
        assert_eq!((word(400 - 56 + 32), word(400 - 56 + 40)), (5 * 4096, 5 * 4096));
        assert!(bytes[400..].iter().all(|byte| *byte == 0));
        assert!(BootCode::of(&bytes).selects(area));
        let before = SpaceArea::part(SectorRange { first: 34, count: 2048 - 34 }).unwrap();
        assert!(!BootCode::of(&bytes).selects(before));
    }

    #[test]
    fn a_boot_loader_is_not_taken_for_a_header() {
        let mut sector = [0; 512];
        assert_eq!(BootCode::of(&sector), BootCode::Empty);
        // Disk signature, partition entries and the signature at the end are not boot code.
        sector[440..].fill(7);
        assert_eq!(BootCode::of(&sector), BootCode::Empty);
        sector[0] = 0xeb;
        assert_eq!(BootCode::of(&sector), BootCode::Foreign);
    }
}
