//! Leaves long mode for 32-bit protected mode, where the hardware switches tasks.

// UNSAFETY: the switch is assembly.
#![expect(unsafe_code)]

core::arch::global_asm!(include_str!("tasks.s"), options(att_syntax));

unsafe extern "C" {
    fn switch_tasks(way: u32) -> !;
}

/// Number of ways to request a task switch.
pub const WAYS: u32 = 5;

/// Switches to another task by far JMP, far CALL, IRET, a task gate in the IDT, or far JMP to a
/// task gate. That task resets the machine.
///
/// # Panics
/// If there is no such way.
pub fn switch(way: u32) -> ! {
    assert!(way < WAYS, "a way");
    // SAFETY: nothing of this kernel runs afterwards.
    unsafe { switch_tasks(way) }
}
