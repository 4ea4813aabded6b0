//! The loader's information: PVH's start information and Multiboot2's boot information, converted
//! to one form.
//!
//! Both lie in physical memory. They are trusted to be benign, not to be well formed: every address
//! and length goes through [`BootMemory::bytes`], and a malformed list ends early.

use core::ops::Range;

/// Magic of PVH's start information; `boot.s` passes it to identify the protocol.
pub const PVH: u32 = 0x336e_c578;
/// The value that a Multiboot2 loader leaves in EAX.
pub const MULTIBOOT2: u32 = 0x36d7_6289;

/// Physical memory, as far as the boot tables map it.
pub trait BootMemory {
    /// Returns the bytes at `address`, or `None` where they are not readable.
    fn bytes(&self, address: u64, len: u64) -> Option<&[u8]>;
}

/// The loader's information in one form.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Findings<'a> {
    /// Physical address of the ACPI root pointer.
    pub rsdp: Option<u64>,
    /// The first module: the boot archive.
    pub module: Option<Range<u64>>,
    /// The command line.
    pub command_line: &'a [u8],
    /// The range of the loader's own structure.
    pub information: Range<u64>,
}

/// Longest command line that is read.
const MAX_COMMAND_LINE: u64 = 1024;

/// Parses PVH's start information at `address`; `entry(start, len, kind)` gets each entry of the
/// memory map.
///
/// The layout is in Xen's public header `arch-x86/hvm/start_info.h`.
pub fn parse_pvh<'a>(
    memory: &'a impl BootMemory,
    address: u64,
    mut entry: impl FnMut(u64, u64, u32),
) -> Option<Findings<'a>> {
    let info = memory.bytes(address, 40)?;
    if u32_at(info, 0)? != PVH {
        return None;
    }
    let mut found = Findings { information: address..address + 56, ..Findings::default() };
    if u32_at(info, 12)? > 0 {
        let first = memory.bytes(u64_at(info, 16)?, 16)?;
        found.module = range(u64_at(first, 0)?, u64_at(first, 8)?);
    }
    found.command_line = c_string(memory, u64_at(info, 24)?);
    found.rsdp = Some(u64_at(info, 32)?).filter(|&rsdp| rsdp != 0);
    // Version 0 has no memory map; no loader of version 0 starts this kernel.
    if u32_at(info, 4)? >= 1 {
        let tail = memory.bytes(address + 40, 12)?;
        let (table, count) = (u64_at(tail, 0)?, u32_at(tail, 8)?);
        let table = memory.bytes(table, u64::from(count).checked_mul(24)?)?;
        for e in table.as_chunks::<24>().0 {
            entry(u64_at(e, 0)?, u64_at(e, 8)?, u32_at(e, 16)?);
        }
    }
    Some(found)
}

/// Parses Multiboot2's boot information at `address`; `entry(start, len, kind)` gets each entry of
/// the memory map.
///
/// Multiboot2 specification, "Boot information format".
pub fn parse_multiboot2<'a>(
    memory: &'a impl BootMemory,
    address: u64,
    mut entry: impl FnMut(u64, u64, u32),
) -> Option<Findings<'a>> {
    let total = u64::from(u32_at(memory.bytes(address, 8)?, 0)?);
    let info = memory.bytes(address, total)?;
    let mut found = Findings { information: address..address + total, ..Findings::default() };
    let mut at = 8;
    while let (Some(kind), Some(size)) = (u32_at(info, at), u32_at(info, at + 4)) {
        let Some(tag) = info.get(at..at.saturating_add(size as usize)).filter(|tag| tag.len() >= 8)
        else {
            break;
        };
        match kind {
            0 => break,
            1 => found.command_line = until_nul(&tag[8..]),
            3 if found.module.is_none() => {
                let (start, end) = (u32_at(tag, 8)?, u32_at(tag, 12)?);
                found.module = range(start.into(), u64::from(end.checked_sub(start)?));
            }
            6 => {
                let stride = u32_at(tag, 8)?.max(24) as usize;
                for e in tag.get(16..)?.chunks_exact(stride) {
                    entry(u64_at(e, 0)?, u64_at(e, 8)?, u32_at(e, 16)?);
                }
            }
            // Tag 14 has a copy of the old root pointer, tag 15 of the new one; tag 15 takes
            // precedence.
            14 if found.rsdp.is_none() => found.rsdp = Some(address + at as u64 + 8),
            15 => found.rsdp = Some(address + at as u64 + 8),
            _ => {}
        }
        at = (at + size as usize).next_multiple_of(8);
    }
    Some(found)
}

fn range(start: u64, len: u64) -> Option<Range<u64>> {
    Some(start..start.checked_add(len)?)
}

fn c_string(memory: &impl BootMemory, address: u64) -> &[u8] {
    if address == 0 {
        return &[];
    }
    memory.bytes(address, MAX_COMMAND_LINE).map_or(&[], until_nul)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or(&[])
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests;
