//! Model-specific registers and the extended state.

use core::arch::asm;

/// Reads a model-specific register.
///
/// # Safety
/// The CPU has the register; otherwise #GP is raised, which stops the hypervisor.
pub unsafe fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "rdmsr", in("ecx") msr, out("eax") low, out("edx") high,
            options(nostack, preserves_flags)
        )
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The CPU has the register and accepts the value, and the register's effect keeps Rust's promises.
pub unsafe fn wrmsr(msr: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "wrmsr", in("ecx") msr, in("eax") low, in("edx") high, options(nostack, preserves_flags)
        )
    };
}

/// Reads an extended control register.
///
/// # Safety
/// CR4.OSXSAVE is set and the register exists.
#[cfg(not(test))]
pub unsafe fn xgetbv(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "xgetbv", in("ecx") register, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags)
        )
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an extended control register.
///
/// # Safety
/// CR4.OSXSAVE is set and the CPU accepts the value (SDM 1 "XCR0": x87 always, AVX with SSE).
#[cfg(not(test))]
pub unsafe fn xsetbv(register: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "xsetbv", in("ecx") register, in("eax") low, in("edx") high,
            options(nostack, preserves_flags)
        )
    };
}

/// Saves all state components that XCR0 enables.
///
/// # Safety
/// CR4.OSXSAVE is set; `area` is 64-byte aligned and writable for the size that CPUID leaf 0Dh
/// gives for XCR0.
#[cfg(not(test))]
pub unsafe fn xsave(area: *mut u8) {
    // SAFETY: the caller's promise. The hypervisor is soft-float: no register of its own is
    // touched.
    unsafe {
        asm!(
            "xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
            options(nostack, preserves_flags)
        )
    };
}

/// Loads all state components that XCR0 enables.
///
/// # Safety
/// As for [`xsave`], and the area's header was written by XSAVE or is all zeros.
#[cfg(not(test))]
pub unsafe fn xrstor(area: *const u8) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
            options(nostack, preserves_flags)
        )
    };
}
