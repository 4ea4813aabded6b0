//! This CPU and the machine's core: the only inline assembly, descriptor tables, interrupts, time, other CPUs.
//!
//! Lowest layer: names nothing above. What needs the linker's symbols or the boot stub exists on the bare machine only.

pub mod direct_map;
pub mod exit;
pub mod instr;
pub mod percpu;
#[cfg(target_os = "none")]
pub mod physmem;
