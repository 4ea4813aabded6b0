//! Any instruction at a device: nothing has changed where it was not carried out, and the quick way
//! for plain moves agrees with the long one.
#![no_main]

use fuzz::{GuestRam, Input};
use kernel::addr::Gpa;
use kernel::mm::layout::RamLayout;
use kernel::partition::decode::plain::plain_move;
use kernel::partition::decode::{CodeSize, Repeat, decode};
use kernel::partition::devices::Platform;
use kernel::partition::devices::clock::{GuestClock, TscRate};
use kernel::partition::devices::lapic::ApicMode;
use kernel::partition::devices::map::{ERST_BASE, IOAPIC_BASE, LAPIC_BASE};
use kernel::partition::emulate::{BreakpointWatch, EmulationContext, mmio, port_string};
use kernel::time::Ticks;
use kernel::virt::breakpoints::Breakpoints;
use kernel::virt::{CpuState, Regs, SegmentRegister};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let code: [u8; 16] = input.array();
    let attributes = input.one_of(&[0x809b, 0xc09b, 0xa09b]);
    let segment =
        |attributes, base| SegmentRegister { selector: 8, attributes, limit: u32::MAX, base };
    let mut state = CpuState::flat(segment(attributes, 0), segment(0xc093, input.u64()));
    (state.efer, state.cr0) = (if attributes == 0xa09b { 0xd00 } else { 0 }, input.u64());
    (state.cr3, state.cr4) = (input.u64(), input.u64());
    let size = CodeSize::of(&state);
    let at = input.one_of(&[ERST_BASE, IOAPIC_BASE, LAPIC_BASE]) + u64::from(input.u16() & 0xfff);
    let (port, watched) = (input.u16(), input.u8() == 1);
    let mut regs = Regs { rflags: 2 | input.u64(), rip: input.u64(), ..Regs::default() };
    regs.gpr = core::array::from_fn(|_| input.u64());
    let breakpoints = watched.then(|| Breakpoints::new([at; 4], input.u64(), state.cr4));
    let clock =
        GuestClock { rate: TscRate::new(1_000_000_000), start: Ticks::ZERO, unix_ns_at_start: 0 };
    let layout = RamLayout::new(1 << 20).expect("whole pages");
    let mut memory = GuestRam::new(&[]);
    memory.absent = input.u16();
    memory.poke(0, input.rest());

    assert_eq!(
        plain_move(&code).map(|plain| usize::from(plain.length)),
        plain_move(&code)
            .and_then(|_| decode(&code, CodeSize::Bits64).ok())
            .map(|whole| usize::from(whole.length)),
        "a plain move is an instruction of 64-bit code"
    );
    let Ok(instruction) = decode(&code, size) else { return };
    for is_port in [false, true] {
        let (before, mut regs) = (regs, regs);
        let mut platform = Platform::new(clock, &layout, ApicMode::XApic);
        let watch = BreakpointWatch::new(breakpoints);
        let mut context = EmulationContext {
            regs: &mut regs,
            state: &state,
            platform: &mut platform,
            memory: &memory,
            now: Ticks::new(1),
            watch,
        };
        let done = match is_port {
            false => mmio(&mut context, &instruction, Gpa::new(at)),
            true => port_string(&mut context, &instruction, port),
        };
        if done.is_err() && instruction.repeat == Repeat::Once {
            assert_eq!(regs, before, "{instruction:?} {done:?}");
        }
    }
});
