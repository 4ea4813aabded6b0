//! Writes the parts of a dump around its blocks: byte streams go to their extents of a space, a
//! buffer at a time.
//!
//! A dump that ends early, by a disk error or by a power cut, is described in both cases from the
//! bitmap and the progress ([`RecoveredPages`]). The bitmap is read a window at a time, so the
//! memory needed does not depend on the size of the dump. A reader of the ELF header and a reader
//! of the bitmap therefore see the same pages.

use super::spaces::{BUFFER, SpaceId, Spaces};
use crate::addr::{Gfn, PageIndex};
use crate::arch::heap;
use crate::block::DiskError;
use crate::dump::describe::{CoreHeaders, CorePages, CoreStream, HeaderCount};
use crate::dump::elf::{CorePage, DumpPageState};
use crate::dump::window::BitmapWindow;
use crate::space::MissingPages;
use crate::space::content::content_of_bit;
use crate::space::layout::Extent;
use crate::space::record::SpaceContents;
use crate::task::yield_now;
use core::future::Future;

/// Looks at pages that the count of program headers makes in one turn.
const COUNT_BUDGET: u32 = 4096;

/// The pages that a stream describes; their state may have to be read from a disk.
pub trait PageSource: CorePages + Send {
    /// Makes the state of page `next`, and of some pages after it, known.
    ///
    /// # Errors
    /// The disk's.
    fn load(&mut self, next: u32) -> impl Future<Output = Result<(), DiskError>> + Send;
}

/// The pages of a dump, as its bitmap and its progress describe them.
pub struct RecoveredPages<'a> {
    spaces: &'a Spaces,
    id: SpaceId,
    contents: &'a SpaceContents,
    progress: u32,
    missing: &'a MissingPages,
    window: BitmapWindow,
}

impl<'a> RecoveredPages<'a> {
    /// Describes the dump in space `id`. Every page below `progress` is final or listed in
    /// `missing`.
    ///
    /// # Errors
    /// [`DiskError::NoMemory`].
    pub fn new(
        spaces: &'a Spaces,
        id: SpaceId,
        contents: &'a SpaceContents,
        progress: u32,
        missing: &'a MissingPages,
    ) -> Result<Self, DiskError> {
        Ok(Self {
            spaces,
            id,
            contents,
            progress,
            missing,
            window: BitmapWindow::new(&contents.layout)?,
        })
    }
}

impl CorePages for RecoveredPages<'_> {
    fn pages(&self) -> u32 {
        self.contents.layout.pages()
    }

    fn gfn(&self, index: PageIndex) -> Gfn {
        self.contents.gfn_of(index).unwrap_or_default()
    }

    fn content(&self, index: PageIndex) -> (DumpPageState, u32) {
        (content_of_bit(self.window.has_block(index), self.progress, self.missing, index), 0)
    }

    fn run(&self, index: PageIndex) -> CorePage {
        let (gfn, left) = self.contents.place_of(index).unwrap_or((Gfn::default(), 1));
        let below = if index.0 < self.progress { self.progress - index.0 } else { left };
        let pages = self.window.alike(index).min(self.missing.alike(index)).min(below).min(left);
        CorePage { gfn, index: index.0, pages, content: self.content(index).0 }
    }

    fn known(&self) -> u32 {
        self.window.pages().end
    }
}

impl PageSource for RecoveredPages<'_> {
    async fn load(&mut self, next: u32) -> Result<(), DiskError> {
        let all = self.pages();
        let Some(piece) = BitmapWindow::pieces(next..all, all).next() else { return Ok(()) };
        self.window.open(piece);
        let start = self.window.extent(&self.contents.layout).start;
        self.spaces.read(self.id, start, self.window.bytes_mut()).await
    }
}

/// How a stream is written to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutMode {
    /// Everything is written.
    Write,
    /// The stream is compared with the disk, and only differences are written.
    Repair,
}

/// Returns the number of program headers that describe `pages`, including the note's.
///
/// # Errors
/// The disk's.
pub async fn count(pages: &mut impl PageSource) -> Result<u32, DiskError> {
    let mut count = HeaderCount::default();
    loop {
        match count.step(pages, COUNT_BUDGET) {
            Some(number) => return Ok(number),
            None if count.next() >= pages.known() => pages.load(count.next()).await?,
            None => yield_now().await,
        }
    }
}

/// Writes the ELF header of a dump that ended early; returns the number of program headers and of
/// bytes written.
///
/// # Errors
/// The disk's.
pub async fn headers(
    pages: &mut RecoveredPages<'_>,
    notes_len: u32,
    mode: PutMode,
) -> Result<(u32, u64), DiskError> {
    let (spaces, id, layout) = (pages.spaces, pages.id, pages.contents.layout);
    pages.load(0).await?;
    let number = count(pages).await?;
    pages.load(0).await?;
    let stream = CoreHeaders::new(&layout, number, u64::from(notes_len));
    let bytes = put((spaces, id), mode, layout.header(), stream, pages).await?;
    Ok((number, bytes))
}

/// Writes a stream to an extent of the space; returns the number of bytes written.
///
/// # Errors
/// The disk's.
pub async fn put(
    (spaces, id): (&Spaces, SpaceId),
    mode: PutMode,
    extent: Extent,
    mut stream: impl CoreStream,
    pages: &mut impl PageSource,
) -> Result<u64, DiskError> {
    let mut buffer = heap::zeroed(BUFFER)?;
    let (mut at, mut held, mut written) = (0, 0, 0);
    loop {
        held += stream.fill(pages, &mut buffer[held..]);
        let next = stream.next();
        // A stream may stop at any byte, but the disk takes whole sectors. Only the end of the
        // stream is padded.
        let whole = if next.is_none() { held.next_multiple_of(512) } else { held / 512 * 512 };
        buffer[held..whole.max(held)].fill(0);
        if whole > 0 {
            extent.sectors(at, whole as u64).ok_or(DiskError::Unsupported)?;
            let place = extent.start + at;
            if mode == PutMode::Write || !spaces.is_there(id, place, &buffer[..whole]).await? {
                spaces.write(id, place, &buffer[..whole]).await?;
                written += whole as u64;
            }
            at += whole as u64;
        }
        match next {
            None => return Ok(written),
            Some(page) if page >= pages.known() && page < pages.pages() => pages.load(page).await?,
            Some(_) => yield_now().await,
        }
        buffer.copy_within(whole..held, 0);
        held -= whole;
    }
}

/// A stream of bytes that are in memory already.
pub struct ByteStream<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> ByteStream<'a> {
    /// Makes a stream of all `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl CoreStream for ByteStream<'_> {
    fn fill(&mut self, _: &impl CorePages, out: &mut [u8]) -> usize {
        let rest = &self.bytes[self.at..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        len
    }

    fn next(&self) -> Option<u32> {
        (self.at < self.bytes.len()).then_some(0)
    }
}
