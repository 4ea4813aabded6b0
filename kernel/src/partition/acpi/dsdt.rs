//! The DSDT: the devices that have no ACPI table of their own.
//!
//! Hardware-reduced ACPI has no fixed power button. The button is a device of its own, and a
//! generic event device reports its interrupt: ACPI 6.5 "Control Method Power Button" and "Generic
//! Event Device".

use alloc::{vec, vec::Vec};

use acpi_tables::Aml;
use acpi_tables::aml::{
    Arg, Device, EISAName, Equal, IO, If, Interrupt, Method, Name, Notify, Package, Path,
    ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::{OEM, OEM_REVISION, OEM_TABLE, pci, rendered};
use crate::partition::devices::map::{
    BusPresence, COM1_PIN, GENERATION_ID, GENERATION_PIN, POWER_BUTTON_PIN, SLEEP_TYPE_OFF, port,
};

/// Bytes of an empty table.
const HEADER_BYTES: u32 = 36;
/// Present, enabled, decoding, shown, functioning.
const PRESENT: u8 = 0x0f;
/// Notification of a power button in the working state. ACPI 6.5 "Control Method Power Button".
const PRESSED: u8 = 0x80;
/// The name of the generation ID's device; its notification has the button's number.
const GENERATION: &str = "VGEN";
/// The power button's name.
const POWER_BUTTON: &str = "PWRB";

/// Makes the DSDT.
pub(super) fn table(bus: BusPresence) -> Vec<u8> {
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

    let button = device(POWER_BUTTON, &EISAName::new("PNP0C0C"), &[]);
    let mut devices = vec![com1, rtc, pvpanic, fw_cfg, button, generation(), event_device()];
    if bus == BusPresence::Present {
        devices.push(pci::host_bridge());
    }
    let mut aml = Scope::raw("_SB_".into(), devices.concat());
    let s5 = Package::new(vec![&SLEEP_TYPE_OFF, &ZERO, &ZERO, &ZERO]);
    Name::new("_S5_".into(), &s5).to_aml_bytes(&mut aml);

    let mut table = Sdt::new(*b"DSDT", HEADER_BYTES, 6, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&aml);
    table.as_slice().to_vec()
}

/// Makes the device of the generation ID. Drivers find it by its compatible IDs, which exist in
/// several spellings, and the ID by `ADDR`: the lower and the upper half of its address.
fn generation() -> Vec<u8> {
    let ids = Package::new(vec![&"VM_Gen_Counter", &"VMGENCTR", &"VM_GEN_COUNTER"]);
    let compatible = Name::new("_CID".into(), &ids);
    let description = Name::new("_DDN".into(), &"VM_Gen_Counter");
    let low = GENERATION_ID as u32;
    let halves = Package::new(vec![&low, &ZERO]);
    let address = Name::new("ADDR".into(), &halves);
    device_with(GENERATION, &"TPVMGID", &[], &[&compatible, &description, &address])
}

/// Makes the device whose interrupts are a press of the power button, and a change of the
/// generation ID.
fn event_device() -> Vec<u8> {
    let irq = |pin: u8| Interrupt::new(true, true, false, false, pin.into());
    let (button, generation) = (Path::new(POWER_BUTTON), Path::new(GENERATION));
    let pressed = Notify::new(&button, &PRESSED);
    let is_button = Equal::new(&Arg(0), &POWER_BUTTON_PIN);
    let pressed = If::new(&is_button, vec![&pressed]);
    let changed = Notify::new(&generation, &PRESSED);
    let is_generation = Equal::new(&Arg(0), &GENERATION_PIN);
    let changed = If::new(&is_generation, vec![&changed]);
    let event = Method::new("_EVT".into(), 1, true, vec![&pressed, &changed]);
    let inputs = [irq(POWER_BUTTON_PIN), irq(GENERATION_PIN)];
    device_with("GED_", &"ACPI0013", &[&inputs[0], &inputs[1]], &[&event])
}

/// Makes a device without methods.
fn device(name: &str, hardware_id: &dyn Aml, resources: &[&dyn Aml]) -> Vec<u8> {
    device_with(name, hardware_id, resources, &[])
}

fn device_with(
    name: &str,
    hardware_id: &dyn Aml,
    resources: &[&dyn Aml],
    methods: &[&dyn Aml],
) -> Vec<u8> {
    let hid = Name::new("_HID".into(), hardware_id);
    let uid = Name::new("_UID".into(), &ZERO);
    let status = Name::new("_STA".into(), &PRESENT);
    let template = ResourceTemplate::new(resources.to_vec());
    let current = Name::new("_CRS".into(), &template);
    let mut children: Vec<&dyn Aml> = vec![&hid, &uid, &status];
    if !resources.is_empty() {
        children.push(&current);
    }
    children.extend(methods);
    rendered(&Device::new(name.into(), children))
}
