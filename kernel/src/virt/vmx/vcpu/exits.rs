//! Exits that the back end handles itself, because only VMX has them.
// UNSAFETY: runs the host's NMI handler.
#![expect(unsafe_code)]

use super::events::{PENDING_SINGLE_STEP, blocking};
use super::{LaunchState, Pointers, VmxVcpu};
use crate::addr::{Gpa, Gva};
use crate::arch::instr::vmx::{raise_nmi, read_dr6, write_dr6};
use crate::virt::breakpoints::{DR7_GENERAL_DETECT, DebugUse};
use crate::virt::exit::{InjectedEvent, VmExit};
use crate::virt::state::{DR6_SINGLE_STEP, Gpr, RFLAGS_RESUME, RFLAGS_TRAP};
use crate::virt::vmx::control_register::{ControlRegisterWrite, write_cr0, write_cr4};
use crate::virt::vmx::decode::{
    ControlAccess, DecodedExit, ExitInformation, decode, ept_violation,
};
use crate::virt::vmx::event::{EntryEvent, InterruptionInfo};
use crate::virt::vmx::field::{control, guest, info};
use crate::virt::vmx::guest_state::in_64_bit_mode;
use crate::virt::vmx::vmcs::CurrentVmcs;

impl ExitInformation for CurrentVmcs<'_> {
    fn qualification(&self) -> u64 {
        self.info(info::QUALIFICATION)
    }
    fn guest_physical(&self) -> Gpa {
        Gpa::new(self.info(info::GUEST_PHYSICAL))
    }
    fn guest_linear(&self) -> Gva {
        Gva::new(self.info(info::GUEST_LINEAR))
    }
    fn interruption(&self) -> InterruptionInfo {
        InterruptionInfo::from_bits(self.info(info::INTERRUPTION))
    }
}

impl VmxVcpu {
    /// Handles the most frequent exit that needs more than its reason: an access to a page that is
    /// not there. It has its own function for speed.
    #[inline(never)]
    pub(super) fn second_level_fault(&mut self) -> VmExit {
        self.take_up_interrupted_delivery();
        ept_violation(&self.current())
    }

    /// Handles an exit that needs more than its reason.
    #[inline(never)]
    pub(super) fn look_closer(&mut self) -> VmExit {
        if self.reason().may_interrupt_delivery() {
            self.take_up_interrupted_delivery();
        }
        match decode(self.reason(), &self.current()) {
            DecodedExit::Exit(exit) => return exit,
            DecodedExit::EntryFailed(reason) => return self.entry_failed(reason),
            DecodedExit::Control(access) => self.handle_control(access),
            DecodedExit::DebugRegister => self.watch_debug_registers(DebugUse::Repeated),
            // SAFETY: interrupt tables are loaded before a vCPU runs.
            DecodedExit::HostNmi => unsafe { raise_nmi() },
            DecodedExit::Reflect(exception) => self.reflect(exception),
            DecodedExit::GeneralProtection => self.inject(InjectedEvent::general_protection()),
            DecodedExit::Misconfigured(gpa) => {
                panic!("EPT entry for {gpa:?} has a form that EPT does not know")
            }
        }
        VmExit::Handled
    }

    /// Handles a guest state that the CPU refused. Whether the VMCS then counts as launched depends
    /// on the instruction; clearing it makes that certain.
    #[cold]
    fn entry_failed(&mut self, reason: u16) -> VmExit {
        self.vmcs.clear();
        self.vmcs.make_current();
        self.context.launch = LaunchState::Clear;
        VmExit::EntryFailed { code: u64::from(reason) }
    }

    fn handle_control(&mut self, access: ControlAccess) {
        match access {
            ControlAccess::WriteCr0(gpr) => match write_cr0(self.operand(gpr)) {
                ControlRegisterWrite::Retry { shadow } => {
                    self.current().write(control::CR0_SHADOW, shadow)
                }
                ControlRegisterWrite::Refuse => self.inject(InjectedEvent::general_protection()),
            },
            ControlAccess::WriteCr4(gpr) => match write_cr4(self.operand(gpr), self.offered_cr4) {
                ControlRegisterWrite::Retry { shadow } => {
                    self.current().write(control::CR4_SHADOW, shadow)
                }
                ControlRegisterWrite::Refuse => self.inject(InjectedEvent::general_protection()),
            },
            ControlAccess::WriteCr8(gpr) => match self.operand(gpr) {
                class @ 0..=15 => {
                    self.task_priority = class as u8;
                    self.step_over();
                }
                _ => self.inject(InjectedEvent::general_protection()),
            },
            ControlAccess::ReadCr8(gpr) => {
                self.set(gpr, u64::from(self.task_priority));
                self.step_over();
            }
        }
    }

    /// Returns the register's value as a MOV to a control register uses it: 32 bits outside 64-bit
    /// mode.
    fn operand(&self, gpr: Gpr) -> u64 {
        let value = self.context.regs.get(gpr);
        if in_64_bit_mode(&self.current()) { value } else { value & 0xffff_ffff }
    }

    fn step_over(&mut self) {
        self.advance_to(self.behind_instruction());
    }

    /// Gives #DB or #AC to the guest. An event that was being delivered is lost, as on real
    /// hardware, where a benign exception during a delivery is handled first and the delivery is
    /// not repeated.
    fn reflect(&mut self, exception: InterruptionInfo) {
        const DEBUG: u8 = 1;
        let mut vmcs = self.current();
        let again = EntryEvent::interrupted(
            exception,
            vmcs.info(info::INTERRUPTION_ERROR_CODE),
            vmcs.info(info::INSTRUCTION_LENGTH),
        );
        if exception.vector() == DEBUG {
            // The exit came before DR6 and DR7 were changed: SDM 3C "Exit Qualification for Debug
            // Exceptions".
            write_dr6(read_dr6() | vmcs.info(info::QUALIFICATION) & 0x600f);
            let dr7 = vmcs.read(guest::DR7);
            vmcs.write(guest::DR7, dr7 & !DR7_GENERAL_DETECT);
            self.keep_step_consistent();
        }
        if again.is_some_and(EntryEvent::is_fault) {
            self.set_resume_flag();
        }
        self.queued = again;
    }

    /// Sets the pending single step that an entry requires with TF set in an interrupt shadow (SDM
    /// 3C "Checks on Guest Non-Register State").
    fn keep_step_consistent(&mut self) {
        let in_shadow = self.interruptibility() & blocking::SHADOW != 0;
        if in_shadow && self.context.regs.single_steps() {
            self.pend_single_step();
        }
    }

    #[cold]
    fn end_shadow(&mut self, state: u32) {
        self.with_vmcs(|vmcs| vmcs.write(guest::INTERRUPTIBILITY, state & !blocking::SHADOW));
    }

    #[cold]
    fn pend_single_step(&mut self) {
        self.with_vmcs(|vmcs| {
            let pending = vmcs.read(guest::PENDING_DEBUG);
            vmcs.write(guest::PENDING_DEBUG, pending | PENDING_SINGLE_STEP);
        });
    }

    /// Returns the address after the instruction that exited, if VMX reports its length.
    #[inline(always)]
    pub fn next_rip(&self, exit: VmExit) -> Option<u64> {
        exit.is_instruction().then(|| self.behind_instruction())
    }

    #[inline(always)]
    fn behind_instruction(&self) -> u64 {
        let rip = self.context.regs.rip;
        let next = rip.wrapping_add(u64::from(self.current().info(info::INSTRUCTION_LENGTH)));
        if next >> 32 == rip >> 32 { next } else { self.wrapped(next) }
    }

    /// Truncates RIP outside 64-bit mode, where it wraps at 4 GiB.
    #[cold]
    fn wrapped(&self, next: u64) -> u64 {
        if in_64_bit_mode(&self.current()) { next } else { next & 0xffff_ffff }
    }

    /// Continues at `rip` after an emulated instruction.
    #[inline(always)]
    pub fn advance_to(&mut self, rip: u64) {
        self.context.regs.rip = rip;
        if self.pointers == Pointers::Same {
            self.pointers = Pointers::Stepped;
        }
        let state = self.interruptibility();
        if state & blocking::SHADOW != 0 {
            self.end_shadow(state);
        }
        if self.context.regs.rflags & (RFLAGS_TRAP | RFLAGS_RESUME) != 0 {
            self.end_instruction();
        }
    }

    /// Ends an emulated instruction in which RF or TF was set: RF is cleared, and a single step's
    /// exception is due.
    #[cold]
    fn end_instruction(&mut self) {
        if self.context.regs.rflags & RFLAGS_RESUME != 0 {
            self.context.regs.rflags &= !RFLAGS_RESUME;
            self.pointers = Pointers::Changed;
        }
        match self.queued {
            _ if !self.context.regs.single_steps() => {}
            None => self.pend_single_step(),
            // A queued debug exception of a breakpoint: it reports the step too.
            Some(_) => write_dr6(read_dr6() | DR6_SINGLE_STEP),
        }
    }

    /// Sets RF, which the RFLAGS pushed by a fault must have.
    pub(super) fn set_resume_flag(&mut self) {
        self.context.regs.rflags |= RFLAGS_RESUME;
        self.pointers = Pointers::Changed;
    }
}
