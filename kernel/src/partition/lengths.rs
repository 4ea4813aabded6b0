//! Lengths of instructions that exited, for CPUs that do not report the address behind them.
//!
//! A guest exits at the same few places again and again, so lengths are remembered by address,
//! address space and kind of exit. A remembered length is wrong only if a guest replaces an
//! instruction by one of the same kind with other prefixes, at the same address of the same address
//! space. The guest then goes on at a wrong address and harms only itself.

use crate::virt::{VcpuRegisters, VmExit};

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

    /// Remembers the length of the instruction that exited.
    pub(super) fn remember(&mut self, vcpu: &impl VcpuRegisters, exit: VmExit, length: u8) {
        let key = InsnLengthEntry::new(vcpu, exit);
        self.entries[cache_index(vcpu.regs().rip)] = InsnLengthEntry { length, ..key };
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

/// Returns the address behind an instruction of `length` bytes.
#[inline(always)]
pub(super) fn rip_after(vcpu: &impl VcpuRegisters, length: u8) -> u64 {
    vcpu.regs().rip.wrapping_add(u64::from(length))
}
