//! Benchmarks: the instructions of an operation, on machines whose clock counts instructions.
//!
//! ```text
//!  operations: one machine ──┬─ `self_tests = ["pager"]` ──> events `bench`: A1, P3, D1
//!                            └─ test kernel `bench` ──> its log: E1, E4, F1, (evict, a key) P1
//!  clone: one machine ─> events `reply`, `guest`: C1
//!  restart: three machines ─> events `crash`, `entered`: R1
//!  traces: a guest with more pages than the pool, and LRU on the host
//!  scale: machines of several CPUs, a plugin of QEMU's that counts
//! ```
//!
//! One CPU and memory-backed paging devices, so that a run repeats exactly. `docs/benchmarks.md`
//! defines the figures.

pub mod clone;
mod counted;
pub mod operations;
pub mod restart;
pub mod scale;
mod scratch;
pub mod traces;

use crate::bed::{Bed, BedMachine, ClockBase};
use crate::config;
use anyhow::Result;
use std::path::Path;

/// The images to measure.
#[derive(Clone, Copy, Debug)]
pub struct BenchImages<'a> {
    /// The hypervisor's ELF file.
    pub hypervisor: &'a Path,
    /// The test kernel `bench`.
    pub kernel: &'a Path,
}

impl BenchImages<'_> {
    /// Describes a machine with one CPU whose clock counts instructions; `toml` is its
    /// configuration. Bochs counts instructions at any rate; its default rate is kept, at which all
    /// figures were taken.
    fn machine(&self, bed: Bed, name: &str, toml: &str) -> Result<BedMachine> {
        let plan = config::read(name, toml, Path::new(""), bed)?;
        let mut machine = BedMachine::new(bed, name, self.hypervisor.to_owned());
        machine.apply(plan);
        machine.clock =
            if bed == Bed::Bochs { ClockBase::Host } else { ClockBase::Instructions(0) };
        Ok(machine)
    }
}
