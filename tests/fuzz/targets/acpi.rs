//! Firmware's tables: any tables end the search, and a CPU is named once.
#![no_main]

use fuzz::{Input, seal};
use kernel::arch::acpi::{FirmwareMemory, cpus, find_table};
use libfuzzer_sys::fuzz_target;

struct Firmware(Vec<u8>);

impl FirmwareMemory for Firmware {
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        self.0.get(usize::try_from(address).ok()?..)?.get(..len)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let mut memory = vec![0; 0x1000];
    // Pieces at multiples of 64 bytes; tables get their checksums.
    while !input.is_empty() {
        let (what, at) = (input.u8(), usize::from(input.u8() & 63) * 64);
        let len = usize::from(input.u8());
        memory[at..].iter_mut().zip(input.bytes(len)).for_each(|(to, byte)| *to = *byte);
        let end = memory.len();
        match what % 3 {
            0 => seal(&mut memory[at..(at + 20).min(end)], 8),
            1 => {
                let len = memory[at..].get(4..8).map_or(0, |len| usize::from(len[0]));
                seal(&mut memory[at..(at + len).min(end)], 9);
            }
            _ => {}
        }
    }
    let firmware = Firmware(memory);
    for rsdp in [0, 64, 0xfc0, u64::MAX] {
        let ids = cpus(&firmware, rsdp);
        assert!(ids.iter().enumerate().all(|(n, id)| !ids[..n].contains(id)));
        if let Some(table) = find_table(&firmware, rsdp, b"APIC") {
            assert_eq!(table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        }
    }
});
