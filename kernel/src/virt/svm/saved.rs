//! Events and other hidden state of a vCPU whose partition is suspended.

use super::event_state::NmiBlocking;
use super::vcpu::SvmVcpu;
use super::vmcb::{INTERRUPT_SHADOW, V_INTR_VECTOR_SHIFT};
use super::{controls, event};
use crate::arch::quirks::GuestHazards;
use crate::virt::exit::InjectedEvent;
use crate::virt::saved::{SavedEvent, SavedEvents};
use crate::virt::state::{RFLAGS_TRAP, Regs};

impl SvmVcpu {
    /// Returns the registers as the guest has them: without the single step by which the end of an
    /// NMI's handling is awaited.
    pub fn saved_regs(&self) -> Regs {
        match self.events.nmi {
            NmiBlocking::Stepping { iret, trap_flag, .. } if iret == self.regs.rip => {
                Regs { rflags: self.regs.rflags & !RFLAGS_TRAP | trap_flag, ..self.regs }
            }
            _ => self.regs,
        }
    }

    /// See [`crate::virt::Vcpu::save_events`].
    ///
    /// # Panics
    /// If the vCPU is loaded.
    pub fn save_events(&self) -> SavedEvents {
        assert!(self.host.is_none(), "a vCPU is saved from memory");
        let control = &self.vmcb().control;
        let word = control.event_injection;
        let virtual_vector = (control.interrupt_control >> V_INTR_VECTOR_SHIFT) as u8;
        SavedEvents {
            queued: event::holds_event(word)
                .then_some(SavedEvent { word, ..SavedEvent::default() }),
            virtual_interrupt: self.delivery_pending().then_some(virtual_vector),
            shadow: (control.interrupt_state & INTERRUPT_SHADOW) as u8,
            blocks_nmis: self.events.nmi != NmiBlocking::Off,
            pending_debug: 0,
            task_priority: self.cr8(),
            debug_addresses: self.debug_addresses.as_array(),
            directory_pointers: [0; 4],
        }
    }

    /// See [`crate::virt::Vcpu::restore_events`].
    ///
    /// # Panics
    /// If the vCPU is loaded.
    pub fn restore_events(&mut self, saved: &SavedEvents) {
        assert!(self.host.is_none(), "a vCPU is restored in memory");
        self.forget_events();
        self.set_cr8(saved.task_priority);
        self.debug_addresses = crate::virt::debug::DebugAddresses::of(saved.debug_addresses);
        if saved.blocks_nmis {
            self.events.nmi = NmiBlocking::UntilIret;
            self.vmcb_mut().control.intercept_events |= controls::INTERCEPT_IRET;
        }
        let control = &mut self.vmcb_mut().control;
        control.interrupt_state = u64::from(saved.shadow) & INTERRUPT_SHADOW;
        control.event_injection = saved.queued.map_or(0, |event| event.word);
        match (saved.virtual_interrupt, self.events.hazards) {
            (Some(vector), GuestHazards::Tcg) => self.deliver_virtually(vector),
            (Some(vector), _) => {
                let word = event::encode(InjectedEvent::interrupt(vector));
                self.vmcb_mut().control.event_injection = word;
            }
            (None, _) => {}
        }
    }
}
