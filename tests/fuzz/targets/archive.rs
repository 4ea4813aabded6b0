//! The boot archive: its modules lie within it, and each is found by its name.
#![no_main]
// UNSAFETY: an archive lives as long as the machine, an input does not.
#![expect(unsafe_code)]

use fuzz::Input;
use fuzz::lent::for_ever;
use kernel::archive::BootArchive;
use kernel::config::MODULE;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    // Headers of one input lie in a few hundred bytes, in an archive they have whole blocks.
    let mut archive = Vec::new();
    while !input.is_empty() {
        let (fields, data) = (input.u8(), input.u8());
        let mut header = [0; 512];
        header[..100].copy_from_slice(&input.array::<100>());
        if fields & 1 == 1 {
            header[..7].copy_from_slice(b"config\0");
        }
        header[124..136].copy_from_slice(&input.array::<12>());
        header[156..265].copy_from_slice(&input.array::<109>());
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(input.bytes(data.into()));
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    for bytes in [bytes, &archive] {
        // SAFETY: `check` keeps nothing.
        unsafe { for_ever(bytes, check) };
    }
});

fn check(bytes: &'static [u8]) {
    if let Ok(archive) = BootArchive::new(bytes) {
        let found = archive.module(MODULE).map_or(0, <[u8]>::len);
        assert!(found <= bytes.len() && (found == 0 || !archive.is_empty()));
    }
}
