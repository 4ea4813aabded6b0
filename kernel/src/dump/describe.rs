//! The metadata around the blocks of a dump, produced as byte streams in pieces of any size.
//!
//! | stream | position | content |
//! |---|---|---|
//! | [`CoreHeaders`] | byte 0 | ELF header, note segment, a PT_LOAD per run, section header 0 if many |
//! | [`BlockChecksums`] | `SpaceLayout::checksums` | CRC32C of each final block, 0 elsewhere |
//!
//! The bitmap is written a window at a time ([`super::window`]).
//!
//! A stream keeps only a cursor. So describing a dump of any size takes a buffer of a few KiB, and
//! can stop at any point to let other work run. All pages under a missing table cost one lookup, so
//! the cost follows the memory that the guest has touched, not its logical size. Pure: the pages
//! come through [`CorePages`].

use super::elf::{
    self, CorePage, DumpPageState, LoadBuilder, PHDR_OFFSET, PHDR_SIZE, SHDR_SIZE,
    encode_count_shdr, encode_ehdr, encode_note_phdr,
};
use crate::addr::{Gfn, PageIndex};
use crate::space::SpaceLayout;

/// A dump's pages, as far as they are final.
pub trait CorePages {
    /// Number of pages.
    fn pages(&self) -> u32;
    /// Returns the guest page number of page `index`.
    fn gfn(&self, index: PageIndex) -> Gfn;
    /// Returns its content, and its block's checksum if it has a block.
    fn content(&self, index: PageIndex) -> (DumpPageState, u32);

    /// Returns page `index` and the following pages that the same lookup shows to have the same
    /// content.
    fn run(&self, index: PageIndex) -> CorePage {
        CorePage { gfn: self.gfn(index), index: index.0, pages: 1, content: self.content(index).0 }
    }

    /// Returns the first page that cannot be looked up yet, because its bits are still on the disk.
    /// A stream stops there.
    fn known(&self) -> u32 {
        self.pages()
    }
}

/// A sequence of bytes, produced in pieces.
pub trait CoreStream {
    /// Fills a part of `out` from its start, after a bounded number of lookups; returns the number
    /// of bytes, which may be 0 before the end. `out` has at least 512 bytes.
    fn fill(&mut self, pages: &impl CorePages, out: &mut [u8]) -> usize;
    /// Returns the page at which the stream continues, or `None` at its end.
    fn next(&self) -> Option<u32>;
}

/// Most page lookups for a piece, besides those that yield bytes.
const LOOKS: u32 = 4096;

/// Counts program headers first, because the ELF header at the start needs their number.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeaderCount {
    next: u32,
    loads: u32,
    builder: LoadBuilder,
}

impl HeaderCount {
    /// Makes up to `budget` page lookups. Returns the number of program headers, including the
    /// note's, once all pages are seen.
    pub fn step(&mut self, pages: &impl CorePages, budget: u32) -> Option<u32> {
        for _ in 0..budget {
            if self.next >= pages.known() {
                break;
            }
            let run = pages.run(PageIndex(self.next));
            self.loads += u32::from(self.builder.push(run).is_some());
            self.next += run.pages;
        }
        if self.next < pages.pages() {
            return None;
        }
        self.loads += u32::from(self.builder.finish().is_some());
        Some(self.loads + 1)
    }

    /// Returns the page at which the count continues.
    pub const fn next(&self) -> u32 {
        self.next
    }
}

/// The ELF header and the program headers.
#[derive(Clone, Copy, Debug)]
pub struct CoreHeaders {
    phnum: u32,
    notes: (u64, u64),
    data_offset: u64,
    at: CoreHeaderPart,
    /// PT_LOADs still to be produced.
    left: u32,
    next: u32,
    builder: LoadBuilder,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CoreHeaderPart {
    Front,
    Loads,
    SectionHeader,
    End,
}

impl CoreHeaders {
    /// Describes `phnum` program headers ([`HeaderCount`]) and `notes_len` bytes of notes in a
    /// space of this layout.
    pub fn new(layout: &SpaceLayout, phnum: u32, notes_len: u64) -> Self {
        Self {
            phnum,
            notes: (layout.notes().start, notes_len),
            data_offset: layout.blocks().start,
            at: CoreHeaderPart::Front,
            left: phnum - 1,
            next: 0,
            builder: LoadBuilder::default(),
        }
    }

    /// Returns the length of the whole stream in bytes.
    pub const fn total_bytes(&self) -> u64 {
        let count = if elf::needs_count_shdr(self.phnum) { SHDR_SIZE as u64 } else { 0 };
        self.shdr_offset() + count
    }

    const fn shdr_offset(&self) -> u64 {
        PHDR_OFFSET + self.phnum as u64 * PHDR_SIZE as u64
    }

    /// Returns the next PT_LOAD; their number is always the one counted. In a dump that is still
    /// draining, more pages may have become final since the count. Then the last pages stay
    /// undescribed, or runs have merged and empty headers (PT_NULL) fill the gap.
    fn next_load(&mut self, pages: &impl CorePages, looks: &mut u32) -> NextLoad {
        if self.left == 0 {
            return NextLoad::End;
        }
        let mut ended = None;
        while ended.is_none() && self.next < pages.pages() {
            if *looks == 0 || self.next >= pages.known() {
                return NextLoad::Later;
            }
            *looks -= 1;
            let run = pages.run(PageIndex(self.next));
            ended = self.builder.push(run);
            self.next += run.pages;
        }
        self.left -= 1;
        let load = ended.or_else(|| self.builder.finish());
        NextLoad::Header(load.map_or([0; PHDR_SIZE], |load| load.encode(self.data_offset)))
    }
}

/// Result of the search for a further PT_LOAD.
enum NextLoad {
    Header([u8; PHDR_SIZE]),
    /// Unknown before further pages are looked up.
    Later,
    End,
}

impl CoreStream for CoreHeaders {
    fn fill(&mut self, pages: &impl CorePages, out: &mut [u8]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
            out.len() - at
        };
        if self.at == CoreHeaderPart::Front {
            put(&encode_ehdr(self.phnum, self.shdr_offset()));
            put(&encode_note_phdr(self.notes.0, self.notes.1));
            self.at = CoreHeaderPart::Loads;
        }
        let (mut room, mut looks) = (put(&[]), LOOKS);
        while self.at == CoreHeaderPart::Loads && room >= PHDR_SIZE {
            match self.next_load(pages, &mut looks) {
                NextLoad::Header(load) => room = put(&load),
                NextLoad::Later => break,
                NextLoad::End => self.at = CoreHeaderPart::SectionHeader,
            }
        }
        if self.at == CoreHeaderPart::SectionHeader && room >= SHDR_SIZE {
            if elf::needs_count_shdr(self.phnum) {
                put(&encode_count_shdr(self.phnum));
            }
            self.at = CoreHeaderPart::End;
        }
        at
    }

    fn next(&self) -> Option<u32> {
        (self.at != CoreHeaderPart::End).then_some(self.next)
    }
}

/// Checksums of the final blocks.
#[derive(Clone, Copy, Debug)]
pub struct BlockChecksums {
    next: u32,
    end: u32,
}

impl BlockChecksums {
    /// Makes the stream for the pages from `first` up to `end`, which is at most their number.
    pub const fn of(first: u32, end: u32) -> Self {
        Self { next: first, end }
    }
}

impl CoreStream for BlockChecksums {
    fn fill(&mut self, pages: &impl CorePages, out: &mut [u8]) -> usize {
        let mut at = 0;
        while at + 4 <= out.len() && self.next < self.end {
            let (content, crc) = pages.content(PageIndex(self.next));
            let value = if content == DumpPageState::Block { crc } else { 0 };
            out[at..at + 4].copy_from_slice(&value.to_le_bytes());
            self.next += 1;
            at += 4;
        }
        at
    }

    fn next(&self) -> Option<u32> {
        (self.next < self.end).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::layout::RamLayout;

    /// Pages, and the number of equal ones that one lookup shows.
    struct FakeCorePages(Vec<DumpPageState>, u32);

    impl CorePages for FakeCorePages {
        fn pages(&self) -> u32 {
            self.0.len() as u32
        }
        fn gfn(&self, index: PageIndex) -> Gfn {
            Gfn::new(u64::from(index.0))
        }
        fn content(&self, index: PageIndex) -> (DumpPageState, u32) {
            (self.0[index.0 as usize], 100 + index.0)
        }
        fn run(&self, index: PageIndex) -> CorePage {
            let (first, content) = (index.0 as usize, self.0[index.0 as usize]);
            let alike = self.0[first..]
                .iter()
                .take(self.1 as usize)
                .take_while(|other| **other == content)
                .count();
            CorePage { gfn: self.gfn(index), index: index.0, pages: alike as u32, content }
        }
    }

    fn fake(kinds: &str) -> FakeCorePages {
        let content = |kind| match kind {
            'D' => DumpPageState::Block,
            'Z' => DumpPageState::Zero,
            _ => DumpPageState::Missing,
        };
        FakeCorePages(kinds.chars().map(content).collect(), 1)
    }

    fn all(mut stream: impl CoreStream, pages: &FakeCorePages, piece: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut out = vec![0xee; piece];
        while stream.next().is_some() {
            let n = stream.fill(pages, &mut out);
            bytes.extend_from_slice(&out[..n]);
        }
        bytes
    }

    fn headers(pages: &FakeCorePages, piece: usize) -> (u32, Vec<u8>) {
        let mut count = HeaderCount::default();
        let phnum = loop {
            if let Some(n) = count.step(pages, 3) {
                break n;
            }
        };
        let layout = SpaceLayout::for_pages(1 << 34, pages.pages()).unwrap();
        let stream = CoreHeaders::new(&layout, phnum, 1000);
        let len = stream.total_bytes();
        let bytes = all(stream, pages, piece);
        assert_eq!(bytes.len() as u64, len);
        (phnum, bytes)
    }

    /// Returns offset, address, bytes in the file and in memory of each PT_LOAD.
    fn loads(headers: &[u8]) -> Vec<[u64; 4]> {
        let word =
            |header: &[u8], at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
        let load =
            |header: &[u8]| (header[0] == 1).then(|| [8, 24, 32, 40].map(|at| word(header, at)));
        headers[64..].as_chunks::<PHDR_SIZE>().0.iter().filter_map(|header| load(header)).collect()
    }

    #[test]
    fn every_segment_lies_behind_the_headers_at_the_place_of_its_blocks() {
        for kinds in ["ZDZ.DZ", "ZZZZ", "D", ".ZZD", "Z.Z.Z"] {
            let pages = fake(kinds);
            let (_, bytes) = headers(&pages, 4096);
            let data = SpaceLayout::for_pages(1 << 34, pages.pages()).unwrap().blocks().start;
            assert!(!loads(&bytes).is_empty());
            for [offset, address, ..] in loads(&bytes) {
                assert_eq!(offset, data + address, "{kinds}");
            }
        }
    }

    /// A machine's memory: the first page of each range has a block, and the others are zero.
    struct Sparse(RamLayout);

    impl CorePages for Sparse {
        fn pages(&self) -> u32 {
            self.0.pages()
        }
        fn gfn(&self, index: PageIndex) -> Gfn {
            self.0.gfn_of(index).unwrap()
        }
        fn content(&self, index: PageIndex) -> (DumpPageState, u32) {
            let first = self.0.ranges().any(|range| range.index == index.0);
            (if first { DumpPageState::Block } else { DumpPageState::Zero }, 1)
        }
        fn run(&self, index: PageIndex) -> CorePage {
            let content = self.content(index).0;
            let pages =
                if content == DumpPageState::Block { 1 } else { self.0.left_in_range(index) };
            CorePage { gfn: self.gfn(index), index: index.0, pages, content }
        }
    }

    #[test]
    fn memory_around_the_hole_and_above_4_gib_has_segments_of_its_own() {
        const GIB: u64 = 1 << 30;
        let pages = Sparse(RamLayout::new(6 * GIB).unwrap());
        let layout = SpaceLayout::for_pages(8 * GIB, pages.pages()).unwrap();
        let phnum = HeaderCount::default().step(&pages, u32::MAX).unwrap();
        let mut bytes = vec![0; 4096];
        let len = CoreHeaders::new(&layout, phnum, 8).fill(&pages, &mut bytes);
        let data = layout.blocks().start;
        let [low, high] = [[data, 0, 4096, 3 * GIB], [data + 3 * GIB, 4 * GIB, 4096, 3 * GIB]];
        assert_eq!(loads(&bytes[..len]), [low, high]);
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
        let layout = SpaceLayout::for_pages(1 << 34, 5).unwrap();
        for (phnum, kinds) in [(4, "DDDDD"), (2, "D.D.D")] {
            let bytes = all(CoreHeaders::new(&layout, phnum, 8), &fake(kinds), 4096);
            assert_eq!(bytes.len(), 64 + 56 * phnum as usize);
        }
    }

    #[test]
    fn the_worst_alternation_fits_the_room_of_the_layout() {
        let pages = fake(&"DZ".repeat(70_000));
        let (phnum, bytes) = headers(&pages, 65536);
        assert_eq!(phnum, 70_001);
        assert!(
            bytes.len() as u64 <= SpaceLayout::for_pages(1 << 34, 140_000).unwrap().header().len
        );
        let at = bytes.len() - SHDR_SIZE;
        assert_eq!(u32::from_le_bytes(bytes[at + 44..at + 48].try_into().unwrap()), phnum);
    }

    #[test]
    fn pages_seen_together_make_the_same_headers() {
        let mut pages = fake(&"DDZ.DZZZZZ...DDDDDDDD".repeat(40));
        let one_by_one = headers(&pages, 4096);
        for looks in [2, 3, 8, 1000] {
            pages.1 = looks;
            assert_eq!(headers(&pages, 4096), one_by_one, "{looks}");
        }
    }

    #[test]
    fn a_piece_takes_a_bounded_number_of_looks() {
        let pages = fake(&"D".repeat(3 * LOOKS as usize));
        let mut stream =
            CoreHeaders::new(&SpaceLayout::for_pages(1 << 34, pages.pages()).unwrap(), 2, 8);
        let mut out = [0; 4096];
        assert_eq!((stream.fill(&pages, &mut out), stream.next()), (120, Some(LOOKS)));
        assert_eq!((stream.fill(&pages, &mut out), stream.next()), (0, Some(2 * LOOKS)));
        assert_eq!((stream.fill(&pages, &mut out), stream.next()), (56, None));
    }

    #[test]
    fn checksums_are_those_of_final_blocks() {
        let pages = fake("DZD.DDDDDZ.");
        let sums = all(BlockChecksums::of(0, 11), &pages, 512);
        let at = |n: usize| u32::from_le_bytes(sums[n * 4..n * 4 + 4].try_into().unwrap());
        assert_eq!((sums.len(), at(0), at(1), at(2), at(3)), (44, 100, 0, 102, 0));
        assert_eq!(all(BlockChecksums::of(4, 6), &pages, 512), sums[16..24]);
    }
}
