use super::*;
use crate::mm::layout::RamLayout;
use crate::partition::decode::{CodeSize, decode};
use crate::partition::devices::clock::{GuestClock, TscRate};
use crate::partition::devices::lapic::ApicMode;
use crate::partition::devices::map::{ERST_BASE, IOAPIC_BASE, port};
use crate::partition::fake::FakeGuestMemory;
use crate::time::Ticks;
use crate::virt::breakpoints::Breakpoints;
use crate::virt::{Gpr, SegmentRegister};

/// ERST's record id: a plain qword register.
const ID: Gpa = Gpa::new(ERST_BASE + 0x10);

struct EmulateBed {
    regs: Regs,
    state: CpuState,
    platform: Platform,
    memory: FakeGuestMemory,
    breakpoints: Option<Breakpoints>,
}

impl EmulateBed {
    /// A flat 32-bit guest without paging.
    fn new() -> Self {
        let clock = GuestClock {
            rate: TscRate::new(1_000_000_000),
            start: Ticks::ZERO,
            unix_ns_at_start: 0,
        };
        let segment =
            |attributes| SegmentRegister { selector: 8, attributes, limit: u32::MAX, base: 0 };
        Self {
            regs: Regs { rflags: 2, ..Regs::default() },
            state: CpuState::flat(segment(0xc09b), segment(0xc093)),
            platform: Platform::new(clock, &RamLayout::new(1 << 20).unwrap(), ApicMode::XApic),
            memory: FakeGuestMemory::new(0x4000),
            breakpoints: None,
        }
    }
    fn context(&mut self) -> EmulationContext<'_> {
        let watch = BreakpointWatch::new(self.breakpoints);
        let Self { regs, state, platform, memory, .. } = self;
        EmulationContext { regs, state, platform, memory, now: Ticks::ZERO, watch }
    }
    fn run(
        &mut self,
        bytes: &[u8],
        size: CodeSize,
        gpa: Gpa,
    ) -> Result<EmulationOutcome, EmulateError> {
        let instruction = decode(bytes, size).unwrap();
        mmio(&mut self.context(), &instruction, gpa)
    }
    fn run_64(&mut self, bytes: &[u8]) {
        assert_eq!(
            self.run(bytes, CodeSize::Bits64, ID),
            Ok(EmulationOutcome::advance(DeviceEffect::None)),
            "{bytes:x?}"
        );
    }
    fn ports(&mut self, bytes: &[u8], port: u16) -> Result<EmulationOutcome, EmulateError> {
        let instruction = decode(bytes, CodeSize::Bits32).unwrap();
        port_string(&mut self.context(), &instruction, port)
    }
    fn id(&mut self) -> u64 {
        self.platform.mmio_read(ID, AccessWidth::Qword, Ticks::ZERO)
    }
    fn set_id(&mut self, value: u64) {
        assert_eq!(
            self.platform.mmio_write(ID, AccessWidth::Qword, value, Ticks::ZERO, &self.memory),
            Ok(DeviceEffect::None)
        );
    }
}

#[test]
fn moves_keep_or_clear_the_rest_of_a_register_by_their_width() {
    let mut bed = EmulateBed::new();
    bed.set_id(0x8877_6655_4433_2281);
    for (bytes, expected) in [
        (&[0x8a, 0x07][..], 0x1111_1111_1111_1181),
        (&[0x8a, 0x27], 0x1111_1111_1111_8111),
        (&[0x66, 0x8b, 0x07], 0x1111_1111_1111_2281),
        (&[0x8b, 0x07], 0x4433_2281),
        (&[0x48, 0x8b, 0x07], 0x8877_6655_4433_2281),
        (&[0x0f, 0xb6, 0x07], 0x81),
        (&[0x48, 0x0f, 0xbe, 0x07], 0xffff_ffff_ffff_ff81),
        (&[0x66, 0x0f, 0xbe, 0x07], 0x1111_1111_1111_ff81),
        (&[0x48, 0x63, 0x07], 0x4433_2281),
    ] {
        bed.regs.set(Gpr::Rax, 0x1111_1111_1111_1111);
        bed.run_64(bytes);
        assert_eq!(bed.regs.get(Gpr::Rax), expected, "{bytes:x?}");
    }
}

#[test]
fn stores_write_just_their_width() {
    let mut bed = EmulateBed::new();
    bed.regs.set(Gpr::Rax, 0xaabb_ccdd_eeff_0102);
    for (bytes, expected) in [
        (&[0x88, 0x07][..], 0x02),
        (&[0x88, 0x27], 0x01),
        (&[0x66, 0x89, 0x07], 0x0102),
        (&[0x48, 0x89, 0x07], 0xaabb_ccdd_eeff_0102),
        (&[0xc7, 0x07, 5, 0, 0, 0], 5),
        (&[0x48, 0xc7, 0x07, 0xfe, 255, 255, 255], u64::MAX - 1),
    ] {
        bed.set_id(0);
        bed.run_64(bytes);
        assert_eq!(bed.id(), expected, "{bytes:x?}");
    }
}

#[test]
fn read_modify_write_changes_the_device_and_the_flags() {
    let mut bed = EmulateBed::new();
    bed.set_id(0xf0);
    bed.run_64(&[0x83, 0x0f, 0x0f]);
    assert_eq!((bed.id(), bed.regs.rflags & 0x8c5), (0xff, 0x4));
    bed.run_64(&[0x80, 0x07, 0x01]);
    assert_eq!((bed.id(), bed.regs.rflags & 0x8d5), (0, 0x55));
    bed.run_64(&[0xff, 0x0f]);
    assert_eq!((bed.id(), bed.regs.rflags & 1), (0xffff_ffff, 1), "DEC keeps the carry");
    bed.regs.set(Gpr::Rcx, 7);
    bed.run_64(&[0x87, 0x0f]);
    assert_eq!((bed.id(), bed.regs.get(Gpr::Rcx)), (7, 0xffff_ffff));
    bed.run_64(&[0x83, 0x3f, 0x07]);
    assert_eq!((bed.id(), bed.regs.rflags & 0x40), (7, 0x40), "CMP writes nothing");
    bed.run_64(&[0xf6, 0x07, 0x08]);
    assert_eq!((bed.id(), bed.regs.rflags & 0x40), (7, 0x40), "TEST neither");
    bed.run_64(&[0x03, 0x0f]);
    assert_eq!((bed.regs.get(Gpr::Rcx), bed.regs.rflags & 1), (6, 1), "register destination");
}

#[test]
fn a_device_is_copied_to_memory_element_by_element() {
    let mut bed = EmulateBed::new();
    bed.set_id(0x1122_3344_5566_7788);
    bed.regs.set(Gpr::Rsi, ID.as_u64());
    bed.regs.set(Gpr::Rdi, 0x1000);
    bed.regs.set(Gpr::Rcx, 2);
    let done = bed.run(&[0xf3, 0xa5], CodeSize::Bits32, ID);
    assert_eq!(done, Ok(EmulationOutcome::advance(DeviceEffect::None)));
    assert_eq!(bed.memory.peek(0x1000, 8), 0x1122_3344_5566_7788u64.to_le_bytes());
    assert_eq!(
        [Gpr::Rcx, Gpr::Rsi, Gpr::Rdi].map(|r| bed.regs.get(r)),
        [0, ID.as_u64() + 8, 0x1008]
    );
}

#[test]
fn a_copy_that_meets_an_absent_page_goes_on_where_it_stopped() {
    let mut bed = EmulateBed::new();
    bed.regs.set(Gpr::Rsi, ID.as_u64());
    bed.regs.set(Gpr::Rdi, 0x1ffc);
    bed.regs.set(Gpr::Rcx, 2);
    bed.memory.evict(0x2000);
    let run = |bed: &mut EmulateBed| bed.run(&[0xf3, 0xa5], CodeSize::Bits32, ID);
    assert_eq!(
        run(&mut bed),
        Err(EmulateError::Memory(GuestMemoryError::NotResident(Gpa::new(0x2000))))
    );
    assert_eq!([Gpr::Rcx, Gpr::Rdi].map(|r| bed.regs.get(r)), [1, 0x2000]);
    bed.memory.bring_in(0x2000);
    assert_eq!(run(&mut bed), Ok(EmulationOutcome::advance(DeviceEffect::None)));
    assert_eq!(bed.regs.get(Gpr::Rcx), 0);
}

#[test]
fn a_long_repetition_is_cut() {
    let mut bed = EmulateBed::new();
    bed.regs.set(Gpr::Rdi, IOAPIC_BASE);
    bed.regs.set(Gpr::Rcx, 1000);
    let run =
        |bed: &mut EmulateBed| bed.run(&[0xf3, 0xaa], CodeSize::Bits32, Gpa::new(IOAPIC_BASE));
    assert_eq!(
        run(&mut bed),
        Ok(EmulationOutcome { next: InstructionProgress::Repeat, effect: DeviceEffect::None })
    );
    assert_eq!(bed.regs.get(Gpr::Rcx), 1000 - MAX_ELEMENTS as u64);
    bed.regs.set(Gpr::Rcx, 0);
    assert_eq!(run(&mut bed), Ok(EmulationOutcome::advance(DeviceEffect::None)), "zero times");
}

#[test]
fn outs_sends_bytes_backwards_with_the_direction_flag() {
    let mut bed = EmulateBed::new();
    bed.memory.poke(0x100, b"abc");
    bed.regs.set(Gpr::Rsi, 0x102);
    bed.regs.set(Gpr::Rcx, 0xffff_0003);
    bed.regs.rflags |= 1 << 10;
    for left in [2, 1, 0] {
        let done = bed.ports(&[0x67, 0xf3, 0x6e], port::COM1);
        let next =
            if left == 0 { InstructionProgress::Advance } else { InstructionProgress::Repeat };
        assert_eq!(
            done,
            Ok(EmulationOutcome { next, effect: DeviceEffect::Console }),
            "left after an effect"
        );
        assert_eq!(bed.regs.get(Gpr::Rcx), 0xffff_0000 | left, "16-bit counter");
    }
    assert_eq!(
        bed.ports(&[0x67, 0xf3, 0x6e], port::COM1),
        Ok(EmulationOutcome::advance(DeviceEffect::None)),
        "zero times"
    );
    let mut out = [0; 3];
    bed.platform.console_output().take(&mut out);
    assert_eq!(&out, b"cba");
}

#[test]
fn ins_reads_no_port_before_its_page_is_there() {
    let mut bed = EmulateBed::new();
    bed.platform.console_input(b"k");
    bed.regs.set(Gpr::Rdi, 0x1000);
    bed.memory.evict(0x1000);
    assert!(matches!(bed.ports(&[0x6c], port::COM1), Err(EmulateError::Memory(_))));
    bed.memory.bring_in(0x1000);
    assert_eq!(bed.ports(&[0x6c], port::COM1), Ok(EmulationOutcome::advance(DeviceEffect::None)));
    assert_eq!((bed.memory.peek(0x1000, 1), bed.regs.get(Gpr::Rdi)), (b"k".to_vec(), 0x1001));
}

#[test]
fn a_string_operand_that_does_not_translate_is_the_guests_page_fault() {
    let mut bed = EmulateBed::new();
    (bed.state.cr0, bed.state.cr3) = (0x8000_0001, 0x1000);
    bed.regs.set(Gpr::Rsi, 0x1234_5678);
    let fault = EmulateError::PageFault { at: Gva::new(0x1234_5678), error_code: 0 };
    assert_eq!(bed.ports(&[0x6e], port::COM1), Err(fault));
    assert_eq!(bed.run(&[0x0f, 0xa2], CodeSize::Bits32, ID), Err(EmulateError::NotEmulated));
}

/// A small random generator, so that a failure repeats.
struct EmulateRandom(u64);

impl EmulateRandom {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn no_instruction_on_no_tables_panics_us() {
    let mut random = EmulateRandom(0x0dd_ba11);
    let mut carried_out = 0;
    for round in 0..30_000u64 {
        let mut bed = EmulateBed::new();
        // Tables that point into themselves, now and then something sensible.
        (0..64).for_each(|i| bed.memory.poke_u64(i * 256 % 0x3ff8, (random.next() & 0x3fff) | 7));
        bed.state.cr0 = if round % 2 == 0 { 0x11 } else { 0x8001_0011 };
        (bed.state.cr3, bed.state.cr4) = (random.next() & 0x3000, random.next() & 0x30_1030);
        bed.state.efer = random.next() & 0xd00;
        bed.state.cs.attributes = random.next() as u32 & 0xffff;
        (0..16).for_each(|i| bed.regs.gpr[i] = random.next() >> (random.next() % 64));
        bed.regs.rflags = random.next() & 0x4_0fd7;
        let mut bytes: [u8; 16] = core::array::from_fn(|_| random.next() as u8);
        if round % 3 == 0 {
            bytes[..2].copy_from_slice(&[
                0xf3,
                [0xa4, 0xa5, 0xaa, 0xab, 0x6c, 0x6d, 0x6e, 0x6f][round as usize / 3 % 8],
            ]);
        }
        let Ok(instruction) = decode(&bytes, CodeSize::of(&bed.state)) else { continue };
        let gpa = Gpa::new(
            [ERST_BASE, IOAPIC_BASE, 0xfee0_0000][round as usize % 3] | (random.next() & 0xfff),
        );
        let device = mmio(&mut bed.context(), &instruction, gpa);
        let port = port_string(&mut bed.context(), &instruction, random.next() as u16 & 0x7ff);
        carried_out += u32::from(device.is_ok() || port.is_ok());
    }
    assert!(carried_out > 3_000, "{carried_out}");
}

/// Runs an instruction at ERST's id register; returns the breakpoints that it has met. All four
/// breakpoints watch reads and writes of eight bytes, at `at`, `at + 8` and so on.
fn met(
    bed: &mut EmulateBed,
    bytes: &[u8],
    at: u64,
) -> (u64, Result<EmulationOutcome, EmulateError>) {
    const ALL: u64 = 0xbbbb_0055;
    bed.breakpoints = Some(Breakpoints::new([at, at + 8, at + 16, at + 24], ALL, 0));
    let instruction = decode(bytes, CodeSize::of(&bed.state)).unwrap();
    let mut context = bed.context();
    let done = mmio(&mut context, &instruction, ID);
    (context.watch.hits(), done)
}

#[test]
fn breakpoints_are_met_at_the_operands_linear_address() {
    let mut bed = EmulateBed::new();
    bed.state.ds.base = 0x1000;
    bed.state.gs.base = 0x8000;
    bed.state.ss.base = 0x10;
    bed.regs.set(Gpr::Rbx, 0x2000);
    bed.regs.set(Gpr::Rcx, 0x40);
    bed.regs.set(Gpr::Rbp, 0x3000);
    for (bytes, at) in [
        // mov eax, [ebx]; [ebx + 8]; [ebx + ecx * 4 - 0x10]; [0x5000]; gs:[ebx]; [ebp + 8] and [ebp
        // + ecx] by SS; [bx + 8]; mov eax, [0x5000]
        (&[0x8b, 0x03][..], 0x3000),
        (&[0x8b, 0x43, 8], 0x3008),
        (&[0x8b, 0x44, 0x8b, 0xf0], 0x30f0),
        (&[0x8b, 0x05, 0, 0x50, 0, 0], 0x6000),
        (&[0x65, 0x8b, 0x03], 0xa000),
        (&[0x8b, 0x45, 8], 0x3018),
        (&[0x8b, 0x44, 0x0d, 0], 0x3050),
        (&[0x67, 0x8b, 0x47, 8], 0x3008),
        (&[0xa1, 0, 0x50, 0, 0], 0x6000),
    ] {
        assert_eq!(
            met(&mut bed, bytes, at),
            (1, Ok(EmulationOutcome::advance(DeviceEffect::None))),
            "{bytes:x?}"
        );
        assert_eq!(met(&mut bed, bytes, at + 8).0, 0, "{bytes:x?}");
    }
}

#[test]
fn a_bit_far_from_its_operand_and_both_ends_of_push_and_pop_count() {
    let mut bed = EmulateBed::new();
    bed.regs.set(Gpr::Rbx, 0x2000);
    // bts [ebx], ecx
    for (number, at) in
        [(0, 0x2000), (31, 0x2000), (32 * 4, 0x2010), (-1_i32, 0x1ff8), (-64, 0x1ff8)]
    {
        bed.regs.set(Gpr::Rcx, u64::from(number as u32));
        assert_eq!(met(&mut bed, &[0x0f, 0xab, 0x0b], at).0, 1, "{number}");
    }
    // push [ebx]; pop [esp]: the address uses ESP after the pop
    bed.regs.set(Gpr::Rsp, 0x1000);
    assert_eq!(met(&mut bed, &[0xff, 0x33], 0xff8).0, 1);
    assert_eq!(bed.regs.get(Gpr::Rsp), 0xffc);
    assert_eq!(met(&mut bed, &[0x8f, 0x04, 0x24], 0xff8).0, 3, "0xffc is read, 0x1000 is written");
}

#[test]
fn a_repetition_stops_behind_the_element_that_meets_a_breakpoint() {
    let mut bed = EmulateBed::new();
    bed.regs.set(Gpr::Rcx, 5);
    bed.regs.set(Gpr::Rdi, ID.as_u64() - 8);
    // rep stosd
    let again = EmulationOutcome { next: InstructionProgress::Repeat, effect: DeviceEffect::None };
    let at = ID.as_u64() + 0x10000;
    assert_eq!(
        met(&mut bed, &[0xf3, 0xab], at),
        (0, Ok(EmulationOutcome::advance(DeviceEffect::None)))
    );
    (0..2).for_each(|n| bed.regs.set([Gpr::Rcx, Gpr::Rdi][n], [5, ID.as_u64() - 8][n]));
    assert_eq!(met(&mut bed, &[0xf3, 0xab], ID.as_u64()), (1, Ok(again)));
    assert_eq!(bed.regs.get(Gpr::Rcx), 2);
}

/// An access that fails meets no breakpoint.
#[test]
fn a_page_that_is_not_there_meets_no_breakpoint() {
    let mut bed = EmulateBed::new();
    bed.memory.evict(0x2000);
    bed.regs.set(Gpr::Rsi, 0x2000);
    bed.regs.set(Gpr::Rdi, ID.as_u64());
    // movsd
    let (hits, done) = met(&mut bed, &[0xa5], 0x2000);
    assert!(hits == 0 && matches!(done, Err(EmulateError::Memory(_))), "{hits} {done:?}");
}
