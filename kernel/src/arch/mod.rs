//! This CPU and the machine's core: the only inline assembly, descriptor tables, interrupts, time, other CPUs.
//!
//! Lowest layer: names nothing above but the log. What needs the linker's symbols or the boot stub exists on the
//! bare machine only.

pub mod acpi;
pub mod apic;
mod calibrate;
pub mod device_map;
pub mod direct_map;
pub mod exit;
pub mod features;
pub mod fpu;
pub mod frame;
pub mod heap;
pub mod instr;
pub mod interrupts;
pub mod percpu;
pub mod pit;
pub mod quirks;
pub mod repeats;
pub mod rtc;
pub mod time;

#[cfg(target_os = "none")]
pub mod descriptors;
#[cfg(target_os = "none")]
pub mod exceptions;
#[cfg(target_os = "none")]
pub mod physmem;
#[cfg(target_os = "none")]
pub mod smp;
