//! A boot loader's information: usable memory is whole pages, and no part of it is anything
//! else's.
#![no_main]

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use stub::protocol::{BootMemory, Findings, parse_multiboot2, parse_pvh};
use stub::regions::{MAX_REGIONS, MemoryMap};

/// Entries of a map that are taken: a map with more pieces than there is room for stops the
/// machine, on purpose.
const MOST: usize = 60;

struct Bytes<'a>(&'a [u8]);

impl BootMemory for Bytes<'_> {
    fn bytes(&self, address: u64, len: u64) -> Option<&[u8]> {
        let (start, len) = (usize::try_from(address).ok()?, usize::try_from(len).ok()?);
        self.0.get(start..)?.get(..len)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let memory = Bytes(bytes);
    for parse in [0, 1] {
        let mut entries = Vec::new();
        let mut add = |start, len, kind| entries.push((start, len, kind));
        let found = match parse {
            0 => parse_pvh(&memory, 0, &mut add),
            _ => parse_multiboot2(&memory, 0, &mut add),
        };
        if let Some(found) = found {
            let Findings { module, command_line, .. } = &found;
            assert!(command_line.len() <= bytes.len().max(1024));
            assert!(module.as_ref().is_none_or(|module| module.start <= module.end));
        }
        check_map(&entries);
    }
    let (input, mut entries) = (&mut Input::new(bytes), Vec::new());
    while !input.is_empty() {
        entries.push((input.u64(), input.u64(), u32::from(input.u8() & 3)));
    }
    check_map(&entries);
});

fn check_map(entries: &[(u64, u64, u32)]) {
    let mut map = MemoryMap::new();
    for (start, len, kind) in entries.iter().take(MOST) {
        map.add_firmware_entry(*start, *len, *kind);
    }
    map.reserve(0x1000..0x2001);
    map.cut_at(1 << 39);
    let page = map.allocate_below(1 << 32, 1);
    assert!(page.is_none_or(|page| page % 4096 == 0 && page < 1 << 32));
    let mut out = [MemoryRegion::empty(); MAX_REGIONS];
    let all = map.write_to(&mut out).to_vec();
    let usable = |region: &&MemoryRegion| region.kind == MemoryRegionKind::Usable;
    for (n, region) in all.iter().enumerate().filter(|(_, region)| usable(region)) {
        assert!(region.start % 4096 == 0 && region.end % 4096 == 0 && region.start < region.end);
        assert!(region.end <= 1 << 39 && !(region.start..region.end).contains(&0x1000));
        let apart = |other: &MemoryRegion| other.end <= region.start || region.end <= other.start;
        let others = all.iter().enumerate().filter(|(other, _)| *other != n);
        assert!(others.clone().all(|(_, other)| apart(other)), "{region:x?} in {all:x?}");
    }
}
