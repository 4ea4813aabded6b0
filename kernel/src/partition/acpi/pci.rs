//! The PCI bus in ACPI: the host bridge in the DSDT, and the MCFG.
//!
//! Sources: PCI Firmware Specification 3.2, "MCFG" and "_OSC Interface for PCI Host Bridge
//! Devices"; ACPI 6.5 "Resource Data Types for ACPI". There is no table of interrupt routes: no
//! device has a wired interrupt.

use alloc::{vec, vec::Vec};

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, CreateDWordField, Device, EISAName, Equal, If,
    Method, Name, Or, Path, ResourceTemplate, Return, Store, Uuid, ZERO,
};
use acpi_tables::mcfg::MCFG;

use super::{OEM, OEM_REVISION, OEM_TABLE, rendered};
use crate::partition::devices::map::{ECAM_BASE, PCI_WINDOW_BASE, PCI_WINDOW_END};

/// The UUID of a PCI host bridge's `_OSC`.
const HOST_BRIDGE: &str = "33DB4D5B-1FF7-401C-9657-7441C03DD766";
/// Bit of the first dword of `_OSC`: the UUID is unknown.
const UNKNOWN_UUID: u8 = 1 << 2;

/// Makes the MCFG: bus 0 alone.
pub(super) fn mcfg() -> Vec<u8> {
    let mut table = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    table.add_ecam(ECAM_BASE, 0, 0, 0);
    rendered(&table)
}

/// Makes the host bridge. It grants the operating system none of the features that `_OSC` is about.
pub(super) fn host_bridge() -> Vec<u8> {
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
    let cid = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
    let plain = ["_UID", "_SEG", "_BBN"].map(|name| Name::new(name.into(), &ZERO));
    let coherent = Name::new("_CCA".into(), &1_u8);
    let buses = AddressSpace::<u16>::new_bus_number(0, 0);
    let window = AddressSpace::<u32>::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        PCI_WINDOW_BASE as u32,
        (PCI_WINDOW_END - 1) as u32,
        None,
    );
    let template = ResourceTemplate::new(vec![&buses, &window]);
    let current = Name::new("_CRS".into(), &template);
    let control = operating_system_control();
    let mut children: Vec<&dyn Aml> = vec![&hid, &cid];
    children.extend(plain.iter().map(|name| name as &dyn Aml));
    children.extend([&coherent as &dyn Aml, &current, &control]);
    rendered(&Device::new("PCI0".into(), children))
}

fn operating_system_control() -> AmlBytes {
    let (answer, first, third) = (Arg(3), Path::new("CDW1"), Path::new("CDW3"));
    let make_first = CreateDWordField::new(&first, &answer, &ZERO);
    let make_third = CreateDWordField::new(&third, &answer, &8_u8);
    let nothing = Store::new(&third, &ZERO);
    let done = Return::new(&answer);
    let uuid = Uuid::new(HOST_BRIDGE);
    let is_known = Equal::new(&Arg(0), &uuid);
    let known = If::new(&is_known, vec![&make_third, &nothing, &done]);
    let refuse = Or::new(&first, &first, &UNKNOWN_UUID);
    let body: Vec<&dyn Aml> = vec![&make_first, &known, &refuse, &done];
    AmlBytes(rendered(&Method::new("_OSC".into(), 4, true, body)))
}

/// AML that is made already.
struct AmlBytes(Vec<u8>);

impl Aml for AmlBytes {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}
