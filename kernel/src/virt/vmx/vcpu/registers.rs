//! The vCPU's registers, for handlers, loaders and dumps.

use super::{Pointers, Residency, VmxVcpu};
use crate::arch::instr::vmx::write_cr2;
use crate::virt::breakpoints::DebugUse;
use crate::virt::contract::{ControlRegisters, RawExit};
use crate::virt::efer;
use crate::virt::exit::InjectedEvent;
use crate::virt::state::{CpuState, Gpr, Regs};
use crate::virt::vmx::field::{guest, info};
use crate::virt::vmx::guest_state;
use crate::virt::vmx::nmi::NmiRecord;

impl VmxVcpu {
    /// Returns the general registers, RIP and RFLAGS.
    #[inline(always)]
    pub fn regs(&self) -> &Regs {
        &self.context.regs
    }

    /// Sets one register.
    #[inline(always)]
    pub fn set(&mut self, gpr: Gpr, value: u64) {
        if gpr == Gpr::Rsp {
            self.pointers = Pointers::Changed;
        }
        self.context.regs.set(gpr, value);
    }

    /// Returns the registers for modification.
    #[inline]
    pub fn regs_mut(&mut self) -> &mut Regs {
        self.pointers = Pointers::Changed;
        &mut self.context.regs
    }

    /// Reads the rest of the state.
    pub fn state(&self) -> CpuState {
        let mut state = self.with_vmcs(|vmcs| guest_state::read(vmcs));
        let mut live = self.live;
        if self.residency == Residency::Loaded {
            live.save();
        }
        live.msrs.copy_to(&mut state);
        state.cr2 = live.cr2;
        state.dr6 = live.dr6;
        state
    }

    /// Replaces the rest of the state; a queued event is dropped.
    pub fn set_state(&mut self, state: &CpuState) {
        let settings = self.settings;
        self.with_vmcs(|vmcs| guest_state::write(vmcs, state, settings));
        self.watch_debug_registers(DebugUse::of(state.dr7));
        (self.queued, self.nmi) = (None, NmiRecord::Idle);
        if self.residency == Residency::Loaded {
            // The state does not include DR0 to DR3: they keep their values.
            self.live.save();
        }
        self.live.msrs.set(state);
        self.live.dr6 = state.dr6;
        self.live.cr2 = state.cr2;
        if self.residency == Residency::Loaded {
            self.live.restore();
        }
    }

    /// Returns the registers on which the guest's address translation depends.
    #[inline]
    pub fn control_registers(&self) -> ControlRegisters {
        self.with_vmcs(|vmcs| guest_state::read_control_registers(vmcs))
    }

    /// Emulates WRMSR to EFER, for a caller without an exit: the guest itself writes EFER without
    /// one.
    ///
    /// # Errors
    /// #GP for reserved bits, or for LME changed while paging is on.
    pub fn write_efer(&mut self, value: u64) -> Result<(), InjectedEvent> {
        let now = self.control_registers();
        let efer = efer::write(now.efer, now.cr0, value)?;
        self.with_vmcs(|vmcs| vmcs.write(guest::EFER, efer));
        Ok(())
    }

    /// Returns the guest's page attribute table, for a caller without an exit: the guest accesses
    /// it without one.
    pub fn pat(&self) -> u64 {
        self.with_vmcs(|vmcs| vmcs.read(guest::PAT))
    }

    /// Sets the page attribute table, likewise.
    pub fn set_pat(&mut self, value: u64) {
        self.with_vmcs(|vmcs| vmcs.write(guest::PAT, value));
    }

    /// Sets CR2, before a page fault is injected.
    pub fn set_cr2(&mut self, cr2: u64) {
        match self.residency {
            Residency::Loaded => write_cr2(cr2),
            Residency::Unloaded => self.live.cr2 = cr2,
        }
    }

    /// Returns CR8.
    #[inline]
    pub fn cr8(&self) -> u8 {
        self.task_priority
    }

    /// Sets CR8.
    pub fn set_cr8(&mut self, class: u8) {
        self.task_priority = class & 0xf;
    }

    /// Returns the raw words about the last exit.
    pub fn raw_exit(&self) -> RawExit {
        self.with_vmcs(|vmcs| {
            RawExit([
                ("exit reason", u64::from(vmcs.info(info::REASON))),
                ("qualification", vmcs.info(info::QUALIFICATION)),
                ("guest-physical", vmcs.info(info::GUEST_PHYSICAL)),
                ("interruption", u64::from(vmcs.info(info::INTERRUPTION))),
                ("IDT-vectoring", u64::from(vmcs.info(info::IDT_VECTORING))),
                ("instruction error", u64::from(vmcs.info(info::INSTRUCTION_ERROR))),
            ])
        })
    }
}
