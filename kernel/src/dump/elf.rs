//! The ELF64 core's header and program headers (System V ABI, "Object Files"; for the readers'
//! requirements see `dump`).
//!
//! Page `n` has its content at `data_offset + n * 4096`. So a run of pages that are contiguous both
//! in guest physical memory and in the space is one PT_LOAD. Zero pages need no block: they are the
//! part of a segment between `p_filesz` and `p_memsz`. A page without final content is in no
//! segment, so a reader gets an error instead of zeros.
//! ```text
//!   pages    D D D Z Z D Z . . D        D = block, Z = zero, . = missing
//!   PT_LOAD  [---------]                filesz 3, memsz 5
//!                      [---]            filesz 1, memsz 2
//!                              [-]      filesz 1, memsz 1
//! ```

use crate::addr::{Gfn, PAGE_SIZE};
pub use crate::space::content::DumpPageState;

/// Bytes of the ELF header.
pub const EHDR_SIZE: usize = 64;
/// Bytes of a program header.
pub const PHDR_SIZE: usize = 56;
/// Bytes of a section header (written only for a large program header count).
pub const SHDR_SIZE: usize = 64;
/// File offset of the program headers; makedumpfile requires it.
pub const PHDR_OFFSET: u64 = 64;
/// `e_phnum` value that refers to section header 0 (`PN_XNUM`).
const PN_XNUM: u32 = 0xffff;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// R, W and X: a core does not record protection.
const PF_RWX: u32 = 7;

/// A run of pages for the program headers: contiguous in the guest and in the space, all with the
/// same content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CorePage {
    /// Guest page number of the first.
    pub gfn: Gfn,
    /// Page index of the first: block number in the space.
    pub index: u32,
    /// Number of pages, at least 1.
    pub pages: u32,
    /// Their content.
    pub content: DumpPageState,
}

/// One PT_LOAD before encoding, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoreSegment {
    /// First guest page.
    pub gfn: Gfn,
    /// First block.
    pub index: u32,
    /// Pages with a block.
    pub data: u32,
    /// Zero pages after them.
    pub zero: u32,
}

impl CoreSegment {
    fn start(page: CorePage) -> Option<Self> {
        let (data, zero) = match page.content {
            DumpPageState::Block => (page.pages, 0),
            DumpPageState::Zero => (0, page.pages),
            DumpPageState::Missing => return None,
        };
        Some(Self { gfn: page.gfn, index: page.index, data, zero })
    }

    /// Adds `page`'s pages if they continue this segment; returns whether they do.
    fn extend(&mut self, page: CorePage) -> bool {
        let len = self.data + self.zero;
        let next = self.gfn.checked_add(u64::from(len)) == Some(page.gfn)
            && self.index + len == page.index;
        match page.content {
            DumpPageState::Block if next && self.zero == 0 => self.data += page.pages,
            DumpPageState::Zero if next => self.zero += page.pages,
            _ => return false,
        }
        true
    }

    /// Encodes the program header; blocks start at byte `data_offset` of the space.
    ///
    /// `p_offset` is the position of the first page's block, even if no page of the segment has
    /// one. crash(8) takes the offset of the first PT_LOAD for the size of the headers, so it
    /// refuses a file with 0 there.
    pub fn encode(&self, data_offset: u64) -> [u8; PHDR_SIZE] {
        let offset = data_offset + u64::from(self.index) * PAGE_SIZE;
        let filesz = u64::from(self.data) * PAGE_SIZE;
        let memsz = filesz + u64::from(self.zero) * PAGE_SIZE;
        encode_phdr(PT_LOAD, PF_RWX, offset, self.gfn.base().as_u64(), filesz, memsz)
    }
}

/// Joins pages, given in ascending order, into segments.
#[derive(Clone, Copy, Default, Debug)]
pub struct LoadBuilder {
    open: Option<CoreSegment>,
}

impl LoadBuilder {
    /// Adds the next pages. Returns the segment that they end, if any.
    pub fn push(&mut self, page: CorePage) -> Option<CoreSegment> {
        if let Some(open) = &mut self.open
            && open.extend(page)
        {
            return None;
        }
        core::mem::replace(&mut self.open, CoreSegment::start(page))
    }

    /// Ends the last segment.
    pub fn finish(&mut self) -> Option<CoreSegment> {
        self.open.take()
    }
}

/// Encodes the PT_NOTE header, which must be the first program header.
pub fn encode_note_phdr(offset: u64, len: u64) -> [u8; PHDR_SIZE] {
    encode_phdr(PT_NOTE, 0, offset, 0, len, len)
}

fn encode_phdr(
    kind: u32,
    flags: u32,
    offset: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
) -> [u8; PHDR_SIZE] {
    let mut bytes = [0; PHDR_SIZE];
    let mut put = FieldWriter { bytes: &mut bytes, at: 0 };
    put.u32(kind);
    put.u32(flags);
    put.u64(offset);
    put.u64(0); // p_vaddr: meaningless for guest physical memory
    put.u64(paddr);
    put.u64(filesz);
    put.u64(memsz);
    put.u64(0); // p_align: crash(8) refuses the file unless it is 0
    bytes
}

/// Encodes the ELF header for `phnum` program headers, including the note's.
///
/// With 65,535 or more, `shdr_offset` is the position of [`encode_count_shdr`]'s header; else it is
/// ignored.
pub fn encode_ehdr(phnum: u32, shdr_offset: u64) -> [u8; EHDR_SIZE] {
    let many = phnum >= PN_XNUM;
    let mut bytes = [0; EHDR_SIZE];
    bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut put = FieldWriter { bytes: &mut bytes, at: 16 };
    put.u16(ET_CORE);
    put.u16(EM_X86_64);
    put.u32(1);
    put.u64(0);
    put.u64(PHDR_OFFSET);
    put.u64(if many { shdr_offset } else { 0 });
    put.u32(0);
    put.u16(EHDR_SIZE as u16);
    put.u16(PHDR_SIZE as u16);
    put.u16(if many { PN_XNUM as u16 } else { phnum as u16 });
    put.u16(if many { SHDR_SIZE as u16 } else { 0 });
    put.u16(u16::from(many));
    put.u16(0);
    bytes
}

/// Encodes section header 0, whose `sh_info` holds a count above 65,534.
pub fn encode_count_shdr(phnum: u32) -> [u8; SHDR_SIZE] {
    let mut bytes = [0; SHDR_SIZE];
    bytes[44..48].copy_from_slice(&phnum.to_le_bytes());
    bytes
}

/// Returns whether `phnum` program headers need [`encode_count_shdr`].
pub const fn needs_count_shdr(phnum: u32) -> bool {
    phnum >= PN_XNUM
}

/// Writes little-endian fields in sequence.
pub(super) struct FieldWriter<'a> {
    pub bytes: &'a mut [u8],
    pub at: usize,
}

impl FieldWriter<'_> {
    pub(super) fn put(&mut self, value: &[u8]) {
        self.bytes[self.at..self.at + value.len()].copy_from_slice(value);
        self.at += value.len();
    }
    pub(super) fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }
    pub(super) fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    pub(super) fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(kinds: &str) -> Vec<CoreSegment> {
        let mut builder = LoadBuilder::default();
        let mut out = Vec::new();
        for (n, kind) in kinds.chars().enumerate() {
            let content = match kind {
                'D' => DumpPageState::Block,
                'Z' => DumpPageState::Zero,
                _ => DumpPageState::Missing,
            };
            out.extend(builder.push(CorePage {
                gfn: Gfn::new(n as u64),
                index: n as u32,
                pages: 1,
                content,
            }));
        }
        out.extend(builder.finish());
        out
    }

    fn load(first: u32, data: u32, zero: u32) -> CoreSegment {
        CoreSegment { gfn: Gfn::new(u64::from(first)), index: first, data, zero }
    }

    #[test]
    fn zero_pages_are_the_tail_of_the_segment_before_them() {
        assert_eq!(loads("DDDZZDZ..D"), [load(0, 3, 2), load(5, 1, 1), load(9, 1, 0)]);
        assert_eq!(loads("ZZD"), [load(0, 0, 2), load(2, 1, 0)]);
        assert_eq!(loads("..."), []);
    }

    #[test]
    fn pages_that_come_together_make_the_same_segments_as_one_by_one() {
        let mut builder = LoadBuilder::default();
        let mut next = 0;
        let mut push = |content, pages| {
            let page = CorePage { gfn: Gfn::new(next), index: next as u32, pages, content };
            next += u64::from(pages);
            builder.push(page)
        };
        assert_eq!(push(DumpPageState::Block, 3), None);
        assert_eq!(push(DumpPageState::Zero, 1 << 25), None);
        assert_eq!(push(DumpPageState::Zero, 7), None);
        assert_eq!(push(DumpPageState::Missing, 2), Some(load(0, 3, (1 << 25) + 7)));
        assert_eq!(push(DumpPageState::Block, 1), None);
        assert_eq!(builder.finish(), Some(load((1 << 25) + 12, 1, 0)));
    }

    #[test]
    fn a_hole_in_guest_memory_ends_a_segment_even_where_blocks_go_on() {
        let mut b = LoadBuilder::default();
        let page = |gfn, index| CorePage {
            gfn: Gfn::new(gfn),
            index,
            pages: 1,
            content: DumpPageState::Block,
        };
        assert_eq!(b.push(page(10, 10)), None);
        assert_eq!(b.push(page(100, 11)), Some(load(10, 1, 0)));
        assert_eq!(
            b.finish(),
            Some(CoreSegment { gfn: Gfn::new(100), index: 11, data: 1, zero: 0 })
        );
    }

    #[test]
    fn headers_have_the_fields_that_readers_insist_on() {
        let e = encode_ehdr(3, 0);
        assert_eq!(&e[..7], b"\x7fELF\x02\x01\x01");
        assert_eq!(u64::from_le_bytes(e[32..40].try_into().unwrap()), 64);
        assert_eq!(u16::from_le_bytes(e[56..58].try_into().unwrap()), 3);
        let p = load(5, 1, 2).encode(0x10_0000);
        assert_eq!(u64::from_le_bytes(p[8..16].try_into().unwrap()), 0x10_5000);
        assert_eq!(u64::from_le_bytes(p[24..32].try_into().unwrap()), 0x5000);
        assert_eq!(u64::from_le_bytes(p[32..40].try_into().unwrap()), 0x1000);
        assert_eq!(u64::from_le_bytes(p[40..48].try_into().unwrap()), 0x3000);
        assert_eq!(u64::from_le_bytes(p[48..56].try_into().unwrap()), 0);
    }

    #[test]
    fn a_segment_of_zeros_has_the_offset_of_its_blocks() {
        for (first, data, zero) in [(0, 0, 2), (7, 0, 1), (7, 1, 1)] {
            let header = load(first, data, zero).encode(0x10_0000);
            let offset = u64::from_le_bytes(header[8..16].try_into().unwrap());
            assert_eq!(offset, 0x10_0000 + u64::from(first) * PAGE_SIZE, "{first} {data} {zero}");
        }
    }

    #[test]
    fn a_count_beyond_16_bits_moves_to_section_header_0() {
        let e = encode_ehdr(70_000, 0x4000);
        assert_eq!(u16::from_le_bytes(e[56..58].try_into().unwrap()), 0xffff);
        assert_eq!(u64::from_le_bytes(e[40..48].try_into().unwrap()), 0x4000);
        assert_eq!(
            u32::from_le_bytes(encode_count_shdr(70_000)[44..48].try_into().unwrap()),
            70_000
        );
        assert!(needs_count_shdr(0xffff) && !needs_count_shdr(0xfffe));
    }
}
