//! Leaves long mode for real mode, as kernels do that return the machine to its firmware.

// UNSAFETY: the switch is assembly, and its last step is copied to an address that 16-bit code can
// reach.
#![expect(unsafe_code)]

core::arch::global_asm!(include_str!("real_mode.s"), options(att_syntax));

unsafe extern "C" {
    static real_mode_step: u8;
    static real_mode_step_end: u8;
    fn leave_for_real_mode(step: u32) -> !;
}

/// Address of the last step's copy: RAM that neither loader nor firmware uses.
const STEP: u32 = 0x8000;

/// Jumps to `segment:offset` in real mode.
pub fn jump(segment: u16, offset: u16) -> ! {
    let start = &raw const real_mode_step;
    let bytes = (&raw const real_mode_step_end) as usize - start as usize;
    let copy = STEP as usize as *mut u8;
    // SAFETY: the first MiB below the firmware is mapped RAM, and nothing of this kernel lies
    // there.
    unsafe { copy.copy_from_nonoverlapping(start, bytes) }
    let pointer = u32::from(segment) << 16 | u32::from(offset);
    // SAFETY: as above; the step ends with its far pointer.
    unsafe { copy.add(bytes - 4).cast::<u32>().write_unaligned(pointer) }
    // SAFETY: the copy is complete, and nothing of this kernel runs afterwards.
    unsafe { leave_for_real_mode(STEP) }
}
