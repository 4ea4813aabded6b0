//! Start-up's checks of this machine, and the failures that tests ask for.
//!
//! `selftest=panic`, `=exception` and `=overflow` on the command line end the hypervisor on
//! purpose; a test reads its output.
// UNSAFETY: one of the failures is a write to an unmapped page.
#![expect(unsafe_code)]

use crate::arch::vectors;
use crate::arch::{
    fpu::{self, GuestFpu},
    instr, interrupts, percpu, time,
};
use crate::log::history::{self, HistoryKind};
use crate::time::Ns;
use log::info;

const PATIENCE_NS: Ns = Ns::from_secs(1);

/// Checks that the timer fires, that an interrupt arrives through an interrupt window, that each
/// CPU answers a kick, and that the extended state can be switched.
///
/// # Panics
/// If a check fails: nothing above would work.
pub(super) fn check_this_machine() {
    interrupts::idle(Some(time::now_ns() + Ns::from_ms(1)));
    assert!(interrupts::take(vectors::TIMER) > 0, "the timer fires");
    interrupts::kick(percpu::current());
    await_kick(interrupts::window);
    for cpu in percpu::others() {
        interrupts::kick(cpu);
        await_kick(|| interrupts::idle(Some(time::now_ns() + PATIENCE_NS)));
    }
    let mut state = GuestFpu::new();
    state.load();
    state.save();
    assert!(
        fpu::is_valid_xcr0(state.xcr0(), fpu::offered_xcr0()),
        "the extended state is switched"
    );
    info!("timer, kicks and extended state work");
}

fn await_kick(wait: impl Fn()) {
    let end = time::now_ns() + PATIENCE_NS;
    while interrupts::take(vectors::KICK) == 0 {
        assert!(time::now_ns() < end, "a kick arrives");
        wait();
        instr::pause();
    }
}

/// Ends the hypervisor in the way that the command line asks for, if any.
pub(super) fn end_as_asked(command_line: &str) {
    let asked = super::option(command_line, "selftest");
    let number = ["panic", "exception", "overflow"].iter().position(|name| asked == Some(*name));
    let code = number.map_or(0, |number| number as u32 + 1);
    history::record_machine(HistoryKind::SelfTestAsked, code, [0, 0]);
    match asked {
        Some("panic") => panic!("asked for by the command line"),
        // SAFETY: none; page 0 is not mapped, and the exception is intended.
        Some("exception") => unsafe { (0x10 as *mut u64).write_volatile(0) },
        Some("overflow") => {
            overflow(0);
        }
        _ => {}
    }
}

/// Uses up the stack.
#[expect(unconditional_recursion, reason = "the recursion is the purpose")]
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    core::hint::black_box(overflow(core::hint::black_box(depth + 1))) + 1
}
