//! A reader of ELF cores without any knowledge of paging spaces: the view of a dump that every tool
//! has.
//!
//! System V ABI, "Object Files"; only the parts that occur in a core.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PAGE: u64 = 4096;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// A page according to a core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PageIn {
    /// The page is in no segment.
    NoSegment,
    /// The page is in the part of a segment that has no bytes in the file.
    Zero,
    /// Its bytes.
    Bytes(Box<[u8]>),
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    bytes: u64,
    size: u64,
}

/// An open core.
pub struct CoreFile {
    file: File,
    segments: Vec<Segment>,
}

impl CoreFile {
    /// Opens the core that starts at byte 0 of the file.
    ///
    /// # Errors
    /// Where it is no core.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0)?;
        ensure!(head.starts_with(b"\x7fELF\x02\x01"), "{}: no ELF64", path.display());
        ensure!(u16_at(&head, 16) == 4, "{}: no core", path.display());
        let (start, count) = (u64_at(&head, 32), usize::from(u16_at(&head, 56)));
        let mut table = vec![0; count * 56];
        file.read_exact_at(&mut table, start)?;
        let segments: Vec<_> =
            table.as_chunks::<56>().0.iter().map(|header| segment(header)).collect();
        ensure!(
            segments.first().is_some_and(|s| s.kind == PT_NOTE),
            "{}: no notes",
            path.display()
        );
        Ok(Self { file, segments })
    }

    /// Returns the page at physical address `address`.
    ///
    /// # Errors
    /// Where a segment ends within a page, or its bytes are not in the file.
    pub fn page(&self, address: u64) -> Result<PageIn> {
        let holds = |s: &&Segment| {
            s.kind == PT_LOAD && s.address <= address && address < s.address + s.size
        };
        let Some(segment) = self.segments.iter().find(holds) else { return Ok(PageIn::NoSegment) };
        let at = address - segment.address;
        if at >= segment.bytes {
            return Ok(PageIn::Zero);
        }
        ensure!(
            at + PAGE <= segment.bytes,
            "the segment at {:#x} ends within a page",
            segment.address
        );
        let mut bytes = vec![0; PAGE as usize];
        self.file
            .read_exact_at(&mut bytes, segment.offset + at)
            .context("a segment's bytes are in the file")?;
        Ok(PageIn::Bytes(bytes.into()))
    }
}

fn segment(header: &[u8]) -> Segment {
    Segment {
        kind: u64_at(header, 0) as u32,
        offset: u64_at(header, 8),
        address: u64_at(header, 24),
        bytes: u64_at(header, 32),
        size: u64_at(header, 40),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}
