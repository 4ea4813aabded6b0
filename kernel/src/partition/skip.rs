//! The address behind an instruction that has exited, for CPUs that do not report it (SVM without
//! next RIP).
//!
//! Decoding needs the instruction's bytes: a walk of the guest's tables and a copy. A guest exits
//! at the same few places again and again, so lengths are remembered by address, address space and
//! kind of exit. A remembered length is wrong only if a guest replaces an instruction by one of the
//! same kind with other prefixes, at the same address of the same address space. The guest then
//! goes on at a wrong address and harms only itself.

use super::decision::Decision;
use super::fetch::{self, CodeView, FetchError};
use super::machine::{Bytes, Machine};
use super::walk::WalkError;
use crate::virt::{Event, Exit, Registers};

/// Remembered lengths: a power of two.
const ENTRIES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    /// RIP plus the kind of exit. RIPs that share a place differ by multiples of [`ENTRIES`], kinds
    /// by less: no two keys are equal.
    tag: u64,
    cr3: u64,
    length: u8,
}

impl Entry {
    /// An empty entry: no CR3 has this value.
    const EMPTY: Self = Self { tag: 0, cr3: u64::MAX, length: 0 };

    /// Makes the entry to look for.
    #[inline(always)]
    fn new(vcpu: &impl Registers, exit: Exit) -> Self {
        Self { tag: vcpu.regs().rip.wrapping_add(kind_of(exit)), cr3: vcpu.cr3(), length: 0 }
    }
}

/// Lengths of instructions that exited.
#[derive(Clone, Debug)]
pub struct Lengths {
    entries: [Entry; ENTRIES],
}

impl Lengths {
    /// Makes an empty table.
    pub const fn new() -> Self {
        Self { entries: [Entry::EMPTY; ENTRIES] }
    }

    /// Returns the address behind the instruction that exited, if it is known without guest memory.
    #[inline(always)]
    pub(super) fn next_rip(&self, vcpu: &impl Registers, exit: Exit) -> Option<u64> {
        vcpu.next_rip(exit).or_else(|| self.find(vcpu.regs().rip, Entry::new(vcpu, exit)).map(|length| behind(vcpu, length)))
    }

    #[inline(always)]
    fn find(&self, rip: u64, key: Entry) -> Option<u8> {
        let entry = &self.entries[place(rip)];
        (entry.tag == key.tag && entry.cr3 == key.cr3).then_some(entry.length)
    }

    fn remember(&mut self, rip: u64, key: Entry, length: u8) {
        self.entries[place(rip)] = Entry { length, ..key };
    }
}

impl Default for Lengths {
    fn default() -> Self {
        Self::new()
    }
}

const fn place(rip: u64) -> usize {
    rip as usize % ENTRIES
}

/// Returns a small number, never 0, for the kind of instruction that has exited.
#[inline(always)]
const fn kind_of(exit: Exit) -> u64 {
    match exit {
        Exit::Cpuid => 1,
        Exit::ReadMsr => 2,
        Exit::WriteMsr => 3,
        Exit::Halt => 4,
        Exit::Xsetbv => 5,
        Exit::Hypercall => 6,
        Exit::CacheFlush => 7,
        _ => 8,
    }
}

#[inline(always)]
fn behind(vcpu: &impl Registers, length: u8) -> u64 {
    vcpu.regs().rip.wrapping_add(u64::from(length))
}

impl Machine {
    /// Returns the address behind the instruction that exited.
    ///
    /// # Errors
    /// The decision to apply instead: the instruction's page is not resident, or the instruction
    /// has been replaced.
    pub(super) fn next_rip(&mut self, exit: Exit, memory: &Bytes<'_>) -> Result<u64, Decision> {
        match self.lengths.next_rip(&self.vcpu, exit) {
            Some(rip) => Ok(rip),
            None => self.decode_length(exit, memory).map(|length| behind(&self.vcpu, length)),
        }
    }

    #[cold]
    fn decode_length(&mut self, exit: Exit, memory: &Bytes<'_>) -> Result<u8, Decision> {
        let code = CodeView::from(&self.vcpu.state());
        let instruction = fetch::instruction(memory, &code, self.vcpu.regs().rip).map_err(|e| self.fetch_failed(e))?;
        self.lengths.remember(self.vcpu.regs().rip, Entry::new(&self.vcpu, exit), instruction.length);
        Ok(instruction.length)
    }

    /// Returns the decision that follows from a failed fetch.
    pub(super) fn fetch_failed(&mut self, error: FetchError) -> Decision {
        match error {
            FetchError::Walk(WalkError::Memory(access), _) => access.into(),
            // The guest has changed its tables since the CPU's fetch: it gets the fault that the
            // CPU would have raised.
            FetchError::Walk(WalkError::PageFault(error_code), at) => {
                self.vcpu.set_cr2(at.as_u64());
                Decision::Inject(Event::page_fault(error_code))
            }
            FetchError::Walk(WalkError::NonCanonical, _) => Decision::Inject(Event::general_protection()),
            FetchError::Unknown => Decision::Inject(Event::invalid_opcode()),
        }
    }
}
