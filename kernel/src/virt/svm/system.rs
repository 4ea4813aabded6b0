//! Moves to and from control and debug registers.

use super::system_registers::DR7_OFF;
use super::vcpu::SvmVcpu;
use super::{controls, efer, event};
use crate::virt::breakpoints::{self, Breakpoints, DR7_GENERAL_DETECT, DebugUse};
use crate::virt::cr0::{self, CodeSegment, Cr0State};
use crate::virt::cr4::{self, LongMode};
use crate::virt::debug::DebugAddresses;
use crate::virt::efer::LMA;
use crate::virt::exit::{DebugNumber, InjectedEvent, SystemMove};
use crate::virt::state::Gpr;

/// CS.L in the VMCB's packed attributes.
const LONG: u16 = 1 << 9;
/// CR4.DE: DR4 and DR5 are no longer aliases.
const CR4_DEBUGGING_EXTENSIONS: u64 = 1 << 3;

impl SvmVcpu {
    /// See [`crate::virt::Vcpu::offer_cr4`].
    pub fn offer_cr4(&mut self, bits: u64) {
        self.system.offered_cr4 = bits & cr4::KNOWN;
    }

    /// See [`crate::virt::Vcpu::set_tsc_offset`].
    pub fn set_tsc_offset(&mut self, offset: u64) {
        self.vmcb_mut().control.tsc_offset = offset;
    }

    /// See [`crate::virt::Vcpu::move_system`].
    ///
    /// # Errors
    /// The exception for the guest.
    pub fn move_system(&mut self, access: SystemMove, gpr: Gpr) -> Result<(), InjectedEvent> {
        let value = self.operand(gpr);
        match access {
            SystemMove::ToCr0 => self.write_cr0(value),
            SystemMove::StatusWord => {
                self.write_cr0(cr0::with_status_word(self.vmcb().save.cr0, value))
            }
            SystemMove::ToCr4 => self.write_cr4(value),
            SystemMove::ToCr8 if value > 15 => Err(InjectedEvent::general_protection()),
            SystemMove::ToCr8 => {
                self.set_cr8(value as u8);
                Ok(())
            }
            SystemMove::ToDr7(name) | SystemMove::FromDr7(name) if !self.is_dr7(name) => {
                Err(InjectedEvent::invalid_opcode())
            }
            SystemMove::ToDr7(_) => self.write_dr7(value),
            SystemMove::FromDr7(_) => {
                let dr7 = self.system.guest_dr7(self.vmcb().save.dr7);
                self.set(gpr, dr7);
                Ok(())
            }
        }
    }

    fn write_cr0(&mut self, value: u64) -> Result<(), InjectedEvent> {
        let save = &self.vmcb().save;
        let code =
            if save.cs.attributes & LONG != 0 { CodeSegment::Long } else { CodeSegment::Legacy };
        let now = Cr0State { cr0: save.cr0, cr4: save.cr4, efer: efer::to_guest(save.efer), code };
        let (cr0, guest_efer) = cr0::write(now, value)?;
        let save = &mut self.vmcb_mut().save;
        (save.cr0, save.efer) = (cr0, efer::to_hardware(guest_efer));
        self.flush();
        Ok(())
    }

    fn write_cr4(&mut self, value: u64) -> Result<(), InjectedEvent> {
        let save = &self.vmcb().save;
        let (old, mode) =
            (save.cr4, if save.efer & LMA != 0 { LongMode::Active } else { LongMode::Inactive });
        let new = cr4::write(self.system.offered_cr4, mode, value)?;
        self.vmcb_mut().save.cr4 = new;
        if (old ^ new) & cr4::PAGING != 0 {
            self.flush();
        }
        Ok(())
    }

    /// See [`crate::virt::Vcpu::may_break`].
    #[inline(always)]
    pub fn may_break(&mut self) -> bool {
        self.system.debug_use != DebugUse::Unused && self.look_for_breakpoints()
    }

    /// Returns whether a breakpoint may be enabled when the guest is entered; if none is, the next
    /// MOV to DR7 exits again.
    #[cold]
    fn look_for_breakpoints(&mut self) -> bool {
        let dr7 = self.system.guest_dr7(self.vmcb().save.dr7);
        self.watch_dr7(self.system.debug_use.at_entry(dr7));
        self.system.debug_use != DebugUse::Unused
    }

    /// Makes writes of DR7 exit while it is unused. If the VMCB does not hold DR7, they always
    /// exit.
    pub(super) fn watch_dr7(&mut self, debug_use: DebugUse) {
        self.system.debug_use = debug_use;
        if self.system.has_hardware_breakpoints() {
            let control = &mut self.vmcb_mut().control;
            match debug_use {
                DebugUse::Unused => control.intercept_dr |= controls::WRITE_DR5_AND_DR7,
                DebugUse::Repeated | DebugUse::Used => {
                    control.intercept_dr &= !controls::WRITE_DR5_AND_DR7
                }
            }
        }
    }

    /// See [`crate::virt::Vcpu::breakpoints`].
    pub fn breakpoints(&self) -> Option<Breakpoints> {
        let dr7 = self.system.guest_dr7(self.vmcb().save.dr7);
        let all = || Breakpoints::new(DebugAddresses::read().as_array(), dr7, self.vmcb().save.cr4);
        breakpoints::is_enabled(dr7).then(all)
    }

    /// See [`crate::virt::Vcpu::raise_debug`].
    pub fn raise_debug(&mut self, hits: u64) {
        let dr7 = self.system.guest_dr7(self.vmcb().save.dr7) & !DR7_GENERAL_DETECT;
        let hardware = self.system.take_dr7(dr7);
        let vmcb = self.vmcb_mut();
        (vmcb.save.dr6, vmcb.save.dr7) = (vmcb.save.dr6 | hits, hardware);
        vmcb.control.event_injection = event::encode(InjectedEvent::debug());
    }

    fn is_dr7(&self, name: DebugNumber) -> bool {
        name == DebugNumber::Own || self.vmcb().save.cr4 & CR4_DEBUGGING_EXTENSIONS == 0
    }

    /// SDM 3B "Debug Control Register (DR7)": the upper half is reserved, bits 12, 14 and 15 read
    /// 0, bit 10 reads 1.
    fn write_dr7(&mut self, value: u64) -> Result<(), InjectedEvent> {
        if value >> 32 != 0 {
            return Err(InjectedEvent::general_protection());
        }
        let hardware = self.system.take_dr7(value & !0xd000 | DR7_OFF);
        self.vmcb_mut().save.dr7 = hardware;
        Ok(())
    }

    /// Returns the register's value as a MOV to a system register uses it: 32 bits outside 64-bit
    /// mode.
    fn operand(&self, gpr: Gpr) -> u64 {
        let (value, save) = (self.regs.get(gpr), &self.vmcb().save);
        if save.efer & LMA != 0 && save.cs.attributes & LONG != 0 {
            value
        } else {
            value & 0xffff_ffff
        }
    }
}
