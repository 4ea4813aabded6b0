//! Why a partition crashed, and what is kept of its vCPU at that moment.

use crate::virt::{CpuState, Regs};

/// Why a partition cannot go on. The guest's fault, its disk's, or the operator's wish; never ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A fault while a double fault was delivered: the guest has lost its tables.
    TripleFault,
    /// The guest said so through pvpanic.
    Panic,
    /// The guest recorded a panic in the error record store.
    PanicRecord,
    /// The operator asked for it.
    Operator,
    /// A test kernel wrote its debug-exit or failure port and asked for a crash.
    EntryFailed(u64),
    /// An exit that nobody asked for.
    UnknownExit(u64),
    /// A page could not be read back from the paging device.
    PageLost(u64),
    /// An instruction at a device that the hypervisor does not emulate.
    NotEmulated(u64),
    /// Instructions are fetched from where there is no memory.
    ExecutedNothing(u64),
    /// The CPU itself, not an instruction, needs memory where there is none: page tables, the stack of an exception.
    NoMemory(u64),
}

impl Reason {
    /// Returns the word for events and the space record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::TripleFault => "triple fault",
            Reason::Panic => "panic",
            Reason::PanicRecord => "panic record",
            Reason::Operator => "operator",
            Reason::EntryFailed(_) => "entry failed",
            Reason::UnknownExit(_) => "unknown exit",
            Reason::PageLost(_) => "page lost",
            Reason::NotEmulated(_) => "instruction not emulated",
            Reason::ExecutedNothing(_) => "execution outside memory",
            Reason::NoMemory(_) => "tables or stack outside memory",
        }
    }

    /// Returns the number that goes with it: a code or an address.
    pub const fn detail(self) -> u64 {
        match self {
            Reason::TripleFault | Reason::Panic | Reason::PanicRecord | Reason::Operator => 0,
            Reason::EntryFailed(n)
            | Reason::UnknownExit(n)
            | Reason::PageLost(n)
            | Reason::NotEmulated(n)
            | Reason::ExecutedNothing(n)
            | Reason::NoMemory(n) => n,
        }
    }
}

/// What is known of a crash at its moment; the dump's notes are made from it.
#[derive(Clone, Copy, Debug)]
pub struct CrashRecord {
    /// Why.
    pub reason: Reason,
    /// The incarnation that crashed.
    pub incarnation: u64,
    /// Nanoseconds since the hypervisor's start.
    pub at_ns: u64,
    /// The vCPU's registers.
    pub regs: Regs,
    /// The rest of its state.
    pub state: CpuState,
}
