//! CR4 as written by a guest: the rule that both vendors share. Pure.

use crate::virt::exit::InjectedEvent;

/// Physical-address extension.
pub(super) const PAE: u64 = 1 << 5;
/// Machine-check enable.
const MCE: u64 = 1 << 6;
/// PSE, PAE, PGE, LA57, PCIDE, SMEP, SMAP, PKE: a change of these flushes cached translations.
pub(super) const PAGING: u64 =
    1 << 4 | PAE | 1 << 7 | 1 << 12 | 1 << 17 | 1 << 20 | 1 << 21 | 1 << 22;
/// VME, PVI, TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, OSXSAVE, SMEP,
/// SMAP: the most that a vCPU can have. PCIDE and PKE are not among them: the hypervisor switches
/// neither PKRU nor process-context identifiers.
pub(super) const KNOWN: u64 = 0b11_1111 | MCE | 0b1_1111 << 7 | 1 << 16 | 1 << 18 | 0b11 << 20;

/// Returns the guest's CR4 after a write of `value`, if CPUID announces `offered`.
///
/// # Errors
/// #GP: a bit that CPUID does not announce, or PAE cleared in long mode. SDM 2B
/// "MOV - Move to/from Control Registers".
pub(super) const fn write(
    offered: u64,
    long_mode_active: LongMode,
    value: u64,
) -> Result<u64, InjectedEvent> {
    let pae_lost = matches!(long_mode_active, LongMode::Active) && value & PAE == 0;
    if value & !offered != 0 || pae_lost {
        return Err(InjectedEvent::general_protection());
    }
    Ok(value)
}

/// EFER.LMA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LongMode {
    /// Set.
    Active,
    /// Clear.
    Inactive,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_is_taken_exactly_if_it_is_offered() {
        for offered in [0, KNOWN, KNOWN & !(1 << 20), 0x6f0] {
            for bit in 0..64 {
                let written = write(offered, LongMode::Inactive, 1 << bit);
                let expected = if offered >> bit & 1 != 0 {
                    Ok(1 << bit)
                } else {
                    Err(InjectedEvent::general_protection())
                };
                assert_eq!(written, expected, "bit {bit} where {offered:#x} is offered");
            }
        }
    }

    #[test]
    fn long_mode_keeps_pae() {
        assert_eq!(write(KNOWN, LongMode::Active, 0x80), Err(InjectedEvent::general_protection()));
        assert_eq!(write(KNOWN, LongMode::Active, 0xa0), Ok(0xa0));
    }

    #[test]
    fn what_is_not_switched_is_never_known() {
        for (name, bit) in [
            ("LA57", 12),
            ("VMXE", 13),
            ("SMXE", 14),
            ("PCIDE", 17),
            ("KL", 19),
            ("PKE", 22),
            ("CET", 23),
            ("PKS", 24),
        ] {
            assert_eq!(KNOWN >> bit & 1, 0, "{name}");
        }
    }
}
