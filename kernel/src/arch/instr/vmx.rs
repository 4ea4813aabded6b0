//! VMX instructions, and the registers that a VMX guest shares with its host because no VMCS field
//! switches them.
//!
//! VMREAD and VMWRITE cannot fail in `virt::vmx` (a VMCS is current, the field exists). A failure
//! is a panic and not a return value, which keeps their cost at two instructions.

use crate::addr::Hpa;
use core::arch::asm;

/// A VMX instruction reported VMfailInvalid or VMfailValid (SDM 3D "Conventions").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmInstructionError;

macro_rules! takes_address {
    ($(#[$doc:meta])* $name:ident, $text:literal) => {
        $(#[$doc])*
        pub unsafe fn $name(region: Hpa) -> Result<(), VmInstructionError> {
            let address = region.as_u64();
            let failed: u8;
            // SAFETY: the caller's promise.
            unsafe {
                 asm!(
                     $text, "setbe {failed}", address = in(reg) &address,
                     failed = out(reg_byte) failed, options(nostack)
                 )
            };
            if failed == 0 { Ok(()) } else { Err(VmInstructionError) }
        }
    };
}

takes_address!(
    /// Enters VMX root operation.
    ///
    /// # Safety
    /// CR0, CR4 and IA32_FEATURE_CONTROL allow it; `region` holds the revision identifier and
    /// belongs to the CPU from now on.
    vmxon,
    "vmxon [{address}]"
);
takes_address!(
    /// Writes a VMCS back to memory and makes it clear, not launched.
    ///
    /// # Safety
    /// VMX root operation; `region` is a VMCS that no other CPU has active.
    vmclear,
    "vmclear [{address}]"
);
takes_address!(
    /// Makes a VMCS the current one.
    ///
    /// # Safety
    /// VMX root operation; `region` is a VMCS that has been cleared, and that no other CPU has
    /// active.
    vmptrld,
    "vmptrld [{address}]"
);

/// Returns the current VMCS; all ones if there is none.
///
/// # Safety
/// VMX root operation.
pub unsafe fn vmptrst() -> Hpa {
    let mut address = 0_u64;
    // SAFETY: the caller's promise; writes `address`.
    unsafe { asm!("vmptrst [{}]", in(reg) &mut address, options(nostack)) };
    Hpa::new(address)
}

extern "C" fn vmcs_access_refused(encoding: u64) -> ! {
    panic!("VMCS field {encoding:#x}: no current VMCS, or this CPU does not have the field");
}

/// Reads a field of the current VMCS.
///
/// The compiler treats it as a read of memory. A read whose result is unused is removed. A read
/// does not move across a write, an entry or a change of VMCS, because all of these may write
/// memory. (The call on failure is not an effect that callers rely on.)
///
/// # Safety
/// VMX root operation.
#[inline(always)]
pub unsafe fn vmread(encoding: u64) -> u64 {
    let value: u64;
    // SAFETY: the caller's promise. The call is reached only on failure and does not return.
    unsafe {
        asm!("vmread {value}, rdi", "ja 2f", "call {refused}", "2:",
            value = lateout(reg) value, in("rdi") encoding, refused = sym vmcs_access_refused,
            options(pure, readonly))
    };
    value
}

/// Writes a field of the current VMCS.
///
/// # Safety
/// VMX root operation; the field's effect keeps Rust's promises when the guest runs and when it
/// exits.
#[inline(always)]
pub unsafe fn vmwrite(encoding: u64, value: u64) {
    // SAFETY: the caller's promise. The call is reached only on failure and does not return.
    unsafe {
        asm!("vmwrite rdi, {value}", "ja 2f", "call {refused}", "2:",
            value = in(reg) value, in("rdi") encoding, refused = sym vmcs_access_refused)
    };
}

/// Flushes the translations that were cached through one EPT pointer.
///
/// # Safety
/// VMX root operation; the CPU has single-context INVEPT, and an entry would accept `ept_pointer`.
pub unsafe fn invept(ept_pointer: u64) -> Result<(), VmInstructionError> {
    const SINGLE_CONTEXT: u64 = 1;
    let descriptor = [ept_pointer, 0];
    let failed: u8;
    // SAFETY: the caller's promise; reads `descriptor`.
    unsafe {
        asm!("invept {kind}, [{descriptor}]", "setbe {failed}", kind = in(reg) SINGLE_CONTEXT,
            descriptor = in(reg) &descriptor, failed = out(reg_byte) failed, options(nostack))
    };
    if failed == 0 { Ok(()) } else { Err(VmInstructionError) }
}

/// Flushes the linear translations that were cached under one VPID.
///
/// # Safety
/// VMX root operation; the CPU has single-context INVVPID, and `vpid` is not 0.
pub unsafe fn invvpid(vpid: u16) -> Result<(), VmInstructionError> {
    const SINGLE_CONTEXT: u64 = 1;
    let descriptor = [u64::from(vpid), 0];
    let failed: u8;
    // SAFETY: the caller's promise; reads `descriptor`.
    unsafe {
        asm!("invvpid {kind}, [{descriptor}]", "setbe {failed}", kind = in(reg) SINGLE_CONTEXT,
            descriptor = in(reg) &descriptor, failed = out(reg_byte) failed, options(nostack))
    };
    if failed == 0 { Ok(()) } else { Err(VmInstructionError) }
}

/// Runs the host's NMI handler for an NMI that a VM exit has consumed; its IRET unblocks NMIs.
///
/// # Safety
/// This CPU's interrupt table is loaded.
pub unsafe fn raise_nmi() {
    // SAFETY: the caller's promise.
    unsafe { asm!("int 2") };
}

/// Returns the task register's selector.
pub fn task_register() -> u16 {
    let selector: u16;
    // SAFETY: reads a register.
    unsafe { asm!("str {:x}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    selector
}

/// Returns CR2.
pub fn read_cr2() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets CR2, which the hypervisor itself reads only in its page-fault handler.
pub fn write_cr2(value: u64) {
    // SAFETY: no memory access depends on CR2.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Returns DR6.
pub fn read_dr6() -> u64 {
    let value: u64;
    // SAFETY: reads a register; DR7.GD is clear in the host.
    unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets the low 32 bits of DR6; setting the others would fault.
pub fn write_dr6(value: u64) {
    // SAFETY: a status register; DR7.GD is clear in the host.
    unsafe {
        asm!("mov dr6, {}", in(reg) value & 0xffff_ffff, options(nomem, nostack, preserves_flags))
    };
}
