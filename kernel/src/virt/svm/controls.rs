//! The controls of a guest's VMCB: what exits, and how interrupts and paging are virtualised.
//!
//! Not intercepted on purpose: control registers (nested paging makes them the guest's own), RDTSC, PAUSE,
//! SMI. See: APM 2 "Instruction Intercepts", "Interrupt Intercepts", "Exception Intercepts".

use super::vmcb::{Controls, TlbControl, V_IGN_TPR, V_INTR_MASKING};
use crate::addr::Hpa;

/// Bits of `intercept_events` (VMCB offset 0x0c).
mod event_bit {
    pub const INTR: u32 = 1 << 0;
    pub const NMI: u32 = 1 << 1;
    pub const INIT: u32 = 1 << 3;
    pub const VINTR: u32 = 1 << 4;
    pub const RDPMC: u32 = 1 << 15;
    pub const CPUID: u32 = 1 << 18;
    pub const IRET: u32 = 1 << 20;
    pub const INVD: u32 = 1 << 22;
    pub const HLT: u32 = 1 << 24;
    pub const INVLPGA: u32 = 1 << 26;
    pub const IOIO: u32 = 1 << 27;
    pub const MSR: u32 = 1 << 28;
    pub const TASK_SWITCH: u32 = 1 << 29;
    pub const FERR_FREEZE: u32 = 1 << 30;
    pub const SHUTDOWN: u32 = 1 << 31;
}

/// The IRET intercept, which is on only while an NMI is being handled.
pub const INTERCEPT_IRET: u32 = event_bit::IRET;

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

/// Bits of `intercept_instructions` (offset 0x10): VMRUN 0, VMMCALL 1, VMLOAD 2, VMSAVE 3, STGI 4, CLGI 5, SKINIT 6,
/// WBINVD 9, MONITOR 10, MWAIT 11 and 12, XSETBV 13, RDPRU 14.
const INSTRUCTIONS: u32 = 0x7f | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 12) | (1 << 13) | (1 << 14);

/// #DB and #AC, because a guest can make the CPU raise them for ever in microcode, where no interrupt gets
/// through (CVE-2015-8104, CVE-2015-5307); #MC, which is never the guest's.
const EXCEPTIONS: u32 = (1 << 1) | (1 << 17) | (1 << 18);

const NESTED_PAGING: u64 = 1;

/// Fills in the controls that never change. Nothing else is set: a zeroed field is off.
pub fn set_up(control: &mut Controls, io_map: Hpa, msr_map: Hpa) {
    control.intercept_events = EVENTS;
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
        set_up(&mut control, Hpa::new(0x1000), Hpa::new(0x4000));
        assert_eq!(control.intercept_events, 0xfd44_801b, "IRET (20) only while an NMI is handled");
        assert_eq!(control.intercept_instructions, 0x7e7f);
        assert_eq!((control.intercept_cr, control.intercept_dr, control.intercept_exceptions), (0, 0, 0x6_0002));
        assert_eq!((control.iopm_base, control.msrpm_base, control.nested_control), (0x1000, 0x4000, 1));
        assert_eq!(control.interrupt_control & (V_INTR_MASKING | V_IRQ), V_INTR_MASKING);
    }
}
