//! Code that is generated at run time and may do anything: it runs until its first trap, then the
//! test goes on.
//!
//! Code that breaks the machine beyond a trap (no tables, no stack) crashes it; a test may expect
//! that too.

// UNSAFETY: runs bytes as code.
#![expect(unsafe_code)]

use crate::instr;
use crate::trap::{self, Handled, Handler, TrapFrame};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

core::arch::global_asm!(include_str!("attempt.s"), options(att_syntax));

unsafe extern "C" {
    fn attempt_run(registers: *const u64, code: *const u8);
    static attempt_recover: u8;
}

/// Maximum length of a random attempt's code.
pub const CODE_BYTES: usize = 32;
/// Maximum length of any code.
pub const LONGEST_CODE: usize = 128;
/// RAX, RBX, RCX, RDX, RBP, RSI, RDI, R8 to R15.
pub const REGISTERS: usize = 15;
/// The first vector of interrupts: the local APIC's timer, which stops code that does not end.
const TIMER: u32 = 0x20;
const SPURIOUS: u32 = 0x2f;
/// Ticks of the timer until code is stopped.
const PATIENCE: u32 = 1_000_000;

/// INT3, a single byte, so that code that ends within its last instruction traps too.
const END: u8 = 0xcc;
/// Number of [`END`] bytes behind the code.
const ENDS: usize = 64;

static RUNNING: AtomicBool = AtomicBool::new(false);
static OBSERVER: AtomicUsize = AtomicUsize::new(0);
static LAST: [AtomicU64; FIGURES] = [const { AtomicU64::new(0) }; FIGURES];

/// Number of values in an [`TrapOutcome`].
const FIGURES: usize = 9;

/// The trap that ended a piece of code, and the registers at that trap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrapOutcome {
    /// The vector; #BP if the code ran to its end.
    pub vector: u64,
    pub error: u64,
    /// Offset from the beginning of the code.
    pub at: u64,
    /// RFLAGS as pushed.
    pub rflags: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
}

#[repr(C, align(64))]
struct AttemptCode([u8; LONGEST_CODE + ENDS]);

static mut CODE: AttemptCode = AttemptCode([END; LONGEST_CODE + ENDS]);

/// Runs `code` with `registers` and interrupts enabled; returns the vector that ended it: #BP if
/// the code ran to its end.
///
/// # Panics
/// If the code is longer than [`LONGEST_CODE`].
pub fn attempt(registers: &[u64; REGISTERS], code: &[u8]) -> u64 {
    set_timer();
    observe(registers, code, |_| Handled::No).vector
}

/// Returns the address at which [`observe`] runs code.
pub fn place() -> u64 {
    (&raw const CODE) as u64
}

/// Runs `code` in the same way without a time limit, and returns the registers too. Each trap goes
/// to `observer` first; where that answers [`Handled::Yes`] the code goes on.
///
/// # Panics
/// If the code is longer than [`LONGEST_CODE`].
pub fn observe(registers: &[u64; REGISTERS], code: &[u8], observer: Handler) -> TrapOutcome {
    assert!(code.len() <= LONGEST_CODE, "the code fits its place");
    OBSERVER.store(observer as usize, Ordering::SeqCst);
    trap::handle(handler);
    let place = &raw mut CODE;
    // SAFETY: one CPU, and no code runs there now.
    let bytes = unsafe { &mut (*place).0 };
    bytes[..code.len()].copy_from_slice(code);
    bytes[code.len()..].fill(END);
    RUNNING.store(true, Ordering::SeqCst);
    // SAFETY: the code may do anything to this machine, which is the purpose of the test; it ends
    // in a trap, whose handler returns here.
    unsafe { attempt_run(registers.as_ptr(), place.cast()) };
    RUNNING.store(false, Ordering::SeqCst);
    let [vector, error, at, rflags, rax, rcx, rdx, rsi, rdi] =
        core::array::from_fn(|n| LAST[n].load(Ordering::SeqCst));
    TrapOutcome { vector, error, at, rflags, rax, rcx, rdx, rsi, rdi }
}

/// Starts the local APIC's timer, unless earlier code has made it unreachable.
fn set_timer() {
    const SPURIOUS_VECTOR: u64 = 0xf0;
    const ENABLED: u32 = 1 << 8;
    const LVT_TIMER: u64 = 0x320;
    const INITIAL_COUNT: u64 = 0x380;
    instr::write_apic(SPURIOUS_VECTOR, ENABLED | SPURIOUS);
    instr::write_apic(LVT_TIMER, TIMER);
    instr::write_apic(INITIAL_COUNT, PATIENCE);
}

fn handler(frame: &mut TrapFrame) -> Handled {
    if !RUNNING.load(Ordering::SeqCst) {
        return Handled::No;
    }
    // SAFETY: `observe` stored a function of this type, and nothing else is stored there.
    let observer =
        unsafe { core::mem::transmute::<usize, Handler>(OBSERVER.load(Ordering::SeqCst)) };
    if observer(frame) == Handled::Yes {
        return Handled::Yes;
    }
    let at = frame.rip.wrapping_sub(place());
    let figures = [
        frame.vector,
        frame.error,
        at,
        frame.rflags,
        frame.rax,
        frame.rcx,
        frame.rdx,
        frame.rsi,
        frame.rdi,
    ];
    LAST.iter().zip(figures).for_each(|(last, figure)| last.store(figure, Ordering::SeqCst));
    if frame.vector >= u64::from(TIMER) {
        instr::write_apic_eoi();
    }
    frame.rip = (&raw const attempt_recover) as u64;
    (frame.cs, frame.ss, frame.rflags) = (8, 16, 2);
    Handled::Yes
}
