//! Exceptions and interrupts: the first 64 vectors reach one function, which a test may replace.
//!
//! Without a handler every trap fails the test, and its vector and address go to the log.

// UNSAFETY: the interrupt descriptor table holds code addresses and is read by the CPU.
#![expect(unsafe_code)]

use crate::instr;
use core::sync::atomic::{AtomicUsize, Ordering};

core::arch::global_asm!(include_str!("trap.s"), options(att_syntax));

const VECTORS: usize = 64;
/// Bytes of one stub in `trap.s`.
const STUB: u64 = 16;

/// The registers at a trap; changes take effect at the return.
#[repr(C)]
#[derive(Debug)]
pub struct TrapFrame {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const _: () = assert!(size_of::<TrapFrame>() == 22 * 8);

/// A handler's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handled {
    /// Continue as the frame says.
    Yes,
    /// Unexpected trap: the test fails.
    No,
}

/// Handles a trap.
pub type Handler = fn(&mut TrapFrame) -> Handled;

static HANDLER: AtomicUsize = AtomicUsize::new(0);

#[repr(C, align(16))]
struct Table([[u64; 2]; VECTORS]);

static mut TABLE: Table = Table([[0; 2]; VECTORS]);

unsafe extern "C" {
    static trap_stubs: u8;
}

/// Sends every trap to `handler` from now on.
pub fn handle(handler: Handler) {
    HANDLER.store(handler as usize, Ordering::SeqCst);
}

pub(crate) fn install() {
    let stubs = (&raw const trap_stubs) as u64;
    let table = &raw mut TABLE;
    for vector in 0..VECTORS {
        // SAFETY: one CPU, once, before the table is loaded; the index is below its length.
        unsafe { (*table).0[vector] = gate(stubs + vector as u64 * STUB) };
    }
    let mut pointer = [0; 10];
    pointer[..2].copy_from_slice(&((size_of::<Table>() - 1) as u16).to_le_bytes());
    pointer[2..].copy_from_slice(&(table as u64).to_le_bytes());
    // SAFETY: the table is static and complete.
    unsafe { instr::lidt(&pointer) };
}

/// An interrupt gate of ring 0 on the current stack (SDM 3A "64-Bit Mode IDT").
const fn gate(target: u64) -> [u64; 2] {
    const CODE: u64 = 8 << 16;
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
    [target & 0xffff | CODE | PRESENT_INTERRUPT_GATE | (target >> 16 & 0xffff) << 48, target >> 32]
}

// SAFETY: the only symbol of this name; `trap.s` calls it with a whole frame.
#[unsafe(no_mangle)]
extern "C" fn trap(frame: &mut TrapFrame) {
    let handler = HANDLER.load(Ordering::SeqCst);
    if handler != 0 {
        // SAFETY: `handle` stored a function of this type, and nothing else is stored there.
        let handler = unsafe { core::mem::transmute::<usize, Handler>(handler) };
        if handler(frame) == Handled::Yes {
            return;
        }
    }
    crate::log!(
        "trap {} error {:#x} at {:#x}, cr2 {:#x}",
        frame.vector,
        frame.error,
        frame.rip,
        instr::cr2()
    );
    crate::fail("unexpected trap").report()
}
