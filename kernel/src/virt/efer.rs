//! EFER as written by a guest: the rule that both vendors share. Pure.

use crate::virt::exit::InjectedEvent;

/// System-call enable.
pub(super) const SCE: u64 = 1 << 0;
/// Long-mode enable: set by the guest.
pub(super) const LME: u64 = 1 << 8;
/// Long-mode active: follows LME and paging.
pub(super) const LMA: u64 = 1 << 10;
/// No-execute enable.
pub(super) const NXE: u64 = 1 << 11;
const CR0_PG: u64 = 1 << 31;

/// Returns the guest's EFER after a write of `value` over `current`; LMA follows paging and cannot
/// be written.
///
/// # Errors
/// #GP: a bit that CPUID does not offer, or LME changed while paging is on.
pub(super) const fn write(current: u64, cr0: u64, value: u64) -> Result<u64, InjectedEvent> {
    let reserved = value & !(SCE | LME | LMA | NXE) != 0;
    let switched_under_paging = (current ^ value) & LME != 0 && cr0 & CR0_PG != 0;
    if reserved || switched_under_paging {
        return Err(InjectedEvent::general_protection());
    }
    Ok((value & !LMA) | (current & LMA))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lma_is_kept_and_lme_is_fixed_under_paging() {
        assert_eq!(write(0xd01, CR0_PG, 0x101), Ok(0x501));
        assert_eq!(write(0x500, CR0_PG, 0x400), Err(InjectedEvent::general_protection()));
        assert_eq!(write(0, 0, 0x100), Ok(0x100));
        assert_eq!(write(0, CR0_PG, 0x100), Err(InjectedEvent::general_protection()));
    }

    #[test]
    fn bits_that_cpuid_does_not_offer_fault() {
        for bit in [1, 9, 12, 13, 14, 15, 21, 63] {
            assert_eq!(
                write(0, 0, 1 << bit),
                Err(InjectedEvent::general_protection()),
                "bit {bit}"
            );
        }
    }
}
