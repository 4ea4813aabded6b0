//! Dumps on paging devices, from outside: what there is, whether it is whole, and what a power cut left to do.
//!
//! A dump's blocks are where the pages always were; bitmap and progress say which of them are final. From these two follows
//! everything else: the ELF header of a dump whose drain was cut off is made from them here exactly as the
//! hypervisor would at its next start.

mod select;

pub use select::{BootLoader, deselect, select};

use crate::volume::{Access, Image};
use anyhow::{Context, Result, bail, ensure};
use kernel::addr::{Gfn, PAGE_SIZE, PageIndex};
use kernel::dump::describe::{CorePages, Count, Headers, Stream};
use kernel::dump::elf::Content;
use kernel::mm::crc::crc32c;
use kernel::paging::space::content::content_of;
use kernel::paging::space::record::Contents;
use kernel::paging::space::{Record, SpaceState};
use std::path::Path;

/// Bytes of blocks that are read at a time.
const PIECE_PAGES: u32 = 256;

/// A dump and what describes its pages.
pub struct Dump {
    image: Image,
    record: Record,
    contents: Contents,
    bitmap: Vec<u8>,
    checksums: Vec<u8>,
}

/// What a verification found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Pages whose block has the right checksum.
    pub right: u32,
    /// Pages whose block has another checksum.
    pub wrong: u32,
    /// The first such page.
    pub first_wrong: Option<u32>,
    /// Pages that are zero.
    pub zero: u32,
    /// Pages of which nothing final is there.
    pub missing: u32,
    /// Whether the ELF header says the same as bitmap and progress.
    pub header_current: bool,
}

impl Dump {
    /// Opens the dump on the only space of the image at `path`.
    ///
    /// # Errors
    /// As [`Dump::of`].
    pub fn open(path: &Path, access: Access) -> Result<Self> {
        Self::of(Image::open(path, access)?)
    }

    /// Opens the dump on a space.
    ///
    /// # Errors
    /// Says what the space holds instead.
    pub fn of(image: Image) -> Result<Self> {
        let record = image.record()?;
        ensure!(record.state.holds_dump(), "{}: holds no dump, the space is {}", image.name(), record.state.name());
        let contents = record.contents.clone().context("a dump's record describes its pages")?;
        let read = |extent: kernel::paging::space::layout::Extent| -> Result<Vec<u8>> {
            let mut bytes = vec![0; usize::try_from(extent.len)?];
            image.read(extent.start, &mut bytes)?;
            Ok(bytes)
        };
        let (bitmap, checksums) = (read(contents.layout.bitmap())?, read(contents.layout.checksums())?);
        Ok(Self { image, record, contents, bitmap, checksums })
    }

    /// Returns the space's name for people.
    pub fn name(&self) -> String {
        self.image.name()
    }

    /// Returns the space's record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns the number of pages of the crashed partition.
    pub fn page_count(&self) -> u32 {
        self.contents.layout.pages()
    }

    /// Returns the ELF header and program headers that describe what is final.
    pub fn header(&self) -> Result<Vec<u8>> {
        let mut count = Count::default();
        let program_headers = count.step(self, u32::MAX).context("all pages are counted in one step")?;
        let mut stream = Headers::new(&self.contents.layout, program_headers, self.record.drain.notes_len.into());
        let mut bytes = vec![0; usize::try_from(stream.total_bytes())?];
        let mut at = 0;
        // A stream wants some room for a piece; the last piece may end exactly at the end.
        let mut piece = vec![0; 1 << 16];
        while let n @ 1.. = stream.fill(self, &mut piece) {
            bytes.get_mut(at..at + n).context("the stream is as long as it says")?.copy_from_slice(&piece[..n]);
            at += n;
        }
        ensure!(at == bytes.len(), "the header has {at} bytes instead of {}", bytes.len());
        Ok(bytes)
    }

    /// Checks every block against its checksum, and the ELF header against bitmap and progress.
    ///
    /// # Errors
    /// Where the image cannot be read.
    pub fn verify(&self) -> Result<Verdict> {
        let expected = self.header()?;
        let mut found = vec![0; expected.len()];
        self.image.read(0, &mut found)?;
        let mut verdict = Verdict { header_current: found == expected, ..Verdict::default() };
        for first in (0..self.page_count()).step_by(PIECE_PAGES as usize) {
            self.verify_piece(first, PIECE_PAGES.min(self.page_count() - first), &mut verdict)?;
        }
        Ok(verdict)
    }

    fn verify_piece(&self, first: u32, count: u32, verdict: &mut Verdict) -> Result<()> {
        let mut blocks = vec![0; count as usize * PAGE_SIZE as usize];
        let start = self.contents.layout.blocks().start + u64::from(first) * PAGE_SIZE;
        self.image.read(start, &mut blocks)?;
        for (n, block) in (first..).zip(blocks.as_chunks::<{ PAGE_SIZE as usize }>().0) {
            match self.content(PageIndex(n)) {
                (Content::Block, crc) if crc32c(block).0 == crc => verdict.right += 1,
                (Content::Block, _) => {
                    verdict.wrong += 1;
                    verdict.first_wrong.get_or_insert(n);
                }
                (Content::Zero, _) => verdict.zero += 1,
                (Content::Missing, _) => verdict.missing += 1,
            }
        }
        Ok(())
    }

    /// Brings the ELF header of a dump whose drain was cut off up to date, and its state to PARTIAL.
    ///
    /// # Errors
    /// Where the image cannot be written.
    pub fn finish(&self) -> Result<SpaceState> {
        if self.record.state != SpaceState::Draining {
            return Ok(self.record.state);
        }
        self.image.write(0, &self.header()?)?;
        self.move_to(SpaceState::Partial)?;
        Ok(SpaceState::Partial)
    }

    /// Gives the dump back. Its blocks are scrubbed by the hypervisor's next start, before anybody else gets the space.
    ///
    /// # Errors
    /// Where the drain was cut off and [`Dump::finish`] has not run, or the image cannot be written.
    pub fn release(&self) -> Result<()> {
        self.move_to(SpaceState::Releasing)
    }

    fn move_to(&self, state: SpaceState) -> Result<()> {
        if !self.record.state.may_become(state) {
            bail!("a space that is {} cannot become {}", self.record.state.name(), state.name());
        }
        self.image.put_record(&Record { sequence: self.record.sequence + 1, state, ..self.record.clone() })
    }
}

impl CorePages for Dump {
    fn pages(&self) -> u32 {
        self.page_count()
    }

    fn gfn(&self, index: PageIndex) -> Gfn {
        self.contents.gfn_of(index).expect("the record's ranges add up to its pages")
    }

    fn content(&self, index: PageIndex) -> (Content, u32) {
        let at = 4 * index.0 as usize;
        let crc = self.checksums.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b));
        (content_of(&self.bitmap, self.record.drain.progress, index), crc)
    }
}

#[cfg(test)]
mod tests;
