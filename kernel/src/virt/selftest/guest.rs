//! The self-test's guest: sixteen pages, a hand-made second-level table for them, and a few bytes
//! of machine code.
//!
//! ```text
//!  0x1000 code   0x2000 IDT   0x3000 GDT   0x4000..0x5000 stack   0x6000.. unmapped, mapped by the checks
//! ```
//!
//! 32-bit protected mode without paging, so that the guest needs no page tables of its own.

// UNSAFETY: writes the guest's memory and the table through the direct map.
#![expect(unsafe_code)]

use crate::addr::{Gpa, Hpa, PAGE_SIZE};
use crate::arch::direct_map;
use crate::arch::physmem::PhysicalMemory;
use crate::virt::face::Backend;
use crate::virt::state::{CpuState, DescriptorTable, SegmentRegister};

/// Address of the code.
pub(super) const CODE: u64 = 0x1000;
const IDT: u64 = 0x2000;
const GDT: u64 = 0x3000;
/// The stack's upper end.
pub(super) const STACK_TOP: u64 = 0x5000;
/// First page that is not mapped at the start.
pub(super) const ABSENT: u64 = 0x6000;
const PAGES: u64 = 16;

/// Offset of the interrupt handler in the code page; it counts in EBX and returns.
const HANDLER: u64 = 0x800;
/// inc ebx; iret
const HANDLER_CODE: [u8; 2] = [0x43, 0xcf];

/// Read, write, execute: the same three bits in an EPT entry, and present, writable, user in an NPT
/// entry.
const TABLE_ENTRY: u64 = 7;

/// The guest's memory and its second-level table.
pub(super) struct SelftestMemory {
    frames: Hpa,
    root: Hpa,
    leaves: Hpa,
    leaf_bits: u64,
}

impl SelftestMemory {
    /// Takes frames, maps those below [`ABSENT`] and writes the interrupt tables.
    pub(super) fn new(backend: Backend, physical: &mut PhysicalMemory) -> Option<Self> {
        let frames = physical.take(PAGES * PAGE_SIZE)?.start;
        let tables = [
            physical.take_page()?,
            physical.take_page()?,
            physical.take_page()?,
            physical.take_page()?,
        ];
        for pair in tables.windows(2) {
            write(pair[0], pair[1].as_u64() | TABLE_ENTRY);
        }
        let leaf_bits = match backend {
            Backend::Vmx => TABLE_ENTRY | 6 << 3, // write-back
            Backend::Svm => TABLE_ENTRY,
        };
        let memory = Self { frames, root: tables[0], leaves: tables[3], leaf_bits };
        (0..ABSENT / PAGE_SIZE).for_each(|page| memory.map(Gpa::new(page * PAGE_SIZE)));
        memory.write_tables();
        Some(memory)
    }

    /// Returns the root of the second-level table.
    pub(super) const fn root(&self) -> Hpa {
        self.root
    }

    /// Maps the page of `gpa` to its frame.
    pub(super) fn map(&self, gpa: Gpa) {
        let page = gpa.number().as_u64() % PAGES;
        write(
            offset(self.leaves, page * 8),
            offset(self.frames, page * PAGE_SIZE).as_u64() | self.leaf_bits,
        );
    }

    /// Unmaps the page of `gpa`.
    pub(super) fn unmap(&self, gpa: Gpa) {
        write(offset(self.leaves, gpa.number().as_u64() % PAGES * 8), 0);
    }

    /// Copies `bytes` to `gpa`.
    pub(super) fn copy_in(&self, gpa: u64, bytes: &[u8]) {
        for (i, byte) in (0..).zip(bytes) {
            let target: *mut u8 =
                direct_map::pointer(offset(self.frames, (gpa + i) % (PAGES * PAGE_SIZE)));
            // SAFETY: within the frames that `new` took; the guest is not running.
            unsafe { target.write_volatile(*byte) };
        }
    }

    /// Reads a word of the guest.
    pub(super) fn read(&self, gpa: u64) -> u64 {
        let source: *const u64 =
            direct_map::pointer(offset(self.frames, gpa % (PAGES * PAGE_SIZE)));
        // SAFETY: within the frames that `new` took (callers give aligned addresses).
        unsafe { source.read_volatile() }
    }

    /// Writes a GDT with flat code (8), data (0x10) and 64-bit code (0x18), and 256 gates to one
    /// handler.
    pub(super) fn write_tables(&self) {
        let gdt = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00af_9b00_0000_ffff_u64];
        (0..)
            .zip(gdt)
            .for_each(|(i, entry): (u64, u64)| self.copy_in(GDT + i * 8, &entry.to_le_bytes()));
        (0..256).for_each(|vector| set_gate(self, vector, CODE + HANDLER));
        self.copy_in(CODE + HANDLER, &HANDLER_CODE);
    }
}

/// Makes `vector`'s handler start at `target`, which lies below 64 KiB.
pub(super) fn set_gate(memory: &SelftestMemory, vector: u64, target: u64) {
    let gate = target | (8 << 16) | (0x8e00 << 32);
    memory.copy_in(IDT + vector * 8, &gate.to_le_bytes());
}

fn offset(base: Hpa, bytes: u64) -> Hpa {
    Hpa::new(base.as_u64() + bytes)
}

fn write(hpa: Hpa, value: u64) {
    // SAFETY: callers pass words of frames that `SelftestMemory::new` took.
    unsafe { direct_map::pointer::<u64>(hpa).write_volatile(value) };
}

/// Returns flat 32-bit protected mode with the tables of [`SelftestMemory`].
pub(super) fn state() -> CpuState {
    let segment =
        |selector, attributes| SegmentRegister { selector, attributes, limit: u32::MAX, base: 0 };
    let mut state = CpuState::flat(segment(8, 0xc09b), segment(0x10, 0xc093));
    state.gdtr = DescriptorTable { base: GDT, limit: 4 * 8 - 1 };
    state.idtr = DescriptorTable { base: IDT, limit: 256 * 8 - 1 };
    state
}
