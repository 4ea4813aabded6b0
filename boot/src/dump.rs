//! Dumps on paging devices, read from the host: listing, verifying, and finishing what a power cut
//! interrupted.
//!
//! A dump's blocks stay where the pages always were. The bitmap and the progress counter say which
//! of them are final, and everything else is derived from these two. The ELF header of an
//! interrupted drain, for example, is made here exactly as the hypervisor would make it at its next
//! start.

mod choice;
pub mod gdb;
pub mod history;
mod holders;
pub mod notes;
mod select;
mod windows;

pub use choice::DumpChoice;
pub use holders::refuse_while_held;
pub use select::{BootLoader, deselect, select};

use crate::volume::{SpaceImage, VolumeAccess};
use anyhow::{Context, Result, bail, ensure};
use kernel::addr::{Gfn, PAGE_SIZE, PageIndex};
use kernel::dump::describe::{CoreHeaders, CorePages, CoreStream, HeaderCount};
use kernel::dump::elf::{CorePage, DumpPageState};
use kernel::mm::crc::crc32c;
use kernel::space::content::{alike_bits, content_of_bit, has_bit};
use kernel::space::layout::Extent;
use kernel::space::record::SpaceContents;
use kernel::space::{OwnPages, SpaceRecord, SpaceState};
use std::path::Path;
use windows::Window;

/// Pages of blocks that are read at a time.
const PIECE_PAGES: u32 = 256;

/// Bytes of the header that are generated at a time.
const HEADER_PIECE: usize = 1 << 16;

/// A dump, with the tables that describe its pages.
pub struct Dump {
    image: SpaceImage,
    record: SpaceRecord,
    contents: SpaceContents,
    bitmap: Window,
    checksums: Window,
}

/// The result of a verification.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DumpVerdict {
    /// Pages whose block has the right checksum.
    pub right: u32,
    /// Pages whose block has another checksum.
    pub wrong: u32,
    /// The first such page.
    pub first_wrong: Option<u32>,
    /// Pages that are zero.
    pub zero: u32,
    /// Pages without a final block.
    pub missing: u32,
    /// Whether the ELF header agrees with bitmap and progress.
    pub header_current: bool,
}

impl Dump {
    /// Opens the dump on the only space of the image at `path`.
    ///
    /// # Errors
    /// As [`Dump::of`].
    pub fn open(path: &Path, access: VolumeAccess) -> Result<Self> {
        Self::of(SpaceImage::open(path, access)?)
    }

    /// Opens the dump on a space.
    ///
    /// # Errors
    /// Names the contents that the space has instead.
    pub fn of(image: SpaceImage) -> Result<Self> {
        let record = image.record()?;
        ensure!(
            record.state.is_kept(),
            "{}: holds no dump, the space is {}",
            image.name(),
            record.state.name()
        );
        let contents = record.contents.clone().context("a dump's record describes its pages")?;
        let window = |extent: Extent| match record.state.describes_pages() {
            true => Window::new(extent),
            // The tables there belong to an earlier incarnation.
            false => Window::new(Extent { len: 0, ..extent }),
        };
        let (bitmap, checksums) =
            (window(contents.layout.bitmap()), window(contents.layout.checksums()));
        Ok(Self { image, record, contents, bitmap, checksums })
    }

    /// Returns the space's name as shown to people.
    pub fn name(&self) -> String {
        self.image.name()
    }

    /// Returns the arguments that select this dump on a command line.
    pub fn place(&self) -> String {
        match self.image.number() {
            0 => self.image.path().display().to_string(),
            number => format!("{} {number}", self.image.path().display()),
        }
    }

    /// Returns the space's record.
    pub fn record(&self) -> &SpaceRecord {
        &self.record
    }

    /// Returns the number of pages of the crashed partition.
    pub fn page_count(&self) -> u32 {
        self.contents.layout.pages()
    }

    /// Generates the ELF header and program headers of the final pages, and hands them out in
    /// pieces with the offset of each.
    fn describe(&self, mut take: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut count = HeaderCount::default();
        let program_headers =
            count.step(self, u32::MAX).context("all pages are counted in one step")?;
        let mut stream = CoreHeaders::new(
            &self.contents.layout,
            program_headers,
            self.record.drain.notes_len.into(),
        );
        let (total, mut at) = (stream.total_bytes(), 0);
        let mut piece = vec![0; HEADER_PIECE];
        while stream.next().is_some() {
            let n = stream.fill(self, &mut piece);
            take(at, &piece[..n])?;
            at += n as u64;
        }
        self.bitmap.check()?;
        ensure!(at == total, "the header has {at} bytes instead of {total}");
        Ok(())
    }

    /// Returns whether the image begins with the header that [`Self::describe`] generates.
    fn has_current_header(&self) -> Result<bool> {
        let (mut found, mut is_current) = (vec![0; HEADER_PIECE], true);
        self.describe(|at, expected| {
            let found = &mut found[..expected.len()];
            self.image.read(at, found)?;
            is_current &= found == expected;
            Ok(())
        })?;
        Ok(is_current)
    }

    /// Checks every block against its checksum, and the ELF header against bitmap and progress.
    ///
    /// # Errors
    /// Where the image cannot be read.
    pub fn verify(&self) -> Result<DumpVerdict> {
        let mut verdict =
            DumpVerdict { header_current: self.has_current_header()?, ..DumpVerdict::default() };
        let mut next = 0;
        while next < self.page_count() {
            let run = self.run(PageIndex(next));
            let count = match run.content {
                DumpPageState::Block => PIECE_PAGES.min(self.page_count() - next),
                DumpPageState::Zero | DumpPageState::Missing => run.pages,
            };
            match run.content {
                DumpPageState::Block => self.verify_piece(next, count, &mut verdict)?,
                DumpPageState::Zero => verdict.zero += count,
                DumpPageState::Missing => verdict.missing += count,
            }
            next += count;
        }
        self.bitmap.check()?;
        self.checksums.check()?;
        Ok(verdict)
    }

    fn verify_piece(&self, first: u32, count: u32, verdict: &mut DumpVerdict) -> Result<()> {
        let mut blocks = vec![0; count as usize * PAGE_SIZE as usize];
        let start = self.contents.layout.blocks().start + u64::from(first) * PAGE_SIZE;
        self.image.read(start, &mut blocks)?;
        for (n, block) in (first..).zip(blocks.as_chunks::<{ PAGE_SIZE as usize }>().0) {
            match self.content(PageIndex(n)) {
                (DumpPageState::Block, crc) if crc32c(block).0 == crc => verdict.right += 1,
                (DumpPageState::Block, _) => {
                    verdict.wrong += 1;
                    verdict.first_wrong.get_or_insert(n);
                }
                (DumpPageState::Zero, _) => verdict.zero += 1,
                (DumpPageState::Missing, _) => verdict.missing += 1,
            }
        }
        Ok(())
    }

    /// Brings the ELF header up to date. A dump whose drain was interrupted becomes PARTIAL.
    ///
    /// # Errors
    /// Where the image cannot be written.
    pub fn finish(&self) -> Result<SpaceState> {
        if !self.record.state.describes_pages() {
            return Ok(self.record.state);
        }
        let base = self.record.base.filter(|base| base.own == OwnPages::Written);
        ensure!(
            base.is_none() || self.record.state != SpaceState::Draining,
            "{}: a part of its pages is still its base's: the next start of the hypervisor \
             completes it",
            self.name()
        );
        // The record is written last, and only when all tables behind the header could be read.
        self.describe(|_, _| Ok(()))?;
        self.describe(|at, piece| self.image.write(at, piece))?;
        if self.record.state != SpaceState::Draining {
            self.image.flush()?;
            return Ok(self.record.state);
        }
        self.move_to(SpaceState::Partial)?;
        Ok(SpaceState::Partial)
    }

    /// Checks that the record has not changed since it was read: all that was read meanwhile is
    /// then of one state. A dump may be given back while it is read.
    ///
    /// # Errors
    /// Names the state that it has now.
    pub fn check_unchanged(&self) -> Result<()> {
        let now = self.image.record()?;
        if now != self.record {
            bail!("{}: became {} while it was read", self.name(), now.state.name());
        }
        Ok(())
    }

    /// Gives the dump's space back. The hypervisor scrubs the blocks at its next start, before the
    /// space is used again.
    ///
    /// # Errors
    /// Where the drain was interrupted and [`Dump::finish`] has not run, or the image cannot be
    /// written.
    pub fn release(&self) -> Result<()> {
        self.move_to(SpaceState::Releasing)
    }

    /// Passes the piece of the bitmap with the bit of page `index` to `look`.
    fn bits<T>(&self, index: PageIndex, look: impl FnOnce(&[u8], PageIndex) -> T) -> T {
        self.bitmap.around(&self.image, u64::from(index.0 / 8), |bytes, at| {
            look(bytes, PageIndex(8 * at as u32 + index.0 % 8))
        })
    }

    fn content_alone(&self, index: PageIndex) -> DumpPageState {
        let bit = self.bits(index, has_bit);
        content_of_bit(bit, self.record.drain.progress, &self.record.missing, index)
    }

    /// Returns the known content of page `index`.
    ///
    /// # Errors
    /// Where the image cannot be read.
    fn known_content(&self, index: PageIndex) -> Result<DumpPageState> {
        let content = self.content_alone(index);
        self.bitmap.check()?;
        Ok(content)
    }

    fn move_to(&self, state: SpaceState) -> Result<()> {
        if !self.record.state.may_become(state) {
            bail!("a space that is {} cannot become {}", self.record.state.name(), state.name());
        }
        self.image.put_record(&SpaceRecord {
            sequence: self.record.sequence + 1,
            state,
            // Only a space whose dump is not sealed depends on a base.
            base: self.record.base.filter(|_| state == self.record.state),
            ..self.record.clone()
        })
    }
}

impl CorePages for Dump {
    fn pages(&self) -> u32 {
        self.page_count()
    }

    fn gfn(&self, index: PageIndex) -> Gfn {
        self.contents.gfn_of(index).expect("the record's ranges add up to its pages")
    }

    fn content(&self, index: PageIndex) -> (DumpPageState, u32) {
        let crc = self.checksums.around(&self.image, 4 * u64::from(index.0), |bytes, at| {
            let crc = bytes.get(at as usize..).and_then(|rest| rest.first_chunk());
            crc.map_or(0, |crc| u32::from_le_bytes(*crc))
        });
        (self.content_alone(index), crc)
    }

    fn run(&self, index: PageIndex) -> CorePage {
        let (gfn, left) =
            self.contents.place_of(index).expect("the record's ranges add up to its pages");
        let (progress, missing) = (self.record.drain.progress, &self.record.missing);
        let below = if index.0 < progress { progress - index.0 } else { left };
        let alike = self.bits(index, alike_bits);
        let pages = alike.min(missing.alike(index)).min(below).min(left);
        CorePage { gfn, index: index.0, pages, content: self.content_alone(index) }
    }
}

#[cfg(test)]
mod tests;
