//! VMX with EPT: the first back end.
//!
//! ```text
//!  capability ─ controls      the CPU's capabilities, our requests                pure
//!  control ─ host_state       VMX operation of a CPU, the current VMCS            unsafe
//!  field                      the VMCS's fields, typed                            pure
//!  setup ─ guest_state        contents of a VMCS: constant, and for each guest
//!  vcpu ─ entry ─ decode      run: world switch, then exit -> VmExit              decode is pure
//!  event ─ control_register   interruption words; CR0 and CR4 masks and shadows   pure
//!  msrs ─ msr_bitmap ─ flush
//!  nmi                       whether a guest handles an NMI                       pure
//! ```
//!
//! Required beyond VMX itself, and named in the message if missing: EPT with 4 levels and
//! write-back, unrestricted guest, VPID, virtual NMIs, MSR bitmaps, EFER and PAT switched at entry
//! and exit, INVEPT and INVVPID of a single context.
//!
//! The guest accesses these without an exit: its control registers except for a few bits, CR3,
//! INVLPG, its debug registers, time stamp, EFER, PAT and the MSRs of system calls. Ports, CPUID,
//! HLT, XSETBV, CR8 and all other MSRs exit.

mod capability;
mod control;
mod control_register;
mod controls;
mod decode;
mod entry;
mod event;
mod field;
mod flush;
mod guest_state;
mod host_state;
mod msr_bitmap;
mod msrs;
mod nmi;
mod qualification;
mod setup;
mod vcpu;
mod vmcs;

pub use control::VmxCpu;
pub use vcpu::VmxVcpu;

use super::contract::{BackendCapabilities, MissingFeatureError};
use capability::VmxProperties;
use spin::Once;

/// Result of [`detect`]; the same on every CPU, which [`VmxCpu::enable`] checks.
static SETTINGS: Once<VmxProperties> = Once::new();

/// Checks that the calling CPU has all required features.
///
/// # Errors
/// The missing feature.
pub fn detect() -> Result<(), MissingFeatureError> {
    let settings = control::probe()?;
    SETTINGS.call_once(|| settings);
    Ok(())
}

/// Returns the back end's properties on this machine.
pub fn capabilities() -> BackendCapabilities {
    /// VPIDs have 16 bits on every CPU.
    const VPIDS: u32 = 1 << 16;
    BackendCapabilities { tags: VPIDS, accessed_dirty: settings().accessed_dirty }
}

fn settings() -> &'static VmxProperties {
    SETTINGS.get().expect("VMX is detected before it is used")
}
