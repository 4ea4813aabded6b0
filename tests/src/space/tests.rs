use super::*;

#[test]
fn checksum_has_its_published_check_value() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn a_blank_space_is_neither_a_record_nor_a_core() {
    let space = SpaceBytes(vec![0; 4 * PAGE]);
    assert!(space.record().is_err() && space.core().is_err() && space.verify().is_err());
}

const NOTES: usize = PAGE;
const BITMAP: usize = 2 * PAGE;
const CHECKSUMS: usize = 3 * PAGE;
const DATA: usize = 4 * PAGE;
const RECORD: usize = DATA + 3 * PAGE;

/// A hand-made dump of three pages: a block, a zero page, a block.
fn dump() -> Vec<u8> {
    let mut bytes = vec![0; RECORD + 2 * PAGE];
    elf(&mut bytes);
    put(&mut bytes, NOTES + 12, b"CORE");
    numbers(&mut bytes, NOTES, 4, &[(0, 5), (4, 4), (8, 1)]);
    bytes[BITMAP] = 0b101;
    for (index, byte) in [7, 0xee, 8].into_iter().enumerate() {
        put(&mut bytes, DATA + index * PAGE, &[byte; PAGE]);
    }
    put(&mut bytes, CHECKSUMS, &crc32c(&[7; PAGE]).to_le_bytes());
    put(&mut bytes, CHECKSUMS + 8, &crc32c(&[8; PAGE]).to_le_bytes());
    put(&mut bytes, RECORD, b"TIDEPOOL");
    let members = [
        (8, 1),
        (12, PAGE),
        (56, COMPLETE as usize),
        (176, 3),
        (216, 3),
        (220, 3),
        (224, 24),
        (228, 1),
    ];
    numbers(&mut bytes, RECORD, 4, &members);
    numbers(&mut bytes, RECORD, 8, &[(192, BITMAP), (200, CHECKSUMS), (208, DATA), (240, 3)]);
    seal(&mut bytes);
    bytes
}

fn elf(bytes: &mut [u8]) {
    put(bytes, 0, b"\x7fELF\x02\x01\x01");
    numbers(bytes, 0, 2, &[(16, 4), (18, 62), (20, 1), (32, 64), (52, 64), (54, 56), (56, 3)]);
    header(bytes, 0, PT_NOTE, &[(8, NOTES), (32, 24)]);
    header(bytes, 1, PT_LOAD, &[(8, DATA), (32, PAGE), (40, 2 * PAGE)]);
    header(bytes, 2, PT_LOAD, &[(8, DATA + 2 * PAGE), (24, 2 * PAGE), (32, PAGE), (40, PAGE)]);
}

fn header(bytes: &mut [u8], n: usize, kind: u32, members: &[(usize, usize)]) {
    numbers(bytes, EHDR + n * PHDR, 4, &[(0, kind as usize)]);
    numbers(bytes, EHDR + n * PHDR, 8, members);
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Writes numbers of `len` bytes at their offsets from `base`.
fn numbers(bytes: &mut [u8], base: usize, len: usize, members: &[(usize, usize)]) {
    for (at, value) in members {
        put(bytes, base + at, &value.to_le_bytes()[..len]);
    }
}

fn seal(bytes: &mut [u8]) {
    let checksum = crc32c(&bytes[RECORD..RECORD + PAGE - 4]).to_le_bytes();
    bytes[RECORD + PAGE - 4..RECORD + PAGE].copy_from_slice(&checksum);
}

#[test]
fn a_zero_page_is_zero_whatever_its_block_holds() {
    let space = SpaceBytes(dump());
    let core = space.verify().unwrap();
    let first = [0, PAGE, 2 * PAGE].map(|address| core.page(address as u64).unwrap()[0]);
    assert_eq!((first, core.addresses().count()), ([7, 0, 8], 3));
    assert!(core.page(3 * PAGE as u64).is_err());
    assert_eq!(core.notes().unwrap(), [CoreNote { name: "CORE", kind: 1, bytes: &[0; 4] }]);
}

#[test]
fn every_part_of_a_dump_is_checked() {
    let header = |n: usize, member: usize| EHDR + n * PHDR + member;
    let parts = [
        4,
        16,
        32,
        56,
        header(0, 0),
        header(0, 32),
        header(1, 8),
        header(1, 24),
        header(1, 48),
        header(2, 32),
    ];
    let blocks = [BITMAP, CHECKSUMS, CHECKSUMS + 8, DATA, DATA + 3 * PAGE - 1];
    let record = [56, 176, 192, 200, 208, 216, 220, 224, 240].map(|member| RECORD + member);
    for at in parts.into_iter().chain(blocks).chain(record) {
        let mut bytes = dump();
        bytes[at] ^= 1;
        seal(&mut bytes);
        assert!(SpaceBytes(bytes).verify().is_err(), "byte {at:#x}");
    }
}

#[test]
fn a_torn_record_is_none() {
    let mut bytes = dump();
    bytes[RECORD + 64] ^= 1;
    assert!(SpaceBytes(bytes).record().is_err());
}
