//! The time-stamp counter can be written, and everything that depends on it follows. SDM 3B
//! "Time-Stamp Counter Adjustment".

use super::{expect, try_rdmsr, try_wrmsr};
use core::sync::atomic::{AtomicU64, Ordering};
use guests::instr;
use guests::trap::{self, Handled, TrapFrame};

const TSC: u32 = 0x10;
const TSC_ADJUST: u32 = 0x3b;
const DEADLINE: u32 = 0x6e0;
const SYSTEM_TIME: u32 = 0x4b56_4d01;
const TIMER: u64 = 0x30;
const SECONDS: u64 = 1 << 40;

static CAME: AtomicU64 = AtomicU64::new(0);

#[repr(C, align(64))]
struct Clock([u64; 4]);
static CLOCK: Clock = Clock([0; 4]);

fn on_timer(frame: &mut TrapFrame) -> Handled {
    if frame.vector != TIMER {
        return Handled::No;
    }
    CAME.store(instr::tsc(), Ordering::SeqCst);
    instr::write_apic_eoi();
    Handled::Yes
}

/// Returns whether `later` is at or after `earlier`, by less than a busy machine's delays of some
/// seconds. The errors that the checks look for are differences of [`SECONDS`].
fn soon(earlier: u64, later: u64) -> bool {
    later.wrapping_sub(earlier) < 1 << 35
}

fn counter() {
    let before = instr::tsc();
    let read = try_rdmsr(TSC).unwrap_or(0);
    expect(
        format_args!("RDMSR of the TSC is RDTSC's"),
        before <= read && read <= instr::tsc(),
        true,
    );
    expect(format_args!("the TSC written"), try_wrmsr(TSC, SECONDS), Ok(()));
    expect(format_args!("the TSC goes on from there"), soon(SECONDS, instr::tsc()), true);
    let adjust = try_rdmsr(TSC_ADJUST);
    expect(format_args!("TSC_ADJUST tells of it"), adjust.is_ok_and(|value| value != 0), true);
    let now = instr::tsc();
    expect(
        format_args!("TSC_ADJUST written"),
        try_wrmsr(TSC_ADJUST, adjust.unwrap_or(0).wrapping_add(SECONDS)),
        Ok(()),
    );
    expect(format_args!("the TSC follows"), soon(now + SECONDS, instr::tsc()), true);
}

/// A deadline is in units of the guest's counter, also where the counter is changed while the timer
/// is armed.
fn deadline() {
    const LVT_TIMER: u64 = 0x320;
    const SPURIOUS: u64 = 0xf0;
    const TSC_DEADLINE_MODE: u32 = 2 << 17;
    const SPAN: u64 = 2_000_000;
    trap::handle(on_timer);
    instr::write_apic(SPURIOUS, 0x1ff);
    instr::write_apic(LVT_TIMER, TSC_DEADLINE_MODE | TIMER as u32);
    CAME.store(0, Ordering::SeqCst);
    let years = instr::tsc() + SECONDS;
    // SAFETY: the timer has a handler.
    unsafe { instr::wrmsr(DEADLINE, years) };
    expect(format_args!("the deadline reads back"), instr::rdmsr(DEADLINE), years);
    let at = instr::tsc() + SPAN;
    // SAFETY: as above.
    unsafe { instr::wrmsr(DEADLINE, at) };
    while CAME.load(Ordering::SeqCst) == 0 {
        instr::sti_hlt();
    }
    expect(
        format_args!("a deadline of a moved counter"),
        soon(at, CAME.load(Ordering::SeqCst)),
        true,
    );
    CAME.store(0, Ordering::SeqCst);
    // Armed for a time years ahead; then the counter is moved close to it.
    let far = instr::tsc() + SECONDS;
    // SAFETY: as above.
    unsafe { instr::wrmsr(DEADLINE, far) };
    // SAFETY: the counter runs on from there.
    unsafe { instr::wrmsr(TSC, far - SPAN) };
    while CAME.load(Ordering::SeqCst) == 0 {
        instr::sti_hlt();
    }
    expect(
        format_args!("a deadline that came nearer"),
        soon(far, CAME.load(Ordering::SeqCst)),
        true,
    );
    instr::write_apic(LVT_TIMER, 1 << 16);
}

/// The paravirtual clock does not jump when the counter does.
fn clock() {
    let word = |n: usize| {
        // SAFETY: the hypervisor writes it while this CPU executes WRMSR.
        unsafe { (&raw const CLOCK.0[n]).read_volatile() }
    };
    let ns = || {
        let (scale, elapsed) = (word(3), instr::tsc().wrapping_sub(word(1)));
        let (multiplier, shift) = (scale as u32, (scale >> 32) as i8);
        let ticks = if shift >= 0 { elapsed << shift } else { elapsed >> -shift };
        word(2) + ((u128::from(ticks) * u128::from(multiplier)) >> 32) as u64
    };
    let at = (&raw const CLOCK) as u64;
    // SAFETY: the page is ours.
    unsafe { instr::wrmsr(SYSTEM_TIME, at | 1) };
    let before = ns();
    // SAFETY: the counter runs on from there.
    unsafe { instr::wrmsr(TSC, 5) };
    expect(format_args!("the clock over a jump of the counter"), soon(before, ns()), true);
    // SAFETY: as above.
    unsafe { instr::wrmsr(SYSTEM_TIME, 0) };
}

/// Runs the checks.
pub(crate) fn check() {
    counter();
    deadline();
    clock();
}
