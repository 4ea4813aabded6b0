//! Pages of one object that go out together, or are cleaned together.
//!
//! ```text
//!  empty ──write_out, clean──> waiting ──settle(proof)──> settled ──take, page by page; clear──> empty
//! ```
//!
//! The order is that of the single tokens, kept for all pages at once: one generation, read after
//! the last leaf had changed, and one proof for it. A page takes twelve bytes, its checksum
//! included. The step from waiting to settled costs nothing per page.
//!
//! Invariants:
//! * All pages of a group are of one object, and all go out or all are cleaned.
//! * Only a settled group tells a frame's number or hands out a page; each page is handed out once.

use super::token::{FramedPage, TakenTranslation};
use super::{
    Cleaning, FlushProof, Hfn, Page, PageIndex, Settled, SettledClean, TransitionError, WriteOut,
};
use crate::mm::crc::Crc32c;
use crate::mm::object::ObjectId;
use alloc::vec::Vec;
use core::ops::Range;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum GroupStage {
    Empty,
    /// Pages go out, and wait for the flush.
    GoingOut,
    /// Pages are cleaned, and wait for the flush.
    Cleaning,
    /// Pages go out.
    Out,
    /// Pages are cleaned.
    Clean,
}

/// A page of a settled group, to be finished or given up.
#[must_use = "the page stays claimed until this is finished or aborted"]
#[derive(Debug)]
pub enum SettledPage {
    /// The page goes out.
    Out(Settled),
    /// The page stays mapped.
    Clean(SettledClean),
}

impl SettledPage {
    /// Returns the page's index.
    #[inline]
    pub const fn index(&self) -> PageIndex {
        match self {
            Self::Out(settled) => settled.index(),
            Self::Clean(settled) => settled.index(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct GroupLine {
    index: PageIndex,
    /// All ones, which is the number of no pool frame, once the page has been taken.
    frame: u32,
    crc: Crc32c,
}

const TAKEN: u32 = u32::MAX;

/// Pages that go out, or are cleaned, together. A page is named by its line, in order of arrival.
#[derive(Debug)]
pub struct PageGroup {
    stage: GroupStage,
    /// The object of all pages.
    object: ObjectId,
    /// Read after the last leaf had changed.
    generation: u64,
    lines: Vec<GroupLine>,
    /// Number of pages that have been taken.
    taken: usize,
}

impl PageGroup {
    /// Makes an empty group that holds up to `most` pages without allocating.
    pub fn with_capacity(most: usize) -> Self {
        Self {
            stage: GroupStage::Empty,
            object: ObjectId::NONE,
            generation: 0,
            lines: Vec::with_capacity(most),
            taken: 0,
        }
    }

    /// Returns the number of lines, those of taken pages included.
    #[inline]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Returns whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Returns the number of pages that have not been taken.
    pub fn left(&self) -> usize {
        self.lines.len() - self.taken
    }

    /// Lets a page go out with this group.
    ///
    /// # Errors
    /// As [`Page::begin_write_out`].
    #[inline(always)]
    pub fn write_out(&mut self, page: Page<'_>) -> Result<(), TransitionError> {
        let WriteOut { taken, place } = page.begin_write_out()?;
        self.add(GroupStage::GoingOut, &taken, &place);
        Ok(())
    }

    /// Lets a page be cleaned with this group.
    ///
    /// # Errors
    /// As [`Page::begin_clean`].
    pub fn clean(&mut self, page: Page<'_>) -> Result<(), TransitionError> {
        let Cleaning { taken, place } = page.begin_clean()?;
        self.add(GroupStage::Cleaning, &taken, &place);
        Ok(())
    }

    /// Adds a page. Generations never go back, so the last page's is the highest.
    #[inline(always)]
    fn add(&mut self, stage: GroupStage, taken: &TakenTranslation, place: &FramedPage) {
        if self.stage == GroupStage::Empty {
            (self.stage, self.object) = (stage, taken.object);
        }
        assert!(
            self.stage == stage && self.object == taken.object,
            "a group's pages wait for one flush"
        );
        self.generation = taken.generation;
        self.lines.push(GroupLine {
            index: place.index,
            frame: place.hfn.as_u64() as u32,
            crc: Crc32c::default(),
        });
    }

    /// Makes the frames readable, once the flush has passed.
    ///
    /// # Panics
    /// If the proof is of another object or of a ticket opened before the last page came (our bug).
    pub fn settle(&mut self, passed: &FlushProof) {
        let settled = match self.stage {
            GroupStage::GoingOut => GroupStage::Out,
            GroupStage::Cleaning => GroupStage::Clean,
            _ => return,
        };
        passed.covers(self.object, self.generation);
        self.stage = settled;
    }

    /// Returns the page of a line, until the page is taken.
    #[inline]
    pub fn index(&self, line: usize) -> Option<PageIndex> {
        let GroupLine { index, frame, .. } = self.lines[line];
        (frame != TAKEN).then_some(index)
    }

    /// Returns the lowest page that has not been taken.
    pub fn lowest(&self) -> Option<PageIndex> {
        self.lines.iter().find(|line| line.frame != TAKEN).map(|line| line.index)
    }

    /// Returns the frames of a run of up to `most` neighbours that begins with line `from`; none if
    /// that page is taken.
    ///
    /// # Panics
    /// If the flush has not passed (our bug).
    #[inline]
    pub fn run(&self, from: usize, most: usize) -> impl Iterator<Item = Hfn> {
        self.check_settled();
        let lines = &self.lines[from..self.lines.len().min(from + most)];
        let mut expected = lines.first().map_or(0, |line| line.index.0);
        let follows = move |line: &&GroupLine| {
            let next = line.frame != TAKEN && line.index.0 == expected;
            expected = expected.wrapping_add(1);
            next
        };
        lines.iter().take_while(follows).map(|line| Hfn::new(u64::from(line.frame)))
    }

    /// Writes the frame numbers of the lines from `first` on to `frames`. None of these pages may
    /// have been taken.
    ///
    /// # Panics
    /// If the flush has not passed, or there are fewer lines (our bug).
    #[inline]
    pub fn tell_frames(&self, first: usize, frames: &mut [u32]) {
        self.check_settled();
        let lines = &self.lines[first..first + frames.len()];
        lines.iter().zip(frames).for_each(|(line, frame)| {
            debug_assert!(line.frame != TAKEN, "nobody has taken these pages");
            *frame = line.frame;
        });
    }

    /// Stores the checksums of lines from `from` on.
    pub fn keep_checksums(&mut self, from: usize, checksums: &[Crc32c]) {
        self.lines[from..].iter_mut().zip(checksums).for_each(|(line, crc)| line.crc = *crc);
    }

    /// Takes a page out, to be finished or aborted.
    ///
    /// # Panics
    /// If the flush has not passed, or the page has been taken (our bug).
    pub fn take(&mut self, line: usize) -> SettledPage {
        let mut run = self.take_run(line..line + 1);
        run.next().expect("a line is a page").0
    }

    /// Takes the pages of a run out, each with its checksum, to be finished or aborted.
    ///
    /// # Panics
    /// If the flush has not passed, or a page has been taken (our bug).
    #[inline(always)]
    pub fn take_run(&mut self, run: Range<usize>) -> impl Iterator<Item = (SettledPage, Crc32c)> {
        self.check_settled();
        let stage = self.stage;
        self.taken += run.len();
        let object = self.object;
        self.lines[run].iter_mut().map(move |line| {
            let GroupLine { index, frame, crc } = *line;
            assert!(frame != TAKEN, "a page is taken once");
            line.frame = TAKEN;
            let place = FramedPage { index, hfn: Hfn::new(u64::from(frame)) };
            match stage {
                GroupStage::Out => (SettledPage::Out(Settled { object, place }), crc),
                _ => (SettledPage::Clean(SettledClean { object, place }), crc),
            }
        })
    }

    /// Empties the group.
    ///
    /// # Panics
    /// If a page has not been taken: it would stay claimed for ever (our bug).
    pub fn clear(&mut self) {
        assert!(self.left() == 0, "all pages of a group are dealt with");
        self.lines.clear();
        (self.stage, self.taken) = (GroupStage::Empty, 0);
    }

    #[inline]
    fn check_settled(&self) {
        assert!(
            !matches!(self.stage, GroupStage::GoingOut | GroupStage::Cleaning),
            "nobody reads a frame before its flush"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::{leaf::LeafState, page::WriteOutEnd, test_bed::MemoryBed};
    use crate::virt::PageAccess;

    const CRC: Crc32c = Crc32c(7);

    /// A group of dirty pages that wait for their flush.
    fn leaving(bed: &MemoryBed, pages: &[u32]) -> PageGroup {
        let mut group = PageGroup::with_capacity(pages.len());
        for page in pages.iter().map(|&n| bed.object.page(PageIndex(n)).unwrap()) {
            page.install_zero(bed.frames.alloc().unwrap()).unwrap();
            assert_eq!(group.write_out(page), Err(TransitionError::Clean));
            page.touch(PageAccess::Write).unwrap();
            group.write_out(page).unwrap();
        }
        group
    }

    #[test]
    fn one_proof_settles_all_pages_and_runs_end_at_gaps_and_at_taken_pages() {
        let bed = MemoryBed::new();
        let mut group = leaving(&bed, &[3, 4, 5, 7]);
        group.settle(&bed.passed());
        let lengths = |group: &PageGroup| [0, 1, 3].map(|line| group.run(line, 9).count());
        assert_eq!((lengths(&group), group.run(0, 2).count()), ([3, 2, 1], 2));
        let mut told = [0; 4];
        group.tell_frames(0, &mut told);
        let frames: Vec<_> =
            group.run(0, 9).chain(group.run(3, 9)).map(|hfn| hfn.as_u64() as u32).collect();
        assert_eq!(told[..], frames);
        let SettledPage::Out(settled) = group.take(1) else { panic!("it goes out") };
        bed.object.page(PageIndex(4)).unwrap().abort_write_out(settled);
        assert_eq!(
            (lengths(&group), group.lowest(), group.left()),
            ([1, 0, 1], Some(PageIndex(3)), 3)
        );
        assert_eq!((group.index(0), group.index(1)), (Some(PageIndex(3)), None));
    }

    #[test]
    fn a_run_is_taken_with_its_checksums_and_the_group_used_again() {
        let bed = MemoryBed::new();
        let mut group = leaving(&bed, &[0, 1]);
        group.settle(&bed.passed());
        group.keep_checksums(1, &[CRC]);
        for (n, (ready, crc)) in (0..).zip(group.take_run(0..2)) {
            let (page, SettledPage::Out(settled)) = (bed.object.page(PageIndex(n)).unwrap(), ready)
            else {
                panic!("it goes out")
            };
            let WriteOutEnd::Out(frame) = page.finish_write_out(settled, crc) else {
                panic!("nobody rescued it")
            };
            bed.frames.free(frame);
            assert_eq!(page.leaf(), LeafState::Paged(if n == 1 { CRC } else { Crc32c::default() }));
        }
        group.clear();
        let page = bed.object.page(PageIndex(2)).unwrap();
        page.install_zero(bed.frames.alloc().unwrap()).unwrap();
        page.touch(PageAccess::Write).unwrap();
        group.clean(page).unwrap();
        group.settle(&bed.passed());
        let SettledPage::Clean(cleaning) = group.take(0) else { panic!("it is cleaned") };
        assert!(page.finish_clean(cleaning, CRC));
    }

    #[test]
    #[should_panic(expected = "before its flush")]
    fn a_frame_that_is_asked_for_before_the_flush_is_our_bug() {
        let bed = MemoryBed::new();
        leaving(&bed, &[0]).tell_frames(0, &mut [0]);
    }

    #[test]
    #[should_panic(expected = "taken away before it was opened")]
    fn a_proof_of_a_ticket_before_the_last_page_is_our_bug() {
        let bed = MemoryBed::new();
        let mut group = leaving(&bed, &[0]);
        let early = bed.passed();
        let page = bed.object.page(PageIndex(1)).unwrap();
        page.install_zero(bed.frames.alloc().unwrap()).unwrap();
        page.touch(PageAccess::Write).unwrap();
        group.write_out(page).unwrap();
        group.settle(&early);
    }

    #[test]
    #[should_panic(expected = "wait for one flush")]
    fn a_page_that_goes_out_among_pages_that_are_cleaned_is_our_bug() {
        let bed = MemoryBed::new();
        let mut group = leaving(&bed, &[0]);
        let page = bed.object.page(PageIndex(1)).unwrap();
        page.install_zero(bed.frames.alloc().unwrap()).unwrap();
        page.touch(PageAccess::Write).unwrap();
        let _ = group.clean(page);
    }

    #[test]
    #[should_panic(expected = "taken once")]
    fn a_page_that_is_taken_twice_is_our_bug() {
        let bed = MemoryBed::new();
        let mut group = leaving(&bed, &[0]);
        group.settle(&bed.passed());
        let SettledPage::Out(settled) = group.take(0) else { panic!("it goes out") };
        bed.object.page(PageIndex(0)).unwrap().abort_write_out(settled);
        let _ = group.take(0);
    }
}
