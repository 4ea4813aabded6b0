//! The numbers of a partition's exits: one counter for each kind.
//!
//! Only the CPU that runs the vCPU writes a counter, so counting is a load and a store without a
//! locked instruction. Exits answered at once, the shortest paths of all, have no counter: their
//! number is the sum minus all other kinds.

use crate::console::event::ExitTally;
use crate::virt::VmExit;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A kind of exit that is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitKind {
    /// CPUID that the short way does not answer.
    Cpuid,
    /// IN, OUT, INS, OUTS that it does not answer.
    Port,
    /// RDMSR, WRMSR that it does not answer.
    Msr,
    /// HLT.
    Halt,
    /// A page of RAM that is not resident, or whose access is to be noted.
    Page,
    /// An access to a device's memory.
    Device,
    /// An interrupt for the hypervisor.
    Interrupt,
    /// An event window: the guest can take an event now.
    Window,
    /// Any other: control and debug registers, XSETBV, hypercalls, triple faults.
    Other,
}

/// The number of kinds.
const KINDS: usize = ExitKind::Other as usize + 1;

/// Exits by kind, and their sum.
#[derive(Debug, Default)]
pub struct ExitCounts {
    kinds: [AtomicU64; KINDS],
    all: AtomicU64,
}

impl ExitCounts {
    /// Counts one exit of a kind.
    #[inline(always)]
    pub fn note(&self, kind: ExitKind) {
        add(&self.kinds[kind as usize], 1);
    }

    /// Adds `exits` to the sum.
    #[inline(always)]
    pub fn add(&self, exits: u64) {
        add(&self.all, exits);
    }

    /// Returns the sum.
    pub fn all(&self) -> u64 {
        self.all.load(Relaxed)
    }

    /// Returns the exits by kind.
    pub fn tally(&self) -> ExitTally {
        let of = |kind: ExitKind| self.kinds[kind as usize].load(Relaxed);
        let known = self.kinds.iter().map(|count| count.load(Relaxed)).sum();
        ExitTally {
            quick: self.all().saturating_sub(known),
            cpuid: of(ExitKind::Cpuid),
            port: of(ExitKind::Port),
            msr: of(ExitKind::Msr),
            halt: of(ExitKind::Halt),
            page: of(ExitKind::Page),
            device: of(ExitKind::Device),
            interrupt: of(ExitKind::Interrupt),
            window: of(ExitKind::Window),
            other: of(ExitKind::Other),
        }
    }
}

#[inline(always)]
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Relaxed).wrapping_add(more), Relaxed);
}

impl ExitKind {
    /// Returns the kind of an exit that reaches a handler.
    pub const fn of(exit: VmExit) -> Self {
        match exit {
            VmExit::Cpuid => Self::Cpuid,
            VmExit::Io(_) => Self::Port,
            VmExit::ReadMsr | VmExit::WriteMsr => Self::Msr,
            VmExit::Halt => Self::Halt,
            VmExit::SecondLevelFault { .. } => Self::Device,
            VmExit::HostInterrupt => Self::Interrupt,
            VmExit::InterruptWindow | VmExit::NmiWindow | VmExit::ShadowedWindow => Self::Window,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_kind_has_counted_was_answered_at_once() {
        let counts = ExitCounts::default();
        for kind in [ExitKind::Port, ExitKind::Port, ExitKind::Other, ExitKind::Page] {
            counts.note(kind);
        }
        counts.add(10);
        let tally = counts.tally();
        assert_eq!(
            (tally.port, tally.other, tally.page, tally.quick, counts.all()),
            (2, 1, 1, 6, 10)
        );
    }

    #[test]
    fn a_sum_that_lags_behind_leaves_none() {
        let counts = ExitCounts::default();
        counts.note(ExitKind::Msr);
        assert_eq!(counts.tally().quick, 0);
    }

    #[test]
    fn every_exit_has_a_kind() {
        for (exit, kind) in [
            (VmExit::Cpuid, ExitKind::Cpuid),
            (VmExit::Halt, ExitKind::Halt),
            (VmExit::WriteMsr, ExitKind::Msr),
            (VmExit::HostInterrupt, ExitKind::Interrupt),
            (VmExit::NmiWindow, ExitKind::Window),
            (VmExit::TripleFault, ExitKind::Other),
        ] {
            assert_eq!(ExitKind::of(exit), kind);
        }
    }
}
