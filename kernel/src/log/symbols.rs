//! The hypervisor's own symbol table, as a module of the boot archive.
//!
//! The host command makes it from the kernel's ELF with [`from_elf`]. The hypervisor looks
//! addresses up in place, even during a panic. All numbers are little-endian:
//!
//! ```text
//!  0  "TPSY"   magic
//!  4  u32      version, 1
//!  8  u64      base: the address that offsets count from
//! 16  u32      count of symbols
//! 20  u32      bytes of names
//! 24  count x { u32 offset from base, u32 start of the name }         ascending offsets
//!     names, demangled, concatenated
//! ```

use alloc::{format, string::String, vec::Vec};
use spin::Once;

/// Name of the module in the boot archive.
pub const MODULE: &str = "symbols";

const MAGIC: [u8; 4] = *b"TPSY";
const VERSION: u32 = 1;
const HEADER: usize = 24;
const ENTRY: usize = 8;

static KERNEL: Once<KernelSymbols<'static>> = Once::new();

/// Registers the module's table for [`of_kernel`] if it belongs to this very build, that is if
/// `name` begins at `address` in it. Returns whether it does; wrong names would be worse than none.
pub fn register(module: &'static [u8], name: &str, address: u64) -> bool {
    let table =
        KernelSymbols::parse(module).filter(|symbols| symbols.lookup(address) == Some((name, 0)));
    table.map(|symbols| KERNEL.call_once(|| symbols)).is_some()
}

/// Returns the registered table.
pub fn of_kernel() -> Option<&'static KernelSymbols<'static>> {
    KERNEL.get()
}

/// A symbol table, read in place.
#[derive(Clone, Copy, Debug)]
pub struct KernelSymbols<'a> {
    base: u64,
    entries: &'a [[u8; ENTRY]],
    names: &'a [u8],
}

impl<'a> KernelSymbols<'a> {
    /// Checks a module's header.
    pub fn parse(module: &'a [u8]) -> Option<Self> {
        let (header, rest) = module.split_at_checked(HEADER)?;
        if header[..4] != MAGIC || u32_at(header, 4)? != VERSION {
            return None;
        }
        let entries = rest.get(..(u32_at(header, 16)? as usize).checked_mul(ENTRY)?)?;
        let names = rest.get(entries.len()..)?.get(..u32_at(header, 20)? as usize)?;
        Some(Self { base: u64_at(header, 8)?, entries: entries.as_chunks().0, names })
    }

    /// Returns the last symbol at or before `address`, and the distance from its start.
    pub fn lookup(&self, address: u64) -> Option<(&'a str, u64)> {
        let offset = u32::try_from(address.checked_sub(self.base)?).ok()?;
        let next = self
            .entries
            .partition_point(|entry| u32_at(entry, 0).is_some_and(|start| start <= offset));
        let entry = self.entries.get(next.checked_sub(1)?)?;
        let end = self
            .entries
            .get(next)
            .and_then(|entry| u32_at(entry, 4))
            .map_or(self.names.len(), |start| start as usize);
        let name = self.names.get(u32_at(entry, 4)? as usize..end)?;
        Some((str::from_utf8(name).ok()?, u64::from(offset - u32_at(entry, 0)?)))
    }
}

/// Makes the module from symbols in any order; of several at one address the first is kept.
pub fn build(mut symbols: Vec<(u64, String)>) -> Vec<u8> {
    symbols.sort_by_key(|symbol| symbol.0);
    symbols.dedup_by_key(|symbol| symbol.0);
    let base = symbols.first().map_or(0, |symbol| symbol.0);
    // Offsets have 32 bits in the table; a kernel is far smaller.
    symbols.retain(|symbol| symbol.0 - base <= u64::from(u32::MAX));
    let (mut entries, mut names) = (Vec::new(), Vec::new());
    for (address, name) in &symbols {
        entries.extend_from_slice(&((address - base) as u32).to_le_bytes());
        entries.extend_from_slice(&(names.len() as u32).to_le_bytes());
        names.extend_from_slice(name.as_bytes());
    }
    let mut module = Vec::with_capacity(HEADER + entries.len() + names.len());
    module.extend_from_slice(&MAGIC);
    module.extend_from_slice(&VERSION.to_le_bytes());
    module.extend_from_slice(&base.to_le_bytes());
    module.extend_from_slice(&(symbols.len() as u32).to_le_bytes());
    module.extend_from_slice(&(names.len() as u32).to_le_bytes());
    module.extend_from_slice(&entries);
    module.extend_from_slice(&names);
    module
}

/// Makes the module from the kernel's ELF64; `None` if it has no symbol table.
///
/// The layout is that of the System V ABI, "Symbol Table". Functions, and the assembly's labels, of
/// the higher half are taken.
pub fn from_elf(elf: &[u8]) -> Option<Vec<u8>> {
    const SYMBOL_TABLE: u32 = 2;
    let section = |index: usize| {
        let table = usize::try_from(u64_at(elf, 40)?).ok()?;
        elf.get(table.checked_add(index.checked_mul(64)?)?..)?.get(..64)
    };
    let contents = |header: &[u8]| {
        let (offset, size) = (u64_at(header, 24)?, u64_at(header, 32)?);
        elf.get(usize::try_from(offset).ok()?..)?.get(..usize::try_from(size).ok()?)
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let sections = usize::from(u16::from_le_bytes(*elf.get(60..)?.first_chunk()?));
    let table =
        (0..sections).filter_map(section).find(|header| u32_at(header, 4) == Some(SYMBOL_TABLE))?;
    let names = contents(section(u32_at(table, 40)? as usize)?)?;
    let code = |index: usize| {
        section(index)
            .and_then(|header| u64_at(header, 8))
            .is_some_and(|flags| flags & EXECUTABLE != 0)
    };
    let symbols =
        contents(table)?.as_chunks().0.iter().filter_map(|symbol| code_symbol(symbol, names, code));
    Some(build(symbols.collect()))
}

const EXECUTABLE: u64 = 4;

fn code_symbol(
    symbol: &[u8; 24],
    names: &[u8],
    is_code: impl Fn(usize) -> bool,
) -> Option<(u64, String)> {
    const HIGHER_HALF: u64 = 1 << 63;
    const NO_TYPE_OR_FUNCTION: [u8; 2] = [0, 2];
    let section = usize::from(u16::from_le_bytes([symbol[6], symbol[7]]));
    let address = u64_at(symbol, 8)?;
    let name = names.get(u32_at(symbol, 0)? as usize..)?.split(|&b| b == 0).next()?;
    let wanted = address >= HIGHER_HALF
        && NO_TYPE_OR_FUNCTION.contains(&(symbol[4] & 0xf))
        && is_code(section);
    let name = str::from_utf8(name).ok().filter(|name| wanted && !name.is_empty())?;
    Some((address, format!("{:#}", rustc_demangle::demangle(name))))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xffff_ffff_8020_0000;

    fn module() -> Vec<u8> {
        build(vec![
            (BASE + 0x40, "second".into()),
            (BASE, "first".into()),
            (BASE + 0x40, "alias".into()),
        ])
    }

    #[test]
    fn an_address_is_found_in_the_symbol_before_it() {
        let module = module();
        let symbols = KernelSymbols::parse(&module).unwrap();
        let found = [0, 0x3f, 0x40, 0x1000].map(|offset| symbols.lookup(BASE + offset));
        assert_eq!(
            found,
            [
                Some(("first", 0)),
                Some(("first", 0x3f)),
                Some(("second", 0)),
                Some(("second", 0xfc0))
            ]
        );
        assert_eq!(
            (symbols.lookup(BASE - 1), symbols.lookup(u64::MAX)),
            (None, Some(("second", 0x7fdf_ffbf)))
        );
    }

    #[test]
    fn the_table_of_another_build_is_not_registered() {
        let module = module().leak();
        assert!(!register(module, "second", BASE + 0x44) && !register(module, "main", BASE + 0x40));
        assert!(of_kernel().is_none());
        assert!(register(module, "second", BASE + 0x40) && of_kernel().is_some());
    }

    #[test]
    fn every_truncation_is_refused() {
        let module = module();
        assert!((0..module.len()).all(|len| KernelSymbols::parse(&module[..len]).is_none()));
    }

    #[test]
    fn names_that_lie_outside_are_not_read() {
        let mut module = module();
        module[HEADER + 4..HEADER + 8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(KernelSymbols::parse(&module).unwrap().lookup(BASE), None);
    }

    /// Null, .text, .symtab, .strtab; one function, one label, one datum, one function of the lower
    /// half.
    fn elf() -> Vec<u8> {
        let names = b"\0_ZN4core3fmt5Write9write_str17h0123456789abcdefE\0label\0";
        let symbol = |name: u32, kind: u8, section: u16, address: u64| {
            let mut bytes = [0_u8; 24];
            bytes[..4].copy_from_slice(&name.to_le_bytes());
            bytes[4] = kind;
            bytes[6..8].copy_from_slice(&section.to_le_bytes());
            bytes[8..16].copy_from_slice(&address.to_le_bytes());
            bytes
        };
        let symbols = [
            symbol(1, 2, 1, BASE),
            symbol(50, 0, 1, BASE + 8),
            symbol(50, 0, 3, BASE + 16),
            symbol(50, 2, 1, 0x20_0000),
        ]
        .concat();
        let section = |kind: u32, flags: u64, offset: usize, size: usize, link: u32| {
            let mut bytes = [0_u8; 64];
            bytes[4..8].copy_from_slice(&kind.to_le_bytes());
            bytes[8..16].copy_from_slice(&flags.to_le_bytes());
            bytes[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            bytes[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            bytes[40..44].copy_from_slice(&link.to_le_bytes());
            bytes
        };
        let mut elf = vec![0_u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[40..48].copy_from_slice(&64_u64.to_le_bytes());
        elf[60..62].copy_from_slice(&4_u16.to_le_bytes());
        let data = 64 + 4 * 64;
        elf.extend_from_slice(&[0; 64]);
        elf.extend_from_slice(&section(1, 6, 0, 0, 0));
        elf.extend_from_slice(&section(2, 0, data, symbols.len(), 3));
        elf.extend_from_slice(&section(3, 0, data + symbols.len(), names.len(), 0));
        elf.extend_from_slice(&symbols);
        elf.extend_from_slice(names);
        elf
    }

    #[test]
    fn code_of_the_higher_half_is_taken_from_an_elf_and_demangled() {
        let module = from_elf(&elf()).unwrap();
        let symbols = KernelSymbols::parse(&module).unwrap();
        assert_eq!(symbols.entries.len(), 2);
        assert_eq!(symbols.lookup(BASE + 7), Some(("core::fmt::Write::write_str", 7)));
        assert_eq!(symbols.lookup(BASE + 16), Some(("label", 8)));
    }

    #[test]
    fn a_truncated_elf_gives_nothing_and_no_panic() {
        let elf = elf();
        for len in 0..elf.len() - 1 {
            let _ = from_elf(&elf[..len]);
        }
        assert_eq!(from_elf(&elf[..200]), None);
    }
}
