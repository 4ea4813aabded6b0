//! Events for the guest: the queued event, when it can be taken, and deliveries that an exit
//! interrupted.

use super::VmxVcpu;
use crate::virt::contract::WindowRequest;
use crate::virt::exit::{InjectedEvent, InjectionKind};
use crate::virt::state::DR6_SINGLE_STEP;
use crate::virt::vmx::control_register::cr0;
use crate::virt::vmx::controls::PrimaryControls;
use crate::virt::vmx::decode::reason;
use crate::virt::vmx::event::{EntryEvent, InterruptionInfo};
use crate::virt::vmx::field::{control, guest, info};
use crate::virt::vmx::nmi::{NmiRecord, QueueState};
use crate::virt::vmx::qualification::EptQualification;

/// "BS" of the pending debug exceptions, which have DR6's layout.
pub(super) const PENDING_SINGLE_STEP: u64 = DR6_SINGLE_STEP;

/// Bits of the interruptibility state (SDM 3C "Guest Non-Register State").
pub(super) mod blocking {
    /// The instruction after an STI.
    pub(crate) const BY_STI: u32 = 1 << 0;
    /// The instruction after a MOV SS or POP SS.
    pub(crate) const BY_MOV_SS: u32 = 1 << 1;
    /// An NMI is being handled.
    pub(crate) const BY_NMI: u32 = 1 << 3;
    /// Both shadows.
    pub(crate) const SHADOW: u32 = BY_STI | BY_MOV_SS;
}

impl VmxVcpu {
    /// Queues `event` for the next run.
    ///
    /// # Panics
    /// If an event is queued already.
    pub fn inject(&mut self, event: InjectedEvent) {
        assert!(self.queued.is_none(), "one event is injected at an entry");
        if event.is_fault() {
            self.set_resume_flag();
        }
        if event.kind == InjectionKind::Nmi {
            self.begin_nmi();
        }
        self.queued = Some(EntryEvent::encode(event));
    }

    /// Notes that the guest gets an NMI. An entry that injects one requires that the VMCS does not
    /// block it (SDM 3C "Checks on Guest Non-Register State").
    #[cold]
    fn begin_nmi(&mut self) {
        self.nmi = NmiRecord::Handling;
        let state = self.interruptibility();
        self.with_vmcs(|vmcs| vmcs.write(guest::INTERRUPTIBILITY, state & !blocking::BY_NMI));
    }

    /// Brings the record of the guest's NMI up to date before the vCPU leaves the CPU.
    pub(super) fn look_at_nmi(&mut self) {
        if self.nmi == NmiRecord::Handling {
            let queue =
                if self.queued.is_some() { QueueState::Occupied } else { QueueState::Empty };
            let bit = self.interruptibility() & blocking::BY_NMI != 0;
            self.nmi = self.nmi.left(bit, queue);
        }
    }

    /// Returns whether an event is queued.
    pub fn event_pending(&self) -> bool {
        self.queued.is_some()
    }

    /// Returns whether an external interrupt can be injected now.
    pub fn can_take_interrupt(&self) -> bool {
        self.queued.is_none()
            && self.context.regs.interrupts_enabled()
            && self.interruptibility() & blocking::SHADOW == 0
            && !self.step_pending()
    }

    /// Returns whether an NMI can be injected now.
    pub fn can_take_nmi(&self) -> bool {
        let state = self.interruptibility();
        self.queued.is_none()
            && state & blocking::SHADOW == 0
            && !self.nmi.is_blocked(state & blocking::BY_NMI != 0)
            && !self.step_pending()
    }

    /// Returns whether a single step's exception is due at the entry. It precedes any interrupt,
    /// and an injected interrupt would drop it.
    fn step_pending(&self) -> bool {
        self.context.regs.single_steps()
            && self.with_vmcs(|vmcs| vmcs.read(guest::PENDING_DEBUG)) & PENDING_SINGLE_STEP != 0
    }

    /// Requests, or cancels, an exit as soon as the guest can take an interrupt.
    pub fn request_interrupt_window(&mut self, window: WindowRequest) {
        self.set_primary(PrimaryControls::INTERRUPT_WINDOW_EXITING, window);
    }

    /// Requests, or cancels, an exit as soon as the guest can take an NMI.
    pub fn request_nmi_window(&mut self, window: WindowRequest) {
        self.set_primary(PrimaryControls::NMI_WINDOW_EXITING, window);
    }

    pub(super) fn set_primary(&mut self, bit: PrimaryControls, window: WindowRequest) {
        let wanted = match window {
            WindowRequest::Open => self.primary | bit,
            WindowRequest::None => self.primary - bit,
        };
        if wanted != self.primary {
            self.with_vmcs(|vmcs| vmcs.write(control::PRIMARY, wanted.bits()));
            self.primary = wanted;
        }
    }

    #[inline]
    pub(super) fn interruptibility(&self) -> u32 {
        self.with_vmcs(|vmcs| vmcs.read(guest::INTERRUPTIBILITY))
    }

    /// Moves the queued event into the VMCS; the CPU removes it at the exit.
    #[cold]
    pub(super) fn write_queued_event(&mut self) {
        let Some(mut event) = self.queued.take() else { return };
        let mut vmcs = self.current();
        if event.has_error_code() && vmcs.read(guest::CR0) & cr0::PE == 0 {
            event = event.for_real_mode();
        }
        if event.has_error_code() {
            vmcs.write(control::ENTRY_ERROR_CODE, event.error_code);
        }
        vmcs.write(control::ENTRY_INSTRUCTION_LENGTH, event.length);
        vmcs.write(control::ENTRY_INTERRUPTION, event.info.into_bits());
    }

    /// Re-queues the event whose delivery the exit interrupted. SDM 3C "Information for VM Exits
    /// During Event Delivery", and for NMIs "Resuming Guest Software after Handling an Exception":
    /// NMI blocking ends for an NMI that is delivered again, and is restored if an IRET faulted
    /// after it had ended the blocking.
    #[inline(always)]
    pub(super) fn take_up_interrupted_delivery(&mut self) {
        let mut vmcs = self.current();
        let vectoring = InterruptionInfo::from_bits(vmcs.info(info::IDT_VECTORING));
        let interrupted = EntryEvent::interrupted(
            vectoring,
            vmcs.info(info::IDT_VECTORING_ERROR_CODE),
            vmcs.info(info::INSTRUCTION_LENGTH),
        );
        let unblocked = match self.reason().basic() {
            reason::EXCEPTION_OR_NMI => {
                InterruptionInfo::from_bits(vmcs.info(info::INTERRUPTION)).nmi_unblocked_by_iret()
            }
            reason::EPT_VIOLATION => {
                EptQualification::from_bits(vmcs.info(info::QUALIFICATION)).nmi_unblocked_by_iret()
            }
            _ => false,
        };
        let blocked = vmcs.read(guest::INTERRUPTIBILITY);
        match interrupted {
            Some(event) if event.is_nmi() => {
                vmcs.write(guest::INTERRUPTIBILITY, blocked & !blocking::BY_NMI)
            }
            None if unblocked => vmcs.write(guest::INTERRUPTIBILITY, blocked | blocking::BY_NMI),
            _ => {}
        }
        self.queued = interrupted;
    }
}
