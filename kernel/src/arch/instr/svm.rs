//! SVM instructions used outside the world switch.

use crate::addr::Hpa;
use core::arch::asm;

/// Stores this CPU's FS, GS, TR, LDTR and syscall MSRs into the VMCB at `vmcb`.
///
/// # Safety
/// EFER.SVME is set on this CPU, and the caller may write the frame at `vmcb`.
pub unsafe fn vmsave(vmcb: Hpa) {
    // SAFETY: the caller's promise.
    unsafe { asm!("vmsave rax", in("rax") vmcb.as_u64(), options(nostack, preserves_flags)) };
}
