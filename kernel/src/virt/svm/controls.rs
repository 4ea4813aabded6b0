//! The controls of a guest's VMCB: which events exit, and how interrupts and paging are
//! virtualised.
//!
//! Not intercepted on purpose: RDTSC, PAUSE, SMI, and control registers except for writes of CR4.
//! With nested paging the other control registers belong to the guest. RDPID and XSAVES have no
//! intercept: a CPU that has them runs them, although CPUID hides them. See: APM 2 "Instruction
//! Intercepts", "Interrupt Intercepts", "Exception Intercepts".

use super::vmcb::{TlbControl, V_IGN_TPR, V_INTR_MASKING, VmcbControls};
use crate::addr::Hpa;
use crate::arch::quirks::GuestHazards;

/// Bits of `intercept_events` (VMCB offset 0x0c).
mod event_bit {
    pub(super) const INTR: u32 = 1 << 0;
    pub(super) const NMI: u32 = 1 << 1;
    pub(super) const INIT: u32 = 1 << 3;
    pub(super) const VINTR: u32 = 1 << 4;
    pub(super) const CR0_SEL_WRITE: u32 = 1 << 5;
    pub(super) const RDPMC: u32 = 1 << 15;
    pub(super) const CPUID: u32 = 1 << 18;
    pub(super) const IRET: u32 = 1 << 20;
    pub(super) const INVD: u32 = 1 << 22;
    pub(super) const HLT: u32 = 1 << 24;
    pub(super) const INVLPGA: u32 = 1 << 26;
    pub(super) const IOIO: u32 = 1 << 27;
    pub(super) const MSR: u32 = 1 << 28;
    pub(super) const TASK_SWITCH: u32 = 1 << 29;
    pub(super) const FERR_FREEZE: u32 = 1 << 30;
    pub(super) const SHUTDOWN: u32 = 1 << 31;
}

/// The VINTR intercept, which is off only while V_IRQ delivers an interrupt.
pub(super) const INTERCEPT_VINTR: u32 = event_bit::VINTR;
/// The IRET intercept, which is on only while an NMI is being handled.
pub(super) const INTERCEPT_IRET: u32 = event_bit::IRET;

const EVENTS: u32 = event_bit::INTR
    | event_bit::NMI
    | event_bit::INIT
    | event_bit::VINTR
    | event_bit::RDPMC
    | event_bit::CPUID
    | event_bit::INVD
    | event_bit::HLT
    | event_bit::INVLPGA
    | event_bit::IOIO
    | event_bit::MSR
    | event_bit::TASK_SWITCH
    | event_bit::FERR_FREEZE
    | event_bit::SHUTDOWN;

/// Bits of `intercept_instructions` (offset 0x10): VMRUN 0, VMMCALL 1, VMLOAD 2, VMSAVE 3, STGI 4,
/// CLGI 5, SKINIT 6, RDTSCP 7, WBINVD 9, MONITOR 10, MWAIT 11 and 12, XSETBV 13, RDPRU 14.
const INSTRUCTIONS: u32 =
    0xff | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 12) | (1 << 13) | (1 << 14);

/// Bits of `intercept_more` (offset 0x14): INVLPGB 0, INVLPGB with an illegal form 1, INVPCID 2,
/// MCOMMIT 3, TLBSYNC 4.
const MORE: u32 = 0x1f;

/// Writes of CR4: bits that CPUID hides are refused.
const CONTROL_WRITES: u32 = 1 << (16 + 4);
/// Writes of CR8, on an emulator where they are dangerous.
const WRITE_CR8: u32 = 1 << (16 + 8);
/// Reads and writes of DR5 and DR7, on an emulator where breakpoints are dangerous.
const DR5_AND_DR7: u32 = 0b1010_0000 | 0b1010_0000 << 16;

/// Writes of DR5 and DR7, while no breakpoint is enabled: exits that are answered at once then need
/// no check for breakpoints.
pub(super) const WRITE_DR5_AND_DR7: u32 = 0b1010_0000 << 16;

/// #DB and #AC, because a guest can make the CPU raise them endlessly in microcode, where no
/// interrupt gets through (CVE-2015-8104, CVE-2015-5307); #MC, which is always the host's.
const EXCEPTIONS: u32 = (1 << 1) | (1 << 17) | (1 << 18);

const NESTED_PAGING: u64 = 1;

/// Writes the controls that never change. A zeroed field is off, so no other field is written.
pub(super) fn set_up(control: &mut VmcbControls, io_map: Hpa, msr_map: Hpa, hazards: GuestHazards) {
    let (cr0, cr8, debug) = match hazards {
        GuestHazards::None => (0, 0, WRITE_DR5_AND_DR7),
        GuestHazards::Tcg => (event_bit::CR0_SEL_WRITE, WRITE_CR8, DR5_AND_DR7),
    };
    control.intercept_cr = CONTROL_WRITES | cr8;
    control.intercept_dr = debug;
    control.intercept_more = MORE;
    control.intercept_events = EVENTS | cr0;
    control.intercept_instructions = INSTRUCTIONS;
    control.intercept_exceptions = EXCEPTIONS;
    control.iopm_base = io_map.as_u64();
    control.msrpm_base = msr_map.as_u64();
    control.interrupt_control = V_INTR_MASKING | V_IGN_TPR;
    control.nested_control = NESTED_PAGING;
    control.tlb_control = TlbControl::Nothing as u32;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virt::svm::vmcb::{V_IRQ, Vmcb};

    #[test]
    fn the_controls_are_what_the_manual_numbers() {
        let mut control = Vmcb::zeroed().control;
        set_up(&mut control, Hpa::new(0x1000), Hpa::new(0x4000), GuestHazards::None);
        assert_eq!(control.intercept_events, 0xfd44_801b, "IRET (20) only while an NMI is handled");
        assert_eq!((control.intercept_instructions, control.intercept_more), (0x7eff, 0x1f));
        assert_eq!(
            (control.intercept_cr, control.intercept_dr, control.intercept_exceptions),
            (0x10_0000, 0xa0_0000, 0x6_0002)
        );
        assert_eq!(
            (control.iopm_base, control.msrpm_base, control.nested_control),
            (0x1000, 0x4000, 1)
        );
        assert_eq!(control.interrupt_control & (V_INTR_MASKING | V_IRQ), V_INTR_MASKING);
    }

    #[test]
    fn an_emulator_that_such_guests_end_gets_neither_cr8_nor_breakpoints() {
        let mut control = Vmcb::zeroed().control;
        set_up(&mut control, Hpa::new(0x1000), Hpa::new(0x4000), GuestHazards::Tcg);
        assert_eq!((control.intercept_cr, control.intercept_dr), (0x110_0000, 0xa0_00a0));
        assert_eq!(control.intercept_events, 0xfd44_803b);
    }
}
