//! VMX operation of a CPU: checked and switched on once, never undone.
//!
//! ```text
//!  EnabledCpu::enable: check ─> IA32_FEATURE_CONTROL ─> CR0, CR4 ─> VMXON
//! ```
// UNSAFETY: VMX instructions and the registers that they need.
#![expect(unsafe_code)]

use super::capability::VmxProperties;
use super::host_state::HostState;
use super::msrs::number as msr;
use super::vmcs::write_revision;
use crate::addr::Hpa;
use crate::arch::instr::{self, rdmsr, vmx, wrmsr};
use crate::virt::contract::MissingFeatureError;
use crate::virt::frame::ControlFrame;
use x86_64::registers::control::{Cr0, Cr4};

/// Reads and checks the capabilities of the calling CPU.
///
/// # Errors
/// The missing feature.
pub(super) fn probe() -> Result<VmxProperties, MissingFeatureError> {
    const VMX: u32 = 1 << 5;
    if instr::cpuid(1, 0).ecx & VMX == 0 {
        return Err(MissingFeatureError("VT-x: VMX (CPUID 1 ECX bit 5)"));
    }
    if feature_control() == FeatureControl::LockedOff {
        return Err(MissingFeatureError(
            "VT-x: the firmware has switched VMX off and locked it (IA32_FEATURE_CONTROL)",
        ));
    }
    // SAFETY: CPUID reports VMX, so the capability registers exist; those that depend on others are
    // read after them.
    VmxProperties::read(|number| unsafe { rdmsr(number) })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FeatureControl {
    Open,
    Unlocked(u64),
    LockedOff,
}

fn feature_control() -> FeatureControl {
    // SAFETY: a CPU with VMX has the register.
    parse_feature_control(unsafe { rdmsr(msr::FEATURE_CONTROL) })
}

const LOCK: u64 = 1 << 0;
const VMX_OUTSIDE_SMX: u64 = 1 << 2;

const fn parse_feature_control(value: u64) -> FeatureControl {
    match (value & LOCK != 0, value & VMX_OUTSIDE_SMX != 0) {
        (true, true) => FeatureControl::Open,
        (true, false) => FeatureControl::LockedOff,
        (false, _) => FeatureControl::Unlocked(value | LOCK | VMX_OUTSIDE_SMX),
    }
}

/// A CPU in VMX root operation.
#[derive(Debug)]
pub struct VmxCpu {
    /// Belongs to the CPU for good; its address also identifies the CPU.
    vmxon_region: ControlFrame,
    /// SVM needs two frames; this one is unused.
    _spare: ControlFrame,
    host: HostState,
}

impl VmxCpu {
    /// Enters VMX root operation. The descriptor tables, the task register, GS base and CR3 must
    /// already have their final values.
    ///
    /// # Errors
    /// The feature that this CPU lacks, or that it differs from the first CPU.
    pub fn enable(frames: [ControlFrame; 2]) -> Result<Self, MissingFeatureError> {
        let settings = probe()?;
        if settings != *super::settings() {
            return Err(MissingFeatureError("VT-x: the same VMX capabilities on every CPU"));
        }
        let [vmxon_region, spare] = frames;
        if let FeatureControl::Unlocked(value) = feature_control() {
            // SAFETY: the register is unlocked, and its bits are defined on a CPU with VMX.
            unsafe { wrmsr(msr::FEATURE_CONTROL, value) };
        }
        set_control_registers(&settings);
        write_revision(&vmxon_region, settings.basic.revision());
        // SAFETY: the registers are set as VMXON requires, and the frame is ours for good.
        unsafe { vmx::vmxon(vmxon_region.hpa()) }
            .map_err(|_| MissingFeatureError("VT-x: VMXON is refused"))?;
        Ok(Self { vmxon_region, _spare: spare, host: HostState::capture() })
    }

    /// Returns the identity of this CPU.
    pub fn id(&self) -> CpuTag {
        CpuTag(self.vmxon_region.hpa())
    }

    /// Returns the state that every exit on this CPU loads.
    pub fn host(&self) -> &HostState {
        &self.host
    }
}

/// Identifies an enabled CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuTag(Hpa);

fn set_control_registers(settings: &VmxProperties) {
    let (cr0, cr4) = (settings.cr0.apply(Cr0::read_raw()), settings.cr4.apply(Cr4::read_raw()));
    // SAFETY: adds NE, which affects only x87 code, and there is none.
    unsafe { Cr0::write_raw(cr0) };
    // SAFETY: adds VMXE.
    unsafe { Cr4::write_raw(cr4) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_control_is_set_and_locked_only_where_the_firmware_left_it_open() {
        assert_eq!(parse_feature_control(0), FeatureControl::Unlocked(5));
        assert_eq!(parse_feature_control(1), FeatureControl::LockedOff);
        assert_eq!(parse_feature_control(3), FeatureControl::LockedOff);
        assert_eq!(parse_feature_control(5), FeatureControl::Open);
        assert_eq!(parse_feature_control(1 << 20), FeatureControl::Unlocked(1 << 20 | 5));
    }
}
