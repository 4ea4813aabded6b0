//! The EFER shadow. Pure.
//!
//! VMRUN refuses a guest EFER without SVME (APM 2 "Canonicalization and Consistency Checks"). So
//! the VMCB always has SVME and the guest never sees it, which is why the MSR is intercepted.
//! `virt::efer` decides which values a guest may write.

/// Secure virtual machine enable: set by the host only.
pub(super) const SVME: u64 = 1 << 12;

/// Returns the value for the VMCB.
pub(super) const fn to_hardware(guest: u64) -> u64 {
    guest | SVME
}

/// Returns the value as the guest sees it.
pub(super) const fn to_guest(hardware: u64) -> u64 {
    hardware & !SVME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn svme_is_the_hosts_and_never_shown() {
        assert_eq!(to_hardware(0xd01), 0x1d01);
        assert_eq!(to_guest(0x1d01), 0xd01);
    }
}
