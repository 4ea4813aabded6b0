//! State of a vCPU's events that the VMCB does not hold. [`super::events`] acts on it.

use crate::arch::quirks::GuestHazards;
use crate::virt::contract::WindowRequest;

/// State of events that the VMCB does not hold.
#[derive(Debug)]
pub(super) struct EventState {
    pub(super) preparation: EntryPreparation,
    pub(super) at_entry: AtEntry,
    pub(super) hazards: GuestHazards,
    pub(super) interrupt_window: WindowRequest,
    pub(super) nmi_window: WindowRequest,
    pub(super) nmi: NmiBlocking,
    pub(super) shadow_at_entry: ShadowAtEntry,
    /// RIP at the last entry that asked for the window in a shadow.
    pub(super) shadowed_at: Option<u64>,
    /// RIP at which the window waits for the next exit, because the shadow is not from STI.
    pub(super) put_off_at: Option<u64>,
}

impl EventState {
    pub(super) const fn new(hazards: GuestHazards) -> Self {
        Self {
            preparation: EntryPreparation::Due,
            at_entry: AtEntry::Nothing,
            hazards,
            interrupt_window: WindowRequest::None,
            nmi_window: WindowRequest::None,
            nmi: NmiBlocking::Off,
            shadow_at_entry: ShadowAtEntry::Honoured,
            shadowed_at: None,
            put_off_at: None,
        }
    }

    pub(super) fn ask_at_entry(&mut self, at_entry: AtEntry) {
        self.at_entry = at_entry;
        if at_entry != AtEntry::Nothing {
            self.preparation = EntryPreparation::Due;
        }
    }
}

/// Whether an entry needs more than the switch: a single check in place of one for each thing that
/// may be due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EntryPreparation {
    /// Nothing has changed since the last entry, and no window or delivery is requested.
    Done,
    /// The vCPU may have been unloaded, or the virtual interrupt is needed.
    Due,
}

/// The result of preparing an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EntryVerdict {
    /// The guest is entered.
    Enter,
    /// The guest is not entered: [`VmExit::ShadowedWindow`](crate::virt::VmExit::ShadowedWindow).
    PutOff,
}

/// Purpose of the virtual interrupt at the next entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AtEntry {
    Nothing,
    /// It opens the window.
    Window,
    /// It is delivered with this vector; a clear V_IRQ shows that it has been.
    Deliver(u8),
}

impl AtEntry {
    pub(super) const fn of(window: WindowRequest) -> Self {
        match window {
            WindowRequest::Open => Self::Window,
            WindowRequest::None => Self::Nothing,
        }
    }
}

/// How the CPU treats an interrupt shadow in the VMCB at VMRUN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ShadowAtEntry {
    /// As the manual says; assumed until an exit shows otherwise.
    Honoured,
    Forgotten,
}

/// Whether the guest is handling an NMI, which blocks the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NmiBlocking {
    Off,
    /// Ends with IRET, which exits.
    UntilIret,
    /// The IRET is being executed, and a single step will report its end: an NMI waits.
    Stepping {
        /// Address of the IRET.
        iret: u64,
        /// The guest's own TF.
        trap_flag: u64,
        /// The guest's own DR6.
        dr6: u64,
    },
}
