//! The EFER shadow. Pure.
//!
//! VMRUN refuses a guest EFER without SVME (APM 2 "Canonicalization and Consistency Checks"), so the VMCB
//! always has it and the guest never sees it; that is why the MSR is intercepted at all.

use crate::virt::exit::Event;

const SCE: u64 = 1 << 0;
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
const NXE: u64 = 1 << 11;
/// Secure virtual machine enable: the host's business.
pub const SVME: u64 = 1 << 12;
const CR0_PG: u64 = 1 << 31;

/// Returns the value as the VMCB needs it.
pub const fn to_hardware(guest: u64) -> u64 {
    guest | SVME
}

/// Returns the value as the guest sees it.
pub const fn to_guest(hardware: u64) -> u64 {
    hardware & !SVME
}

/// Returns the guest's EFER after it wrote `value` over `current`; LMA follows paging and is not written.
///
/// # Errors
/// #GP: a bit that CPUID does not offer, or LME changed while paging is on.
pub const fn write(current: u64, cr0: u64, value: u64) -> Result<u64, Event> {
    let reserved = value & !(SCE | LME | LMA | NXE) != 0;
    let switched_under_paging = (current ^ value) & LME != 0 && cr0 & CR0_PG != 0;
    if reserved || switched_under_paging {
        return Err(Event::general_protection());
    }
    Ok((value & !LMA) | (current & LMA))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn svme_is_the_hosts_and_never_shown() {
        assert_eq!(to_hardware(0xd01), 0x1d01);
        assert_eq!(to_guest(0x1d01), 0xd01);
        assert_eq!(write(0, 0, SVME), Err(Event::general_protection()));
    }

    #[test]
    fn lma_is_kept_and_lme_is_fixed_under_paging() {
        assert_eq!(write(0xd01, CR0_PG, 0x901), Ok(0xd01));
        assert_eq!(write(0x500, CR0_PG, 0x400), Err(Event::general_protection()));
        assert_eq!(write(0, 0, 0x100), Ok(0x100));
        assert_eq!(write(0, CR0_PG, 0x100), Err(Event::general_protection()));
    }

    #[test]
    fn bits_that_cpuid_does_not_offer_fault() {
        for bit in [1, 9, 13, 14, 15, 21, 63] {
            assert_eq!(write(0, 0, 1 << bit), Err(Event::general_protection()), "bit {bit}");
        }
    }
}
