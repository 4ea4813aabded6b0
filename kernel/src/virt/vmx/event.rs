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

use bitfield_struct::{bitenum, bitfield};

use crate::virt::exit::{InjectedEvent, InjectionKind};

/// The type field.
#[bitenum(all = false)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum InterruptionType {
    /// An external interrupt.
    External = 0,
    /// Reserved by the manual.
    #[fallback]
    Reserved = 1,
    /// The NMI.
    Nmi = 2,
    /// An exception, by the CPU.
    HardwareException = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// INT1.
    PrivilegedSoftwareException = 5,
    /// INT3 or INTO.
    SoftwareException = 6,
    /// A pending MTF exit, at an entry only.
    Other = 7,
}

/// An interruption-information word.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptionInfo {
    /// The IDT vector.
    pub vector: u8,
    /// The event's kind.
    #[bits(3)]
    pub kind: InterruptionType,
    /// The event has an error code.
    pub has_error_code: bool,
    /// "NMI unblocking due to IRET".
    pub unblocking: bool,
    #[bits(18)]
    __: u32,
    /// The word holds an event.
    pub is_valid: bool,
}

impl InterruptionInfo {
    /// Returns whether the event is an NMI.
    pub const fn is_nmi(self) -> bool {
        matches!(self.kind(), InterruptionType::Nmi)
    }
    /// Returns whether a faulting IRET had already unblocked NMIs: they must be blocked again.
    pub const fn nmi_unblocked_by_iret(self) -> bool {
        self.is_valid() && self.unblocking()
    }
    /// Returns whether the event comes from an instruction, whose length the CPU then needs.
    const fn is_software(self) -> bool {
        use InterruptionType::*;
        matches!(self.kind(), SoftwareInterrupt | PrivilegedSoftwareException | SoftwareException)
    }
}

/// Values for the VM-entry event-injection fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EntryEvent {
    /// VM-entry interruption information.
    pub info: InterruptionInfo,
    /// Error code, if `info` has that bit set.
    pub error_code: u32,
    /// Length of the instruction, for software events.
    pub length: u32,
}

impl EntryEvent {
    /// Encodes a vendor-neutral event.
    pub(super) const fn encode(event: InjectedEvent) -> Self {
        let kind = match event.kind {
            InjectionKind::Interrupt => InterruptionType::External,
            InjectionKind::Nmi => InterruptionType::Nmi,
            InjectionKind::Exception => InterruptionType::HardwareException,
        };
        let info = InterruptionInfo::new()
            .with_vector(event.vector)
            .with_kind(kind)
            .with_has_error_code(event.error_code.is_some())
            .with_is_valid(true);
        let error_code = match event.error_code {
            Some(code) => code,
            None => 0,
        };
        Self { info, error_code, length: 0 }
    }

    /// Re-queues an event whose delivery an exit interrupted.
    ///
    /// `error_code` and `length` are the IDT-vectoring error code and the VM-exit instruction
    /// length; this function decides which of them are valid.
    pub(super) const fn interrupted(
        vectoring: InterruptionInfo,
        error_code: u32,
        length: u32,
    ) -> Option<Self> {
        if !vectoring.is_valid() {
            return None;
        }
        Some(Self {
            // Bit 12 is undefined in IDT-vectoring information and reserved at entry.
            info: vectoring.with_unblocking(false),
            error_code: if vectoring.has_error_code() { error_code } else { 0 },
            length: if vectoring.is_software() { length } else { 0 },
        })
    }

    /// Returns the event without its error code: real mode has none, and an entry with one fails.
    pub(super) const fn for_real_mode(self) -> Self {
        Self { info: self.info.with_has_error_code(false), error_code: 0, length: self.length }
    }

    /// Returns whether an error code is pushed.
    pub(super) const fn has_error_code(self) -> bool {
        self.info.has_error_code()
    }

    /// Returns whether the event is an NMI.
    pub(super) const fn is_nmi(self) -> bool {
        self.info.is_nmi()
    }

    /// Returns whether the event is an exception that [`InjectedEvent::is_fault`] classifies as a
    /// fault.
    pub(super) const fn is_fault(self) -> bool {
        let exception = InjectedEvent {
            kind: InjectionKind::Exception,
            vector: self.info.vector(),
            error_code: None,
        };
        matches!(self.info.kind(), InterruptionType::HardwareException) && exception.is_fault()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::word_layout::assert_field;

    #[test]
    fn events_have_the_manuals_encoding() {
        let encode = |event| {
            let e = EntryEvent::encode(event);
            (e.info.into_bits(), e.error_code)
        };
        assert_eq!(encode(InjectedEvent::interrupt(0x30)), (0x8000_0030, 0));
        assert_eq!(encode(InjectedEvent::nmi()), (0x8000_0202, 0));
        assert_eq!(encode(InjectedEvent::invalid_opcode()), (0x8000_0306, 0));
        assert_eq!(encode(InjectedEvent::page_fault(7)), (0x8000_0b0e, 7));
    }

    #[test]
    fn an_interrupted_delivery_is_injected_as_it_was() {
        let interrupted = |raw| EntryEvent::interrupted(InterruptionInfo::from_bits(raw), 0x12, 2);
        assert_eq!(interrupted(0x0000_0030), None);
        assert_eq!(
            interrupted(0x8000_1030),
            Some(EntryEvent {
                info: InterruptionInfo::from_bits(0x8000_0030),
                error_code: 0,
                length: 0
            })
        );
        assert_eq!(
            interrupted(0x8000_0b0e),
            Some(EntryEvent {
                info: InterruptionInfo::from_bits(0x8000_0b0e),
                error_code: 0x12,
                length: 0
            })
        );
        assert_eq!(
            interrupted(0x8000_0480),
            Some(EntryEvent {
                info: InterruptionInfo::from_bits(0x8000_0480),
                error_code: 0,
                length: 2
            })
        );
        assert_eq!(
            interrupted(0x8000_0603),
            Some(EntryEvent {
                info: InterruptionInfo::from_bits(0x8000_0603),
                error_code: 0,
                length: 2
            })
        );
    }

    #[test]
    fn real_mode_pushes_no_error_code() {
        let event = EntryEvent::encode(InjectedEvent::general_protection()).for_real_mode();
        assert_eq!((event.info.into_bits(), event.has_error_code()), (0x8000_030d, false));
    }

    #[test]
    fn fields_lie_where_the_manual_draws_them() {
        use InterruptionInfo as Word;
        assert_field(0xffu32, u8::MAX, Word::with_vector, Word::vector);
        assert_field(0x800u32, true, Word::with_has_error_code, Word::has_error_code);
        assert_field(0x1000u32, true, Word::with_unblocking, Word::unblocking);
        assert_field(0x8000_0000u32, true, Word::with_is_valid, Word::is_valid);
        for kind in 0..8 {
            let word = Word::new().with_kind(InterruptionType::from_bits(kind));
            assert_eq!(word.into_bits(), u32::from(kind) << 8);
            assert_eq!(
                Word::from_bits(!0x700).with_kind(word.kind()).into_bits() >> 8 & 7,
                kind.into()
            );
            assert_eq!(Word::from_bits(!0x700 | u32::from(kind) << 8).kind() as u8, kind);
        }
    }
}
