//! The ACPI tables that describe a partition's devices to its kernel.
//!
//! ```text
//!   RSDP ──> XSDT ──> FADT ──> DSDT: COM1, RTC, pvpanic, fw_cfg, power button, generation ID
//!                 ├─> MADT: one local APIC, one I/O APIC
//!                 ├─> ERST: how to drive `devices::erst`
//!                 └─> MCFG: the PCI bus, only of a partition that has one
//! ```
//!
//! Hardware-reduced ACPI: no PIC and no SCI, hence no FACS. All tables lie in one piece in the
//! search area below 1 MiB, RSDP first. The crate `acpi_tables` makes the AML; the ERST, which the
//! crate lacks, is built here. `devices::map` defines the addresses.

mod dsdt;
mod erst;
mod fixed;
mod pci;

#[cfg(test)]
mod tests;

use alloc::{vec, vec::Vec};

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;

use super::devices::map::{ACPI_BASE, BusPresence};
use crate::addr::Gpa;

const OEM: [u8; 6] = *b"TIDEPL";
const OEM_TABLE: [u8; 8] = *b"TIDEPOOL";
const OEM_REVISION: u32 = 1;

/// Alignment of every table; the RSDP requires it.
const ALIGNMENT: usize = 16;
/// Bytes of an RSDP of revision 2.
const RSDP_BYTES: usize = 36;

/// The tables, ready to be copied to a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcpiTables {
    /// Guest physical address of the first byte.
    pub at: Gpa,
    /// Guest physical address of the RSDP.
    pub rsdp: Gpa,
    /// The bytes from `at` on.
    pub bytes: Vec<u8>,
    /// Whether they describe a PCI bus.
    pub bus: BusPresence,
}

impl AcpiTables {
    /// Makes the tables. They are the same for every partition with a bus, and for every one
    /// without.
    pub fn new(bus: BusPresence) -> Self {
        let mut area = AcpiArea { bytes: vec![0; RSDP_BYTES] };
        let dsdt = area.add(&dsdt::table(bus));
        let fadt = area.add(&fixed::fadt(dsdt));
        let madt = area.add(&fixed::madt());
        let erst = area.add(&erst::table());
        let mcfg = (bus == BusPresence::Present).then(|| area.add(&pci::mcfg()));
        let tables: Vec<u64> = [fadt, madt, erst].into_iter().chain(mcfg).collect();
        let xsdt = area.add(&xsdt(&tables));
        let rsdp = rendered(&Rsdp::new(OEM, xsdt));
        area.bytes[..rsdp.len()].copy_from_slice(&rsdp);
        Self { at: Gpa::new(ACPI_BASE), rsdp: Gpa::new(ACPI_BASE), bytes: area.bytes, bus }
    }
}

/// The bytes of the tables added so far.
struct AcpiArea {
    bytes: Vec<u8>,
}

impl AcpiArea {
    /// Appends a table and returns its guest physical address.
    fn add(&mut self, table: &[u8]) -> u64 {
        let at = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(table);
        ACPI_BASE + at as u64
    }
}

fn xsdt(tables: &[u64]) -> Vec<u8> {
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    tables.iter().for_each(|&table| xsdt.add_entry(table));
    rendered(&xsdt)
}

fn rendered(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}
