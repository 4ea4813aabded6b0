//! A quick walk of the guest's tables for the case at every exit for a device's register: a fetch
//! of 64-bit code whose tables are all resident, have A set, and permit the fetch.
//!
//! It returns the same address as [`translate`](super::translate), or nothing. It writes nothing
//! and reports no fault: every unusual case is left to `translate`.

use super::{ACCESSED, ADDRESS, CR4_LA57, CR4_SMEP, LARGE, NO_EXECUTE, PRESENT, USER};
use crate::addr::Gpa;
use crate::virt::FetchRegisters;

/// Lowest bit of the top level's index in a linear address of 64-bit code, with four levels and
/// with five.
const TOP_SHIFT: [u32; 2] = [39, 48];
/// Lowest bit of the index at the highest level that can have a large page: 1 GiB.
const LARGEST_SHIFT: u32 = 30;
const LAST_SHIFT: u32 = 12;

/// Translates the address of an instruction. `read` reads an entry of a table; if it returns
/// `None`, this fetch takes the long way.
#[inline(always)]
pub fn fetch_address(
    code: &FetchRegisters,
    rip: u64,
    read: impl Fn(Gpa) -> Option<u64>,
) -> Option<Gpa> {
    let mut shift = TOP_SHIFT[usize::from(code.cr4 & CR4_LA57 != 0)];
    if !is_canonical(rip, shift) {
        return None;
    }
    let (mut table, mut common) = (code.cr3 & ADDRESS, USER);
    loop {
        let entry = read(Gpa::new(table + ((rip >> shift) & 0x1ff) * 8))?;
        // NX set means a fault, or a reserved bit.
        if entry & (PRESENT | ACCESSED | NO_EXECUTE) != PRESENT | ACCESSED {
            return None;
        }
        common &= entry;
        let is_large = entry & LARGE != 0 && shift != LAST_SHIFT;
        if is_large && shift > LARGEST_SHIFT {
            return None;
        }
        if is_large || shift == LAST_SHIFT {
            let low = (1 << shift) - 1;
            return permits(code, common).then(|| Gpa::new((entry & ADDRESS & !low) | (rip & low)));
        }
        table = entry & ADDRESS;
        shift -= 9;
    }
}

/// Tells whether all bits above the top level's index are copies of its highest bit.
const fn is_canonical(linear: u64, top_shift: u32) -> bool {
    let unused = 64 - (top_shift + 9);
    ((linear << unused) as i64 >> unused) as u64 == linear
}

/// Returns whether entries with these common rights permit the fetch. Under SMEP a supervisor may
/// not execute user pages.
const fn permits(code: &FetchRegisters, common: u64) -> bool {
    match (code.cpl, common & USER != 0) {
        (3, user) => user,
        (_, user) => !(user && code.cr4 & CR4_SMEP != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gva;
    use crate::mm::guest::GuestMemory;
    use crate::partition::fake::FakeGuestMemory;
    use crate::partition::walk::{Privilege, WalkRegisters, translate};
    use crate::virt::PageAccess;

    const BYTES: usize = 0x8000;
    /// PG and WP; LME, LMA and NXE; PAE.
    const CR0: u64 = 1 << 31 | 1 << 16 | 1;
    const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11;
    const PAE: u64 = 1 << 5;

    fn both(
        memory: &FakeGuestMemory,
        code: &FetchRegisters,
        rip: u64,
    ) -> (Option<Gpa>, Option<Gpa>) {
        let read = |at| memory.read_u64(at).ok();
        let paging = WalkRegisters { cr0: CR0, cr3: code.cr3, cr4: code.cr4, efer: EFER };
        let privilege = Privilege::of(code.cpl, 0);
        let short = fetch_address(code, rip, read);
        (short, translate(memory, &paging, Gva::new(rip), PageAccess::Execute, privilege).ok())
    }

    /// A path of tables at 0x1000, 0x2000 ... for address 0, each entry with `bits`.
    fn path(levels: u64, bits: u64) -> FakeGuestMemory {
        let memory = FakeGuestMemory::new(BYTES);
        for level in 1..=levels {
            memory.poke_u64(level * 0x1000, ((level + 1) * 0x1000) | bits);
        }
        memory
    }

    #[test]
    fn it_finds_what_the_long_way_finds() {
        let all = PRESENT | ACCESSED | USER;
        for (levels, cr4) in [(4, PAE), (5, PAE | CR4_LA57)] {
            for (cpl, bits) in [(0, all & !USER), (0, all), (3, all)] {
                let (memory, code) = (path(levels, bits), FetchRegisters { cr3: 0x1000, cr4, cpl });
                let found = Some(Gpa::new((levels + 1) * 0x1000 + 0x123));
                assert_eq!(
                    both(&memory, &code, 0x123),
                    (found, found),
                    "{levels} levels, CPL {cpl}"
                );
            }
        }
    }

    #[test]
    fn a_large_page_ends_the_walk() {
        let all = PRESENT | ACCESSED;
        for (at, rip) in [(0x2000, 0x3fff_f123), (0x3000, 0x1f_f123)] {
            let memory = path(4, all);
            memory.poke_u64(0x1000, 0x2000 | all);
            memory.poke_u64(
                at + if at == 0x2000 { 0 } else { (rip >> 21 & 0x1ff) * 8 },
                0x4000_0000 | LARGE | 1 << 12 | all,
            );
            let found = Some(Gpa::new(0x4000_0000 + rip));
            assert_eq!(
                both(&memory, &FetchRegisters { cr3: 0x1000, cr4: PAE, cpl: 0 }, rip),
                (found, found),
                "{at:#x}"
            );
        }
    }

    #[test]
    fn what_the_long_way_refuses_or_writes_is_left_to_it() {
        let good = PRESENT | ACCESSED | USER;
        let supervisor = FetchRegisters { cr3: 0x1000, cr4: PAE | CR4_SMEP, cpl: 0 };
        let user = FetchRegisters { cpl: 3, ..supervisor };
        assert_eq!(both(&path(4, good), &supervisor, 0), (None, None), "SMEP");
        assert_eq!(both(&path(4, good & !USER), &user, 0), (None, None), "a supervisor's page");
        assert_eq!(both(&path(4, good | NO_EXECUTE), &user, 0), (None, None), "NX");
        assert_eq!(both(&path(4, good), &user, 1 << 47), (None, None), "not canonical");
        for level in 1..=4 {
            let memory = path(4, good);
            memory.poke_u64(level * 0x1000, ((level + 1) * 0x1000) | good & !ACCESSED);
            let (short, long) = both(&memory, &user, 0);
            assert!(short.is_none() && long.is_some(), "level {level}: A has to be set first");
            let memory = path(4, good);
            memory.evict(level * 0x1000);
            assert_eq!(both(&memory, &user, 0), (None, None), "level {level} is paged out");
        }
    }

    /// Random tables, mostly with good entries: if the short way finds an address, the long way
    /// finds the same.
    #[test]
    fn it_never_finds_anything_else() {
        let seed = option_env!("TIDEPOOL_SEED")
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(0x9e37_79b9_7f4a_7c15u64);
        let mut state = seed | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut found = 0;
        for round in 0..20_000 {
            let memory = FakeGuestMemory::new(BYTES);
            for table in 1..8 {
                let flips = if random() % 3 == 0 {
                    random() & random() & random() & (0xfff | NO_EXECUTE)
                } else {
                    0
                };
                let entry = ((1 + random() % 7) * 0x1000) | (PRESENT | ACCESSED | USER) ^ flips;
                memory.poke_u64(table * 0x1000, entry);
            }
            let cr4 = PAE | random() & (CR4_LA57 | CR4_SMEP);
            let code = FetchRegisters {
                cr3: 0x1000 | random() & 0xfff,
                cr4,
                cpl: if random() & 1 == 0 { 0 } else { 3 },
            };
            let (short, long) = both(&memory, &code, random() & 0xfff);
            found += u32::from(short.is_some());
            assert!(
                short.is_none() || short == long,
                "round {round}, seed {seed:#x}: {short:?} {long:?} {code:x?}"
            );
        }
        assert!(found > 2_000, "only {found} were found, seed {seed:#x}");
    }
}
