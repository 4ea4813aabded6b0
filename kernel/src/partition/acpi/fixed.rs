//! FADT and MADT.

use alloc::vec::Vec;

use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};

use super::{OEM, OEM_REVISION, OEM_TABLE, rendered};
use crate::partition::devices::map::{
    BOOT_APIC_ID, IOAPIC_BASE, IOAPIC_ID, LAPIC_BASE, RESET_VALUE, port,
};

/// IA-PC boot architecture flags: there is no VGA to probe. ACPI 6.5 "IA-PC Boot Architecture
/// Flags".
const NO_VGA: u16 = 1 << 2;

/// Makes the FADT.
///
/// The two button flags mean "no buttons in the fixed hardware". The DSDT declares a power button
/// and no sleep button.
pub(super) fn fadt(dsdt: u64) -> Vec<u8> {
    let mut builder = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::HwReducedAcpi);
    builder.iapc_boot_arch = NO_VGA.into();
    builder.reset_reg = byte_port(port::RESET);
    builder.reset_value = RESET_VALUE;
    builder.sleep_control_reg = byte_port(port::SLEEP_CONTROL);
    builder.sleep_status_reg = byte_port(port::SLEEP_STATUS);
    builder.pm_tmr_blk = u32::from(port::PM_TIMER).into();
    builder.pm_tmr_len = 4;
    builder.x_pm_tmr_blk =
        GAS::new(AddressSpace::SystemIo, 32, 0, AccessSize::DwordAccess, port::PM_TIMER.into());
    builder.hypervisor_vendor_identity = u64::from_le_bytes(OEM_TABLE).into();
    rendered(&builder.finalize())
}

/// Makes the MADT: one CPU, one I/O APIC, no PIC.
pub(super) fn madt() -> Vec<u8> {
    let local_apic = LocalInterruptController::Address(LAPIC_BASE as u32);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local_apic);
    madt.add_structure(ProcessorLocalApic::new(0, BOOT_APIC_ID, EnabledStatus::Enabled));
    madt.add_structure(IoApic::new(IOAPIC_ID, IOAPIC_BASE as u32, 0));
    rendered(&madt)
}

fn byte_port(number: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, number.into())
}
