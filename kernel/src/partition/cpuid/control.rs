//! CR4's bits. A CPUID bit announces each of them; a bit whose CPUID bit is hidden is reserved. SDM
//! 3A "Control Registers", APM 2 "CR4 Register".

use super::{ApicMode, CpuidLeaf, GuestView, TscRate, answer};

/// A register of a leaf.
#[derive(Clone, Copy)]
enum CpuidRegister {
    OneEcx,
    OneEdx,
    SevenEbx,
    SevenEcx,
}
use CpuidRegister::*;

/// A bit of CR4, and the CPUID bit without which it is reserved.
const ANNOUNCED: [(u32, CpuidRegister, u32); 19] = [
    (0, OneEdx, 1),     // VME
    (1, OneEdx, 1),     // PVI
    (2, OneEdx, 4),     // TSD
    (3, OneEdx, 2),     // DE
    (4, OneEdx, 3),     // PSE
    (5, OneEdx, 6),     // PAE
    (6, OneEdx, 7),     // MCE
    (7, OneEdx, 13),    // PGE
    (9, OneEdx, 24),    // OSFXSR
    (10, OneEdx, 25),   // OSXMMEXCPT
    (11, SevenEcx, 2),  // UMIP
    (12, SevenEcx, 16), // LA57
    (13, OneEcx, 5),    // VMXE
    (14, OneEcx, 6),    // SMXE
    (16, SevenEbx, 0),  // FSGSBASE
    (17, OneEcx, 17),   // PCIDE
    (18, OneEcx, 26),   // OSXSAVE
    (20, SevenEbx, 7),  // SMEP
    (21, SevenEbx, 20), // SMAP
];
/// PCE, RDPMC outside ring 0: no CPUID bit announces it.
const PCE: u64 = 1 << 8;

/// Returns the bits of CR4 that a guest on `host` may set.
pub fn offered_cr4(host: &dyn Fn(u32, u32) -> CpuidLeaf) -> u64 {
    let view =
        GuestView { cr4: 0, xcr0: 1, apic: ApicMode::XApic, rate: TscRate::new(1_000_000_000) };
    let (one, seven) = (answer(1, 0, host, &view), answer(7, 0, host, &view));
    let announced = |register, bit: u32| {
        let value = match register {
            OneEcx => one.ecx,
            OneEdx => one.edx,
            SevenEbx => seven.ebx,
            SevenEcx => seven.ecx,
        };
        u64::from(value >> bit & 1)
    };
    ANNOUNCED
        .iter()
        .fold(PCE, |offered, &(bit, register, by)| offered | announced(register, by) << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_has_everything_gives_what_is_announced_and_no_more() {
        let offered = offered_cr4(&|_, _| CpuidLeaf::new(u32::MAX, u32::MAX, u32::MAX, u32::MAX));
        // All but LA57, VMXE, SMXE, PCIDE, and the bits without a line above: PKE, CET, PKS, UINTR,
        // LASS, LAM.
        assert_eq!(offered, 0x35_0fff);
    }

    #[test]
    fn a_host_that_has_nothing_gives_the_bit_that_needs_no_announcement() {
        assert_eq!(offered_cr4(&|_, _| CpuidLeaf::default()), PCE);
    }
}
