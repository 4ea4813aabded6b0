//! VMX capabilities of this CPU: the capability MSRs, parsed once into typed values.
//!
//! ```text
//!  IA32_VMX_BASIC ─ true controls? ─┬─ pin, primary, exit, entry ─ secondary ─ EPT_VPID_CAP
//!                                   └─ revision, region size       (each only if the one before has it)
//! ```
//!
//! Pure: the MSRs are read through a closure, so that tests can supply tables of real and emulated
//! CPUs. [`VmxProperties`] has all that is needed to set up a VMCS. A CPU that does not support it
//! is refused, and the message names the missing feature.

use super::controls::{
    AllowedControls, ControlError, ControlGroup, PinControls, PrimaryControls, SecondaryControls,
    adjust, requests,
};
use crate::virt::contract::{AccessedDirty, MissingFeatureError};

/// Numbers of the capability MSRs (SDM 3D "VMX Capability Reporting Facility").
mod msr {
    pub(super) const BASIC: u32 = 0x480;
    pub(super) const PIN: u32 = 0x481;
    pub(super) const PRIMARY: u32 = 0x482;
    pub(super) const EXIT: u32 = 0x483;
    pub(super) const ENTRY: u32 = 0x484;
    pub(super) const MISC: u32 = 0x485;
    pub(super) const CR0_FIXED0: u32 = 0x486;
    pub(super) const CR0_FIXED1: u32 = 0x487;
    pub(super) const CR4_FIXED0: u32 = 0x488;
    pub(super) const CR4_FIXED1: u32 = 0x489;
    pub(super) const SECONDARY: u32 = 0x48b;
    pub(super) const EPT_VPID: u32 = 0x48c;
    /// The same four groups without the bits that older software expects to be 1: 12 higher.
    pub(super) const TRUE_OFFSET: u32 = 12;
}

/// IA32_VMX_BASIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VmxBasic(u64);

impl VmxBasic {
    /// Identifier in the first word of a VMCS or VMXON region.
    pub(super) const fn revision(self) -> u32 {
        self.0 as u32 & 0x7fff_ffff
    }
    const fn region_bytes(self) -> u64 {
        (self.0 >> 32) & 0x1fff
    }
    const fn write_back(self) -> bool {
        (self.0 >> 50) & 0xf == 6
    }
    const fn true_controls(self) -> bool {
        self.0 & (1 << 55) != 0
    }
}

/// Bits of a control register that are fixed in VMX operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FixedBits {
    /// Must be 1.
    pub ones: u64,
    /// May be 1.
    pub permitted: u64,
}

impl FixedBits {
    /// Makes `value` valid in VMX operation.
    pub(super) const fn apply(self, value: u64) -> u64 {
        (value | self.ones) & self.permitted
    }
}

/// IA32_VMX_EPT_VPID_CAP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EptVpidCapability(u64);

impl EptVpidCapability {
    const WALK_4: u64 = 1 << 6;
    const WRITE_BACK: u64 = 1 << 14;
    const INVEPT: u64 = 1 << 20;
    const ACCESSED_DIRTY: u64 = 1 << 21;
    const INVEPT_SINGLE: u64 = 1 << 25;
    const INVVPID: u64 = 1 << 32;
    const INVVPID_SINGLE: u64 = 1 << 41;

    /// In the order of the checks; the first missing feature is named.
    const NEEDED: [(u64, &'static str); 6] = [
        (Self::WALK_4, "VT-x: EPT with 4 levels (IA32_VMX_EPT_VPID_CAP bit 6)"),
        (Self::WRITE_BACK, "VT-x: write-back memory type for EPT (IA32_VMX_EPT_VPID_CAP bit 14)"),
        (Self::INVEPT, "VT-x: INVEPT (IA32_VMX_EPT_VPID_CAP bit 20)"),
        (Self::INVEPT_SINGLE, "VT-x: single-context INVEPT (IA32_VMX_EPT_VPID_CAP bit 25)"),
        (Self::INVVPID, "VT-x: INVVPID (IA32_VMX_EPT_VPID_CAP bit 32)"),
        (Self::INVVPID_SINGLE, "VT-x: single-context INVVPID (IA32_VMX_EPT_VPID_CAP bit 41)"),
    ];
}

impl EptVpidCapability {
    /// Returns the capabilities if all required ones are present.
    fn checked(self) -> Result<Self, MissingFeatureError> {
        match Self::NEEDED.iter().find(|(bit, _)| self.0 & bit == 0) {
            Some((_, text)) => Err(MissingFeatureError(text)),
            None => Ok(self),
        }
    }

    const fn accessed_dirty(self) -> AccessedDirty {
        if self.0 & Self::ACCESSED_DIRTY != 0 {
            AccessedDirty::Hardware
        } else {
            AccessedDirty::Absent
        }
    }
}

/// The CPU's properties that our VMCSs depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VmxProperties {
    /// Revision identifier.
    pub basic: VmxBasic,
    /// The preemption timer counts every 2^n-th tick of the time-stamp counter.
    pub preemption_shift: u32,
    /// CR0 in VMX operation.
    pub cr0: FixedBits,
    /// CR4 in VMX operation.
    pub cr4: FixedBits,
    /// Value of the pin-based controls.
    pub pin: u32,
    /// Value of the primary processor-based controls, without window requests.
    pub primary: u32,
    /// Value of the secondary processor-based controls.
    pub secondary: u32,
    /// Value of the VM-exit controls.
    pub exit: u32,
    /// Value of the VM-entry controls for a guest that is not in IA-32e mode.
    pub entry: u32,
    /// Whether EPT has accessed and dirty bits.
    pub accessed_dirty: AccessedDirty,
}

impl VmxProperties {
    /// Reads and checks the capabilities of a CPU that has VMX.
    ///
    /// # Errors
    /// The first missing feature.
    pub(super) fn read(read_msr: impl Fn(u32) -> u64) -> Result<Self, MissingFeatureError> {
        let basic = VmxBasic(read_msr(msr::BASIC));
        if basic.region_bytes() > crate::addr::PAGE_SIZE || !basic.write_back() {
            return Err(MissingFeatureError(
                "VT-x: VMCS regions of one write-back page (IA32_VMX_BASIC)",
            ));
        }
        let offset = if basic.true_controls() { msr::TRUE_OFFSET } else { 0 };
        let group = |number: u32| AllowedControls::from_msr(read_msr(number + offset));
        let primary = group(msr::PRIMARY);
        let secondary = match primary.permitted & PrimaryControls::SECONDARY_CONTROLS.bits() {
            0 => AllowedControls::NONE,
            _ => AllowedControls::from_msr(read_msr(msr::SECONDARY)),
        };
        let fixed =
            |zero: u32, one: u32| FixedBits { ones: read_msr(zero), permitted: read_msr(one) };
        // The secondary controls first: an old CPU lacks features there, and the message should
        // name those.
        Ok(Self {
            secondary: adjust(ControlGroup::Secondary, secondary, requests::SECONDARY)
                .map_err(missing)?,
            pin: adjust(ControlGroup::PinBased, group(msr::PIN), requests::PIN).map_err(missing)?,
            primary: adjust(ControlGroup::Primary, primary, requests::PRIMARY).map_err(missing)?,
            exit: adjust(ControlGroup::Exit, group(msr::EXIT), requests::EXIT).map_err(missing)?,
            entry: adjust(ControlGroup::Entry, group(msr::ENTRY), requests::ENTRY)
                .map_err(missing)?,
            preemption_shift: read_msr(msr::MISC) as u32 & 0x1f,
            cr0: fixed(msr::CR0_FIXED0, msr::CR0_FIXED1),
            cr4: fixed(msr::CR4_FIXED0, msr::CR4_FIXED1),
            accessed_dirty: EptVpidCapability(read_msr(msr::EPT_VPID)).checked()?.accessed_dirty(),
            basic,
        })
    }

    /// Returns the preemption timer's value for a stay of `ticks` ticks of the time-stamp counter;
    /// `None` without the timer.
    pub(super) fn preemption_value(&self, ticks: u64) -> Option<u32> {
        let value = u32::try_from(ticks >> self.preemption_shift).unwrap_or(u32::MAX);
        (self.pin & PinControls::PREEMPTION_TIMER.bits() != 0).then_some(value)
    }
}

/// Names the missing control. The text is for the operator; the bits are for developers who add a
/// control.
fn missing(error: ControlError) -> MissingFeatureError {
    const TEXTS: [(ControlGroup, u32, &str); 6] = [
        (
            ControlGroup::Secondary,
            SecondaryControls::ENABLE_EPT.bits(),
            "VT-x: EPT (extended page tables, secondary control bit 1)",
        ),
        (
            ControlGroup::Secondary,
            SecondaryControls::UNRESTRICTED_GUEST.bits(),
            "VT-x: unrestricted guest (secondary control bit 7)",
        ),
        (
            ControlGroup::Secondary,
            SecondaryControls::ENABLE_VPID.bits(),
            "VT-x: VPID (virtual-processor identifiers, secondary control bit 5)",
        ),
        (
            ControlGroup::Secondary,
            SecondaryControls::WBINVD_EXITING.bits(),
            "VT-x: WBINVD exiting (secondary control bit 6)",
        ),
        (
            ControlGroup::PinBased,
            PinControls::VIRTUAL_NMIS.bits(),
            "VT-x: virtual NMIs (pin-based control bit 5)",
        ),
        (
            ControlGroup::Primary,
            PrimaryControls::MSR_BITMAPS.bits(),
            "VT-x: MSR bitmaps (primary control bit 28)",
        ),
    ];
    let named =
        TEXTS.iter().find(|(group, bit, _)| *group == error.group && error.forbidden & bit != 0);
    MissingFeatureError(match (named, error.group) {
        (Some((_, _, text)), _) => text,
        (None, ControlGroup::PinBased) => {
            "VT-x: interrupt and NMI exiting (IA32_VMX_PINBASED_CTLS)"
        }
        (None, ControlGroup::Primary) => {
            "VT-x: exiting controls, or EPT without CR3 exits (IA32_VMX_PROCBASED_CTLS)"
        }
        (None, ControlGroup::Secondary) => "VT-x: secondary controls (IA32_VMX_PROCBASED_CTLS2)",
        (None, ControlGroup::Exit) => {
            "VT-x: EFER and PAT switched at VM exits (IA32_VMX_EXIT_CTLS)"
        }
        (None, ControlGroup::Entry) => {
            "VT-x: EFER and PAT switched at VM entries (IA32_VMX_ENTRY_CTLS)"
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The MSRs of Bochs' corei7_haswell_4770 that we read.
    fn haswell(number: u32) -> u64 {
        match number {
            0x480 => 0x00da_0400_0000_0001 | 6 << 50 | 1 << 55,
            0x48d => 0x0000_007f_0000_0016,
            0x48e => 0xfff9_fffe_0400_6172,
            0x48f => 0x007f_ffff_0003_6dfb,
            0x490 => 0x0000_ffff_0000_11fb,
            0x485 => 0x2000_01e5,
            0x486 => 0x8000_0021,
            0x487 => 0xffff_ffff,
            0x488 => 0x2000,
            0x489 => 0x0017_27ff,
            0x48b => 0x0000_14ff_0000_0000,
            0x48c => 0x0000_0f01_0633_4141,
            _ => panic!("MSR {number:#x} is not read"),
        }
    }

    fn with(number: u32, value: u64) -> Result<VmxProperties, MissingFeatureError> {
        VmxProperties::read(|n| if n == number { value } else { haswell(n) })
    }

    #[test]
    fn a_haswell_has_all_we_need() {
        let settings = VmxProperties::read(haswell).unwrap();
        assert_eq!(settings.basic.revision(), 1);
        assert_eq!(settings.secondary, 0xe2, "neither RDTSCP (3) nor INVPCID (12)");
        assert_eq!(settings.preemption_value(3_000_000), Some(3_000_000 >> 5));
        assert_eq!(settings.cr0.apply(0x10), 0x8000_0031);
    }

    /// The value is from Bochs' corei7_ivy_bridge_3770k.
    #[test]
    fn a_cpu_without_accessed_and_dirty_bits_is_taken_as_it_is() {
        assert_eq!(VmxProperties::read(haswell).unwrap().accessed_dirty, AccessedDirty::Hardware);
        assert_eq!(
            with(0x48c, 0x0000_0f01_0611_4141).unwrap().accessed_dirty,
            AccessedDirty::Absent
        );
    }

    #[test]
    fn what_lacks_is_named() {
        let text = |result: Result<VmxProperties, MissingFeatureError>| result.unwrap_err().0;
        assert!(text(with(0x48b, 0x7f << 32)).contains("unrestricted guest"));
        assert!(text(with(0x48b, 0x80 << 32)).contains("EPT"));
        assert!(text(with(0x48b, 0xdf << 32)).contains("VPID"));
        assert!(text(with(0x48c, 0x0000_0f01_0433_4141)).contains("single-context INVEPT"));
        assert!(text(with(0x48d, 0x0000_005f_0000_0016)).contains("virtual NMIs"));
    }

    #[test]
    fn a_cpu_without_secondary_controls_is_not_asked_for_them() {
        let result = VmxProperties::read(|n| match n {
            0x48e => haswell(n) & !(1 << 63),
            0x48b | 0x48c => panic!("this MSR does not exist there"),
            _ => haswell(n),
        });
        assert!(result.unwrap_err().0.contains("EPT"));
    }
}
