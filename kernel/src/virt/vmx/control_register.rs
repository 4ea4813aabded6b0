//! CR0 and CR4: the guest's view and the real values.
//!
//! A host-owned bit (set in the guest/host mask) reads as the shadow has it, whatever the real bit
//! is. A MOV that would make it differ from the shadow exits. All other bits belong to the guest,
//! including paging and protection (unrestricted guest), so that mode switches never exit.
//!
//! ```text
//!            real bit            guest reads     guest writes
//!  CR0.NE    1, for VMX          its own value   shadow follows, instruction runs again
//!  CR0.CD,NW 0, EPT is WB        its own value   likewise
//!  CR4.MCE   1, the host's       its own value   likewise
//!  CR4.VMXE  1, for VMX          0               #GP(0)
//!  CR4 rest  0, not offered      0               #GP(0), also for bits that CPUID hides
//! ```
//!
//! The instruction runs again after the shadow has been set to the value that the guest writes. The
//! CPU then does all of the instruction's checks and effects (PDPTE loads, EFER.LMA, TLB), and
//! nothing is emulated. Pure.

use super::capability::FixedBits;

/// Bits of CR0.
pub(super) mod cr0 {
    /// Protection enable.
    pub(crate) const PE: u64 = 1 << 0;
    /// Numeric error.
    pub(crate) const NE: u64 = 1 << 5;
    /// Not write-through.
    pub(crate) const NW: u64 = 1 << 29;
    /// Cache disable.
    pub(crate) const CD: u64 = 1 << 30;
    /// Paging.
    pub(crate) const PG: u64 = 1 << 31;
    /// Owned by the host.
    pub(crate) const MASK: u64 = NE | NW | CD;
    /// The host's values of the owned bits.
    pub(crate) const REAL: u64 = NE;
}

/// Bits of CR4.
pub(super) mod cr4 {
    /// Machine-check enable.
    pub(crate) const MCE: u64 = 1 << 6;
    /// VMX enable.
    pub(crate) const VMXE: u64 = 1 << 13;
    /// Bits of CR4 that a guest may own in hardware; a vCPU owns those of them that its CPUID
    /// announces.
    pub(crate) const GUEST_OWNED: u64 = crate::virt::cr4::KNOWN & !MCE;
    /// Owned by the host.
    pub(crate) const MASK: u64 = !GUEST_OWNED;
    /// The host's values of the owned bits.
    pub(crate) const REAL: u64 = MCE | VMXE;
    /// Host-owned bits whose shadow the guest may change.
    pub(crate) const SHADOWED: u64 = MCE;
}

/// How an exited MOV to a control register is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ControlRegisterWrite {
    /// Set the shadow to this value, and let the instruction run again.
    Retry {
        /// The new shadow.
        shadow: u64,
    },
    /// #GP(0).
    Refuse,
}

/// Decides on a write of `value` to CR0.
pub(super) const fn write_cr0(value: u64) -> ControlRegisterWrite {
    // SDM 3A "Control Registers": NW without CD is invalid.
    if value & cr0::NW != 0 && value & cr0::CD == 0 {
        return ControlRegisterWrite::Refuse;
    }
    ControlRegisterWrite::Retry { shadow: value & cr0::MASK }
}

/// Decides on a write of `value` to CR4; CPUID announces `offered`.
pub(super) const fn write_cr4(value: u64, offered: u64) -> ControlRegisterWrite {
    if value & !(offered & crate::virt::cr4::KNOWN) != 0 {
        return ControlRegisterWrite::Refuse;
    }
    ControlRegisterWrite::Retry { shadow: value & cr4::SHADOWED }
}

/// Returns the VMCS's guest CR0 for a guest whose CR0 is `value`. The shadow is `value` itself.
pub(super) const fn real_cr0(value: u64) -> u64 {
    const EXTENSION_TYPE: u64 = 1 << 4;
    (value & !cr0::MASK) | cr0::REAL | EXTENSION_TYPE
}

/// Likewise for CR4, without the bits that this CPU does not have.
pub(super) const fn real_cr4(value: u64, fixed: FixedBits) -> u64 {
    ((value & !cr4::MASK) | cr4::REAL) & fixed.permitted
}

/// Returns the value that the guest reads.
pub(super) const fn guest_view(real: u64, shadow: u64, mask: u64) -> u64 {
    (real & !mask) | (shadow & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_may_believe_that_it_changed_ne_and_the_cache() {
        assert_eq!(write_cr0(0x8005_0033), ControlRegisterWrite::Retry { shadow: cr0::NE });
        assert_eq!(
            write_cr0(0x8005_0011 | cr0::CD),
            ControlRegisterWrite::Retry { shadow: cr0::CD }
        );
        assert_eq!(write_cr0(cr0::NW), ControlRegisterWrite::Refuse);
        assert_eq!(real_cr0(0x6000_0010), 0x30);
        assert_eq!(guest_view(0x8005_0033, cr0::CD, cr0::MASK), 0x8005_0013 | cr0::CD);
    }

    #[test]
    fn cr4_bits_that_are_not_offered_are_refused() {
        assert_eq!(write_cr4(0x6f0, u64::MAX), ControlRegisterWrite::Retry { shadow: cr4::MCE });
        for bit in [cr4::VMXE, 1 << 12, 1 << 14, 1 << 17, 1 << 22, 1 << 23, 1 << 63] {
            assert_eq!(write_cr4(bit | 0x20, u64::MAX), ControlRegisterWrite::Refuse, "{bit:#x}");
        }
        assert_eq!(write_cr4(1 << 20, u64::MAX), ControlRegisterWrite::Retry { shadow: 0 });
        assert_eq!(
            write_cr4(1 << 20, !(1 << 20)),
            ControlRegisterWrite::Refuse,
            "SMEP that CPUID hides"
        );
        assert_eq!(
            write_cr4(cr4::MCE, !cr4::MCE),
            ControlRegisterWrite::Refuse,
            "MCE that CPUID hides"
        );
        // The bits that Linux sets: PSE, PAE, PGE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, OSXSAVE,
        // SMEP, SMAP.
        assert_eq!(0x35_0eb0 & cr4::MASK, 0);
    }

    #[test]
    fn vmxe_is_on_and_hidden() {
        let fixed = FixedBits { ones: cr4::VMXE, permitted: 0x0017_27ff };
        assert_eq!(real_cr4(0x20, fixed), 0x2060);
        assert_eq!(guest_view(0x2060, 0, cr4::MASK), 0x20);
    }
}
