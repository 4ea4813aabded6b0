//! Firmware tables, as far as the hypervisor needs them: the list of CPUs.
//!
//! Small and checked by hand: one table, two kinds of entry. ACPI 6.5 "Root System Description
//! Pointer (RSDP)", "Multiple APIC Description Table (MADT)". [`FirmwareMemory`] bounds every
//! access that the firmware's data leads to.

use super::percpu::MAX_CPUS;
use arrayvec::ArrayVec;

/// Physical memory that holds firmware tables.
pub trait FirmwareMemory {
    /// Returns the bytes at `address`, or `None` if they are not readable.
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]>;
}

/// APIC identifiers of the CPUs that may be started, in the firmware's order; at most [`MAX_CPUS`].
pub type ApicIds = ArrayVec<u32, MAX_CPUS>;

const HEADER: usize = 36;
/// Longer tables are rejected.
const MAX_TABLE: usize = 1 << 20;

/// Returns the CPUs that the MADT lists; none if there is no such table.
pub fn cpus(memory: &impl FirmwareMemory, rsdp: u64) -> ApicIds {
    find_table(memory, rsdp, b"APIC").map(madt_cpus).unwrap_or_default()
}

/// Returns the table with a signature, header included, if its checksum is right.
pub fn find_table<'a>(
    memory: &'a impl FirmwareMemory,
    rsdp: u64,
    signature: &[u8; 4],
) -> Option<&'a [u8]> {
    let root = memory
        .bytes(rsdp, 20)
        .filter(|root| root.starts_with(b"RSD PTR ") && sums_to_zero(root))?;
    let extended =
        (root[15] >= 2).then(|| memory.bytes(rsdp, 36)).flatten().and_then(|root| u64_at(root, 24));
    let (list, width) = match extended.filter(|&xsdt| xsdt != 0) {
        Some(xsdt) => (table(memory, xsdt)?, 8),
        None => (table(memory, u64::from(u32_at(root, 16)?))?, 4),
    };
    let addresses = list.get(HEADER..)?.chunks_exact(width);
    let mut tables = addresses.filter_map(|entry| {
        let address = if width == 8 { u64_at(entry, 0)? } else { u64::from(u32_at(entry, 0)?) };
        table(memory, address)
    });
    tables.find(|table| table.starts_with(signature))
}

fn table(memory: &impl FirmwareMemory, address: u64) -> Option<&[u8]> {
    let len = u32_at(memory.bytes(address, HEADER)?, 4)? as usize;
    let table =
        memory.bytes(address, Some(len).filter(|len| (HEADER..=MAX_TABLE).contains(len))?)?;
    sums_to_zero(table).then_some(table)
}

fn madt_cpus(madt: &[u8]) -> ApicIds {
    const LOCAL_APIC: u8 = 0;
    const LOCAL_X2APIC: u8 = 9;
    const ENABLED: u32 = 1;
    let mut ids = ApicIds::new();
    let mut rest = madt.get(44..).unwrap_or_default();
    while let [kind, len, ..] = *rest {
        let Some(entry) = rest.get(..usize::from(len)).filter(|entry| entry.len() >= 2) else {
            break;
        };
        let found = match kind {
            LOCAL_APIC => entry.get(3).map(|&id| u32::from(id)).zip(u32_at(entry, 4)),
            LOCAL_X2APIC => u32_at(entry, 4).zip(u32_at(entry, 8)),
            _ => None,
        };
        if let Some((id, flags)) = found
            && flags & ENABLED != 0
            && !ids.contains(&id)
        {
            // A machine with more CPUs is used in part.
            let _ = ids.try_push(id);
        }
        rest = &rest[entry.len()..];
    }
    ids
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FakeFirmware(Vec<u8>);

    impl FirmwareMemory for FakeFirmware {
        fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
            self.0.get(usize::try_from(address).ok()?..)?.get(..len)
        }
    }

    fn seal(bytes: &mut [u8], checksum: usize) {
        bytes[checksum] = 0;
        bytes[checksum] = bytes.iter().fold(0_u8, |sum, &b| sum.wrapping_sub(b));
    }

    fn put_table(memory: &mut FakeFirmware, at: usize, signature: &[u8; 4], body: &[u8]) {
        let len = HEADER + body.len();
        let table = &mut memory.0[at..at + len];
        table[..4].copy_from_slice(signature);
        table[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        table[HEADER..].copy_from_slice(body);
        seal(table, 9);
    }

    /// CPUs 0 and 1, a disabled one, and x2APIC 300.
    const ENTRIES: [u8; 48] = [
        0, 0, 0xe0, 0xfe, 0, 0, 0, 0, /**/ 0, 8, 0, 0, 1, 0, 0, 0, /**/ 0, 8, 1, 1, 1, 0,
        0, 0, /**/ 0, 8, 2, 2, 0, 0, 0, 0, /**/ 9, 16, 0, 0, 44, 1, 0, 0, 1, 0, 0, 0, 0,
        0, 0, 0,
    ];

    fn machine(entries: &[u8]) -> FakeFirmware {
        let mut m = FakeFirmware(vec![0; 0x1000]);
        m.0[0x100..0x108].copy_from_slice(b"RSD PTR ");
        m.0[0x110..0x114].copy_from_slice(&0x200_u32.to_le_bytes());
        seal(&mut m.0[0x100..0x114], 8);
        put_table(&mut m, 0x200, b"RSDT", &[0, 3, 0, 0, 0, 4, 0, 0]);
        put_table(&mut m, 0x300, b"FACP", &[1; 8]);
        put_table(&mut m, 0x400, b"APIC", entries);
        m
    }

    #[test]
    fn enabled_cpus_are_found_by_either_kind_of_entry() {
        assert_eq!(cpus(&machine(&ENTRIES), 0x100)[..], [0, 1, 300]);
    }

    #[test]
    fn a_wrong_checksum_hides_the_table() {
        let mut memory = machine(&ENTRIES);
        memory.0[0x420] ^= 1;
        assert!(cpus(&memory, 0x100).is_empty());
    }

    #[test]
    fn an_entry_that_is_too_long_or_empty_ends_the_list() {
        for len in [0, 1, 200] {
            let mut entries = ENTRIES;
            entries[17] = len;
            assert_eq!(cpus(&machine(&entries), 0x100)[..], [0], "{len}");
        }
    }

    #[test]
    fn a_table_outside_memory_is_not_there() {
        let mut memory = machine(&ENTRIES);
        put_table(&mut memory, 0x200, b"RSDT", &[0xff; 8]);
        assert_eq!(find_table(&memory, 0x100, b"APIC"), None);
        assert_eq!(find_table(&memory, 0xfff, b"APIC"), None);
    }

    #[test]
    fn more_cpus_than_are_used_are_left_out() {
        let mut entries = vec![0; 8];
        (0..20).for_each(|id| entries.extend_from_slice(&[0, 8, id, id, 1, 0, 0, 0]));
        assert_eq!(cpus(&machine(&entries), 0x100).len(), MAX_CPUS);
    }
}
