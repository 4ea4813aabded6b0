use super::*;
use crate::partition::fake::FakeGuestMemory;

const BUFFER: u64 = 0x2000;

/// A record as pstore makes it, with `text` deflated.
fn record(id: u64, text: &[u8]) -> Vec<u8> {
    let body = miniz_oxide::deflate::compress_to_vec(text, 6);
    let mut bytes = vec![0; 200];
    bytes[..4].copy_from_slice(b"CPER");
    bytes[20..24].copy_from_slice(&(200 + body.len() as u32).to_le_bytes());
    bytes[64..80]
        .copy_from_slice(b"\xe3\x74\xa5\x75\x52\x50\x29\x4b\x8a\x8e\xbe\x2c\x64\x90\xb8\x9d");
    bytes[96..104].copy_from_slice(&id.to_le_bytes());
    bytes[144..160]
        .copy_from_slice(b"\x07\x87\x11\x4f\xdd\x04\x55\x40\xb5\xdd\x95\x6d\x34\xdd\xfa\xc6");
    bytes.extend(body);
    bytes
}

fn panic_text() -> Vec<u8> {
    let mut text = b"Panic#1 Part1\n".to_vec();
    (0..4000u32).for_each(|i| text.push(b'a' + (i.wrapping_mul(2_654_435_761) >> 27) as u8 % 26));
    text
}

struct ErstBed {
    erst: Erst,
    memory: FakeGuestMemory,
}

impl ErstBed {
    fn new() -> Self {
        Self { erst: Erst::new(Gpa::new(BUFFER)), memory: FakeGuestMemory::new(0x8000) }
    }
    fn set(&mut self, register: u64, value: u64) -> DeviceEffect {
        self.erst.write(register, value, &self.memory).unwrap()
    }
    fn operate(&mut self, begin: u64) -> (u64, DeviceEffect) {
        assert_eq!(self.set(register::COMMAND, begin), DeviceEffect::None);
        assert_eq!(self.set(register::COMMAND, command::EXECUTE), DeviceEffect::None);
        assert_eq!(self.erst.read(register::BUSY), 0);
        (self.erst.read(register::STATUS), self.set(register::COMMAND, command::END))
    }
    fn store(&mut self, bytes: &[u8]) -> (u64, DeviceEffect) {
        self.memory.poke(BUFFER, bytes);
        self.operate(command::BEGIN_WRITE)
    }
    fn load(&mut self, id: u64) -> u64 {
        assert_eq!(self.set(register::RECORD_ID, id), DeviceEffect::None);
        self.operate(command::BEGIN_READ).0
    }
    fn ids(&mut self) -> Vec<u64> {
        let mut ids = Vec::new();
        loop {
            assert_eq!(self.set(register::COMMAND, command::NEXT_ID), DeviceEffect::None);
            match self.erst.read(register::NEXT_RECORD_ID) {
                NO_RECORD => return ids,
                id => ids.push(id),
            }
        }
    }
}

#[test]
fn a_panics_log_is_told_when_the_operation_ends() {
    let mut bed = ErstBed::new();
    assert_eq!(bed.store(&record(7, &panic_text())), (0, DeviceEffect::PanicRecorded));
    assert_eq!(bed.set(register::COMMAND, command::END), DeviceEffect::None, "only once");
}

#[test]
fn an_oops_and_a_broken_log_are_stored_and_not_told() {
    let mut bed = ErstBed::new();
    assert_eq!(bed.store(&record(1, b"Oops#1 Part1\nBUG")), (0, DeviceEffect::None));
    let mut broken = record(2, &panic_text());
    broken[200..].fill(0xff);
    assert_eq!(bed.store(&broken), (0, DeviceEffect::None));
    let mut foreign = record(3, &panic_text());
    foreign[64] ^= 1;
    assert_eq!(bed.store(&foreign), (0, DeviceEffect::None));
    assert_eq!(bed.erst.read(register::RECORD_COUNT), 3);
}

#[test]
fn records_survive_the_incarnation_and_are_read_and_cleared_one_by_one() {
    let mut bed = ErstBed::new();
    let (a, b) = (record(11, b"Oops#1 Part1\n"), record(12, b"Oops#1 Part2\n"));
    assert_eq!((bed.store(&a).0, bed.store(&b).0), (0, 0));
    bed.erst.reset();
    assert_eq!(bed.ids(), [11, 12]);
    assert_eq!(bed.ids(), [11, 12], "the walk begins again");
    assert_eq!((bed.load(12), bed.memory.peek(BUFFER, b.len())), (0, b));
    assert_eq!((bed.load(0), bed.memory.peek(BUFFER, a.len())), (0, a), "any record is the first");
    assert_eq!(bed.load(13), Status::NotFound as u64);
    assert_eq!(bed.set(register::RECORD_ID, 11), DeviceEffect::None);
    assert_eq!(bed.operate(command::BEGIN_CLEAR).0, 0);
    assert_eq!(bed.operate(command::BEGIN_CLEAR).0, Status::NotFound as u64);
    assert_eq!(bed.ids(), [12]);
}

#[test]
fn a_full_store_forgets_its_oldest_record() {
    let mut bed = ErstBed::new();
    for id in 1..=9 {
        assert_eq!(bed.store(&record(id, b"Oops#")).0, 0);
    }
    assert_eq!(bed.erst.read(register::RECORD_COUNT), 8);
    assert_eq!((bed.load(1), bed.load(9)), (Status::NotFound as u64, 0));
}

#[test]
fn nothing_is_stored_while_a_page_of_the_record_is_not_resident() {
    let mut bed = ErstBed::new();
    let mut long = record(5, b"x");
    long[20..24].copy_from_slice(&8000u32.to_le_bytes());
    long.resize(8000, 0);
    bed.memory.poke(BUFFER, &long);
    bed.memory.evict(BUFFER + 4096);
    assert_eq!(bed.set(register::COMMAND, command::BEGIN_WRITE), DeviceEffect::None);
    let execute =
        |bed: &mut ErstBed| bed.erst.write(register::COMMAND, command::EXECUTE, &bed.memory);
    assert!(matches!(execute(&mut bed), Err(GuestMemoryError::NotResident(_))));
    assert_eq!(bed.erst.read(register::RECORD_COUNT), 0);
    bed.memory.bring_in(BUFFER + 4096);
    assert_eq!(execute(&mut bed), Ok(DeviceEffect::None));
    assert_eq!((bed.load(5), bed.memory.peek(BUFFER, 8000)), (0, long));
}

#[test]
fn records_that_lie_about_themselves_are_refused() {
    let mut bed = ErstBed::new();
    let good = record(5, b"x");
    for (at, value) in [(0, 0u32), (20, 0), (20, 127), (20, 8193), (20, u32::MAX)] {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert_ne!(bed.store(&bad).0, 0, "{at} {value}");
    }
    for id in [0, NO_RECORD] {
        assert_ne!(bed.store(&record(id, b"x")).0, 0);
    }
    for offset in [8192, 8192 - 127, 8193, u64::MAX] {
        assert_eq!(bed.set(register::RECORD_OFFSET, offset), DeviceEffect::None);
        assert_ne!(bed.store(&good).0, 0, "{offset}");
        assert_ne!(bed.load(5), 0, "{offset}");
    }
    assert_eq!(bed.erst.read(register::RECORD_COUNT), 0);
}

#[test]
fn an_empty_store_says_so() {
    let mut bed = ErstBed::new();
    assert_eq!((bed.load(0), bed.ids()), (Status::StoreEmpty as u64, vec![]));
}

#[test]
fn a_panics_own_words_are_found_in_its_log_deflated_or_not_and_forgotten_at_the_restart() {
    let log = b"Panic#1 Part1\n<6>[   54.0] sysrq: Trigger a crash\n\
        <0>[   54.1] Kernel panic - not syncing: sysrq\n<4>[   54.2] CPU: 0\n";
    let mut plain = record(2, b"");
    plain.truncate(200);
    plain.extend(log);
    plain[20..24].copy_from_slice(&(200 + log.len() as u32).to_le_bytes());
    plain[144..160]
        .copy_from_slice(b"\x4e\xe0\x97\xc1\x45\xd5\x70\x4a\x9c\x17\xa5\x54\x94\x19\xeb\x12");
    let older = record(3, b"Panic#1 Part2\n<0>[ 1.0] Kernel panic - not syncing: older\n");
    for newest in [record(1, log), plain] {
        let mut bed = ErstBed::new();
        assert_eq!(bed.erst.panic_text(), None);
        assert_eq!(bed.store(&newest), (0, DeviceEffect::PanicRecorded));
        assert_eq!(bed.store(&older), (0, DeviceEffect::PanicRecorded));
        assert_eq!(bed.erst.panic_text().as_deref(), Some("Kernel panic - not syncing: sysrq"));
        bed.erst.reset();
        assert_eq!(bed.erst.panic_text(), None);
    }
    let mut bed = ErstBed::new();
    assert_eq!(
        bed.store(&record(1, b"Oops#1 Part1\nKernel panic - not syncing: x\n")),
        (0, DeviceEffect::None)
    );
    assert_eq!(bed.erst.panic_text(), None);
}
