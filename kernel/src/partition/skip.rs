//! The address behind an instruction that has exited, for CPUs that do not report it (SVM without
//! next RIP).
//!
//! Decoding needs the instruction's bytes: a walk of the guest's tables and a copy. A guest exits
//! at the same few places again and again, so lengths are remembered by address, address space and
//! kind of exit. A remembered length is wrong only if a guest replaces an instruction by one of the
//! same kind with other prefixes, at the same address of the same address space. The guest then
//! goes on at a wrong address and harms only itself.

use super::decision::ExitDecision;
use super::fetch::{self, CodeView, FetchError};
use super::machine::{PartitionMemory, VirtualMachine};
use super::walk::WalkError;
use crate::virt::{InjectedEvent, VcpuRegisters, VmExit};

/// Remembered lengths: a power of two.
const ENTRIES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct InsnLengthEntry {
    /// RIP plus the kind of exit. RIPs that share a place differ by multiples of [`ENTRIES`], kinds
    /// by less: no two keys are equal.
    tag: u64,
    cr3: u64,
    length: u8,
}

impl InsnLengthEntry {
    /// An empty entry: no CR3 has this value.
    const EMPTY: Self = Self { tag: 0, cr3: u64::MAX, length: 0 };

    /// Makes the entry to look for.
    #[inline(always)]
    fn new(vcpu: &impl VcpuRegisters, exit: VmExit) -> Self {
        Self { tag: vcpu.regs().rip.wrapping_add(kind_of(exit)), cr3: vcpu.cr3(), length: 0 }
    }
}

/// Lengths of instructions that exited.
#[derive(Clone, Debug)]
pub struct InsnLengthCache {
    entries: [InsnLengthEntry; ENTRIES],
}

impl InsnLengthCache {
    /// Makes an empty table.
    pub const fn new() -> Self {
        Self { entries: [InsnLengthEntry::EMPTY; ENTRIES] }
    }

    /// Returns the address behind the instruction that exited, if it is known without guest memory.
    #[inline(always)]
    pub(super) fn next_rip(&self, vcpu: &impl VcpuRegisters, exit: VmExit) -> Option<u64> {
        vcpu.next_rip(exit).or_else(|| {
            self.find(vcpu.regs().rip, InsnLengthEntry::new(vcpu, exit))
                .map(|length| rip_after(vcpu, length))
        })
    }

    #[inline(always)]
    fn find(&self, rip: u64, key: InsnLengthEntry) -> Option<u8> {
        let entry = &self.entries[cache_index(rip)];
        (entry.tag == key.tag && entry.cr3 == key.cr3).then_some(entry.length)
    }

    fn remember(&mut self, rip: u64, key: InsnLengthEntry, length: u8) {
        self.entries[cache_index(rip)] = InsnLengthEntry { length, ..key };
    }
}

impl Default for InsnLengthCache {
    fn default() -> Self {
        Self::new()
    }
}

const fn cache_index(rip: u64) -> usize {
    rip as usize % ENTRIES
}

/// Returns a small number, never 0, for the kind of instruction that has exited.
#[inline(always)]
const fn kind_of(exit: VmExit) -> u64 {
    match exit {
        VmExit::Cpuid => 1,
        VmExit::ReadMsr => 2,
        VmExit::WriteMsr => 3,
        VmExit::Halt => 4,
        VmExit::Xsetbv => 5,
        VmExit::Hypercall => 6,
        VmExit::CacheFlush => 7,
        _ => 8,
    }
}

#[inline(always)]
fn rip_after(vcpu: &impl VcpuRegisters, length: u8) -> u64 {
    vcpu.regs().rip.wrapping_add(u64::from(length))
}

impl VirtualMachine {
    /// Returns the address behind the instruction that exited.
    ///
    /// # Errors
    /// The decision to apply instead: the instruction's page is not resident, or the instruction
    /// has been replaced.
    pub(super) fn next_rip(
        &mut self,
        exit: VmExit,
        memory: &PartitionMemory<'_>,
    ) -> Result<u64, ExitDecision> {
        match self.lengths.next_rip(&self.vcpu, exit) {
            Some(rip) => Ok(rip),
            None => self.decode_length(exit, memory).map(|length| rip_after(&self.vcpu, length)),
        }
    }

    #[cold]
    fn decode_length(
        &mut self,
        exit: VmExit,
        memory: &PartitionMemory<'_>,
    ) -> Result<u8, ExitDecision> {
        let code = CodeView::from(&self.vcpu.state());
        let instruction = fetch::instruction(memory, &code, self.vcpu.regs().rip)
            .map_err(|e| self.fetch_failed(e))?;
        self.lengths.remember(
            self.vcpu.regs().rip,
            InsnLengthEntry::new(&self.vcpu, exit),
            instruction.length,
        );
        Ok(instruction.length)
    }

    /// Returns the decision that follows from a failed fetch.
    pub(super) fn fetch_failed(&mut self, error: FetchError) -> ExitDecision {
        match error {
            FetchError::Walk(WalkError::Memory(access), _) => access.into(),
            // The guest has changed its tables since the CPU's fetch: it gets the fault that the
            // CPU would have raised.
            FetchError::Walk(WalkError::PageFault(error_code), at) => {
                self.vcpu.set_cr2(at.as_u64());
                ExitDecision::Inject(InjectedEvent::page_fault(error_code))
            }
            FetchError::Walk(WalkError::NonCanonical, _) => {
                ExitDecision::Inject(InjectedEvent::general_protection())
            }
            FetchError::Unknown => ExitDecision::Inject(InjectedEvent::invalid_opcode()),
        }
    }
}
