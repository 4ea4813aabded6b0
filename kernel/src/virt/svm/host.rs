//! The CPU features that this back end needs, and how SVM is enabled.
//!
//! See: APM 2 "Enabling SVM", "VM_HSAVE_PA MSR", "VM_CR MSR".

// UNSAFETY: writes MSRs and saves host state.
#![expect(unsafe_code)]

use super::efer::SVME;
use crate::addr::Hpa;
use crate::arch::instr::svm::vmsave;
use crate::arch::instr::{cpuid, rdmsr, wrmsr};
use crate::virt::contract::{
    AccessedDirty, BackendCapabilities, FRAMES_PER_CPU, MissingFeatureError,
};
use crate::virt::frame::ControlFrame;

const LEAF_EXTENDED: u32 = 0x8000_0000;
const LEAF_FEATURES: u32 = 0x8000_0001;
const LEAF_SVM: u32 = 0x8000_000a;

const MSR_EFER: u32 = 0xc000_0080;
const MSR_VM_CR: u32 = 0xc001_0114;
const MSR_VM_HSAVE_PA: u32 = 0xc001_0117;

const VM_CR_SVMDIS: u64 = 1 << 4;

/// SVM-related CPUID words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct SvmFeatures {
    /// Leaf 8000_0001, ECX.
    extended: u32,
    /// Leaf 8000_000A, EBX: number of ASIDs.
    asids: u32,
    /// Leaf 8000_000A, EDX.
    svm: u32,
}

impl SvmFeatures {
    const SVM: u32 = 1 << 2;
    const NESTED_PAGING: u32 = 1 << 0;
    const FLUSH_BY_ASID: u32 = 1 << 6;

    fn read() -> Self {
        let last = cpuid(LEAF_EXTENDED, 0).eax;
        let extended = if last >= LEAF_FEATURES { cpuid(LEAF_FEATURES, 0).ecx } else { 0 };
        if last < LEAF_SVM {
            return Self { extended, ..Self::default() };
        }
        let leaf = cpuid(LEAF_SVM, 0);
        Self { extended, asids: leaf.ebx, svm: leaf.edx }
    }

    /// Checks the required features. VM_CR exists only on a CPU with SVM, hence the closure.
    fn check(self, read_vm_cr: impl FnOnce() -> u64) -> Result<(), MissingFeatureError> {
        if self.extended & Self::SVM == 0 {
            return Err(MissingFeatureError(
                "AMD-V: the CPU has no SVM (CPUID 8000_0001 ECX bit 2)",
            ));
        }
        if read_vm_cr() & VM_CR_SVMDIS != 0 {
            return Err(MissingFeatureError(
                "AMD-V: firmware has disabled SVM (VM_CR bit 4): enable it in the set-up",
            ));
        }
        if self.svm & Self::NESTED_PAGING == 0 {
            return Err(MissingFeatureError(
                "AMD-V: the CPU has no nested paging (CPUID 8000_000A EDX bit 0)",
            ));
        }
        if self.asids < 2 {
            return Err(MissingFeatureError(
                "AMD-V: the CPU has no ASID for a guest (CPUID 8000_000A EBX)",
            ));
        }
        Ok(())
    }
}

/// Checks this CPU.
///
/// # Errors
/// The missing feature.
pub fn detect() -> Result<(), MissingFeatureError> {
    // SAFETY: the closure is called only if CPUID reports SVM, and the MSR exists with SVM.
    SvmFeatures::read().check(|| unsafe { rdmsr(MSR_VM_CR) })
}

/// Returns whether the CPU's vendor makes SVM, to choose the error message.
pub fn is_vendor() -> bool {
    let leaf = cpuid(0, 0);
    let vendor = [leaf.ebx.to_le_bytes(), leaf.edx.to_le_bytes(), leaf.ecx.to_le_bytes()];
    matches!(vendor.as_flattened(), b"AuthenticAMD" | b"HygonGenuine")
}

/// Returns the back end's properties on this CPU.
pub fn capabilities() -> BackendCapabilities {
    BackendCapabilities { tags: SvmFeatures::read().asids, accessed_dirty: AccessedDirty::Hardware }
}

/// Returns whether the CPU can flush a single ASID.
pub(super) fn flushes_by_asid() -> bool {
    SvmFeatures::read().svm & SvmFeatures::FLUSH_BY_ASID != 0
}

/// A CPU with SVM enabled: VMRUN works.
#[derive(Debug)]
pub struct SvmCpu {
    /// VMRUN's save area, opaque.
    _save_area: ControlFrame,
    /// The state that VMLOAD restores after each exit.
    host_state: ControlFrame,
}

impl SvmCpu {
    /// Enables SVM on the calling CPU.
    ///
    /// # Errors
    /// The missing feature.
    pub fn enable(
        [save_area, host_state]: [ControlFrame; FRAMES_PER_CPU],
    ) -> Result<Self, MissingFeatureError> {
        detect()?;
        // SAFETY: every CPU in long mode has EFER.
        let efer = unsafe { rdmsr(MSR_EFER) };
        // SAFETY: SVME, which this CPU has, only makes the SVM instructions available.
        unsafe { wrmsr(MSR_EFER, efer | SVME) };
        // SAFETY: the frame belongs to the CPU for good, since SVM is never disabled again.
        unsafe { wrmsr(MSR_VM_HSAVE_PA, save_area.hpa().as_u64()) };
        Ok(Self { _save_area: save_area, host_state })
    }

    /// Saves the calling CPU's FS, GS, TR, LDTR and syscall MSRs as the host's, and returns the
    /// address of the save area.
    pub fn note_host_state(&self) -> Hpa {
        // SAFETY: SVME is set, and the frame belongs to this CPU alone.
        unsafe { vmsave(self.host_state.hpa()) };
        self.host_state.hpa()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: SvmFeatures =
        SvmFeatures { extended: SvmFeatures::SVM, asids: 16, svm: SvmFeatures::NESTED_PAGING };

    fn message(features: SvmFeatures, vm_cr: u64) -> &'static str {
        features.check(|| vm_cr).expect_err("something lacks").0
    }

    #[test]
    fn a_cpu_with_nested_paging_and_asids_is_enough() {
        assert_eq!(GOOD.check(|| 0), Ok(()));
    }

    #[test]
    fn the_message_names_what_lacks() {
        assert!(message(SvmFeatures { svm: 0, ..GOOD }, 0).contains("nested paging"));
        assert!(message(SvmFeatures { asids: 1, ..GOOD }, 0).contains("ASID"));
        assert!(message(GOOD, VM_CR_SVMDIS).contains("firmware"));
    }

    #[test]
    fn a_cpu_without_svm_is_not_asked_for_its_msr() {
        let checked = SvmFeatures::default().check(|| panic!("#GP"));
        assert!(checked.expect_err("no SVM").0.contains("no SVM"));
    }
}
