//! The notes of a dump, read back: the registers of its vCPU, and the kernel's VMCOREINFO.

use super::memory::PagingRegisters;
use crate::dump::notes::ElfNote;
use kernel::dump::vmcoreinfo;

/// Offsets of the registers in the descriptors of [`kernel::dump::notes`].
const PRSTATUS_REGISTERS: usize = 112;
const QEMU_CONTROL_REGISTERS: usize = 8 + 18 * 8 + 10 * 24;
/// Number of registers in `struct user_regs_struct`.
const USER_REGISTERS: usize = 27;
/// Indices into that structure in gdb's order: rax rbx rcx rdx rsi rdi rbp rsp r8 to r15 rip, then
/// eflags cs ss ds es fs gs of four bytes each.
const LONG: [usize; 17] = [10, 5, 11, 12, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16];
const SHORT: [usize; 7] = [18, 17, 20, 23, 24, 25, 26];

/// The contents of the notes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Notes {
    /// Registers in gdb's order.
    pub registers: Vec<u8>,
    /// How addresses are translated.
    pub paging: PagingRegisters,
    /// The same with the kernel's own tables, for a crash while the CPU used a program's tables
    /// that do not map the kernel.
    pub kernel: Option<PagingRegisters>,
    /// Displacement of the kernel's symbols (KASLR); `None` where the kernel left no VMCOREINFO.
    pub kernel_offset: Option<u64>,
}

impl Notes {
    /// Parses the notes' segment. Of several vCPUs the first counts.
    pub fn parse(mut bytes: &[u8]) -> Self {
        let (mut notes, mut text) = (Self::default(), [].as_slice());
        while let Some((ElfNote { name, descriptor, .. }, rest)) = ElfNote::split(bytes) {
            match name {
                b"CORE\0" if notes.registers.is_empty() => {
                    notes.registers = registers(descriptor).unwrap_or_default()
                }
                b"QEMU\0" if notes.paging == PagingRegisters::default() => {
                    notes.paging = paging(descriptor).unwrap_or_default()
                }
                b"VMCOREINFO\0" => text = descriptor,
                _ => (),
            }
            bytes = rest;
        }
        if !text.is_empty() {
            notes.kernel_offset = offset(text);
            notes.kernel = kernel_tables(text).map(|cr3| PagingRegisters { cr3, ..notes.paging });
        }
        notes
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn registers(prstatus: &[u8]) -> Option<Vec<u8>> {
    let saved: Option<Vec<_>> =
        (0..USER_REGISTERS).map(|n| word(prstatus, PRSTATUS_REGISTERS + 8 * n)).collect();
    let saved = saved?;
    let long = LONG.iter().flat_map(|&n| saved[n].to_le_bytes());
    let short = SHORT.iter().flat_map(|&n| (saved[n] as u32).to_le_bytes());
    Some(long.chain(short).collect())
}

fn paging(cpu: &[u8]) -> Option<PagingRegisters> {
    let control = |n: usize| word(cpu, QEMU_CONTROL_REGISTERS + 8 * n);
    Some(PagingRegisters { cr0: control(0)?, cr3: control(3)?, cr4: control(4)? })
}

fn offset(text: &[u8]) -> Option<u64> {
    vmcoreinfo::value(text, "KERNELOFFSET")
        .map_or(Some(0), |value| u64::from_str_radix(value, 16).ok())
}

/// Returns the physical address of the kernel's top-level page table.
fn kernel_tables(text: &[u8]) -> Option<u64> {
    /// Virtual address of the kernel's image (Linux, `__START_KERNEL_map`).
    const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
    let address =
        u64::from_str_radix(vmcoreinfo::value(text, "SYMBOL(swapper_pg_dir)")?, 16).ok()?;
    let base: i64 = vmcoreinfo::value(text, "NUMBER(phys_base)")?.parse().ok()?;
    Some(address.checked_sub(START_KERNEL_MAP)?.wrapping_add_signed(base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::dump::notes::{
        VCPU_NOTES_SIZE, vmcoreinfo_note_size, write_vcpu, write_vmcoreinfo,
    };
    use kernel::virt::{CpuState, Gpr, Regs};

    fn notes(text: &[u8]) -> Vec<u8> {
        let mut regs = Regs { rip: 0xffff_8000, rflags: 0x46, ..Regs::default() };
        for (gpr, value) in [(Gpr::Rax, 0x1111), (Gpr::Rsp, 0x7777), (Gpr::R15, 0x1515)] {
            regs.set(gpr, value);
        }
        let state = CpuState { cr0: 0x8000_0001, cr3: 0x5000, cr4: 0x20, ..CpuState::default() };
        let mut bytes = vec![0; VCPU_NOTES_SIZE + vmcoreinfo_note_size(text.len())];
        write_vcpu(&mut bytes, 0, &regs, &state);
        write_vmcoreinfo(&mut bytes[VCPU_NOTES_SIZE..], text);
        bytes
    }

    #[test]
    fn registers_come_back_in_gdbs_order() {
        let notes = Notes::parse(&notes(b"OSRELEASE=6.1\nKERNELOFFSET=22e00000\n"));
        let long = |n: usize| word(&notes.registers, 8 * n).unwrap();
        assert_eq!((long(0), long(7), long(15), long(16)), (0x1111, 0x7777, 0x1515, 0xffff_8000));
        assert_eq!(notes.registers[17 * 8..][..4], 0x46u32.to_le_bytes());
        assert_eq!(notes.registers.len(), 17 * 8 + 7 * 4);
        assert_eq!(notes.paging, PagingRegisters { cr0: 0x8000_0001, cr3: 0x5000, cr4: 0x20 });
        assert_eq!((notes.kernel_offset, notes.kernel), (Some(0x22e0_0000), None));
    }

    #[test]
    fn the_kernels_own_tables_are_known_by_its_note() {
        let text = b"OSRELEASE=6.1\nSYMBOL(swapper_pg_dir)=ffffffffa5810000\n\
            NUMBER(phys_base)=-530579456\n";
        let kernel = Notes::parse(&notes(text)).kernel.unwrap();
        assert_eq!((kernel.cr0, kernel.cr3), (0x8000_0001, 0x2581_0000 - 530_579_456));
    }

    #[test]
    fn notes_that_are_cut_off_or_lie_are_no_error() {
        let whole = notes(b"OSRELEASE=6.1\n");
        for len in 0..whole.len() {
            Notes::parse(&whole[..len]);
        }
        assert_eq!(Notes::parse(&whole).kernel_offset, Some(0));
        assert_eq!(Notes::parse(&[0xff; 64]), Notes::default());
    }
}
