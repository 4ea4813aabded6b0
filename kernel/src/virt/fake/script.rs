//! The program of a scripted guest, and the record of what has happened to it.

use crate::addr::{Gpa, Hpa};
use crate::time::Ns;
use crate::virt::{AccessWidth, CpuState, InjectedEvent, Regs, VmExit};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// A step of a scripted guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestStep {
    /// OUT of a byte to a port.
    Out(u16, u8),
    /// IN from a port; the record gets the value.
    In(u16, AccessWidth),
    /// A word is read from memory; the record gets it.
    Read(Gpa),
    /// A word is written to memory.
    Write(Gpa, u64),
    /// MOV of a dword to a device's register, by the instruction at [`GuestScript::MOV`].
    Store(Gpa, u32),
    /// CPUID of a leaf; the record gets EAX.
    Cpuid(u32),
    /// RDMSR; the record gets EAX.
    ReadMsr(u32),
    /// WRMSR.
    WriteMsr(u32, u64),
    /// RDTSC; the record gets the value.
    Rdtsc,
    /// HLT.
    Halt,
    /// Interrupts on.
    Sti,
    /// Interrupts off.
    Cli,
    /// The guest goes on at another address.
    Jump(u64),
    /// LIDT of a table with this limit.
    LoadTable(u16),
    /// Work without exits for this many nanoseconds of the guest's own time.
    Work(Ns),
    /// Any other exit. It is over when the hypervisor has advanced RIP or injected an exception.
    Exit(VmExit),
}

/// The memory that a guest sees through its second-level table.
pub trait ScriptedMemory: Send {
    /// Reads a word; `None` if no entry of the table at `root` permits it.
    fn read(&mut self, root: Hpa, gpa: Gpa) -> Option<u64>;
    /// Writes a word; `None` if no entry of the table at `root` permits it.
    fn write(&mut self, root: Hpa, gpa: Gpa, value: u64) -> Option<()>;
}

/// The registers with which a guest has begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestBoot {
    /// General registers, at the first entry.
    pub regs: Regs,
    /// The rest of the state.
    pub state: CpuState,
    /// The second-level table.
    pub root: Hpa,
}

/// What has happened to a scripted guest.
#[derive(Clone, Debug, Default)]
pub struct ScriptRecord {
    /// Its starts.
    pub boots: Vec<GuestBoot>,
    /// Events that were delivered.
    pub delivered: Vec<InjectedEvent>,
    /// Values that it has read, in order.
    pub values: Vec<u64>,
    /// Second-level faults.
    pub faults: u64,
    /// World switches.
    pub entries: u64,
    /// How often it was resumed after a suspension.
    pub resumes: u64,
}

#[derive(Default)]
pub(super) struct ScriptState {
    /// Programs of the starts to come.
    pub programs: VecDeque<Vec<GuestStep>>,
    pub steps: VecDeque<GuestStep>,
    pub record: ScriptRecord,
}

/// The program of a guest: shared by the test, which writes it, and the vCPU. A guest whose program
/// has ended works on without exits.
#[derive(Clone, Default)]
pub struct GuestScript(Arc<Mutex<ScriptState>>);

impl GuestScript {
    /// Where the guest's kernel has the instruction MOV [EBX], EAX.
    pub const MOV: u64 = 0x10_0020;
    /// The bytes of that instruction.
    pub const MOV_BYTES: [u8; 2] = [0x89, 0x03];

    /// Makes scripts for the starts to come.
    pub fn of(programs: &[&[GuestStep]]) -> Self {
        let script = Self::default();
        script.state().programs = programs.iter().map(|steps| steps.to_vec()).collect();
        script
    }

    /// Adds steps to the running guest's program.
    pub fn go_on(&self, steps: &[GuestStep]) {
        self.state().steps.extend(steps);
    }

    /// Returns the record so far.
    pub fn record(&self) -> ScriptRecord {
        self.state().record.clone()
    }

    /// Returns whether the guest's program has ended.
    pub fn is_done(&self) -> bool {
        self.state().steps.is_empty()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ScriptState> {
        self.0.lock().expect("no test goes on after a panic")
    }
}
