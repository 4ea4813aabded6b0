//! This CPU and the machine's core: the only inline assembly, descriptor tables, interrupts, time,
//! other CPUs.
//!
//! The lowest layer: it uses nothing above it. Modules that need the linker's
//! symbols or the boot stub exist only on the bare machine.

pub mod acpi;
pub mod apic;
pub mod apic_words;
mod calibrate;
pub mod direct_map;
pub mod features;
pub mod fpu;
pub mod frame;
pub mod heap;
pub mod instr;
pub mod interrupts;
pub mod percpu;
pub mod pit;
pub mod quirks;
mod refine;
pub mod repeats;
pub mod rtc;
pub mod time;
pub mod vectors;
#[cfg(test)]
pub mod word_layout;

#[cfg(target_os = "none")]
pub mod descriptors;
#[cfg(target_os = "none")]
pub mod exceptions;
#[cfg(target_os = "none")]
pub mod physmem;
#[cfg(target_os = "none")]
pub mod smp;
