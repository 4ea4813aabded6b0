//! CR0 as written by a guest, for a CPU that does not check it itself. Pure.
//!
//! SDM 2B "MOV - Move to/from Control Registers", SDM 3A "Control Registers".

use crate::virt::efer::{LMA, LME};
use crate::virt::exit::InjectedEvent;

const PE: u64 = 1 << 0;
const ET: u64 = 1 << 4;
const NW: u64 = 1 << 29;
const CD: u64 = 1 << 30;
const PG: u64 = 1 << 31;
/// PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG: the other bits are ignored, those of the upper half
/// refused.
const KNOWN: u64 = 0x3f | 1 << 16 | 1 << 18 | NW | CD | PG;
const CR4_PAE: u64 = 1 << 5;

/// The registers that a write of CR0 depends on, and changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cr0State {
    pub cr0: u64,
    pub cr4: u64,
    pub efer: u64,
    pub code: CodeSegment,
}

/// CS.L.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CodeSegment {
    /// Set: 64-bit code, where long mode is active.
    Long,
    /// Clear.
    Legacy,
}

/// Returns CR0 and EFER after a write of `value`.
///
/// # Errors
/// #GP.
pub(super) const fn write(now: Cr0State, value: u64) -> Result<(u64, u64), InjectedEvent> {
    let refused = Err(InjectedEvent::general_protection());
    let (paging_on, paging_off) =
        (value & PG != 0 && now.cr0 & PG == 0, value & PG == 0 && now.cr0 & PG != 0);
    let is_long = matches!(now.code, CodeSegment::Long);
    if value >> 32 != 0 || value & PG != 0 && value & PE == 0 || value & NW != 0 && value & CD == 0
    {
        return refused;
    }
    if paging_on && now.efer & LME != 0 && (now.cr4 & CR4_PAE == 0 || is_long) {
        return refused;
    }
    if paging_off && now.efer & LMA != 0 && is_long {
        return refused;
    }
    let long_mode = now.efer & LME != 0 && value & PG != 0;
    Ok((value & KNOWN | ET, now.efer & !LMA | if long_mode { LMA } else { 0 }))
}

/// Returns CR0 for LMSW of `word`: the low four bits, of which PE is never cleared.
pub(super) const fn with_status_word(cr0: u64, word: u64) -> u64 {
    cr0 & !0xe | word & 0xf
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Cr0State =
        Cr0State { cr0: 0x8000_0011, cr4: 0x20, efer: 0x500, code: CodeSegment::Long };
    const FLAT: Cr0State =
        Cr0State { cr0: 0x11, cr4: 0x20, efer: 0x100, code: CodeSegment::Legacy };

    #[test]
    fn what_no_cpu_takes_is_refused() {
        let refused = Err(InjectedEvent::general_protection());
        for value in [0x8000_0010, 0xa000_0011, 0x1_8000_0011, 0x11] {
            assert_eq!(write(LONG, value), refused, "{value:#x}");
        }
        assert_eq!(
            write(Cr0State { cr4: 0, ..FLAT }, 0x8000_0011),
            refused,
            "long mode without PAE"
        );
        assert_eq!(
            write(Cr0State { code: CodeSegment::Long, ..FLAT }, 0x8000_0011),
            refused,
            "CS.L before long mode"
        );
    }

    #[test]
    fn long_mode_follows_paging() {
        assert_eq!(write(FLAT, 0x8000_0011), Ok((0x8000_0011, 0x500)));
        assert_eq!(write(Cr0State { code: CodeSegment::Legacy, ..LONG }, 0x11), Ok((0x11, 0x100)));
        assert_eq!(write(Cr0State { efer: 0, ..FLAT }, 0x8000_0011), Ok((0x8000_0011, 0)));
    }

    #[test]
    fn reserved_bits_vanish_and_the_extension_type_stays() {
        assert_eq!(write(LONG, 0x8fff_ffc1), Ok((0x8005_0011, 0x500)));
        assert_eq!(with_status_word(0x8000_0019, 0), 0x8000_0011);
        assert_eq!(with_status_word(0x10, 0xffff_fff1), 0x11);
    }
}
