//! Events of a vCPU: the parts that SVM leaves to software.
//!
//! These are NMI blocking (the IRET intercept reports its end), the debug exception after an
//! emulated instruction, and the exceptions that are intercepted only to bound them (#DB, #AC).
//! Interrupts are delivered by window and EVENTINJ. V_IRQ opens the window and is never delivered,
//! because TCG and real CPUs report its interrupted delivery differently.
//!
//! Under QEMU's TCG, EVENTINJ sometimes delivers an interrupt twice ([`GuestHazards::Tcg`]). There
//! V_IRQ is delivered:
//!
//! ```text
//!  inject ──> queued ──prepare_entry: V_IRQ, no VINTR intercept──> VMRUN ──┬─ V_IRQ clear at the exit: delivered
//!               ^                                                          │
//!               └── V_IRQ still set: a host interrupt came first, or the delivery was interrupted ──┘
//! ```
//!
//! QEMU's TCG up to 7.2 forgets an interrupt shadow at VMRUN. So a window that opens at the
//! instruction in the shadow is taken back; otherwise STI; HLT would lose a wake-up. From then on
//! no entry into a shadow asks for the window. If STI made the shadow, the guest executes STI again
//! and the CPU makes its shadow itself (`partition::shadow`). After MOV SS and POP SS the window
//! waits for the next exit.

use super::decode::code;
use super::event_state::{AtEntry, EntryPreparation, EntryVerdict, NmiBlocking, ShadowAtEntry};
use super::vcpu::SvmVcpu;
use super::vmcb::{INTERRUPT_SHADOW, V_INTR_VECTOR_SHIFT, V_IRQ};
use super::{controls, event};
use crate::arch::quirks::GuestHazards;
use crate::virt::contract::WindowRequest;
use crate::virt::exit::{InjectedEvent, InjectionKind, ShadowSource, VmExit};
use crate::virt::state::{DR6_SINGLE_STEP, RFLAGS_INTERRUPT, RFLAGS_RESUME, RFLAGS_TRAP};

impl SvmVcpu {
    /// Raises the virtual interrupt that opens the window, or is delivered. Called before each run
    /// while either is requested, and before the first run after a load.
    ///
    /// # Panics
    /// If the vCPU is not loaded.
    #[cold]
    pub(super) fn prepare_entry(&mut self) -> EntryVerdict {
        assert!(self.host.is_some(), "a vCPU is loaded before it runs");
        match self.events.at_entry {
            AtEntry::Nothing => {}
            AtEntry::Window if self.in_shadow() => return self.open_shadowed_window(),
            AtEntry::Window => self.open_window(),
            AtEntry::Deliver(_) if !self.delivery_pending() => self.end_delivery(),
            AtEntry::Deliver(_) => {
                self.vmcb_mut().control.intercept_events &= !controls::INTERCEPT_VINTR
            }
        }
        if self.events.at_entry == AtEntry::Nothing {
            self.events.preparation = EntryPreparation::Done;
        }
        EntryVerdict::Enter
    }

    /// Opens the window of a guest in a shadow, unless the shadow must end first.
    #[cold]
    fn open_shadowed_window(&mut self) -> EntryVerdict {
        if self.has_forgotten_shadow() {
            self.vmcb_mut().control.exit_code = code::SHADOWED_WINDOW;
            return EntryVerdict::PutOff;
        }
        self.open_window();
        self.events.put_off_at = None;
        EntryVerdict::Enter
    }

    /// Returns whether this CPU would forget the shadow, and no other event is in progress.
    fn has_forgotten_shadow(&self) -> bool {
        self.events.shadow_at_entry == ShadowAtEntry::Forgotten
            && self.regs.interrupts_enabled()
            && self.events.put_off_at != Some(self.regs.rip)
            && !self.event_pending()
            && !self.steps_over_iret()
    }

    /// See [`crate::virt::Vcpu::leave_shadow`].
    pub fn leave_shadow(&mut self, source: ShadowSource) {
        match source {
            ShadowSource::Sti => {
                self.regs.rip = self.regs.rip.wrapping_sub(1);
                self.regs.rflags &= !RFLAGS_INTERRUPT;
                self.vmcb_mut().control.interrupt_state &= !INTERRUPT_SHADOW;
            }
            ShadowSource::Other => self.events.put_off_at = Some(self.regs.rip),
        }
    }

    /// Queues `vector` for delivery as a virtual interrupt.
    pub(super) fn deliver_virtually(&mut self, vector: u8) {
        self.events.ask_at_entry(AtEntry::Deliver(vector));
        let control = &mut self.vmcb_mut().control;
        let cleared = control.interrupt_control & !(0xff << V_INTR_VECTOR_SHIFT);
        control.interrupt_control = cleared | V_IRQ | u64::from(vector) << V_INTR_VECTOR_SHIFT;
    }

    /// Returns whether a virtual interrupt waits for delivery.
    pub(super) fn delivery_pending(&self) -> bool {
        matches!(self.events.at_entry, AtEntry::Deliver(_))
            && self.vmcb().control.interrupt_control & V_IRQ != 0
    }

    /// Called after delivery of the virtual interrupt: V_IRQ opens the window again.
    fn end_delivery(&mut self) {
        self.vmcb_mut().control.intercept_events |= controls::INTERCEPT_VINTR;
        self.events.ask_at_entry(AtEntry::of(self.events.interrupt_window));
        if self.events.at_entry == AtEntry::Window {
            self.open_window();
        }
    }

    /// Re-queues the event whose delivery the exit interrupted. A virtual interrupt is still
    /// queued.
    #[cold]
    pub(super) fn take_up_interrupted_delivery(&mut self) {
        let pending = self.delivery_pending();
        let control = &mut self.vmcb_mut().control;
        control.event_injection =
            if pending { 0 } else { event::reinjection(control.exit_interrupt_info) };
    }

    /// Raises the virtual interrupt that opens the window, unless the window must wait.
    fn open_window(&mut self) {
        let shadowed = self.in_shadow();
        self.events.shadowed_at = shadowed.then_some(self.regs.rip);
        let control = &mut self.vmcb_mut().control;
        control.interrupt_control |= V_IRQ;
        if shadowed && self.events.shadow_at_entry == ShadowAtEntry::Forgotten {
            // The guest executes the shadowed instruction first; the window is requested again
            // after the next exit.
            self.vmcb_mut().control.interrupt_control &= !V_IRQ;
        }
    }

    /// Handles an opened window. If it opened at the instruction in a shadow, the CPU has forgotten
    /// the shadow: puts the shadow back, and expects that from now on.
    pub(super) fn window_opened(&mut self) -> VmExit {
        if self.events.shadowed_at != Some(self.regs.rip) {
            return VmExit::InterruptWindow;
        }
        self.events.shadow_at_entry = ShadowAtEntry::Forgotten;
        self.vmcb_mut().control.interrupt_state |= INTERRUPT_SHADOW;
        VmExit::Handled
    }

    /// Handles an exit that concerns only the back end.
    #[cold]
    pub(super) fn settle(&mut self) -> VmExit {
        let control = &mut self.vmcb_mut().control;
        match control.exit_code {
            code::IRET => return self.end_nmi(),
            // An interrupted delivery goes first; if it raises the exception again, the exception
            // exits again.
            _ if event::holds_event(control.event_injection) => {}
            code::EXCP_DB => control.event_injection = event::encode(InjectedEvent::debug()),
            _ => self.inject(InjectedEvent::alignment_check()),
        }
        VmExit::Handled
    }

    /// Called when the IRET that ends the handling of an NMI is about to run. A waiting NMI must
    /// come after it: a single step reports its end.
    fn end_nmi(&mut self) -> VmExit {
        self.vmcb_mut().control.intercept_events &= !controls::INTERCEPT_IRET;
        self.events.nmi = match self.events.nmi_window {
            WindowRequest::None => NmiBlocking::Off,
            WindowRequest::Open => {
                let (iret, trap_flag, dr6) =
                    (self.regs.rip, self.regs.rflags & RFLAGS_TRAP, self.vmcb().save.dr6);
                self.regs.rflags |= RFLAGS_TRAP;
                NmiBlocking::Stepping { iret, trap_flag, dr6 }
            }
        };
        VmExit::Handled
    }

    /// Returns whether the guest is being stepped over an IRET.
    #[inline(always)]
    pub(super) fn steps_over_iret(&self) -> bool {
        matches!(self.events.nmi, NmiBlocking::Stepping { .. })
    }

    /// Handles the first exit after the step over an IRET began; `None` if the exit also has
    /// another cause.
    ///
    /// The step's own debug exception ends the blocking. The guest gets it only if the guest
    /// single-steps itself. At any other exit the IRET has not run, or has faulted, and its end is
    /// awaited again.
    #[cold]
    pub(super) fn after_stepped_iret(&mut self) -> Option<VmExit> {
        let NmiBlocking::Stepping { iret, trap_flag, dr6 } = self.events.nmi else { return None };
        if self.vmcb().control.exit_code == code::EXCP_DB {
            self.events.nmi = NmiBlocking::Off;
            if trap_flag != 0 {
                return None;
            }
            self.vmcb_mut().save.dr6 = dr6;
            return Some(VmExit::NmiWindow);
        }
        if self.regs.rip == iret {
            self.regs.rflags = self.regs.rflags & !RFLAGS_TRAP | trap_flag;
        }
        self.block_nmis();
        None
    }

    fn block_nmis(&mut self) {
        self.events.nmi = NmiBlocking::UntilIret;
        self.vmcb_mut().control.intercept_events |= controls::INTERCEPT_IRET;
    }

    /// Ends an emulated instruction in which RF or TF was set: RF is cleared, and a single step's
    /// exception is due.
    #[cold]
    pub(super) fn end_instruction(&mut self) {
        self.regs.rflags &= !RFLAGS_RESUME;
        if self.regs.single_steps() {
            let event = event::encode(InjectedEvent::debug());
            let vmcb = self.vmcb_mut();
            vmcb.save.dr6 |= DR6_SINGLE_STEP;
            vmcb.control.event_injection = event;
        }
    }

    fn in_shadow(&self) -> bool {
        self.vmcb().control.interrupt_state & INTERRUPT_SHADOW != 0
    }

    /// See [`crate::virt::Vcpu::can_take_interrupt`].
    pub fn can_take_interrupt(&self) -> bool {
        self.regs.interrupts_enabled() && !self.in_shadow() && !self.event_pending()
    }

    /// See [`crate::virt::Vcpu::can_take_nmi`].
    pub fn can_take_nmi(&self) -> bool {
        self.events.nmi == NmiBlocking::Off && !self.in_shadow() && !self.event_pending()
    }

    /// See [`crate::virt::Vcpu::inject`].
    pub fn inject(&mut self, event: InjectedEvent) {
        assert!(
            event.kind == InjectionKind::Exception || !self.event_pending(),
            "an interrupt is injected when it can be taken"
        );
        match (event.kind, self.events.hazards) {
            (InjectionKind::Interrupt, GuestHazards::Tcg) => {
                return self.deliver_virtually(event.vector);
            }
            (InjectionKind::Nmi, _) => self.block_nmis(),
            _ if event.is_fault() => self.regs.rflags |= RFLAGS_RESUME,
            _ => {}
        }
        self.vmcb_mut().control.event_injection = event::encode(event);
    }

    /// Drops the queued event, the shadow and NMI blocking: a new state has none of them.
    pub(super) fn forget_events(&mut self) {
        self.events.nmi = NmiBlocking::Off;
        if matches!(self.events.at_entry, AtEntry::Deliver(_)) {
            self.vmcb_mut().control.interrupt_control &= !V_IRQ;
            self.end_delivery();
        }
        let control = &mut self.vmcb_mut().control;
        control.event_injection = 0;
        control.interrupt_state = 0;
        control.intercept_events &= !controls::INTERCEPT_IRET;
    }

    /// See [`crate::virt::Vcpu::event_pending`].
    pub fn event_pending(&self) -> bool {
        // An interrupt that waits although IF is clear was delayed by a fault during its own
        // delivery.
        event::holds_event(self.vmcb().control.event_injection)
            || self.delivery_pending() && self.regs.interrupts_enabled()
    }

    /// See [`crate::virt::Vcpu::request_interrupt_window`].
    pub fn request_interrupt_window(&mut self, window: WindowRequest) {
        self.events.interrupt_window = window;
        if self.delivery_pending() {
            // The virtual interrupt is in use; the window is requested again after the delivery.
            return;
        }
        let delivered = matches!(self.events.at_entry, AtEntry::Deliver(_));
        self.events.ask_at_entry(AtEntry::of(window));
        let control = &mut self.vmcb_mut().control;
        control.interrupt_control &= !V_IRQ;
        if delivered {
            control.intercept_events |= controls::INTERCEPT_VINTR;
        }
    }

    /// See [`crate::virt::Vcpu::request_nmi_window`].
    pub fn request_nmi_window(&mut self, window: WindowRequest) {
        self.events.nmi_window = window;
    }
}
