//! Says that it is there and waits for ever, using no CPU: for tests of what happens around a kernel.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
fn run(_: &guests::Machine) -> guests::Verdict {
    guests::log!("idle");
    guests::instr::stop()
}
