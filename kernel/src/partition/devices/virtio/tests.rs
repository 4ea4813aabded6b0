//! A driver at the entropy device: registers, rings, and what a hostile one does.

use super::features;
use super::random::{RandomModel, WorkEnd};
use super::registers::{
    COMMON_BYTES, RegisterEffect, STATUS_DRIVER_OK, STATUS_FEATURES_OK, STATUS_NEEDS_RESET,
    VirtioRegisters, field,
};
use super::ring::{NO_VECTOR, RingError, RingFault};
use crate::dump::state_note::{StateNote, StateNoteKind, StatePart, StateWriter};
use crate::mm::guest::GuestMemoryError;
use crate::partition::fake::FakeGuestMemory;
use crate::virt::AccessWidth::{self, Byte, Dword, Qword, Word};

const SIZE: u16 = 8;
const TABLE: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFER: u64 = 0x5000;
const MEMORY: usize = 0x1_0000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const BASIC: u64 = features::VERSION_1;

/// A driver with its device.
struct Bench {
    registers: VirtioRegisters,
    model: RandomModel,
    memory: FakeGuestMemory,
    raised: u32,
    numbers: u64,
    available: u16,
}

impl Bench {
    fn new(accepted: u64) -> Self {
        let mut bench = Self {
            registers: VirtioRegisters::new(0, &[SIZE]),
            model: RandomModel::default(),
            memory: FakeGuestMemory::new(MEMORY),
            raised: 0,
            numbers: 0,
            available: 0,
        };
        for half in 0..2 {
            let _ = bench.write(field::DRIVER_FEATURE_SELECT, Dword, half);
            let _ =
                bench.write(field::DRIVER_FEATURE, Dword, accepted >> (32 * half) & 0xffff_ffff);
        }
        let _ = bench.write(field::STATUS, Byte, 0xb);
        let _ = bench.write(field::RING_VECTOR, Word, 1);
        let _ = bench.write(field::RING_SIZE, Word, SIZE.into());
        for (n, area) in [TABLE, AVAIL, USED].into_iter().enumerate() {
            let _ = bench.write(field::RING_AREAS + 8 * n as u16, Qword, area);
        }
        assert_eq!(bench.write(field::RING_ENABLE, Word, 1), RegisterEffect::Started);
        assert_eq!(bench.write(field::STATUS, Byte, 0xf), RegisterEffect::Started);
        bench
    }
    fn write(&mut self, offset: u16, width: AccessWidth, value: u64) -> RegisterEffect {
        self.registers.write(offset, width, value)
    }
    fn describe(&mut self, table: u64, number: u16, (at, bytes): (u64, u32), flags: (u16, u16)) {
        let place = table + 16 * u64::from(number);
        self.memory.poke_u64(place, at);
        self.memory.poke(place + 8, &bytes.to_le_bytes());
        self.memory.poke(place + 12, &flags.0.to_le_bytes());
        self.memory.poke(place + 14, &flags.1.to_le_bytes());
    }
    /// Makes the chain at `head` available.
    fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available % SIZE);
        self.memory.poke(AVAIL + 4 + 2 * slot, &head.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        self.memory.poke(AVAIL + 2, &self.available.to_le_bytes());
    }
    fn work(&mut self) -> WorkEnd {
        let Self { registers, model, memory, raised, numbers, .. } = self;
        let mut next = || {
            *numbers += 1;
            Some(numbers.wrapping_mul(0x0101_0101_0101_0101) | 0x1010_1010_1010_1010)
        };
        model.work(registers, memory, &mut next, raised)
    }
    fn used(&self) -> (u16, Vec<u8>) {
        let index = u16::from_le_bytes(self.memory.peek(USED + 2, 2).try_into().unwrap());
        let slot = u64::from(index.wrapping_sub(1) % SIZE);
        (index, self.memory.peek(USED + 4 + 8 * slot, 8))
    }
    fn broken(&mut self, fault: RingFault) {
        assert_eq!(self.work(), WorkEnd::At(RingError::Broken(fault)));
        assert_eq!(self.used().0, 0, "nothing was given back");
    }
}

#[test]
fn a_buffer_is_filled_and_given_back_with_an_interrupt() {
    let mut bench = Bench::new(BASIC);
    assert_eq!(bench.work(), WorkEnd::Idle);
    bench.describe(TABLE, 3, (BUFFER + 0xff0, 40), (WRITE, 0));
    bench.offer(3);
    assert_eq!(bench.work(), WorkEnd::Idle);
    assert_eq!(bench.used(), (1, vec![3, 0, 0, 0, 40, 0, 0, 0]));
    let filled = bench.memory.peek(BUFFER + 0xff0, 40);
    assert!(filled.iter().all(|byte| *byte != 0), "{filled:x?}");
    assert_eq!(bench.memory.peek(BUFFER + 0xff0 + 40, 1), [0]);
    assert_eq!((bench.raised, bench.registers.take_isr(), bench.registers.take_isr()), (2, 1, 0));
}

#[test]
fn a_request_waits_at_each_page_and_is_carried_out_once() {
    for page in [TABLE, AVAIL, USED, BUFFER, BUFFER + 0x1000] {
        let mut bench = Bench::new(BASIC);
        bench.describe(TABLE, 0, (BUFFER + 0xf00, 0x200), (WRITE, 0));
        bench.offer(0);
        bench.memory.evict(page);
        for _ in 0..3 {
            let waits = WorkEnd::At(RingError::Memory(GuestMemoryError::NotResident(
                crate::addr::Gpa::new(page),
            )));
            assert_eq!(bench.work(), waits, "{page:#x}");
        }
        assert_eq!(bench.raised, 0);
        bench.memory.bring_in(page);
        assert_eq!(bench.work(), WorkEnd::Idle);
        assert_eq!(bench.used(), (1, vec![0, 0, 0, 0, 0, 2, 0, 0]));
        assert!(!bench.memory.peek(BUFFER + 0xf00, 0x200).contains(&0));
    }
}

#[test]
fn the_driver_says_whether_it_wants_an_interrupt() {
    let mut bench = Bench::new(BASIC);
    bench.describe(TABLE, 0, (BUFFER, 8), (WRITE, 0));
    bench.memory.poke(AVAIL, &[1]);
    bench.offer(0);
    assert_eq!((bench.work(), bench.raised), (WorkEnd::Idle, 0));

    let mut bench = Bench::new(BASIC | features::EVENT_INDEX);
    bench.describe(TABLE, 0, (BUFFER, 8), (WRITE, 0));
    // It wants one for the second.
    bench.memory.poke(AVAIL + 4 + 2 * u64::from(SIZE), &[1]);
    bench.offer(0);
    assert_eq!((bench.work(), bench.raised), (WorkEnd::Idle, 0));
    let event = USED + 4 + 8 * u64::from(SIZE);
    assert_eq!(bench.memory.peek(event, 2), [1, 0], "notifications from the second on");
    bench.offer(0);
    assert_eq!((bench.work(), bench.raised), (WorkEnd::Idle, 2));
    assert_eq!((bench.used().0, bench.memory.peek(event, 2)), (2, vec![2, 0]));
}

#[test]
fn a_ring_goes_round_and_its_indexes_wrap() {
    let mut bench = Bench::new(BASIC | features::EVENT_INDEX);
    bench.describe(TABLE, 0, (BUFFER, 1), (WRITE, 0));
    for round in 0..=u16::MAX {
        bench.offer(0);
        assert_eq!(bench.work(), WorkEnd::Idle);
        assert_eq!(bench.used().0, round.wrapping_add(1));
    }
}

#[test]
fn an_indirect_table_is_followed_where_it_was_agreed_on() {
    let mut bench = Bench::new(BASIC | features::INDIRECT);
    bench.describe(TABLE, 1, (0x6000, 32), (INDIRECT, 0));
    bench.describe(0x6000, 0, (BUFFER, 4), (WRITE | NEXT, 1));
    bench.describe(0x6000, 1, (BUFFER + 0x100, 6), (WRITE, 0));
    bench.offer(1);
    assert_eq!(bench.work(), WorkEnd::Idle);
    assert_eq!(bench.used(), (1, vec![1, 0, 0, 0, 10, 0, 0, 0]));
    assert!(!bench.memory.peek(BUFFER + 0x100, 6).contains(&0));

    let faults = [
        (BASIC, (0x6000, 32), (INDIRECT, 0)),
        (BASIC | features::INDIRECT, (0x6000, 0), (INDIRECT, 0)),
        (BASIC | features::INDIRECT, (0x6000, 33), (INDIRECT, 0)),
        (BASIC | features::INDIRECT, (0x6000, 32), (INDIRECT | NEXT, 0)),
        // A table in a table.
        (BASIC | features::INDIRECT, (TABLE, 32), (INDIRECT, 0)),
    ];
    for (accepted, table, flags) in faults {
        let mut bench = Bench::new(accepted);
        bench.describe(TABLE, 0, table, flags);
        bench.offer(0);
        bench.broken(RingFault::Indirect);
    }
}

#[test]
fn a_driver_that_breaks_the_rules_gets_nothing() {
    let mut bench = Bench::new(BASIC);
    bench.offer(SIZE);
    bench.broken(RingFault::Descriptor(SIZE));

    let mut bench = Bench::new(BASIC);
    bench.memory.poke(AVAIL + 2, &(SIZE + 1).to_le_bytes());
    bench.broken(RingFault::Index(SIZE + 1));

    // A loop of readable buffers.
    let mut bench = Bench::new(BASIC);
    bench.describe(TABLE, 0, (BUFFER, 1), (NEXT, 1));
    bench.describe(TABLE, 1, (BUFFER, 1), (NEXT, 0));
    bench.offer(0);
    bench.broken(RingFault::Endless);

    let mut bench = Bench::new(BASIC);
    bench.describe(TABLE, 0, (BUFFER, 1), (NEXT, 0xffff));
    bench.offer(0);
    bench.broken(RingFault::Descriptor(0xffff));

    for at in [MEMORY as u64, 0xc000_0000, 0xfee0_0000, u64::MAX, u64::MAX - 63] {
        let mut bench = Bench::new(BASIC);
        bench.describe(TABLE, 0, (at, 64), (WRITE, 0));
        bench.offer(0);
        bench.broken(RingFault::Address(at));
    }
    for (n, area) in [(0, u64::MAX - 15), (1, u64::MAX - 1), (2, u64::MAX - 3), (2, 0xc000_0000)] {
        let mut bench = Bench::new(BASIC);
        bench.registers.rings[0].areas[n] = area;
        bench.describe(TABLE, 0, (BUFFER, 1), (WRITE, 0));
        bench.offer(0);
        assert!(matches!(bench.work(), WorkEnd::At(RingError::Broken(RingFault::Address(_)))));
    }
}

#[test]
fn a_buffer_of_any_length_gets_a_bounded_answer() {
    let mut bench = Bench::new(BASIC);
    bench.describe(TABLE, 0, (BUFFER, u32::MAX), (WRITE, 0));
    bench.describe(TABLE, 1, (BUFFER, 0), (WRITE | NEXT, 2));
    bench.describe(TABLE, 2, (BUFFER, 9), (0, 0));
    bench.offer(0);
    bench.offer(1);
    while bench.work() == WorkEnd::More {}
    assert_eq!(bench.used(), (2, vec![1, 0, 0, 0, 0, 0, 0, 0]), "nothing that could be written");
    assert_eq!(bench.memory.peek(USED + 4, 8), [0, 0, 0, 0, 0, 0x10, 0, 0]);
}

#[test]
fn without_numbers_a_request_waits() {
    let mut bench = Bench::new(BASIC);
    bench.describe(TABLE, 0, (BUFFER, 8), (WRITE, 0));
    bench.offer(0);
    let Bench { registers, model, memory, raised, .. } = &mut bench;
    assert_eq!(model.work(registers, memory, &mut || None, raised), WorkEnd::Exhausted);
    assert_eq!(bench.memory.peek(BUFFER, 8), [0; 8]);
    assert_eq!((bench.work(), bench.used().0), (WorkEnd::Idle, 1));
}

#[test]
fn features_are_agreed_on_before_the_device_runs() {
    let mut registers = VirtioRegisters::new(1 << 5, &[SIZE]);
    let offered = |registers: &mut VirtioRegisters, half| {
        let _ = registers.write(field::DEVICE_FEATURE_SELECT, Dword, half);
        registers.read(field::DEVICE_FEATURE, Dword)
    };
    assert_eq!(offered(&mut registers, 0), 1 << 5 | 1 << 28 | 1 << 29);
    assert_eq!(offered(&mut registers, 1), 1 << 0 | 1 << 8);
    assert_eq!(offered(&mut registers, 2), 0);
    for accepted in [0, 1 << 28, BASIC | 1 << 6, BASIC | 1 << 33] {
        let mut registers = VirtioRegisters::new(1 << 5, &[SIZE]);
        for half in 0..2 {
            let _ = registers.write(field::DRIVER_FEATURE_SELECT, Dword, half);
            let _ = registers.write(field::DRIVER_FEATURE, Dword, accepted >> (32 * half));
        }
        assert_eq!(registers.write(field::STATUS, Byte, 0xf), RegisterEffect::None);
        let status = registers.read(field::STATUS, Byte) as u8;
        assert_eq!(status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK), 0, "{accepted:#x}");
    }
    let bench = Bench::new(BASIC);
    assert!(bench.registers.is_running());
}

#[test]
fn a_reset_reads_zero_at_once_and_leaves_nothing() {
    let mut bench = Bench::new(BASIC | features::EVENT_INDEX);
    let fresh = VirtioRegisters::new(0, &[SIZE]);
    assert_ne!(bench.registers, fresh);
    assert_eq!(bench.write(field::STATUS, Byte, 0), RegisterEffect::Reset);
    assert_eq!((bench.registers.read(field::STATUS, Byte), bench.registers), (0, fresh));
}

#[test]
fn a_ring_is_reset_alone_where_that_was_agreed_on() {
    let mut bench = Bench::new(BASIC);
    assert_eq!(bench.write(field::RING_RESET, Word, 1), RegisterEffect::None);
    let mut bench = Bench::new(BASIC | features::RING_RESET);
    assert_eq!(bench.write(field::RING_RESET, Word, 1), RegisterEffect::RingReset(0));
    assert_eq!(bench.registers.read(field::RING_ENABLE, Word), 0);
    assert_eq!(bench.registers.read(field::RING_RESET, Word), 0);
    assert!(bench.registers.is_running());
    assert_eq!(bench.work(), WorkEnd::Idle);
}

#[test]
fn registers_that_a_driver_must_not_write_stay() {
    let mut bench = Bench::new(BASIC);
    let before = bench.registers.clone();
    for width in [Byte, Word, Dword, Qword] {
        for offset in (COMMON_BYTES..0x100).chain([4, 18, 21, 30, 56]) {
            assert_eq!(bench.write(offset, width, u64::MAX), RegisterEffect::None);
        }
    }
    // An enabled ring keeps its place.
    for offset in [field::RING_SIZE, field::RING_AREAS, field::RING_AREAS + 16] {
        let _ = bench.write(offset, Word, 2);
        let _ = bench.write(offset, Dword, 2);
    }
    assert_eq!(bench.registers, before);
    let _ = bench.write(field::RING_VECTOR, Word, 2);
    assert_eq!(bench.registers.read(field::RING_VECTOR, Word), NO_VECTOR.into());
    let _ = bench.write(field::RING_SELECT, Word, 1);
    assert_eq!(bench.registers.read(field::RING_SIZE, Qword), 0, "no such ring");
    assert_eq!(bench.write(field::RING_ENABLE, Word, 1), RegisterEffect::None);
}

#[test]
fn an_address_that_is_not_aligned_needs_a_reset() {
    let mut bench = Bench::new(BASIC | features::RING_RESET);
    let _ = bench.write(field::RING_RESET, Word, 1);
    let _ = bench.write(field::RING_AREAS, Dword, 8);
    let _ = bench.write(field::RING_AREAS + 4, Dword, 1);
    assert_eq!(bench.registers.rings[0].areas[0], 0x1_0000_0008);
    assert_eq!(bench.write(field::RING_ENABLE, Word, 1), RegisterEffect::None);
    assert_eq!(bench.registers.read(field::STATUS, Byte) as u8 & STATUS_NEEDS_RESET, 0x40);
    assert!(!bench.registers.is_running());
}

#[test]
fn a_device_goes_to_notes_and_comes_back_with_the_request_that_was_not_told() {
    let mut bench = Bench::new(BASIC | features::EVENT_INDEX);
    bench.describe(TABLE, 0, (BUFFER, 8), (WRITE, 0));
    bench.offer(0);
    bench.memory.evict(USED);
    assert!(matches!(bench.work(), WorkEnd::At(RingError::Memory(_))));
    let mut out = StateWriter::default();
    out.note(StateNoteKind::Devices, 1, |note| {
        note.part(StatePart::PciBus, 1, |part| {
            bench.registers.save(part);
            bench.model.save(part);
        });
    });
    let notes = out.finish().unwrap();
    let descriptor = StateNote::all(&notes, StateNoteKind::Devices).next().unwrap();
    let note = StateNote::read(descriptor).unwrap();
    let mut other = Bench::new(BASIC);
    note.part(StatePart::PciBus, 1, |part| {
        other.registers = VirtioRegisters::new(0, &[SIZE]);
        other.registers.restore(part)?;
        other.model.restore(part)
    })
    .unwrap();
    assert_eq!((&other.registers, &other.model), (&bench.registers, &bench.model));
    other.memory.poke(AVAIL + 2, &[1]);
    assert_eq!((other.work(), other.used().0), (WorkEnd::Idle, 1));
    assert_eq!(other.memory.peek(BUFFER, 8), [0; 8], "it was filled before");
}
