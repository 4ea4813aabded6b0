//! Code that is made up at run time and may do anything: it runs until its first trap, and the test goes on.
//!
//! A machine that such code has broken beyond that (no tables, no stack) crashes, which a test may expect too.

// UNSAFETY: runs bytes as code.
#![allow(unsafe_code)]

use crate::instr;
use crate::trap::{self, Frame, Handled};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

core::arch::global_asm!(include_str!("attempt.s"), options(att_syntax));

unsafe extern "C" {
    fn attempt_run(registers: *const u64, code: *const u8);
    static attempt_recover: u8;
}

/// Longest code.
pub const CODE_BYTES: usize = 32;
/// RAX, RBX, RCX, RDX, RBP, RSI, RDI, R8 to R15.
pub const REGISTERS: usize = 15;
/// The first vector of interrupts: the local APIC's timer, which ends code that does not end.
const TIMER: u32 = 0x20;
const SPURIOUS: u32 = 0x2f;
/// Ticks of the timer that code may take.
const PATIENCE: u32 = 1_000_000;

/// INT3: one byte, so that code which is cut off in its last instruction ends too.
const END: u8 = 0xcc;
/// Bytes of [`END`] behind the code.
const ENDS: usize = 64;

static RUNNING: AtomicBool = AtomicBool::new(false);
static VECTOR: AtomicU64 = AtomicU64::new(0);

#[repr(C, align(64))]
struct Code([u8; CODE_BYTES + ENDS]);

static mut CODE: Code = Code([END; CODE_BYTES + ENDS]);

/// Runs `code` with `registers` and interrupts on; returns the vector that ended it: #BP if it got to its end.
///
/// # Panics
/// If the code is longer than [`CODE_BYTES`].
pub fn attempt(registers: &[u64; REGISTERS], code: &[u8]) -> u64 {
    assert!(code.len() <= CODE_BYTES, "the code fits its place");
    trap::handle(handler);
    let place = &raw mut CODE;
    // SAFETY: one CPU, and no code runs there now.
    let bytes = unsafe { &mut (*place).0 };
    bytes[..code.len()].copy_from_slice(code);
    bytes[code.len()..].fill(END);
    set_timer();
    RUNNING.store(true, Ordering::SeqCst);
    // SAFETY: what the code does to this machine is the purpose of the test; it ends in a trap, whose handler comes back here.
    unsafe { attempt_run(registers.as_ptr(), place.cast()) };
    RUNNING.store(false, Ordering::SeqCst);
    VECTOR.load(Ordering::SeqCst)
}

/// Sets the local APIC's timer, as far as the last code has left it there.
fn set_timer() {
    const SPURIOUS_VECTOR: u64 = 0xf0;
    const ENABLED: u32 = 1 << 8;
    const LVT_TIMER: u64 = 0x320;
    const INITIAL_COUNT: u64 = 0x380;
    instr::write_apic(SPURIOUS_VECTOR, ENABLED | SPURIOUS);
    instr::write_apic(LVT_TIMER, TIMER);
    instr::write_apic(INITIAL_COUNT, PATIENCE);
}

fn handler(frame: &mut Frame) -> Handled {
    if !RUNNING.load(Ordering::SeqCst) {
        return Handled::No;
    }
    VECTOR.store(frame.vector, Ordering::SeqCst);
    if frame.vector >= u64::from(TIMER) {
        instr::write_apic_eoi();
    }
    frame.rip = (&raw const attempt_recover) as u64;
    (frame.cs, frame.ss, frame.rflags) = (8, 16, 2);
    Handled::Yes
}
