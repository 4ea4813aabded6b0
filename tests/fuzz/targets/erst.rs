//! The store of error records: what was stored reads back, and the store never grows.
#![no_main]

use fuzz::{GuestRam, Input};
use kernel::addr::Gpa;
use kernel::partition::devices::erst::{Erst, command, register};
use libfuzzer_sys::fuzz_target;

const BUFFER: u64 = 0x4000;
const COMMANDS: [u64; 7] = [
    command::BEGIN_WRITE,
    command::BEGIN_READ,
    command::BEGIN_CLEAR,
    command::END,
    command::EXECUTE,
    command::NEXT_ID,
    command::BEGIN_DUMMY_WRITE,
];
/// The header of a record of pstore: signature, then creator and section.
const CREATOR: [u8; 16] = *b"\xe3\x74\xa5\x75\x52\x50\x29\x4b\x8a\x8e\xbe\x2c\x64\x90\xb8\x9d";
const SECTIONS: [[u8; 16]; 2] = [
    *b"\x4e\xe0\x97\xc1\x45\xd5\x70\x4a\x9c\x17\xa5\x54\x94\x19\xeb\x12",
    *b"\x07\x87\x11\x4f\xdd\x04\x55\x40\xb5\xdd\x95\x6d\x34\xdd\xfa\xc6",
];

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let (mut device, mut memory) = (Erst::new(Gpa::new(BUFFER)), GuestRam::new(&[]));
    while !input.is_empty() {
        match input.u8() % 6 {
            0 => {
                let value = input.one_of(&COMMANDS);
                let before = registers(&device);
                if device.write(register::COMMAND, value, &memory).is_err() {
                    assert_eq!(registers(&device), before);
                }
            }
            1 => {
                let at = input.one_of(&[register::RECORD_OFFSET, register::RECORD_ID]);
                let _ = device.write(at, u64::from(input.u16()), &memory);
            }
            2 => _ = device.write(u64::from(input.u8()), input.u64(), &memory),
            3 => {
                let (id, len, more) = (input.u8(), input.u16(), input.u8());
                let text = input.bytes(more.into());
                put_record(&memory, input.one_of(&SECTIONS), id, u32::from(len) % 9000, text);
            }
            4 => memory.absent = u16::from(input.u8()) << 2,
            _ => device.reset(),
        }
        assert!(device.read(register::RECORD_COUNT) <= 8);
    }
    let text = device.panic_text();
    assert!(text.is_none_or(|text| text.bytes().all(|b| (b' '..=b'~').contains(&b))));
    memory.absent = 0;
    store_and_read_back(&mut device, &memory);
});

fn registers(device: &Erst) -> Vec<u64> {
    (0..=register::TIMINGS).step_by(8).map(|at| device.read(at)).collect()
}

fn put_record(memory: &GuestRam, section: [u8; 16], id: u8, len: u32, text: &[u8]) {
    let at = |offset: usize| BUFFER as usize + offset;
    memory.poke(at(0), b"CPER");
    memory.poke(at(20), &len.to_le_bytes());
    memory.poke(at(64), &CREATOR);
    memory.poke(at(96), &[id]);
    memory.poke(at(144), &section);
    memory.poke(at(200), text);
}

fn store_and_read_back(device: &mut Erst, memory: &GuestRam) {
    let mut write = |at, value| device.write(at, value, memory).expect("all pages are resident");
    put_record(memory, SECTIONS[0], 77, 300, b"Oops#1 Part1");
    let stored = memory.snapshot();
    for (at, value) in [
        (register::RECORD_OFFSET, 0),
        (register::COMMAND, command::BEGIN_WRITE),
        (register::COMMAND, command::EXECUTE),
        (register::COMMAND, command::END),
    ] {
        let _ = write(at, value);
    }
    memory.poke(BUFFER as usize, &[0; 300]);
    let id = u64::from_le_bytes(*stored[BUFFER as usize + 96..].first_chunk().expect("in memory"));
    for (at, value) in [
        (register::RECORD_ID, id),
        (register::COMMAND, command::BEGIN_READ),
        (register::COMMAND, command::EXECUTE),
    ] {
        let _ = write(at, value);
    }
    assert_eq!(device.read(register::STATUS), 0);
    assert_eq!(memory.snapshot(), stored);
}
