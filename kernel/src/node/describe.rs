//! Writing what surrounds the blocks of a dump: byte streams to their part of a space, a buffer at a time.
//!
//! A dump that ends early, by a disk's error or by a power cut, is described from the same two things in both cases: the bitmap
//! and the progress ([`Recovered`]). So a reader of the ELF header and one of the bitmap see the same pages.

use super::spaces::{BUFFER, SpaceId, Spaces};
use super::task::yield_now;
use crate::addr::{Gfn, PageIndex};
use crate::block::DiskError;
use crate::dump::describe::{CorePages, Count, Headers, Stream};
use crate::dump::elf::Content;
use crate::paging::space::content::content_of;
use crate::paging::space::layout::Extent;
use crate::paging::space::record::Contents;
use alloc::vec;

/// Pages that the count of program headers looks at in a turn.
const COUNT_BUDGET: u32 = 4096;

/// The pages of a dump as bitmap and progress tell them.
pub struct Recovered<'a> {
    /// Layout and ranges.
    pub contents: &'a Contents,
    /// One bit a page.
    pub bitmap: &'a [u8],
    /// Every page below is final.
    pub progress: u32,
}

impl CorePages for Recovered<'_> {
    fn pages(&self) -> u32 {
        self.contents.layout.pages()
    }

    fn gfn(&self, index: PageIndex) -> Gfn {
        self.contents.gfn_of(index).unwrap_or_default()
    }

    fn content(&self, index: PageIndex) -> (Content, u32) {
        (content_of(self.bitmap, self.progress, index), 0)
    }
}

/// Returns how many program headers describe `pages`, the note's included.
pub async fn count(pages: &impl CorePages) -> u32 {
    let mut count = Count::default();
    loop {
        match count.step(pages, COUNT_BUDGET) {
            Some(number) => return number,
            None => yield_now().await,
        }
    }
}

/// Writes the ELF header of a dump that ended early; returns the number of program headers and the bytes.
///
/// # Errors
/// The disk's.
pub async fn headers(spaces: &Spaces, id: SpaceId, pages: &Recovered<'_>, notes_len: u32) -> Result<(u32, u64), DiskError> {
    let layout = &pages.contents.layout;
    let number = count(pages).await;
    let stream = Headers::new(layout, number, u64::from(notes_len));
    let bytes = put(spaces, id, layout.header(), stream, pages).await?;
    Ok((number, bytes))
}

/// Writes a stream to a part of the space; returns the bytes written.
///
/// # Errors
/// The disk's.
pub async fn put(
    spaces: &Spaces,
    id: SpaceId,
    extent: Extent,
    mut stream: impl Stream,
    pages: &impl CorePages,
) -> Result<u64, DiskError> {
    let mut buffer = vec![0; BUFFER];
    let (mut at, mut held) = (0, 0);
    loop {
        let len = stream.fill(pages, &mut buffer[held..]);
        held += len;
        // Streams are cut anywhere; the disk wants whole sectors, and only the end is padded.
        let whole = if len == 0 { held.next_multiple_of(512) } else { held / 512 * 512 };
        buffer[held..whole.max(held)].fill(0);
        if whole > 0 {
            extent.sectors(at, whole as u64).ok_or(DiskError::Unsupported)?;
            spaces.write(id, extent.start + at, &buffer[..whole]).await?;
            at += whole as u64;
        }
        if len == 0 {
            return Ok(at);
        }
        buffer.copy_within(whole..held, 0);
        held -= whole;
    }
}

/// Bytes that are there already, as a stream.
pub struct Fixed<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fixed<'a> {
    /// All of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl Stream for Fixed<'_> {
    fn fill(&mut self, _: &impl CorePages, out: &mut [u8]) -> usize {
        let rest = &self.bytes[self.at..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        len
    }
}
