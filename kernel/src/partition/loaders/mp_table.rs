//! The tables by which a kernel without ACPI (`acpi=off`) finds local APIC and I/O APIC. Without
//! these tables, Linux from 6.9 on uses neither and has no timer.
//!
//! ```text
//!  MP_BASE     floating pointer, 16 bytes ──┐
//!  MP_BASE+16  configuration table  <───────┘  header, CPU, ISA bus, I/O APIC, COM1's interrupt
//! ```
//!
//! The tables lie in the page of the firmware's entry, within the area that kernels search (0xf0000
//! to 0xfffff). There is no PIC and no timer interrupt, so no other inputs are listed. Intel,
//! MultiProcessor Specification 1.4, "MP Configuration Table".

use alloc::vec::Vec;

use super::plan::{CopyContent, LoadCopy};
use crate::addr::Gpa;
use crate::partition::devices::map::{
    BOOT_APIC_ID, COM1_PIN, IOAPIC_BASE, IOAPIC_ID, LAPIC_BASE, MP_BASE,
};

const REVISION_1_4: u8 = 4;
const POINTER_BYTES: u64 = 16;
/// Offsets of the checksums in the header and in the pointer.
const HEADER_SUM: usize = 7;
const POINTER_SUM: usize = 10;

const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x20;
/// Usable, and the boot CPU.
const CPU_FLAGS: u8 = 1 | 1 << 1;
/// Family 6, and FPU, CX8 and APIC in the specification's own bits. Kernels use CPUID instead.
const CPU_SIGNATURE: u32 = 0x600;
const CPU_FEATURES: u32 = 1 | 1 << 8 | 1 << 9;
const ISA_BUS: u8 = 0;
/// Flags of an I/O APIC: usable.
const IO_APIC_FLAGS: u8 = 1;
/// COM1's line on the ISA bus.
const COM1_IRQ: u8 = 4;

/// Kinds of entries.
#[repr(u8)]
enum MpEntryType {
    Processor = 0,
    Bus = 1,
    IoApic = 2,
    Interrupt = 3,
}

/// Returns the copy of the pointer and the table.
pub(super) fn mp_tables() -> LoadCopy {
    LoadCopy { to: Gpa::new(MP_BASE), content: CopyContent::Made([pointer(), table()].concat()) }
}

fn pointer() -> Vec<u8> {
    let table = ((MP_BASE + POINTER_BYTES) as u32).to_le_bytes();
    let mut bytes = [&b"_MP_"[..], &table, &[1, REVISION_1_4, 0, 0, 0, 0, 0, 0]].concat();
    seal(&mut bytes, POINTER_SUM);
    bytes
}

fn table() -> Vec<u8> {
    let entries = [processor(), bus(), io_apic(), com1()];
    let body = entries.concat();
    let mut bytes = header(entries.len() as u16);
    bytes.extend(body);
    let length = (bytes.len() as u16).to_le_bytes();
    bytes[4..6].copy_from_slice(&length);
    seal(&mut bytes, HEADER_SUM);
    bytes
}

/// Returns the header, without length and checksum: there is no OEM table and no extended table.
fn header(entries: u16) -> Vec<u8> {
    let start = [b'P', b'C', b'M', b'P', 0, 0, REVISION_1_4, 0];
    let (apic, count) = ((LAPIC_BASE as u32).to_le_bytes(), entries.to_le_bytes());
    [&start[..], b"TIDEPL  ", b"TIDEPOOL    ", &[0; 6], &count, &apic, &[0; 4]].concat()
}

fn processor() -> Vec<u8> {
    let head = [MpEntryType::Processor as u8, BOOT_APIC_ID, LOCAL_APIC_VERSION, CPU_FLAGS];
    [&head[..], &CPU_SIGNATURE.to_le_bytes(), &CPU_FEATURES.to_le_bytes(), &[0; 8]].concat()
}

fn bus() -> Vec<u8> {
    [&[MpEntryType::Bus as u8, ISA_BUS][..], b"ISA   "].concat()
}

fn io_apic() -> Vec<u8> {
    let head = [MpEntryType::IoApic as u8, IOAPIC_ID, IO_APIC_VERSION, IO_APIC_FLAGS];
    [head, (IOAPIC_BASE as u32).to_le_bytes()].concat()
}

/// COM1's interrupt. Polarity and trigger conform to the bus.
fn com1() -> Vec<u8> {
    const VECTORED: u8 = 0;
    [MpEntryType::Interrupt as u8, VECTORED, 0, 0, ISA_BUS, COM1_IRQ, IOAPIC_ID, COM1_PIN].to_vec()
}

/// Sets the checksum, so that the sum of all bytes is zero.
fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_sub(byte));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::devices::map::RESET_ENTRY;

    fn bytes() -> Vec<u8> {
        let LoadCopy { to, content: CopyContent::Made(bytes) } = mp_tables() else {
            panic!("they are made")
        };
        assert_eq!(to, Gpa::new(MP_BASE));
        bytes
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
    }

    #[test]
    fn a_kernel_finds_the_table_by_its_pointer() {
        const { assert!(MP_BASE >= 0xf_0000 && MP_BASE.is_multiple_of(16)) };
        let bytes = bytes();
        assert!(MP_BASE + bytes.len() as u64 <= RESET_ENTRY);
        let (pointer, table) = bytes.split_at(16);
        assert!(pointer.starts_with(b"_MP_") && sum(pointer) == 0);
        assert_eq!(pointer[4..8], 0xf_f010_u32.to_le_bytes());
        assert!(table.starts_with(b"PCMP") && sum(table) == 0);
        assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
    }

    #[test]
    fn one_cpu_one_io_apic_and_com1_are_in_it() {
        let bytes = bytes();
        let table = &bytes[16..];
        assert_eq!(table[36..40], 0xfee0_0000_u32.to_le_bytes());
        let (mut at, mut kinds) = (44, Vec::new());
        while at < table.len() {
            kinds.push(table[at]);
            at += if table[at] == 0 { 20 } else { 8 };
        }
        assert_eq!((at, kinds.as_slice()), (table.len(), &[0, 1, 2, 3][..]));
        assert_eq!(usize::from(u16::from_le_bytes([table[34], table[35]])), kinds.len());
        assert_eq!(table[44..48], [0, 0, 0x14, 3]);
        assert_eq!(table[64..72], *b"\x01\x00ISA   ");
        assert_eq!(table[72..80], [2, 0, 0x20, 1, 0, 0, 0xc0, 0xfe]);
        assert_eq!(table[80..88], [3, 0, 0, 0, 0, 4, 0, 4]);
    }
}
