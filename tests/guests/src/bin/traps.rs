//! Exceptions are delivered with their vector, error code and return address.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(target_os = "none")]
use guests::trap::{Handled, TrapFrame};

#[cfg(target_os = "none")]
static SEEN: AtomicU64 = AtomicU64::new(0);

#[cfg(target_os = "none")]
fn run(_: &guests::Machine) -> guests::TestVerdict {
    const UD: u64 = 6;
    const BP: u64 = 3;
    fn handler(frame: &mut TrapFrame) -> Handled {
        SEEN.store(frame.vector << 32 | frame.error, Ordering::SeqCst);
        match frame.vector {
            UD => frame.rip += 2,
            BP => {}
            _ => return Handled::No,
        }
        Handled::Yes
    }
    guests::trap::handle(handler);
    for _ in 0..100 {
        guests::instr::ud2();
        guests::check!(SEEN.load(Ordering::SeqCst) == UD << 32);
        guests::instr::int3();
        guests::check!(SEEN.load(Ordering::SeqCst) == BP << 32);
    }
    guests::pass()
}
