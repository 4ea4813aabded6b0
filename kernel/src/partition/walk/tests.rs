use super::error_code::{FETCH, PROTECTION, RESERVED, USER as BY_USER, WRITE};
use super::*;
use crate::partition::fake::FakeGuestMemory;

const RW: u64 = PRESENT | WRITABLE | USER;

fn long_mode(cr4: u64) -> WalkRegisters {
    WalkRegisters {
        cr0: CR0_PG | CR0_WP,
        cr3: 0x1000,
        cr4: cr4 | CR4_PAE,
        efer: EFER_LMA | EFER_NXE,
    }
}

/// Four levels that map 0x40_0000 + n * 4096 to 0x8000 with `leaf` rights, 2 MiB at 0x20_0000, 1
/// GiB at 1 GiB.
fn four_levels(leaf: u64) -> FakeGuestMemory {
    let memory = FakeGuestMemory::new(0x1_0000);
    memory.poke_u64(0x1000, 0x2000 | RW);
    memory.poke_u64(0x2000, 0x3000 | RW);
    memory.poke_u64(0x2008, 0x4000_0000 | RW | LARGE);
    memory.poke_u64(0x3008, 0x60_0000 | RW | LARGE);
    memory.poke_u64(0x3010, 0x4000 | RW);
    memory.poke_u64(0x4000, 0x8000 | leaf);
    memory
}

fn walk(
    memory: &FakeGuestMemory,
    paging: &WalkRegisters,
    gva: u64,
    access: PageAccess,
    privilege: Privilege,
) -> Result<u64, WalkError> {
    translate(memory, paging, Gva::new(gva), access, privilege).map(Gpa::as_u64)
}

#[test]
fn pages_of_every_size_translate() {
    let memory = four_levels(RW);
    for (gva, gpa) in [
        (0x40_0123, 0x8123),
        (0x20_0000, 0x60_0000),
        (0x3f_ffff, 0x7f_ffff),
        (0x4567_89ab, 0x4567_89ab),
    ] {
        assert_eq!(
            walk(&memory, &long_mode(0), gva, PageAccess::Read, Privilege::Supervisor),
            Ok(gpa),
            "{gva:#x}"
        );
    }
    let unpaged = WalkRegisters { cr0: 0x11, ..long_mode(0) };
    assert_eq!(
        walk(&memory, &unpaged, 0x1234_5678, PageAccess::Write, Privilege::Supervisor),
        Ok(0x1234_5678)
    );
}

#[test]
fn five_levels_go_one_further() {
    let memory = four_levels(RW);
    memory.poke_u64(0x5000, 0x1000 | RW);
    let paging = WalkRegisters { cr3: 0x5000, ..long_mode(CR4_LA57) };
    assert_eq!(walk(&memory, &paging, 0x40_0001, PageAccess::Read, Privilege::User), Ok(0x8001));
    assert_eq!(
        walk(&memory, &paging, 1 << 56, PageAccess::Read, Privilege::User),
        Err(WalkError::NonCanonical)
    );
    assert_eq!(
        walk(&memory, &long_mode(0), 1 << 47, PageAccess::Read, Privilege::User),
        Err(WalkError::NonCanonical)
    );
}

#[test]
fn rights_are_checked_as_the_cpu_does() {
    use PageAccess::{Execute, Read, Write};
    use Privilege::{Supervisor, SupervisorOverride, User};
    let fault = |code| Err(WalkError::PageFault(code));
    let (read_only, kernel, data) = (PRESENT | USER, PRESENT | WRITABLE, RW | NO_EXECUTE);
    for (leaf, cr4, access, privilege, expected) in [
        (RW, 0, Write, User, Ok(0x8000)),
        (0, 0, Write, User, fault(WRITE | BY_USER)),
        (0, 0, Execute, Supervisor, fault(FETCH)),
        (read_only, 0, Write, User, fault(PROTECTION | WRITE | BY_USER)),
        (read_only, 0, Write, Supervisor, fault(PROTECTION | WRITE)),
        (kernel, 0, Read, User, fault(PROTECTION | BY_USER)),
        (kernel, 0, Write, Supervisor, Ok(0x8000)),
        (data, 0, Execute, User, fault(PROTECTION | FETCH | BY_USER)),
        (data, 0, Read, User, Ok(0x8000)),
        (RW, CR4_SMEP, Execute, Supervisor, fault(PROTECTION | FETCH)),
        (RW, CR4_SMEP, Execute, User, Ok(0x8000)),
        (RW, CR4_SMAP, Read, Supervisor, fault(PROTECTION)),
        (RW, CR4_SMAP, Read, SupervisorOverride, Ok(0x8000)),
    ] {
        let got = walk(&four_levels(leaf), &long_mode(cr4), 0x40_0000, access, privilege);
        assert_eq!(got, expected, "{leaf:#x} {cr4:#x} {access:?} {privilege:?}");
    }
    let no_wp = WalkRegisters { cr0: CR0_PG, ..long_mode(0) };
    assert_eq!(walk(&four_levels(read_only), &no_wp, 0x40_0000, Write, Supervisor), Ok(0x8000));
    let no_nx = WalkRegisters { efer: EFER_LMA, ..long_mode(0) };
    assert_eq!(
        walk(&four_levels(data), &no_nx, 0x40_0000, Read, User),
        fault(PROTECTION | RESERVED | BY_USER)
    );
}

#[test]
fn a_large_page_where_there_is_none_is_a_reserved_bit() {
    let memory = four_levels(RW);
    memory.poke_u64(0x1000, 0x2000 | RW | LARGE);
    let got = walk(&memory, &long_mode(0), 0x40_0000, PageAccess::Read, Privilege::Supervisor);
    assert_eq!(got, Err(WalkError::PageFault(PROTECTION | RESERVED)));
}

#[test]
fn accessed_and_dirty_are_set_only_by_a_walk_that_succeeds() {
    let memory = four_levels(PRESENT | USER);
    let entry = |at| u64::from_le_bytes(memory.peek(at, 8).try_into().unwrap());
    assert!(walk(&memory, &long_mode(0), 0x40_0000, PageAccess::Write, Privilege::User).is_err());
    assert_eq!((entry(0x1000), entry(0x4000)), (0x2000 | RW, 0x8000 | PRESENT | USER));
    assert!(walk(&memory, &long_mode(0), 0x40_0000, PageAccess::Read, Privilege::User).is_ok());
    assert_eq!(
        (entry(0x3010), entry(0x4000)),
        (0x4000 | RW | ACCESSED, 0x8000 | PRESENT | USER | ACCESSED)
    );
    memory.poke_u64(0x4000, 0x8000 | RW | NO_EXECUTE);
    assert!(walk(&memory, &long_mode(0), 0x40_0000, PageAccess::Write, Privilege::User).is_ok());
    assert_eq!(entry(0x4000), 0x8000 | RW | NO_EXECUTE | ACCESSED | DIRTY);
    assert_eq!(entry(0x1000) & DIRTY, 0);
}

#[test]
fn a_table_that_is_not_resident_is_awaited() {
    for table in [0x1000, 0x2000, 0x3000, 0x4000] {
        let memory = four_levels(RW);
        memory.evict(table);
        let got = walk(&memory, &long_mode(0), 0x40_0000, PageAccess::Read, Privilege::User);
        assert_eq!(got, Err(WalkError::Memory(GuestMemoryError::NotResident(Gpa::new(table)))));
    }
    let nowhere = WalkRegisters { cr3: 0xffff_f000, ..long_mode(0) };
    let got = walk(&four_levels(RW), &nowhere, 0, PageAccess::Read, Privilege::User);
    assert!(matches!(got, Err(WalkError::Memory(GuestMemoryError::NotRam(_)))));
}

#[test]
fn pae_has_a_top_level_without_rights() {
    let memory = FakeGuestMemory::new(0x1_0000);
    let paging = WalkRegisters { cr0: CR0_PG | CR0_WP, cr3: 0x1020, cr4: CR4_PAE, efer: EFER_NXE };
    memory.poke_u64(0x1038, 0x2000 | PRESENT);
    memory.poke_u64(0x2000, 0x3000 | RW);
    memory.poke_u64(0x3000, 0x1_2345_6000 | RW);
    memory.poke_u64(0x2008, 0x60_0000 | RW | LARGE);
    assert_eq!(
        walk(&memory, &paging, 0xc000_0abc, PageAccess::Write, Privilege::User),
        Ok(0x1_2345_6abc)
    );
    assert_eq!(
        walk(&memory, &paging, 0xffff_ffff_c020_0001, PageAccess::Read, Privilege::User),
        Ok(0x60_0001),
        "32 bits"
    );
    assert_eq!(memory.peek(0x1038, 1), [1], "no accessed bit there");
}

#[test]
fn legacy_tables_have_4_kib_and_4_mib_pages() {
    let memory = FakeGuestMemory::new(0x1_0000);
    let paging = WalkRegisters { cr0: CR0_PG | CR0_WP, cr3: 0x1000, cr4: CR4_PSE, efer: 0 };
    memory.poke(0x1004, &(0x2000 | RW as u32).to_le_bytes());
    memory.poke(0x2004, &(0x9000 | RW as u32).to_le_bytes());
    memory.poke(0x1008, &((0x1240_0000 | 1 << 13 | RW | LARGE) as u32).to_le_bytes());
    assert_eq!(walk(&memory, &paging, 0x40_1fff, PageAccess::Read, Privilege::User), Ok(0x9fff));
    assert_eq!(
        walk(&memory, &paging, 0x80_0000 + 0x12_3456, PageAccess::Read, Privilege::User),
        Ok(0x1_1252_3456)
    );
    let got = walk(&memory, &paging, 0, PageAccess::Execute, Privilege::User);
    assert_eq!(got, Err(WalkError::PageFault(BY_USER)), "fetches are not told without NX and SMEP");
}
