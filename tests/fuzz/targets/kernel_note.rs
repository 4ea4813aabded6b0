//! A kernel's VMCOREINFO in a guest's memory, and the walk that decides whether it is believed.
#![no_main]

use fuzz::{GuestRam, Input};
use kernel::dump::kernel_note::{KernelTableWalk, KernelWalkStep, NoteClaim, tables};
use kernel::dump::vmcoreinfo::{TEXT_OFFSET, text_len, value};
use kernel::mm::guest::GuestMemory;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut page = bytes.to_vec();
    page.resize(4096, 0);
    if let Some(len) = text_len(&page) {
        let text = &page[TEXT_OFFSET..][..len];
        assert!(value(text, "OSRELEASE").is_none_or(|release| release.len() < len));
        if let Some(claim) = NoteClaim::of(text) {
            claim.is_named_by(&page);
        }
    }
    if let Some(claim) = NoteClaim::of(bytes) {
        assert!(!claim.is_named_by(b"Linux\0"));
    }
    let input = &mut Input::new(bytes);
    let (cr3, address) = (input.u64(), input.u64());
    let memory = GuestRam::new(&[]);
    while !input.is_empty() {
        memory.poke(usize::from(input.u16()) * 8, &input.array::<8>());
    }
    for table in tables(cr3) {
        let (mut walk, mut levels) = (KernelTableWalk::new(table, address), 0);
        while let Ok(entry) = memory.read_u64(walk.entry()) {
            levels += 1;
            match walk.step(entry) {
                KernelWalkStep::Next(next) => walk = next,
                KernelWalkStep::Mapped(gpa) => {
                    assert_eq!(gpa.page_offset(), address & 0xfff);
                    break;
                }
                KernelWalkStep::Unmapped => break,
            }
        }
        assert!(levels <= 4);
    }
});
