//! The guest's breakpoints at emulated accesses.

use super::VmxVcpu;
use crate::arch::instr::vmx::{read_dr6, write_dr6};
use crate::virt::breakpoints::{self, Breakpoints, DR7_GENERAL_DETECT, DebugUse};
use crate::virt::contract::WindowRequest;
use crate::virt::debug::DebugAddresses;
use crate::virt::exit::InjectedEvent;
use crate::virt::vmx::controls::PrimaryControls;
use crate::virt::vmx::event::EntryEvent;
use crate::virt::vmx::field::guest;

impl VmxVcpu {
    /// See [`crate::virt::Vcpu::may_break`].
    #[inline(always)]
    pub fn may_break(&mut self) -> bool {
        self.debug_use != DebugUse::Unused && self.look_for_breakpoints()
    }

    /// Returns whether a breakpoint may be enabled when the guest is entered; if none is, the next
    /// MOV to a debug register exits again.
    #[cold]
    fn look_for_breakpoints(&mut self) -> bool {
        self.watch_debug_registers(self.debug_use.at_entry(self.dr7()));
        self.debug_use != DebugUse::Unused
    }

    fn dr7(&self) -> u64 {
        self.with_vmcs(|vmcs| vmcs.read(guest::DR7))
    }

    /// Makes MOV to and from debug registers exit while they are unused. The guest repeats such a
    /// MOV, and the CPU carries it out.
    #[cold]
    pub(super) fn watch_debug_registers(&mut self, debug_use: DebugUse) {
        self.debug_use = debug_use;
        let exiting = match debug_use {
            DebugUse::Unused => WindowRequest::Open,
            DebugUse::Repeated | DebugUse::Used => WindowRequest::None,
        };
        self.set_primary(PrimaryControls::MOV_DR_EXITING, exiting);
    }

    /// See [`crate::virt::Vcpu::breakpoints`].
    pub fn breakpoints(&self) -> Option<Breakpoints> {
        if self.debug_use == DebugUse::Unused {
            return None;
        }
        let dr7 = self.dr7();
        let all = || {
            Breakpoints::new(DebugAddresses::read().as_array(), dr7, self.control_registers().cr4)
        };
        breakpoints::is_enabled(dr7).then(all)
    }

    /// See [`crate::virt::Vcpu::raise_debug`]. The exception is injected, because an injection
    /// would drop a pending debug exception.
    pub fn raise_debug(&mut self, hits: u64) {
        let dr7 = self.dr7();
        self.with_vmcs(|vmcs| vmcs.write(guest::DR7, dr7 & !DR7_GENERAL_DETECT));
        write_dr6(read_dr6() | hits);
        self.queued = Some(EntryEvent::encode(InjectedEvent::debug()));
    }
}
