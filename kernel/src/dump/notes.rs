//! The notes of a dump: data on the vCPUs and the kernel for `crash`, drgn and makedumpfile.
//!
//! | name | type | descriptor |
//! |---|---|---|
//! | `CORE` | NT_PRSTATUS (1) | 336 bytes, one a vCPU (Linux `struct elf_prstatus`) |
//! | `QEMU` | 0 | 440 bytes, one a vCPU: control registers, hidden segment parts (QEMU `QEMUCPUState`, version 1) |
//! | `TIDEPOOL` | 0x54500001 | the partition's history ([`super::history_note`]) |
//! | `VMCOREINFO` | 0 | the kernel's own text, verbatim |
//!
//! A note is a 12-byte header {name size, descriptor size, type}, then name and descriptor, each
//! padded to 4.

use super::elf::FieldWriter;
use crate::virt::{CpuState, Gpr, Regs, SegmentRegister, state::DescriptorTable};

const NT_PRSTATUS: u32 = 1;
const PRSTATUS_SIZE: usize = 336;
const QEMU_SIZE: usize = 440;
pub(super) const HEADER_SIZE: usize = 12;

/// Bytes of the notes of one vCPU.
pub const VCPU_NOTES_SIZE: usize = HEADER_SIZE + 8 + PRSTATUS_SIZE + HEADER_SIZE + 8 + QEMU_SIZE;
const _: () = assert!(crate::space::raw::REGISTERS_LEN >= VCPU_NOTES_SIZE);

/// Returns the size of a VMCOREINFO note with `len` bytes of text.
pub const fn vmcoreinfo_note_size(len: usize) -> usize {
    HEADER_SIZE + 12 + padded(len)
}

const fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// Writes the NT_PRSTATUS and QEMU notes of vCPU `number` (from 0).
///
/// # Panics
/// If `out` is shorter than [`VCPU_NOTES_SIZE`] (our bug).
pub fn write_vcpu(out: &mut [u8], number: u32, regs: &Regs, state: &CpuState) {
    let (prstatus, qemu) = out[..VCPU_NOTES_SIZE].split_at_mut(HEADER_SIZE + 8 + PRSTATUS_SIZE);
    prstatus.fill(0);
    qemu.fill(0);
    write_prstatus(header(prstatus, b"CORE", NT_PRSTATUS, PRSTATUS_SIZE), number, regs, state);
    write_qemu(header(qemu, b"QEMU", 0, QEMU_SIZE), regs, state);
}

/// Writes the VMCOREINFO note.
///
/// # Panics
/// If `out` is shorter than [`vmcoreinfo_note_size`] (our bug).
pub fn write_vmcoreinfo(out: &mut [u8], text: &[u8]) {
    let out = &mut out[..vmcoreinfo_note_size(text.len())];
    out.fill(0);
    header(out, b"VMCOREINFO", 0, text.len())[..text.len()].copy_from_slice(text);
}

/// Writes header and name; returns the descriptor's part of `out`.
pub(super) fn header<'a>(out: &'a mut [u8], name: &[u8], kind: u32, len: usize) -> &'a mut [u8] {
    let mut put = FieldWriter { bytes: out, at: 0 };
    put.u32(name.len() as u32 + 1);
    put.u32(len as u32);
    put.u32(kind);
    put.put(name);
    &mut out[HEADER_SIZE + padded(name.len() + 1)..]
}

/// Writes `struct elf_prstatus`: the pid lies at 32, 27 registers at 112.
fn write_prstatus(out: &mut [u8], number: u32, regs: &Regs, state: &CpuState) {
    out[32..36].copy_from_slice(&(number + 1).to_le_bytes());
    let mut put = FieldWriter { bytes: out, at: 112 };
    use Gpr::*;
    for gpr in [R15, R14, R13, R12, Rbp, Rbx, R11, R10, R9, R8, Rax, Rcx, Rdx, Rsi, Rdi] {
        put.u64(regs.get(gpr));
    }
    put.u64(u64::MAX); // orig_rax: not in a system call
    put.u64(regs.rip);
    put.u64(u64::from(state.cs.selector));
    put.u64(regs.rflags);
    put.u64(regs.get(Rsp));
    put.u64(u64::from(state.ss.selector));
    put.u64(state.fs.base);
    put.u64(state.gs.base);
    for segment in [&state.ds, &state.es, &state.fs, &state.gs] {
        put.u64(u64::from(segment.selector));
    }
}

fn write_qemu(out: &mut [u8], regs: &Regs, state: &CpuState) {
    let mut put = FieldWriter { bytes: out, at: 0 };
    put.u32(1);
    put.u32(QEMU_SIZE as u32);
    use Gpr::*;
    for gpr in [Rax, Rbx, Rcx, Rdx, Rsi, Rdi, Rsp, Rbp, R8, R9, R10, R11, R12, R13, R14, R15] {
        put.u64(regs.get(gpr));
    }
    put.u64(regs.rip);
    put.u64(regs.rflags);
    for s in
        [&state.cs, &state.ds, &state.es, &state.fs, &state.gs, &state.ss, &state.ldtr, &state.tr]
    {
        write_segment(&mut put, s);
    }
    write_table(&mut put, &state.gdtr);
    write_table(&mut put, &state.idtr);
    for cr in [state.cr0, 0, state.cr2, state.cr3, state.cr4, state.kernel_gs_base] {
        put.u64(cr);
    }
}

/// Writes a segment. QEMU keeps the attributes at their position in a descriptor: bits 8 to 23 of
/// its upper half.
fn write_segment(put: &mut FieldWriter<'_>, segment: &SegmentRegister) {
    put.u32(u32::from(segment.selector));
    put.u32(segment.limit);
    put.u32((segment.attributes & 0xf0ff) << 8);
    put.u32(0);
    put.u64(segment.base);
}

fn write_table(put: &mut FieldWriter<'_>, table: &DescriptorTable) {
    put.u32(0);
    put.u32(u32::from(table.limit));
    put.u32(0);
    put.u32(0);
    put.u64(table.base);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpu_notes_have_every_field_where_readers_look() {
        let mut regs = Regs { rip: 0x1234, rflags: 0x246, ..Regs::default() };
        regs.set(Gpr::R15, 15);
        regs.set(Gpr::Rsp, 0x5555);
        let state = CpuState {
            cr3: 0xabc000,
            cs: SegmentRegister { selector: 0x10, attributes: 0xa09b, limit: !0, base: 0 },
            ..CpuState::default()
        };
        let mut out = [0xff; VCPU_NOTES_SIZE];
        write_vcpu(&mut out, 0, &regs, &state);
        let u32_at = |at: usize| u32::from_le_bytes(out[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(out[at..at + 8].try_into().unwrap());
        assert_eq!((u32_at(0), u32_at(4), u32_at(8)), (5, 336, 1));
        assert_eq!(&out[12..17], b"CORE\0");
        let prstatus = 20;
        assert_eq!(u32_at(prstatus + 32), 1);
        assert_eq!(u64_at(prstatus + 112), 15);
        assert_eq!(u64_at(prstatus + 112 + 16 * 8), 0x1234);
        assert_eq!(u64_at(prstatus + 112 + 19 * 8), 0x5555);
        let qemu = prstatus + 336;
        assert_eq!((u32_at(qemu), u32_at(qemu + 4)), (5, 440));
        let desc = qemu + 20;
        assert_eq!((u32_at(desc), u32_at(desc + 4)), (1, 440));
        assert_eq!(u32_at(desc + 8 + 18 * 8 + 8), 0x00a0_9b00);
        let crs = desc + 8 + 18 * 8 + 10 * 24;
        assert_eq!(u64_at(crs + 24), 0xabc000);
    }

    #[test]
    fn vmcoreinfo_text_is_padded_but_counted_exactly() {
        let mut out = [0xff; vmcoreinfo_note_size(5)];
        write_vmcoreinfo(&mut out, b"A=1\nB");
        assert_eq!(&out[..12], [11, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&out[12..24], b"VMCOREINFO\0\0");
        assert_eq!(&out[24..], b"A=1\nB\0\0\0");
    }
}
