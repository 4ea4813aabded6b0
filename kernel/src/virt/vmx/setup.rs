//! The part of a VMCS that is the same for every guest: the controls, and guest fields that are not
//! in a [`CpuState`].
//!
//! `host_state` writes the host state, `guest_state` the rest of the guest's.
//!
//! [`CpuState`]: crate::virt::state::CpuState

use super::capability::VmxProperties;
use super::control_register::{cr0, cr4};
use super::controls::SecondaryControls;
use super::field::{control, guest};
use super::msr_bitmap;
use super::vmcs::CurrentVmcs;
use crate::addr::{Hpa, Hva};
use crate::arch::{direct_map, time};

/// Exceptions that exit: #DB and #AC, because a guest can make their delivery raise them again
/// endlessly, which no interrupt ends; #MC, because it is the host's.
const EXCEPTIONS: u32 = 1 << 1 | 1 << 17 | 1 << 18;

/// Writes the controls.
pub(super) fn write_controls(vmcs: &mut CurrentVmcs<'_>, settings: &VmxProperties) {
    vmcs.write(control::PIN_BASED, settings.pin);
    vmcs.write(control::PRIMARY, settings.primary);
    vmcs.write(control::SECONDARY, settings.secondary);
    vmcs.write(control::EXIT, settings.exit);
    vmcs.write(control::ENTRY, settings.entry);
    write_enclave_bitmaps(vmcs, SecondaryControls::from_bits_retain(settings.secondary));
    vmcs.write(control::EXCEPTION_BITMAP, EXCEPTIONS);
    // No page fault exits: bit 14 of the bitmap is clear, and mask and match make every error code
    // "equal".
    vmcs.write(control::PAGE_FAULT_MASK, 0);
    vmcs.write(control::PAGE_FAULT_MATCH, 0);
    vmcs.write(control::CR3_TARGET_COUNT, 0);
    vmcs.write(control::EXIT_MSR_STORE_COUNT, 0);
    vmcs.write(control::EXIT_MSR_LOAD_COUNT, 0);
    vmcs.write(control::ENTRY_MSR_LOAD_COUNT, 0);
    vmcs.write(control::ENTRY_INTERRUPTION, 0);
    vmcs.write(control::MSR_BITMAP, msr_bitmap_address().as_u64());
    vmcs.write(control::CR0_MASK, cr0::MASK);
    vmcs.write(control::CR4_MASK, cr4::MASK);
    vmcs.write(control::TSC_OFFSET, 0);
}

/// Makes every function of ENCLS and ENCLV exit; the fields exist only with their controls.
fn write_enclave_bitmaps(vmcs: &mut CurrentVmcs<'_>, secondary: SecondaryControls) {
    if secondary.contains(SecondaryControls::ENCLS_EXITING) {
        vmcs.write(control::ENCLS_EXITING_BITMAP, u64::MAX);
    }
    if secondary.contains(SecondaryControls::ENCLV_EXITING) {
        vmcs.write(control::ENCLV_EXITING_BITMAP, u64::MAX);
    }
}

/// Writes the guest fields that never change, or that only the CPU changes.
pub(super) fn write_guest_constants(vmcs: &mut CurrentVmcs<'_>, settings: &VmxProperties) {
    /// Longest stay in the guest, as a fraction of a second: 1 ms.
    const STAYS_A_SECOND: u64 = 1000;
    if let Some(value) = settings.preemption_value(time::tsc_hz() / STAYS_A_SECOND) {
        vmcs.write(guest::PREEMPTION_TIMER, value);
    }
    // No shadow VMCS.
    vmcs.write(guest::LINK_POINTER, u64::MAX);
    vmcs.write(guest::DEBUGCTL, 0);
}

fn msr_bitmap_address() -> Hpa {
    direct_map::image_hpa(Hva::new(core::ptr::from_ref(&msr_bitmap::PAGE) as u64))
}
