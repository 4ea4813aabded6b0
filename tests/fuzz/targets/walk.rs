//! A guest's page tables: what the quick walk finds the complete one finds too, and a walk that
//! fails has written nothing.
#![no_main]

use fuzz::{GuestRam, Input};
use kernel::addr::Gva;
use kernel::mm::guest::GuestMemory;
use kernel::partition::walk::long::fetch_address;
use kernel::partition::walk::{Privilege, WalkRegisters, translate};
use kernel::virt::{FetchRegisters, PageAccess};
use libfuzzer_sys::fuzz_target;

const PAGED: u64 = 1 << 31;
const LONG_MODE: u64 = 1 << 10;
const NO_EXECUTE: u64 = 1 << 11;

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let (modes, linear, cpl) = (input.u8(), input.u64(), input.u8() & 3);
    let bit = |n: u8, value: u64| if modes >> n & 1 == 1 { value } else { 0 };
    let paging = WalkRegisters {
        cr0: PAGED | bit(0, 1 << 16),
        cr3: input.u16().into(),
        cr4: input.u32().into(),
        efer: bit(1, LONG_MODE) | bit(2, NO_EXECUTE),
    };
    let access = input.one_of(&[PageAccess::Read, PageAccess::Write, PageAccess::Execute]);
    let mut memory = GuestRam::new(&[]);
    memory.absent = input.u16();
    // Entries, each with its place: tables are sparse.
    while !input.is_empty() {
        let at = usize::from(input.u16()) * 8 % fuzz::RAM_BYTES;
        memory.poke(at, &input.array::<8>());
    }

    if paging.efer & LONG_MODE != 0 && paging.efer & NO_EXECUTE != 0 {
        let code = FetchRegisters { cr3: paging.cr3, cr4: paging.cr4, cpl };
        let quick = fetch_address(&code, linear, |at| memory.read_u64(at).ok());
        if quick.is_some() {
            let (gva, privilege) = (Gva::new(linear), Privilege::of(cpl, 0));
            let whole = translate(&memory, &paging, gva, PageAccess::Execute, privilege);
            assert_eq!(whole.ok(), quick);
        }
    }
    let before = memory.snapshot();
    let privilege = Privilege::of(cpl, u64::from(modes) << 12);
    let found = translate(&memory, &paging, Gva::new(linear), access, privilege);
    let after = memory.snapshot();
    match found {
        Err(_) => assert_eq!(before, after),
        Ok(gpa) => {
            let again = translate(&memory, &paging, Gva::new(linear), access, privilege);
            // A page that maps a table may have changed what the walk reads: only bits 5 and 6.
            let changed = before.iter().zip(&after).all(|(a, b)| (a ^ b) & !0x60 == 0);
            assert!(changed && again.is_ok_and(|again| again == gpa));
        }
    }
});
