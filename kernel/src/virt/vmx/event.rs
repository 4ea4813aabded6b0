//! Events for the guest: the interruption-information words of VMX.
//!
//! ```text
//!  31     13 12 11 10   8 7      0
//! +---+-----+--+--+------+--------+
//! | V |  0  |N |E | type | vector |     V valid, E error code, N "NMI unblocking by IRET" (exits only)
//! +---+-----+--+--+------+--------+     SDM 3C "Format of the VM-Entry Interruption-Information Field"
//! ```
//!
//! The same format describes an event to inject, an exception that exited, and an event whose
//! delivery an exit interrupted. The last is injected again unchanged; nothing else is needed for
//! an interrupted delivery. Pure.

use crate::virt::exit::{InjectedEvent, InjectionKind};

const VALID: u32 = 1 << 31;
const ERROR_CODE: u32 = 1 << 11;
const NMI_UNBLOCKED_BY_IRET: u32 = 1 << 12;

/// The type field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum InterruptionType {
    External = 0,
    Nmi = 2,
    HardwareException = 3,
    SoftwareInterrupt = 4,
    PrivilegedSoftwareException = 5,
    SoftwareException = 6,
}

/// An interruption-information word as the CPU reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptionInfo(u32);

impl InterruptionInfo {
    /// Wraps the field's value.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
    /// Returns whether the word holds an event.
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }
    /// Returns whether the event is an NMI.
    pub const fn is_nmi(self) -> bool {
        self.kind() == InterruptionType::Nmi as u32
    }
    /// Returns the IDT vector.
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }
    /// Returns whether a faulting IRET had already unblocked NMIs: they must be blocked again.
    pub const fn nmi_unblocked_by_iret(self) -> bool {
        self.is_valid() && self.0 & NMI_UNBLOCKED_BY_IRET != 0
    }
    /// Returns whether the event has an error code.
    pub const fn has_error_code(self) -> bool {
        self.0 & ERROR_CODE != 0
    }
    const fn kind(self) -> u32 {
        (self.0 >> 8) & 7
    }
    /// Returns whether the event comes from an instruction, whose length the CPU then needs.
    const fn is_software(self) -> bool {
        let kind = self.kind();
        kind == InterruptionType::SoftwareInterrupt as u32
            || kind == InterruptionType::PrivilegedSoftwareException as u32
            || kind == InterruptionType::SoftwareException as u32
    }
}

/// Values for the VM-entry event-injection fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryEvent {
    /// VM-entry interruption information.
    pub info: u32,
    /// Error code, if `info` has that bit set.
    pub error_code: u32,
    /// Length of the instruction, for software events.
    pub length: u32,
}

impl EntryEvent {
    /// Encodes a vendor-neutral event.
    pub const fn encode(event: InjectedEvent) -> Self {
        let kind = match event.kind {
            InjectionKind::Interrupt => InterruptionType::External,
            InjectionKind::Nmi => InterruptionType::Nmi,
            InjectionKind::Exception => InterruptionType::HardwareException,
        };
        let (flag, error_code) = match event.error_code {
            Some(code) => (ERROR_CODE, code),
            None => (0, 0),
        };
        Self {
            info: VALID | flag | (kind as u32) << 8 | event.vector as u32,
            error_code,
            length: 0,
        }
    }

    /// Re-queues an event whose delivery an exit interrupted.
    ///
    /// `error_code` and `length` are the IDT-vectoring error code and the VM-exit instruction
    /// length; this function decides which of them are valid.
    pub const fn interrupted(
        vectoring: InterruptionInfo,
        error_code: u32,
        length: u32,
    ) -> Option<Self> {
        if !vectoring.is_valid() {
            return None;
        }
        Some(Self {
            // Bit 12 is undefined in IDT-vectoring information and reserved at entry.
            info: vectoring.0 & !NMI_UNBLOCKED_BY_IRET,
            error_code: if vectoring.has_error_code() { error_code } else { 0 },
            length: if vectoring.is_software() { length } else { 0 },
        })
    }

    /// Returns the event without its error code: real mode has none, and an entry with one fails.
    pub const fn for_real_mode(self) -> Self {
        Self { info: self.info & !ERROR_CODE, error_code: 0, length: self.length }
    }

    /// Returns whether an error code is pushed.
    pub const fn has_error_code(self) -> bool {
        self.info & ERROR_CODE != 0
    }

    /// Returns whether the event is an NMI.
    pub const fn is_nmi(self) -> bool {
        InterruptionInfo(self.info).is_nmi()
    }

    /// Returns whether the event is an exception that [`InjectedEvent::is_fault`] classifies as a
    /// fault.
    pub const fn is_fault(self) -> bool {
        let exception = InjectedEvent {
            kind: InjectionKind::Exception,
            vector: self.info as u8,
            error_code: None,
        };
        InterruptionInfo(self.info).kind() == InterruptionType::HardwareException as u32
            && exception.is_fault()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_manuals_encoding() {
        let encode = |event| {
            let e = EntryEvent::encode(event);
            (e.info, e.error_code)
        };
        assert_eq!(encode(InjectedEvent::interrupt(0x30)), (0x8000_0030, 0));
        assert_eq!(encode(InjectedEvent::nmi()), (0x8000_0202, 0));
        assert_eq!(encode(InjectedEvent::invalid_opcode()), (0x8000_0306, 0));
        assert_eq!(encode(InjectedEvent::page_fault(7)), (0x8000_0b0e, 7));
    }

    #[test]
    fn an_interrupted_delivery_is_injected_as_it_was() {
        let interrupted = |raw| EntryEvent::interrupted(InterruptionInfo::from_raw(raw), 0x12, 2);
        assert_eq!(interrupted(0x0000_0030), None);
        assert_eq!(
            interrupted(0x8000_1030),
            Some(EntryEvent { info: 0x8000_0030, error_code: 0, length: 0 })
        );
        assert_eq!(
            interrupted(0x8000_0b0e),
            Some(EntryEvent { info: 0x8000_0b0e, error_code: 0x12, length: 0 })
        );
        assert_eq!(
            interrupted(0x8000_0480),
            Some(EntryEvent { info: 0x8000_0480, error_code: 0, length: 2 })
        );
        assert_eq!(
            interrupted(0x8000_0603),
            Some(EntryEvent { info: 0x8000_0603, error_code: 0, length: 2 })
        );
    }

    #[test]
    fn real_mode_pushes_no_error_code() {
        let event = EntryEvent::encode(InjectedEvent::general_protection()).for_real_mode();
        assert_eq!((event.info, event.has_error_code()), (0x8000_030d, false));
    }
}
