//! A reader of paging spaces, written from `docs/on-disk-format.md`. It shares no code with the
//! writer.
//!
//! ```text
//!   Space ── record ──> Record      the newest of two copies with a correct checksum
//!         ── core ────> Core        the ELF core at byte 0: the view of a debugger
//!         ── verify ──> Core        both, and their consistency with bitmap and checksums
//! ```

use anyhow::{Context, Result, bail, ensure};
use std::ops::Range;
use std::path::Path;

/// Bytes of a page and of a record.
pub const PAGE: usize = 4096;
/// State of a complete dump.
const COMPLETE: u32 = 4;
const EHDR: usize = 64;
const PHDR: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// The bytes of a paging device.
pub struct SpaceBytes(Vec<u8>);

/// A dump's record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DumpRecord {
    /// State number.
    pub state: u32,
    /// The owner's incarnation.
    pub epoch: u64,
    /// The owner's name.
    pub owner: String,
    /// RAM pages.
    pub pages: usize,
    /// Ranges of RAM: first guest page number, number of pages.
    pub ranges: Vec<(u64, u64)>,
    /// The reason of the crash.
    pub crash_reason: u32,
    bitmap_start: usize,
    checksums_start: usize,
    data_start: usize,
    drain_progress: usize,
    program_headers: usize,
    notes_len: usize,
}

/// A segment of guest memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadSegment {
    /// First byte in the file.
    pub offset: usize,
    /// First byte in guest physical memory.
    pub address: u64,
    /// Bytes in the file; the rest in memory is zero.
    pub file_bytes: usize,
    /// Bytes in memory.
    pub memory_bytes: usize,
}

/// An ELF core.
pub struct ElfCore<'s> {
    space: &'s SpaceBytes,
    notes: Range<usize>,
    /// Segments, in the order of the file.
    pub loads: Vec<LoadSegment>,
}

/// A note.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoreNote<'s> {
    /// The name that defines the meaning of its type.
    pub name: &'s str,
    /// Its type.
    pub kind: u32,
    /// Its content.
    pub bytes: &'s [u8],
}

impl SpaceBytes {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(std::fs::read(path).with_context(|| format!("{}", path.display()))?))
    }

    fn bytes(&self, at: usize, len: usize) -> Result<&[u8]> {
        let end = at.checked_add(len).context("a position beyond all files")?;
        self.0.get(at..end).with_context(|| format!("{at:#x}..{end:#x} is not in the space"))
    }

    fn half(&self, at: usize) -> Result<u16> {
        Ok(u16::from_le_bytes(self.bytes(at, 2)?.try_into()?))
    }

    fn word(&self, at: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(at, 4)?.try_into()?))
    }

    fn long(&self, at: usize) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(at, 8)?.try_into()?))
    }

    fn place(&self, at: usize) -> Result<usize> {
        Ok(usize::try_from(self.long(at)?)?)
    }

    /// Returns the newest record with a correct checksum.
    ///
    /// # Errors
    /// Where neither copy is correct.
    pub fn record(&self) -> Result<DumpRecord> {
        let end = self.0.len() / PAGE * PAGE;
        ensure!(end >= 2 * PAGE, "the space is shorter than its records");
        let copies: Vec<_> =
            [end - 2 * PAGE, end - PAGE].into_iter().filter(|&at| self.is_record(at)).collect();
        let newest = copies.into_iter().max_by_key(|&at| self.long(at + 48).unwrap_or(0));
        self.parse_record(newest.context("neither record has magic, version and checksum right")?)
    }

    fn is_record(&self, at: usize) -> bool {
        let copy = &self.0[at..at + PAGE];
        let checksum = crc32c(&copy[..PAGE - 4]).to_le_bytes();
        copy.starts_with(b"TIDEPOOL")
            && copy[8..16] == [1, 0, 0, 0, 0, 0x10, 0, 0]
            && copy[PAGE - 4..] == checksum
    }

    fn parse_record(&self, at: usize) -> Result<DumpRecord> {
        let ranges = 0..self.word(at + 228)? as usize;
        let name = self.bytes(at + 104, 64)?;
        Ok(DumpRecord {
            state: self.word(at + 56)?,
            epoch: self.long(at + 64)?,
            owner: String::from_utf8_lossy(name).trim_end_matches('\0').to_owned(),
            pages: self.word(at + 176)? as usize,
            ranges: ranges
                .map(|n| Ok((self.long(at + 232 + 16 * n)?, self.long(at + 240 + 16 * n)?)))
                .collect::<Result<_>>()?,
            crash_reason: self.word(at + 360)?,
            bitmap_start: self.place(at + 192)?,
            checksums_start: self.place(at + 200)?,
            data_start: self.place(at + 208)?,
            drain_progress: self.word(at + 216)? as usize,
            program_headers: self.word(at + 220)? as usize,
            notes_len: self.word(at + 224)? as usize,
        })
    }

    /// Returns the core at byte 0.
    ///
    /// # Errors
    /// Where a header is not as readers of dumps require.
    pub fn core(&self) -> Result<ElfCore<'_>> {
        // Class 64, little-endian, version 1.
        ensure!(self.bytes(0, 7)? == b"\x7fELF\x02\x01\x01", "no ELF64 header");
        ensure!(
            (self.half(16)?, self.half(18)?, self.word(20)?) == (4, 62, 1),
            "no core of x86-64"
        );
        ensure!(self.long(32)? == 64, "program headers start at {}", self.long(32)?);
        ensure!((self.half(52)?, self.half(54)?) == (EHDR as u16, PHDR as u16), "sizes of headers");
        let count = match self.half(56)? {
            0xffff => self.word(self.place(40)? + 44)? as usize,
            count => usize::from(count),
        };
        let at = |n: usize| EHDR + n * PHDR;
        ensure!(
            count >= 2 && self.word(at(0))? == PT_NOTE,
            "the first of {count} program headers is no PT_NOTE"
        );
        let notes = self.place(at(0) + 8)?..self.place(at(0) + 8)? + self.place(at(0) + 32)?;
        let loads = (1..count).map(|n| self.load(at(n))).collect::<Result<_>>()?;
        Ok(ElfCore { space: self, notes, loads })
    }

    fn load(&self, at: usize) -> Result<LoadSegment> {
        ensure!(self.word(at)? == PT_LOAD, "a segment is neither the note nor memory");
        ensure!(self.long(at + 48)? == 0, "p_align is {}", self.long(at + 48)?);
        Ok(LoadSegment {
            offset: self.place(at + 8)?,
            address: self.long(at + 24)?,
            file_bytes: self.place(at + 32)?,
            memory_bytes: self.place(at + 40)?,
        })
    }

    /// Checks the consistency of a complete dump: record, headers, bitmap, checksums, blocks.
    ///
    /// # Errors
    /// Names the first inconsistency.
    pub fn verify(&self) -> Result<ElfCore<'_>> {
        let (record, core) = (self.record()?, self.core()?);
        ensure!(
            record.state == COMPLETE && record.drain_progress == record.pages,
            "no whole dump: {record:?}"
        );
        ensure!(
            record.program_headers == core.loads.len() + 1,
            "the record says {} headers",
            record.program_headers
        );
        ensure!(
            record.notes_len == core.notes.len(),
            "the record says {} bytes of notes",
            record.notes_len
        );
        ensure!(
            record.ranges.iter().map(|(_, pages)| pages).sum::<u64>() == record.pages as u64,
            "RAM: {record:?}"
        );
        let addresses = record.ranges.iter().flat_map(|&(first, pages)| first..first + pages);
        let mut loads = core.loads.iter().peekable();
        for (index, frame) in addresses.enumerate() {
            let address = frame * PAGE as u64;
            while loads.next_if(|load| load.end() <= address).is_some() {}
            let load = loads.peek().filter(|load| load.address <= address);
            let load = load.with_context(|| {
                format!("page {index} at {address:#x} is in no segment, or out of order")
            })?;
            self.verify_page(&record, load, index, address)
                .with_context(|| format!("page {index} at {address:#x}"))?;
        }
        Ok(core)
    }

    fn verify_page(
        &self,
        record: &DumpRecord,
        load: &LoadSegment,
        index: usize,
        address: u64,
    ) -> Result<()> {
        let into = (address - load.address) as usize;
        ensure!(
            load.file_bytes.is_multiple_of(PAGE) && load.memory_bytes.is_multiple_of(PAGE),
            "no whole pages: {load:?}"
        );
        let has_block = self.bytes(record.bitmap_start + index / 8, 1)?[0] >> (index % 8) & 1 == 1;
        ensure!(
            has_block == (into < load.file_bytes),
            "bitmap says {has_block}, the segment {load:?}"
        );
        if has_block {
            let block = record.data_start + index * PAGE;
            ensure!(
                load.offset + into == block,
                "the segment points to {:#x}, its block is at {block:#x}",
                load.offset + into
            );
            let (said, found) =
                (self.word(record.checksums_start + 4 * index)?, crc32c(self.bytes(block, PAGE)?));
            ensure!(said == found, "checksum {said:#x}, but the block has {found:#x}");
        }
        Ok(())
    }
}

impl LoadSegment {
    fn end(&self) -> u64 {
        self.address + self.memory_bytes as u64
    }
}

impl<'s> ElfCore<'s> {
    /// Reads the page at a guest physical address, as a debugger would.
    ///
    /// # Errors
    /// Where it is in no segment.
    pub fn page(&self, address: u64) -> Result<[u8; PAGE]> {
        let load = self
            .loads
            .iter()
            .find(|load| load.address <= address && address + PAGE as u64 <= load.end());
        let load = load.with_context(|| format!("{address:#x} is in no segment"))?;
        let into = (address - load.address) as usize;
        if into >= load.file_bytes {
            return Ok([0; PAGE]);
        }
        Ok(self.space.bytes(load.offset + into, PAGE)?.try_into()?)
    }

    /// Returns the addresses of all pages in the segments.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        self.loads.iter().flat_map(|load| (load.address..load.end()).step_by(PAGE))
    }

    /// Returns the notes.
    ///
    /// # Errors
    /// Where they do not fill their segment exactly.
    pub fn notes(&self) -> Result<Vec<CoreNote<'s>>> {
        let (mut at, mut notes) = (self.notes.start, Vec::new());
        while at < self.notes.end {
            let (name_len, len) =
                (self.space.word(at)? as usize, self.space.word(at + 4)? as usize);
            let content = at + 12 + name_len.next_multiple_of(4);
            let name =
                std::str::from_utf8(self.space.bytes(at + 12, name_len)?)?.trim_end_matches('\0');
            notes.push(CoreNote {
                name,
                kind: self.space.word(at + 8)?,
                bytes: self.space.bytes(content, len)?,
            });
            at = content + len.next_multiple_of(4);
        }
        if at != self.notes.end {
            bail!("notes end at {at:#x}, their segment at {:#x}", self.notes.end);
        }
        Ok(notes)
    }
}

/// CRC-32C (Castagnoli), one bit at a time: too simple to share the mistakes of a fast
/// implementation.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests;
