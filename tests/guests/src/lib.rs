//! The shared parts of the test kernels: entry to long mode, reports, traps, time, memory.
//!
//! A test kernel is one file in `src/bin`, about one aspect:
//!
//! ```ignore
//! #![cfg_attr(target_os = "none", no_std, no_main)]
//! guests::kernel!(run);
//!
//! fn run(machine: &guests::Machine) -> guests::Verdict {
//!     guests::log!("{} MiB of RAM", machine.ram_bytes() >> 20);
//!     guests::pass()
//! }
//! ```
//!
//! It runs in ring 0 in long mode on one stack, with interrupts disabled and the first 4 GiB
//! identity-mapped; there is no heap. It shares no code with the hypervisor, so a mistake there is
//! not repeated here; only the page format is the worker's. Where there is no test port (plain
//! QEMU) it reports on COM1 and ends through the exit device.

#![no_std]

#[cfg(target_os = "none")]
pub mod attempt;
#[cfg(target_os = "none")]
pub mod fpu;
#[cfg(target_os = "none")]
pub mod instr;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
pub mod pages;
#[cfg(target_os = "none")]
pub mod real_mode;
#[cfg(target_os = "none")]
pub mod report;
#[cfg(target_os = "none")]
pub mod tasks;
#[cfg(target_os = "none")]
pub mod trap;
#[cfg(target_os = "none")]
pub mod virtio;

#[cfg(target_os = "none")]
pub use machine::{Machine, RamRange};
#[cfg(target_os = "none")]
pub use report::{TestVerdict, fail, pass};
#[cfg(target_os = "none")]
pub use worker;

/// Names the test's function: `fn(&Machine) -> Verdict`.
#[macro_export]
macro_rules! kernel {
    ($run:ident) => {
        // UNSAFETY: the entry code finds the test by a symbol.
        #[cfg(target_os = "none")]
        #[expect(unsafe_code)]
        mod entry {
            // SAFETY: the only symbol of this name; the entry code calls it once, with PVH's start
            // information.
            #[unsafe(no_mangle)]
            extern "C" fn start(information: u64) -> ! {
                $crate::enter(information, super::$run)
            }
        }

        #[cfg(not(target_os = "none"))]
        fn main() {}
    };
}

/// Runs `test` and reports its verdict.
#[cfg(target_os = "none")]
pub fn enter(information: u64, test: fn(&Machine) -> TestVerdict) -> ! {
    trap::install();
    let machine = Machine::read(information);
    test(&machine).report()
}

// UNSAFETY: the way into long mode is assembly.
#[cfg(target_os = "none")]
#[expect(unsafe_code)]
mod long_mode {
    core::arch::global_asm!(include_str!("entry.s"), options(att_syntax));
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    log!("{info}");
    fail("panic").report()
}
