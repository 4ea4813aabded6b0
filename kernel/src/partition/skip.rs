//! The address behind an instruction that has exited, where the CPU does not tell it (SVM without next RIP).
//!
//! Decoding needs the instruction's bytes: a walk of the guest's tables and a copy. A guest exits at the same few places
//! again and again, so lengths are remembered by address, address space and kind of exit. A remembered length is wrong only if a
//! guest replaces an instruction by one of the same kind with other prefixes at the same address of the same address space;
//! any change of CR3 and any eviction forgets everything.

use super::decision::Decision;
use super::fetch::{self, CodeView, FetchError};
use super::machine::{Bytes, Machine};
use super::walk::WalkError;
use crate::mm::object::MemoryObject;
use crate::virt::{Event, Exit};

/// Remembered lengths: a power of two.
const ENTRIES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Entry {
    rip: u64,
    cr3: u64,
    generation: u64,
    kind: u8,
    length: u8,
}

/// Lengths of instructions that exited.
#[derive(Clone, Debug)]
pub struct Lengths {
    entries: [Entry; ENTRIES],
}

impl Lengths {
    /// Nothing remembered.
    pub const fn new() -> Self {
        Self { entries: [Entry { rip: 0, cr3: 0, generation: 0, kind: 0, length: 0 }; ENTRIES] }
    }

    fn find(&self, key: Entry) -> Option<u8> {
        let entry = &self.entries[place(key.rip)];
        let same = entry.rip == key.rip && entry.cr3 == key.cr3 && entry.generation == key.generation && entry.kind == key.kind;
        (same && entry.length > 0).then_some(entry.length)
    }

    fn remember(&mut self, key: Entry, length: u8) {
        self.entries[place(key.rip)] = Entry { length, ..key };
    }
}

impl Default for Lengths {
    fn default() -> Self {
        Self::new()
    }
}

const fn place(rip: u64) -> usize {
    (rip ^ (rip >> 6)) as usize % ENTRIES
}

/// Returns a small number for the kind of instruction that an exit is about.
const fn kind_of(exit: Exit) -> u8 {
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

impl Machine {
    /// Returns the address behind the instruction that exited, if that takes no look at guest memory.
    #[inline]
    pub(super) fn known_next_rip(&self, exit: Exit, object: &MemoryObject) -> Option<u64> {
        match self.vcpu.next_rip() {
            Some(rip) => Some(rip),
            None => self.lengths.find(self.key(exit, object)).map(|length| self.behind(length)),
        }
    }

    /// Returns the address behind the instruction that exited.
    ///
    /// # Errors
    /// What to do instead: its page is not there, or it is no such instruction any more.
    #[inline]
    pub(super) fn next_rip(&mut self, exit: Exit, memory: &Bytes<'_>) -> Result<u64, Decision> {
        match self.known_next_rip(exit, memory.object) {
            Some(rip) => Ok(rip),
            None => self.decode_length(exit, memory).map(|length| self.behind(length)),
        }
    }

    #[cold]
    fn decode_length(&mut self, exit: Exit, memory: &Bytes<'_>) -> Result<u8, Decision> {
        let code = CodeView::from(&self.vcpu.state());
        let instruction = fetch::instruction(memory, &code, self.vcpu.regs().rip).map_err(|e| self.fetch_failed(e))?;
        self.lengths.remember(self.key(exit, memory.object), instruction.length);
        Ok(instruction.length)
    }

    fn key(&self, exit: Exit, object: &MemoryObject) -> Entry {
        Entry {
            rip: self.vcpu.regs().rip,
            cr3: self.vcpu.control_registers().cr3,
            generation: object.generation().current(),
            kind: kind_of(exit),
            length: 0,
        }
    }

    fn behind(&self, length: u8) -> u64 {
        self.vcpu.regs().rip.wrapping_add(u64::from(length))
    }

    /// Returns what a fetch that failed means for the guest.
    pub(super) fn fetch_failed(&mut self, error: FetchError) -> Decision {
        match error {
            FetchError::Walk(WalkError::Memory(access), _) => access.into(),
            // The guest has changed its tables since the CPU fetched: it sees what the CPU would have seen.
            FetchError::Walk(WalkError::PageFault(error_code), at) => {
                self.vcpu.set_cr2(at.as_u64());
                Decision::Inject(Event::page_fault(error_code))
            }
            FetchError::Walk(WalkError::NonCanonical, _) => Decision::Inject(Event::general_protection()),
            FetchError::Unknown => Decision::Inject(Event::invalid_opcode()),
        }
    }
}
