use super::*;
use crate::partition::devices::map::{BusPresence, COM1_PIN, GENERATION_PIN, POWER_BUTTON_PIN};

struct AcpiWalk {
    tables: AcpiTables,
}

impl AcpiWalk {
    fn new() -> Self {
        Self { tables: AcpiTables::new(BusPresence::Present) }
    }
    fn at(&self, gpa: u64) -> &[u8] {
        &self.tables.bytes[(gpa - self.tables.at.as_u64()) as usize..]
    }
    fn u32(&self, gpa: u64) -> u32 {
        u32::from_le_bytes(*self.at(gpa).first_chunk().unwrap())
    }
    fn u64(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(*self.at(gpa).first_chunk().unwrap())
    }
    /// Finds a table through RSDP and XSDT, as a kernel does; checks its sum.
    fn table(&self, signature: &[u8; 4]) -> (u64, &[u8]) {
        let xsdt = self.u64(self.tables.rsdp.as_u64() + 24);
        let count = (u64::from(self.u32(xsdt + 4)) - 36) / 8;
        let found = (0..count)
            .map(|i| self.u64(xsdt + 36 + i * 8))
            .find(|&table| self.at(table).starts_with(signature));
        let at = found.unwrap_or_else(|| self.u64(self.table(b"FACP").0 + 140));
        let bytes = &self.at(at)[..self.u32(at + 4) as usize];
        assert!(bytes.starts_with(signature));
        assert_eq!(sum(bytes), 0, "{signature:?}");
        (at, bytes)
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &b| sum.wrapping_add(b))
}

#[test]
fn a_kernel_finds_every_table_with_a_right_sum() {
    let walk = AcpiWalk::new();
    let rsdp = walk.at(walk.tables.rsdp.as_u64());
    assert!(rsdp.starts_with(b"RSD PTR ") && walk.tables.rsdp.as_u64().is_multiple_of(16));
    assert_eq!((sum(&rsdp[..20]), sum(&rsdp[..36])), (0, 0));
    for signature in [b"FACP", b"APIC", b"ERST", b"MCFG", b"DSDT"] {
        walk.table(signature);
    }
    assert!(walk.tables.bytes.len() < 0x1_0000);
}

#[test]
fn the_fadt_has_reset_and_sleep_registers_and_no_fixed_hardware() {
    let walk = AcpiWalk::new();
    let (at, fadt) = walk.table(b"FACP");
    assert_eq!((fadt.len(), fadt[8]), (276, 6));
    let flags = walk.u32(at + 112);
    assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10, "hardware-reduced, reset register");
    assert_eq!((&fadt[116..120], walk.u64(at + 120), fadt[128]), (&[1, 8, 0, 1][..], 0x602, 1));
    assert_eq!((walk.u64(at + 248), walk.u64(at + 260)), (0x600, 0x601));
}

#[test]
fn the_madt_has_one_cpu_and_one_ioapic() {
    let walk = AcpiWalk::new();
    let (at, madt) = walk.table(b"APIC");
    assert_eq!((walk.u32(at + 36), walk.u32(at + 40)), (0xfee0_0000, 0));
    assert_eq!(&madt[44..52], &[0, 8, 0, 0, 1, 0, 0, 0]);
    assert_eq!(
        (&madt[52..56], walk.u32(at + 56), walk.u32(at + 60)),
        (&[1, 12, 0, 0][..], 0xfec0_0000, 0)
    );
    assert_eq!(madt.len(), 64);
}

#[test]
fn the_erst_passes_linuxs_checks() {
    let walk = AcpiWalk::new();
    let (at, erst) = walk.table(b"ERST");
    assert_eq!(walk.u32(at + 36), 48);
    let count = walk.u32(at + 44) as usize;
    assert_eq!(erst.len(), 48 + 32 * count);
    for entry in erst[48..].as_chunks::<32>().0 {
        assert_eq!(&entry[4..8], &[0, 64, 0, 4], "an access size that fits the width");
        assert!(entry[0] <= 0x10 && entry[1] <= 3);
        assert_eq!(u64::from_le_bytes(*entry[8..].first_chunk().unwrap()) & !0xfff, 0xfeb0_0000);
    }
    let actions: std::collections::BTreeSet<u8> =
        erst[48..].as_chunks::<32>().0.iter().map(|e| e[0]).collect();
    assert_eq!(actions.len(), 16, "all but the reserved one");
}

/// Walks the subset of AML that these tables use (scopes, devices, methods, names), independently
/// of its writer.
fn names(mut aml: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((&op, rest)) = aml.split_first() {
        let (skip, inner) = match (op, rest.first()) {
            (0x10, _) => block(rest, 0),
            // A method: its terms are not walked.
            (0x14, _) => {
                let (skip, inner) = block(rest, 0);
                (skip, &inner[..4])
            }
            (0x5b, Some(0x82)) => block(&rest[1..], 1),
            (0x08, _) => {
                found.push(String::from_utf8(rest[..4].to_vec()).unwrap());
                (4 + data_length(&rest[4..]), &[][..])
            }
            _ => panic!("unexpected opcode {op:#x}"),
        };
        if !inner.is_empty() {
            found.push(String::from_utf8(inner[..4].to_vec()).unwrap());
            found.extend(names(&inner[4..]));
        }
        aml = &rest[skip..];
    }
    found
}

fn package_length(bytes: &[u8]) -> usize {
    let extra = usize::from(bytes[0] >> 6);
    if extra == 0 {
        return usize::from(bytes[0] & 0x3f);
    }
    (1..=extra).fold(usize::from(bytes[0] & 0xf), |n, i| n | usize::from(bytes[i]) << (8 * i - 4))
}

fn block(bytes: &[u8], prefix: usize) -> (usize, &[u8]) {
    let length = package_length(bytes);
    let header = 1 + usize::from(bytes[0] >> 6);
    (prefix + length, &bytes[header..length])
}

fn data_length(bytes: &[u8]) -> usize {
    match bytes[0] {
        0x00 | 0x01 | 0xff => 1,
        0x0a => 2,
        0x0b => 3,
        0x0c => 5,
        0x0d => 2 + bytes[1..].iter().position(|&b| b == 0).unwrap(),
        0x11 | 0x12 => 1 + package_length(&bytes[1..]),
        op => panic!("unexpected data {op:#x}"),
    }
}

#[test]
fn the_dsdt_is_well_formed_and_names_the_devices() {
    let walk = AcpiWalk::new();
    let (_, dsdt) = walk.table(b"DSDT");
    let found = names(&dsdt[36..]);
    for name in
        ["_SB_", "COM1", "RTC_", "PEVT", "FWCF", "PWRB", "VGEN", "ADDR", "GED_", "_EVT", "_S5_"]
    {
        assert_eq!(found.iter().filter(|n| *n == name).count(), 1, "{name} in {found:?}");
    }
    assert_eq!(found.iter().filter(|n| *n == "_CRS").count(), 6);
    for name in ["PCI0", "_BBN", "_SEG", "_CID", "_CCA", "_OSC"] {
        assert!(found.iter().any(|n| n == name), "{name} in {found:?}");
    }
    assert!(!found.iter().any(|n| n == "_PRT"), "no device has a wired interrupt");
}

#[test]
fn without_a_bus_nothing_speaks_of_one() {
    let with = AcpiWalk::new();
    let without = AcpiWalk { tables: AcpiTables::new(BusPresence::Absent) };
    let has = |walk: &AcpiWalk, bytes: &[u8]| {
        walk.tables.bytes.windows(bytes.len()).any(|found| found == bytes)
    };
    for word in [b"MCFG", b"PCI0", b"_OSC"] {
        assert_eq!((has(&with, word), has(&without, word)), (true, false), "{word:?}");
    }
}

/// PCI Firmware Specification 3.2, table 4-2 and 4-3.
#[test]
fn the_mcfg_names_bus_0_alone() {
    let walk = AcpiWalk::new();
    let (at, mcfg) = walk.table(b"MCFG");
    assert_eq!((mcfg.len(), walk.u64(at + 36), walk.u64(at + 44)), (60, 0, 0xe000_0000));
    assert_eq!(mcfg[52..], [0; 8], "segment, first and last bus");
}

/// By the grammar in ACPI 6.5 "AML Byte Stream Byte Values" and "Address Space Resource
/// Descriptors".
#[test]
fn the_host_bridge_has_bus_0_a_window_and_grants_nothing() {
    const FIXED: u8 = 0b1100;
    let buses = [0x88, 13, 0, 2, FIXED, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert!(dsdt_has(&[&buses]));
    let mut window = vec![0x87, 23, 0, 0, FIXED, 1];
    for word in [0_u32, 0xc000_0000, 0xdfff_ffff, 0, 0x2000_0000] {
        window.extend(word.to_le_bytes());
    }
    assert!(dsdt_has(&[&window, &[0x79, 0]]));
    // CreateDWordField (Arg3, 8, CDW3), CDW3 = 0, Return (Arg3)
    assert!(dsdt_has(&[b"\x8a\x6b\x0a\x08CDW3\x70\0CDW3\xa4\x6b"]));
    // CDW1 |= 4, Return (Arg3)
    assert!(dsdt_has(&[b"\x7dCDW1\x0a\x04CDW1\xa4\x6b"]));
}

/// Returns whether the DSDT has these bytes.
fn dsdt_has(parts: &[&[u8]]) -> bool {
    let (walk, wanted) = (AcpiWalk::new(), parts.concat());
    walk.table(b"DSDT").1.windows(wanted.len()).any(|bytes| bytes == wanted)
}

/// By the grammar in ACPI 6.5 "AML Byte Stream Byte Values" and "Extended Interrupt Descriptor".
#[test]
fn an_edge_at_the_buttons_input_notifies_the_power_button() {
    const UID_AND_STATUS: &[u8] = b"\x08_UID\0\x08_STA\x0a\x0f";
    // PNP0C0C, compressed.
    let button: &[u8] = b"\x5b\x82\x1cPWRB\x08_HID\x0c\x41\xd0\x0c\x0c";
    assert!(dsdt_has(&[button, UID_AND_STATUS]), "the button has no resources");
    // A consumer's interrupt, edge-triggered, active high, exclusive; the end tag.
    let input = |pin| [0x89, 6, 0, 0b0011, 1, pin, 0, 0, 0];
    let inputs = [&input(POWER_BUTTON_PIN)[..], &input(GENERATION_PIN), &[0x79, 0]].concat();
    let resources: &[u8] = b"\x08_CRS\x11\x17\x0a\x14";
    // Method (_EVT, 1, Serialized) { If (Arg0 == 9) { Notify (PWRB, 0x80) } ... }
    let event: &[u8] = b"\x14\x20_EVT\x09\xa0\x0c\x93\x68\x0a\x09\x86PWRB\x0a\x80\
        \xa0\x0c\x93\x68\x0a\x0a\x86VGEN\x0a\x80";
    let device: &[u8] = b"GED_\x08_HID\x0dACPI0013\0";
    assert!(dsdt_has(&[device, UID_AND_STATUS, resources, &inputs, event]));
}

#[test]
fn the_only_power_button_is_that_of_the_dsdt() {
    let walk = AcpiWalk::new();
    let flags = walk.u32(walk.table(b"FACP").0 + 112);
    assert_eq!(flags & (1 << 4), 1 << 4, "none in the fixed hardware");
    assert_ne!(POWER_BUTTON_PIN, COM1_PIN);
}

/// Writes the tables to the folder in TIDEPOOL_ACPI_OUT, for `iasl -d`.
#[test]
fn tables_can_be_written_out_for_a_disassembler() {
    let Ok(folder) = std::env::var("TIDEPOOL_ACPI_OUT") else { return };
    let walk = AcpiWalk::new();
    for signature in [b"FACP", b"APIC", b"ERST", b"MCFG", b"DSDT"] {
        let name = format!("{folder}/{}.aml", String::from_utf8_lossy(signature));
        std::fs::write(name, walk.table(signature).1).unwrap();
    }
}
