//! What is written around the blocks of a dump, produced as byte streams in pieces of any size.
//!
//! | stream | goes to | made from |
//! |---|---|---|
//! | [`Headers`] | byte 0 | ELF header, note segment, one PT_LOAD a run, section header 0 if there are many |
//! | [`Bitmap`] | `Layout::bitmap` | one bit a page whose block is final |
//! | [`Checksums`] | `Layout::checksums` | CRC32C of each final block, 0 elsewhere |
//!
//! A stream keeps only a cursor, so describing a dump of any size takes a buffer of a few KiB and can stop at
//! any point to let something else run. Pure: the pages come through [`CorePages`].

use super::elf::{
    self, Content, CorePage, LoadBuilder, PHDR_OFFSET, PHDR_SIZE, SHDR_SIZE, encode_count_shdr, encode_ehdr, encode_note_phdr,
};
use crate::addr::{Gfn, PageIndex};
use crate::paging::space::Layout;

/// A dump's pages as far as they are final.
pub trait CorePages {
    /// Number of pages.
    fn pages(&self) -> u32;
    /// Where page `index` is in the guest.
    fn gfn(&self, index: PageIndex) -> Gfn;
    /// What is known of it, and its block's checksum where there is one.
    fn content(&self, index: PageIndex) -> (Content, u32);
}

/// Bytes that are produced one after the other.
pub trait Stream {
    /// Fills a part of `out` from its start; 0 when there is nothing left. `out` has at least [`MIN_PIECE`] bytes.
    fn fill(&mut self, pages: &impl CorePages, out: &mut [u8]) -> usize;
}

/// Least room that a stream wants for a piece.
pub const MIN_PIECE: usize = 512;

/// Counts program headers, so that the ELF header can be written first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    next: u32,
    loads: u32,
    builder: LoadBuilder,
}

impl Count {
    /// Looks at up to `budget` pages; returns the number of program headers, the note's included, once all are seen.
    pub fn step(&mut self, pages: &impl CorePages, budget: u32) -> Option<u32> {
        let end = pages.pages().min(self.next.saturating_add(budget));
        while self.next < end {
            self.loads += u32::from(self.builder.push(core_page(pages, self.next)).is_some());
            self.next += 1;
        }
        if self.next < pages.pages() {
            return None;
        }
        self.loads += u32::from(self.builder.finish().is_some());
        Some(self.loads + 1)
    }
}

fn core_page(pages: &impl CorePages, n: u32) -> CorePage {
    let index = PageIndex(n);
    CorePage { gfn: pages.gfn(index), index: n, content: pages.content(index).0 }
}

/// The ELF header and the program headers.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    phnum: u32,
    notes: (u64, u64),
    data_offset: u64,
    at: Part,
    /// PT_LOADs that are still to come.
    left: u32,
    next: u32,
    builder: LoadBuilder,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Front,
    Loads,
    SectionHeader,
    End,
}

impl Headers {
    /// Describes `phnum` program headers ([`Count`]) and `notes_len` bytes of notes in a space of this layout.
    pub fn new(layout: &Layout, phnum: u32, notes_len: u64) -> Self {
        Self {
            phnum,
            notes: (layout.notes().start, notes_len),
            data_offset: layout.blocks().start,
            at: Part::Front,
            left: phnum - 1,
            next: 0,
            builder: LoadBuilder::default(),
        }
    }

    /// Returns the bytes of the whole stream.
    pub const fn total_bytes(&self) -> u64 {
        let count = if elf::needs_count_shdr(self.phnum) { SHDR_SIZE as u64 } else { 0 };
        self.shdr_offset() + count
    }

    const fn shdr_offset(&self) -> u64 {
        PHDR_OFFSET + self.phnum as u64 * PHDR_SIZE as u64
    }

    /// Returns the next PT_LOAD: always as many as were counted. In a dump that is still draining more pages may have become
    /// final since; then the last ones stay undescribed, or runs have grown together and empty headers (PT_NULL) fill up.
    fn next_load(&mut self, pages: &impl CorePages) -> Option<[u8; PHDR_SIZE]> {
        self.left = self.left.checked_sub(1)?;
        Some(self.next_run(pages).unwrap_or([0; PHDR_SIZE]))
    }

    fn next_run(&mut self, pages: &impl CorePages) -> Option<[u8; PHDR_SIZE]> {
        while self.next < pages.pages() {
            let page = core_page(pages, self.next);
            self.next += 1;
            if let Some(load) = self.builder.push(page) {
                return Some(load.encode(self.data_offset));
            }
        }
        self.builder.finish().map(|load| load.encode(self.data_offset))
    }
}

impl Stream for Headers {
    fn fill(&mut self, pages: &impl CorePages, out: &mut [u8]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
            out.len() - at
        };
        if self.at == Part::Front {
            put(&encode_ehdr(self.phnum, self.shdr_offset()));
            put(&encode_note_phdr(self.notes.0, self.notes.1));
            self.at = Part::Loads;
        }
        let mut room = put(&[]);
        while self.at == Part::Loads && room >= PHDR_SIZE {
            match self.next_load(pages) {
                Some(load) => room = put(&load),
                None => self.at = Part::SectionHeader,
            }
        }
        if self.at == Part::SectionHeader && room >= SHDR_SIZE {
            if elf::needs_count_shdr(self.phnum) {
                put(&encode_count_shdr(self.phnum));
            }
            self.at = Part::End;
        }
        at
    }
}

/// Bits of the pages whose blocks are final.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bitmap {
    next: u32,
}

impl Stream for Bitmap {
    fn fill(&mut self, pages: &impl CorePages, out: &mut [u8]) -> usize {
        let mut at = 0;
        while at < out.len() && self.next < pages.pages() {
            let end = (self.next + 8).min(pages.pages());
            let bit = |n: u32| u8::from(pages.content(PageIndex(n)).0 == Content::Block) << (n % 8);
            out[at] = (self.next..end).fold(0, |byte, n| byte | bit(n));
            self.next = end;
            at += 1;
        }
        at
    }
}

/// Checksums of the final blocks.
#[derive(Clone, Copy, Debug)]
pub struct Checksums {
    next: u32,
    end: u32,
}

impl Checksums {
    /// Of the pages from `first` up to `end`, as far as there are any.
    pub const fn of(first: u32, end: u32) -> Self {
        Self { next: first, end }
    }
}

impl Stream for Checksums {
    fn fill(&mut self, pages: &impl CorePages, out: &mut [u8]) -> usize {
        let mut at = 0;
        while at + 4 <= out.len() && self.next < self.end.min(pages.pages()) {
            let (content, crc) = pages.content(PageIndex(self.next));
            let value = if content == Content::Block { crc } else { 0 };
            out[at..at + 4].copy_from_slice(&value.to_le_bytes());
            self.next += 1;
            at += 4;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paging::space::content::content_of;

    struct Fake(Vec<Content>);

    impl CorePages for Fake {
        fn pages(&self) -> u32 {
            self.0.len() as u32
        }
        fn gfn(&self, index: PageIndex) -> Gfn {
            Gfn::new(u64::from(index.0))
        }
        fn content(&self, index: PageIndex) -> (Content, u32) {
            (self.0[index.0 as usize], 100 + index.0)
        }
    }

    fn fake(kinds: &str) -> Fake {
        Fake(
            kinds
                .chars()
                .map(|c| {
                    if c == 'D' {
                        Content::Block
                    } else if c == 'Z' {
                        Content::Zero
                    } else {
                        Content::Missing
                    }
                })
                .collect(),
        )
    }

    fn all(mut stream: impl Stream, pages: &Fake, piece: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut out = vec![0xee; piece];
        loop {
            match stream.fill(pages, &mut out) {
                0 => return bytes,
                n => bytes.extend_from_slice(&out[..n]),
            }
        }
    }

    fn headers(pages: &Fake, piece: usize) -> (u32, Vec<u8>) {
        let mut count = Count::default();
        let phnum = loop {
            if let Some(n) = count.step(pages, 3) {
                break n;
            }
        };
        let layout = Layout::for_pages(1 << 34, pages.pages()).unwrap();
        let stream = Headers::new(&layout, phnum, 1000);
        let len = stream.total_bytes();
        let bytes = all(stream, pages, piece);
        assert_eq!(bytes.len() as u64, len);
        (phnum, bytes)
    }

    #[test]
    fn headers_are_the_same_whatever_the_piece() {
        let pages = fake(&"DDZ.DZZ".repeat(40));
        let (phnum, whole) = headers(&pages, 1 << 20);
        assert_eq!(phnum, 1 + 80);
        for piece in [512, 513, 600, 4096] {
            assert_eq!(headers(&pages, piece).1, whole, "{piece}");
        }
        assert_eq!(u16::from_le_bytes(whole[56..58].try_into().unwrap()), 81);
    }

    #[test]
    fn the_count_is_kept_whatever_has_become_final_since() {
        let layout = Layout::for_pages(1 << 34, 5).unwrap();
        for (phnum, kinds) in [(4, "DDDDD"), (2, "D.D.D")] {
            let bytes = all(Headers::new(&layout, phnum, 8), &fake(kinds), 4096);
            assert_eq!(bytes.len(), 64 + 56 * phnum as usize);
        }
    }

    #[test]
    fn the_worst_alternation_fits_the_room_of_the_layout() {
        let pages = fake(&"DZ".repeat(70_000));
        let (phnum, bytes) = headers(&pages, 65536);
        assert_eq!(phnum, 70_001);
        assert!(bytes.len() as u64 <= Layout::for_pages(1 << 34, 140_000).unwrap().header().len);
        let at = bytes.len() - SHDR_SIZE;
        assert_eq!(u32::from_le_bytes(bytes[at + 44..at + 48].try_into().unwrap()), phnum);
    }

    #[test]
    fn bitmap_and_checksums_agree_with_the_pages() {
        let pages = fake("DZD.DDDDDZ.");
        let bitmap = all(Bitmap::default(), &pages, 512);
        for n in 0..11 {
            assert_eq!(content_of(&bitmap, 11, PageIndex(n)) == Content::Block, pages.0[n as usize] == Content::Block, "{n}");
        }
        let sums = all(Checksums::of(0, u32::MAX), &pages, 512);
        let at = |n: usize| u32::from_le_bytes(sums[n * 4..n * 4 + 4].try_into().unwrap());
        assert_eq!((sums.len(), at(0), at(1), at(2), at(3)), (44, 100, 0, 102, 0));
        assert_eq!(all(Checksums::of(4, 6), &pages, 512), sums[16..24]);
    }
}
