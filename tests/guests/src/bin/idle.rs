//! Reports that it runs and waits for ever without using the CPU: for tests of the code around a
//! kernel.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
fn run(_: &guests::Machine) -> guests::TestVerdict {
    guests::log!("idle");
    guests::instr::stop()
}
