//! Events of a vCPU: what SVM leaves to software.
//!
//! Left to software are NMI blocking (the IRET intercept tells its end) and the exceptions that are intercepted only to
//! bound them (#DB, #AC). Interrupts are delivered by window and EVENTINJ. V_IRQ only opens the window: it is never
//! delivered, because an interrupted delivery of it is reported differently by TCG and by real CPUs.
//!
//! QEMU's TCG up to 7.2 forgets an interrupt shadow at VMRUN. A window that opens at the very instruction that is in the
//! shadow is therefore taken back, and later ones wait until the shadow is over; else STI; HLT would lose a wake-up.

use super::decode::code;
use super::vcpu::Vcpu;
use super::vmcb::{INTERRUPT_SHADOW, V_IRQ};
use super::{controls, event};
use crate::virt::exit::{Event, EventKind, Exit};
use crate::virt::face::Window;

/// What is known about events beyond the VMCB.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) interrupt_window: Window,
    nmi_window: Window,
    nmi: NmiBlocking,
    shadow_at_entry: ShadowAtEntry,
    /// Where the guest was when it was entered last with the window asked for, if in a shadow.
    shadowed_at: Option<u64>,
}

impl Events {
    pub(super) const fn new() -> Self {
        Self {
            interrupt_window: Window::None,
            nmi_window: Window::None,
            nmi: NmiBlocking::Off,
            shadow_at_entry: ShadowAtEntry::Honoured,
            shadowed_at: None,
        }
    }
}

/// What the CPU does with an interrupt shadow that the VMCB has at VMRUN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ShadowAtEntry {
    /// As the manual says; assumed until seen otherwise.
    Honoured,
    Forgotten,
}

/// Whether the guest is handling an NMI, during which the next one waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NmiBlocking {
    Off,
    /// Ends with the IRET, which exits. The NMI that waits is then delivered before that IRET, not after: a nesting of
    /// one that a kernel must bear anyhow, since a fault's IRET in an NMI handler unblocks NMIs early too.
    UntilIret,
}

impl Vcpu {
    /// Raises the virtual interrupt that opens the window, unless that must wait. Before each run with the window asked for.
    #[cold]
    pub(super) fn open_window(&mut self) {
        let shadowed = self.in_shadow();
        self.events.shadowed_at = shadowed.then_some(self.regs.rip);
        let control = &mut self.vmcb_mut().control;
        control.interrupt_control |= V_IRQ;
        if shadowed && self.events.shadow_at_entry == ShadowAtEntry::Forgotten {
            // The guest executes the shadowed instruction first; the window is asked for again after the next exit.
            self.vmcb_mut().control.interrupt_control &= !V_IRQ;
        }
    }

    /// The window has opened; if at the very instruction that was in a shadow, puts back the shadow that the CPU has
    /// forgotten, and knows it from now on.
    pub(super) fn window_opened(&mut self) -> Exit {
        if self.events.shadowed_at != Some(self.regs.rip) {
            return Exit::InterruptWindow;
        }
        self.events.shadow_at_entry = ShadowAtEntry::Forgotten;
        self.vmcb_mut().control.interrupt_state |= INTERRUPT_SHADOW;
        Exit::Handled
    }

    /// Deals with an exit that is the back end's own.
    #[cold]
    pub(super) fn settle(&mut self) -> Exit {
        let control = &mut self.vmcb_mut().control;
        match control.exit_code {
            code::IRET => return self.end_nmi(),
            // An interrupted delivery goes first; if it raises the exception again, that exits again.
            _ if control.event_injection & event::VALID != 0 => {}
            code::EXCP_DB => control.event_injection = event::encode(Event::debug()),
            _ => control.event_injection = event::encode(Event::alignment_check()),
        }
        Exit::Handled
    }

    fn end_nmi(&mut self) -> Exit {
        self.events.nmi = NmiBlocking::Off;
        self.vmcb_mut().control.intercept_events &= !controls::INTERCEPT_IRET;
        if self.events.nmi_window == Window::Open { Exit::NmiWindow } else { Exit::Handled }
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
    pub fn inject(&mut self, event: Event) {
        assert!(event.kind == EventKind::Exception || !self.event_pending(), "an interrupt is injected when it can be taken");
        if event.kind == EventKind::Nmi {
            self.events.nmi = NmiBlocking::UntilIret;
            self.vmcb_mut().control.intercept_events |= controls::INTERCEPT_IRET;
        }
        self.vmcb_mut().control.event_injection = event::encode(event);
    }

    /// Drops the event that is queued, the shadow and NMI blocking: another state has none of them.
    pub(super) fn forget_events(&mut self) {
        self.events.nmi = NmiBlocking::Off;
        let control = &mut self.vmcb_mut().control;
        control.event_injection = 0;
        control.interrupt_state = 0;
        control.intercept_events &= !controls::INTERCEPT_IRET;
    }

    /// See [`crate::virt::Vcpu::event_pending`].
    pub fn event_pending(&self) -> bool {
        self.vmcb().control.event_injection & event::VALID != 0
    }

    /// See [`crate::virt::Vcpu::request_interrupt_window`].
    pub fn request_interrupt_window(&mut self, window: Window) {
        self.events.interrupt_window = window;
        self.vmcb_mut().control.interrupt_control &= !V_IRQ;
    }

    /// See [`crate::virt::Vcpu::request_nmi_window`].
    pub fn request_nmi_window(&mut self, window: Window) {
        self.events.nmi_window = window;
    }
}
