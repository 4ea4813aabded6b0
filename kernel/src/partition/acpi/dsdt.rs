//! The DSDT: the devices that have no ACPI table of their own.

use alloc::{vec, vec::Vec};

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Name, Package, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::{OEM, OEM_REVISION, OEM_TABLE, rendered};
use crate::partition::devices::map::{COM1_PIN, SLEEP_TYPE_OFF, port};

/// Bytes of an empty table.
const HEADER_BYTES: u32 = 36;
/// Present, enabled, decoding, shown, functioning.
const PRESENT: u8 = 0x0f;

/// Makes the DSDT.
pub(super) fn table() -> Vec<u8> {
    let com1_irq = Interrupt::new(true, true, false, false, COM1_PIN.into());
    let com1 = device(
        "COM1",
        &EISAName::new("PNP0501"),
        &[&IO::new(port::COM1, port::COM1, 1, 8), &com1_irq],
    );
    // No interrupt: the RTC offers no alarms.
    let rtc = device(
        "RTC_",
        &EISAName::new("PNP0B00"),
        &[&IO::new(port::CMOS_INDEX, port::CMOS_INDEX, 1, 2)],
    );
    let pvpanic = device("PEVT", &"QEMU0001", &[&IO::new(port::PVPANIC, port::PVPANIC, 1, 1)]);
    let fw_cfg = device("FWCF", &"QEMU0002", &[&IO::new(port::FW_CFG, port::FW_CFG, 1, 12)]);

    let mut aml = Scope::raw("_SB_".into(), [com1, rtc, pvpanic, fw_cfg].concat());
    let s5 = Package::new(vec![&SLEEP_TYPE_OFF, &ZERO, &ZERO, &ZERO]);
    Name::new("_S5_".into(), &s5).to_aml_bytes(&mut aml);

    let mut table = Sdt::new(*b"DSDT", HEADER_BYTES, 6, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&aml);
    table.as_slice().to_vec()
}

fn device(name: &str, hardware_id: &dyn Aml, resources: &[&dyn Aml]) -> Vec<u8> {
    let hid = Name::new("_HID".into(), hardware_id);
    let uid = Name::new("_UID".into(), &ZERO);
    let status = Name::new("_STA".into(), &PRESENT);
    let template = ResourceTemplate::new(resources.to_vec());
    let resources = Name::new("_CRS".into(), &template);
    rendered(&Device::new(name.into(), vec![&hid, &uid, &status, &resources]))
}
