//! The CPU features that the hypervisor uses, as offered by a CPU or by KVM to its guests; listed
//! one by one for `tidepool doctor`.

use super::kvm;

/// A feature of hardware virtualisation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Whether it is offered.
    pub offered: bool,
    /// Its importance to the hypervisor.
    pub role: Role,
}

/// The consequence of a missing feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The hypervisor does not start.
    Needed,
    /// The hypervisor runs, but slower.
    Useful,
}

/// A VMX feature: a capability MSR and the bit in it (SDM 3D "VMX Capability Reporting Facility").
struct VmxBit(&'static str, u32, u32, Role);

/// The upper half of this MSR holds the bits of the secondary controls that may be 1.
const SECONDARY: u32 = 0x48b;
const PRIMARY: u32 = 0x482;
const EPT_VPID: u32 = 0x48c;
const VMX_BITS: &[VmxBit] = &[
    VmxBit("secondary controls", PRIMARY, 32 + 31, Role::Needed),
    VmxBit("EPT", SECONDARY, 32 + 1, Role::Needed),
    VmxBit("unrestricted guest", SECONDARY, 32 + 7, Role::Needed),
    VmxBit("EPT of four levels", EPT_VPID, 6, Role::Needed),
    VmxBit("EPT write-back", EPT_VPID, 14, Role::Needed),
    VmxBit("INVEPT", EPT_VPID, 20, Role::Needed),
    VmxBit("VPID", SECONDARY, 32 + 5, Role::Useful),
    VmxBit("EPT accessed and dirty bits", EPT_VPID, 21, Role::Useful),
];

/// An SVM feature: the bit of CPUID 8000000Ah EDX (APM 3 "SVM Revision and Feature
/// Identification").
struct SvmBit(&'static str, u32, Role);

const SVM_BITS: &[SvmBit] = &[
    SvmBit("nested paging", 0, Role::Needed),
    SvmBit("next RIP", 3, Role::Useful),
    SvmBit("flush by ASID", 6, Role::Useful),
    SvmBit("decode assists", 7, Role::Useful),
];

/// Returns the VMX features according to the capability MSRs. An MSR that cannot be read offers
/// nothing.
pub fn vmx(msr: impl Fn(u32) -> Option<u64>) -> Vec<Feature> {
    let feature = |VmxBit(name, number, bit, role): &VmxBit| {
        let offered = msr(*number).is_some_and(|value| value >> bit & 1 == 1);
        Feature { name, offered, role: *role }
    };
    VMX_BITS.iter().map(feature).collect()
}

/// Returns the SVM features according to EDX of CPUID 8000000Ah.
pub fn svm(edx: u32) -> Vec<Feature> {
    SVM_BITS
        .iter()
        .map(|SvmBit(name, bit, role)| Feature { name, offered: edx >> bit & 1 == 1, role: *role })
        .collect()
}

/// Returns the features that KVM offers its guests here, with a heading.
pub fn of_kvm() -> Option<(&'static str, Vec<Feature>)> {
    match kvm::offered()? {
        kvm::Offer::Vmx => Some(("VMX", vmx(kvm::feature_msr))),
        kvm::Offer::Svm(edx) => Some(("SVM", svm(edx))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(features: &[Feature]) -> Vec<&'static str> {
        features.iter().filter(|feature| feature.offered).map(|feature| feature.name).collect()
    }

    #[test]
    fn each_bit_is_a_feature_of_its_own() {
        let haswell = |number| match number {
            PRIMARY => Some(1 << 63),
            SECONDARY => Some((1 << 1 | 1 << 5 | 1 << 7) << 32),
            EPT_VPID => Some(1 << 6 | 1 << 14 | 1 << 20 | 1 << 21),
            _ => None,
        };
        assert_eq!(offered(&vmx(haswell)).len(), VMX_BITS.len());
        assert_eq!(offered(&vmx(|_| None)), [""; 0]);
        assert_eq!(offered(&vmx(|number| (number == SECONDARY).then_some(1 << 33))), ["EPT"]);
        // The lower half holds the bits that must be 1, not those that may be 1.
        assert_eq!(offered(&vmx(|number| (number == SECONDARY).then_some(0xffff_ffff))), [""; 0]);
    }

    #[test]
    fn an_emulated_svm_has_nested_paging_alone() {
        assert_eq!(offered(&svm(1)), ["nested paging"]);
        assert_eq!(offered(&svm(0b1100_1001)).len(), SVM_BITS.len());
    }
}
