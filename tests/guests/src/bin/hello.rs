//! The smallest test kernel: it logs a description of its machine and passes.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    guests::log!("{} KiB of RAM, command line '{}'", machine.ram_bytes() >> 10, machine.cmdline());
    guests::check!(machine.free().end > machine.free().start);
    guests::pass()
}
