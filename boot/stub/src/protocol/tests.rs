use super::*;

/// Memory that begins at address 0x1000.
struct FakeBootMemory(Vec<u8>);

impl BootMemory for FakeBootMemory {
    fn bytes(&self, address: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(0x1000)?).ok()?;
        self.0.get(start..start.checked_add(usize::try_from(len).ok()?)?)
    }
}

fn put(memory: &mut FakeBootMemory, address: u64, words: &[u32]) {
    for (i, word) in words.iter().enumerate() {
        let at = (address - 0x1000) as usize + 4 * i;
        memory.0[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
}

fn pvh() -> FakeBootMemory {
    let mut m = FakeBootMemory(vec![0; 0x2000]);
    // magic, version, flags, modules, modlist, cmdline, rsdp, memmap, entries
    put(&mut m, 0x1000, &[PVH, 1, 0, 1, 0x1100, 0, 0x1200, 0, 0xe0000, 0, 0x1300, 0, 2, 0]);
    put(&mut m, 0x1100, &[0x40_0000, 0, 0x1234, 0, 0, 0, 0, 0]);
    m.0[0x200..0x20b].copy_from_slice(b"console=one");
    put(&mut m, 0x1300, &[0, 0, 0x9f000, 0, 1, 0, 0x10_0000, 0, 0x100_0000, 0, 1, 0]);
    m
}

fn multiboot2() -> FakeBootMemory {
    let mut m = FakeBootMemory(vec![0; 0x1000]);
    put(&mut m, 0x1000, &[0x90, 0]);
    put(&mut m, 0x1008, &[1, 12, u32::from_le_bytes(*b"ab\0\0"), 0]);
    put(&mut m, 0x1018, &[3, 17, 0x40_0000, 0x40_1000, 0, 0]);
    put(&mut m, 0x1030, &[6, 40, 24, 0, 0x10_0000, 0, 0x100_0000, 0, 1, 0]);
    put(&mut m, 0x1058, &[14, 28, 0, 0, 0, 0, 0, 0]);
    put(&mut m, 0x1078, &[0, 8]);
    m
}

#[test]
fn pvh_start_information_is_read() {
    let (memory, mut map) = (pvh(), vec![]);
    let found = parse_pvh(&memory, 0x1000, |s, l, k| map.push((s, l, k))).unwrap();
    assert_eq!(map, [(0, 0x9f000, 1), (0x10_0000, 0x100_0000, 1)]);
    assert_eq!(found.command_line, b"console=one");
    assert_eq!((found.rsdp, found.module), (Some(0xe0000), Some(0x40_0000..0x40_1234)));
}

#[test]
fn pvh_with_a_map_outside_memory_is_refused() {
    let mut memory = pvh();
    put(&mut memory, 0x1030, &[u32::MAX]);
    assert_eq!(parse_pvh(&memory, 0x1000, |_, _, _| {}), None);
    put(&mut memory, 0x1000, &[0]);
    assert_eq!(parse_pvh(&memory, 0x1000, |_, _, _| {}), None);
}

#[test]
fn multiboot2_tags_are_read() {
    let (memory, mut map) = (multiboot2(), vec![]);
    let found = parse_multiboot2(&memory, 0x1000, |s, l, k| map.push((s, l, k))).unwrap();
    assert_eq!(map, [(0x10_0000, 0x100_0000, 1)]);
    assert_eq!(found.command_line, b"ab");
    assert_eq!((found.rsdp, found.module), (Some(0x1060), Some(0x40_0000..0x40_1000)));
    assert_eq!(found.information, 0x1000..0x1090);
}

#[test]
fn a_multiboot2_tag_longer_than_the_information_ends_the_list() {
    let mut memory = multiboot2();
    put(&mut memory, 0x101c, &[u32::MAX]);
    let found =
        parse_multiboot2(&memory, 0x1000, |_, _, _| panic!("tag behind the broken one")).unwrap();
    assert_eq!((found.module, found.command_line), (None, &b"ab"[..]));
}

#[test]
fn a_multiboot2_tag_of_no_length_ends_the_list() {
    let mut memory = multiboot2();
    put(&mut memory, 0x100c, &[0]);
    assert!(parse_multiboot2(&memory, 0x1000, |_, _, _| {}).unwrap().command_line.is_empty());
}
