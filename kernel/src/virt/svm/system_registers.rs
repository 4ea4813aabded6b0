//! Control and debug registers that do not belong to the guest: CR4's hidden bits, and under an
//! emulator CR8 and DR7.

use crate::arch::quirks::GuestHazards;
use crate::virt::breakpoints::DebugUse;
use crate::virt::cr4;

/// DR7 with all breakpoints off.
pub(super) const DR7_OFF: u64 = 0x400;

/// The guest's view of registers that have another value in hardware.
#[derive(Debug)]
pub(super) struct SystemRegisters {
    /// Bits of CR4 that CPUID announces.
    pub(super) offered_cr4: u64,
    dr7: DebugControl,
    /// While this is unused, writes of DR7 exit, if [`DebugControl::Hardware`] holds DR7.
    pub(super) debug_use: DebugUse,
}

/// Where the guest's DR7 is.
#[derive(Debug)]
enum DebugControl {
    /// The VMCB.
    Hardware,
    /// In this shadow only: the guest's breakpoints never fire ([`GuestHazards::Tcg`]).
    Shadow(u64),
}

impl SystemRegisters {
    pub(super) const fn new(hazards: GuestHazards) -> Self {
        let dr7 = match hazards {
            GuestHazards::None => DebugControl::Hardware,
            GuestHazards::Tcg => DebugControl::Shadow(DR7_OFF),
        };
        Self { offered_cr4: cr4::KNOWN, dr7, debug_use: DebugUse::Unused }
    }

    /// Returns DR7 as the guest sees it.
    pub(super) const fn guest_dr7(&self, hardware: u64) -> u64 {
        match self.dr7 {
            DebugControl::Hardware => hardware,
            DebugControl::Shadow(value) => value,
        }
    }

    /// Returns whether the VMCB holds the guest's DR7.
    pub(super) const fn has_hardware_breakpoints(&self) -> bool {
        matches!(self.dr7, DebugControl::Hardware)
    }

    /// Stores the guest's DR7; returns the value for the VMCB.
    pub(super) const fn take_dr7(&mut self, value: u64) -> u64 {
        self.debug_use = DebugUse::of(value);
        match &mut self.dr7 {
            DebugControl::Hardware => value,
            DebugControl::Shadow(shadow) => {
                *shadow = value;
                DR7_OFF
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakpoints_are_the_hardwares_or_nobodys() {
        let mut own = SystemRegisters::new(GuestHazards::None);
        assert_eq!((own.take_dr7(0x401), own.guest_dr7(0x401)), (0x401, 0x401));
        let mut shadow = SystemRegisters::new(GuestHazards::Tcg);
        assert_eq!((shadow.take_dr7(0xf_0402), shadow.guest_dr7(DR7_OFF)), (DR7_OFF, 0xf_0402));
    }

    #[test]
    fn breakpoints_are_looked_for_while_one_is_enabled() {
        for hazards in [GuestHazards::None, GuestHazards::Tcg] {
            let mut registers = SystemRegisters::new(hazards);
            for (dr7, debug_use) in
                [(0x401, DebugUse::Used), (0xf_0400, DebugUse::Unused), (0x480, DebugUse::Used)]
            {
                registers.take_dr7(dr7);
                assert_eq!(registers.debug_use, debug_use, "{dr7:#x}");
            }
        }
    }
}
