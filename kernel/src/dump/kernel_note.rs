//! Decides whether a VMCOREINFO note belongs to the kernel that has crashed.
//!
//! A kernel that was started by kexec leaves its predecessor's note in memory, and a kernel that
//! has just started has no note of its own yet. Readers trust a dump's note, so each candidate is
//! checked. Its text gives the virtual address of `init_uts_ns` and, through `phys_base`, the
//! physical one. The crashed CPU's own page tables have to agree.
//!
//! ```text
//!   candidate ─> Claim ─> walk from CR3 ─┬─ its address ────────────────────────────> accepted
//!                                        ├─ other or none, tables that map RIP ─────> stale
//!                                        └─ tables that do not map RIP ─> uts name there?
//!                                                                          accepted, or stale
//! ```
//!
//! Pure: the caller reads memory.

use super::vmcoreinfo::value;
use crate::addr::Gpa;

/// Virtual address of the kernel's image, before its random offset. Linux
/// `arch/x86/include/asm/page_64_types.h`.
const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// CR3 bit of the user half of a pair of page tables, from which the kernel unmaps itself
/// (`arch/x86/mm/pti.c`).
const USER_TABLE: u64 = 1 << 12;
/// Address bits of CR3 and of entries. SDM 3A "4-Level Paging and 5-Level Paging".
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PRESENT: u64 = 1 << 0;
const LARGE: u64 = 1 << 7;
/// Bytes of each string of `struct new_utsname`; the release is the third.
const NAME_BYTES: usize = 65;
const SYSTEM: &[u8] = b"Linux\0";

/// Addresses and release that a candidate claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoteClaim<'a> {
    /// Virtual address of `init_uts_ns`.
    pub virtual_address: u64,
    /// Physical address of `init_uts_ns`.
    pub physical: Gpa,
    release: &'a str,
}

impl<'a> NoteClaim<'a> {
    /// Reads the claim from a note's text; `None` if there is none, as in a note of an old kernel,
    /// or of another system.
    pub fn of(text: &'a [u8]) -> Option<Self> {
        let hex = value(text, "SYMBOL(init_uts_ns)")?;
        let virtual_address = u64::from_str_radix(hex, 16).ok()?;
        let phys_base: i64 = value(text, "NUMBER(phys_base)")?.parse().ok()?;
        let physical =
            virtual_address.wrapping_sub(START_KERNEL_MAP).wrapping_add_signed(phys_base);
        Some(Self {
            virtual_address,
            physical: Gpa::new(physical),
            release: value(text, "OSRELEASE")?,
        })
    }

    /// Returns whether `bytes`, read at the physical address, are a uts namespace of this release.
    /// A reference count may precede it.
    pub fn is_named_by(&self, bytes: &[u8]) -> bool {
        [0, 4].iter().any(|&at| {
            let Some(names) = bytes.get(at..) else { return false };
            let release = names
                .get(2 * NAME_BYTES..)
                .and_then(|rest| rest.strip_prefix(self.release.as_bytes()));
            names.starts_with(SYSTEM) && release.is_some_and(|rest| rest.first() == Some(&0))
        })
    }
}

/// A walk of four-level page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelTableWalk {
    address: u64,
    table: u64,
    /// Number of address bits that the levels below this one translate.
    shift: u32,
}

/// Result of reading an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelWalkStep {
    /// Continue with the next table.
    Next(KernelTableWalk),
    /// The address is mapped here.
    Mapped(Gpa),
    /// The address is not mapped.
    Unmapped,
}

impl KernelTableWalk {
    /// Starts at the table in CR3.
    pub const fn new(cr3: u64, address: u64) -> Self {
        Self { address, table: cr3 & ADDRESS, shift: 39 }
    }

    /// Returns the address of the next entry.
    pub const fn entry(&self) -> Gpa {
        Gpa::new(self.table + ((self.address >> self.shift) & 511) * 8)
    }

    /// Continues with that entry's value.
    pub const fn step(self, entry: u64) -> KernelWalkStep {
        if entry & PRESENT == 0 {
            return KernelWalkStep::Unmapped;
        }
        let is_leaf = self.shift == 12 || (self.shift < 39 && entry & LARGE != 0);
        if !is_leaf {
            return KernelWalkStep::Next(Self {
                table: entry & ADDRESS,
                shift: self.shift - 9,
                ..self
            });
        }
        let offset = (1 << self.shift) - 1;
        KernelWalkStep::Mapped(Gpa::new(entry & ADDRESS & !offset | self.address & offset))
    }
}

/// Returns the tables that may map the kernel: the current ones and, if those are a user half,
/// their kernel half.
pub const fn tables(cr3: u64) -> [u64; 2] {
    [cr3, cr3 & !USER_TABLE]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] =
        b"OSRELEASE=6.1.0-56-cloud-amd64\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff9ae12340\n\
                          NUMBER(phys_base)=-402653184\nKERNELOFFSET=19000000\n";

    #[test]
    fn a_claim_is_the_symbol_by_both_addresses() {
        let claim = NoteClaim::of(TEXT).unwrap();
        assert_eq!(
            (claim.virtual_address, claim.physical),
            (0xffff_ffff_9ae1_2340, Gpa::new(0x1ae1_2340 - 402_653_184))
        );
        for (from, to) in [
            ("init_uts_ns", "other"),
            ("phys_base", "other"),
            ("=ffffffff9", "=x"),
            ("-4026", "-x"),
        ] {
            let text = core::str::from_utf8(TEXT).unwrap().replace(from, to);
            assert_eq!(NoteClaim::of(text.as_bytes()), None, "{from}");
        }
    }

    #[test]
    fn a_name_is_that_of_the_whole_release() {
        let claim = NoteClaim::of(TEXT).unwrap();
        let mut bytes = [0; 4 + 3 * NAME_BYTES];
        for at in [0, 4] {
            bytes.fill(0);
            bytes[at..at + 6].copy_from_slice(b"Linux\0");
            bytes[at + 130..at + 130 + claim.release.len()]
                .copy_from_slice(claim.release.as_bytes());
            assert!(claim.is_named_by(&bytes), "{at}");
            assert!(!claim.is_named_by(&bytes[..100]));
            bytes[at + 130 + claim.release.len()] = b'x';
            assert!(!claim.is_named_by(&bytes), "another release that begins so");
        }
    }

    /// Walks page tables given as a list of (entry's address, value).
    fn follow(cr3: u64, address: u64, entries: &[(u64, u64)]) -> Option<Gpa> {
        let mut walk = KernelTableWalk::new(cr3, address);
        loop {
            let value = entries
                .iter()
                .find(|(at, _)| Gpa::new(*at) == walk.entry())
                .map_or(0, |(_, value)| *value);
            match walk.step(value) {
                KernelWalkStep::Next(next) => walk = next,
                KernelWalkStep::Mapped(gpa) => return Some(gpa),
                KernelWalkStep::Unmapped => return None,
            }
        }
    }

    #[test]
    fn a_walk_ends_at_pages_of_every_size() {
        const ADDRESS: u64 = 0xffff_ffff_9ae1_2340;
        let top = (0x1000 + 511 * 8, 0x2003);
        let second = (0x2000 + 510 * 8, 0x3003);
        let third = |value| (0x3000 + ((ADDRESS >> 21) & 511) * 8, value);
        let fourth = (0x4000 + ((ADDRESS >> 12) & 511) * 8, 0x8000_0000_0700_0063);
        let cr3 = 0x1000 | 0xabc;
        assert_eq!(
            follow(cr3, ADDRESS, &[top, second, third(0x4003), fourth]),
            Some(Gpa::new(0x700_0340))
        );
        assert_eq!(
            follow(cr3, ADDRESS, &[top, second, third(0x60_00e3)]),
            Some(Gpa::new(0x60_0000 + 0x1_2340))
        );
        let giant = (0x2000 + 510 * 8, 0x4000_00e3);
        assert_eq!(follow(cr3, ADDRESS, &[top, giant]), Some(Gpa::new(0x4000_0000 + 0x1ae1_2340)));
        assert_eq!(follow(cr3, ADDRESS, &[top, second]), None);
        assert_eq!(follow(0x5000, ADDRESS, &[top, second, third(0x60_00e3)]), None);
    }

    #[test]
    fn the_kernels_half_is_beside_the_users() {
        assert_eq!(tables(0x1_3000), [0x1_3000, 0x1_2000]);
        assert_eq!(tables(0x1_2000), [0x1_2000, 0x1_2000]);
    }
}
