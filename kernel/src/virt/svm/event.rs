//! Events in the layout of EVENTINJ and EXITINTINFO. Pure.
//!
//! ```text
//!  63            32 31 30   12 11 10  8 7      0
//!  | error code    | V |  0   | E | type | vector |
//! ```
//!
//! See: APM 2 "Event Injection".

use bitfield_struct::{bitenum, bitfield};

use crate::virt::exit::{InjectedEvent, InjectionKind};

/// The type field. The manual reserves 1 and 5 to 7.
#[bitenum(all = false)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EventType {
    /// An external or virtual interrupt.
    Interrupt = 0,
    /// The NMI.
    Nmi = 2,
    /// An exception, by the CPU or by INT3 and INTO.
    Exception = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// All others.
    #[fallback]
    Reserved = 1,
}

/// The word.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EventWord {
    /// The IDT vector.
    pub vector: u8,
    /// The event's kind.
    #[bits(3)]
    pub kind: EventType,
    /// The event has an error code.
    pub has_error_code: bool,
    #[bits(19)]
    __: u32,
    /// The word holds an event.
    pub is_valid: bool,
    /// The error code.
    pub error_code: u32,
}

/// Returns whether EVENTINJ or EXITINTINFO holds an event.
#[inline(always)]
pub(super) const fn holds_event(word: u64) -> bool {
    EventWord::from_bits(word).is_valid()
}

/// Encodes an event for EVENTINJ.
pub(super) const fn encode(event: InjectedEvent) -> u64 {
    let kind = match event.kind {
        InjectionKind::Interrupt => EventType::Interrupt,
        InjectionKind::Nmi => EventType::Nmi,
        InjectionKind::Exception => EventType::Exception,
    };
    let word = EventWord::new().with_vector(event.vector).with_kind(kind).with_is_valid(true);
    match event.error_code {
        Some(code) => word.with_has_error_code(true).with_error_code(code),
        None => word,
    }
    .into_bits()
}

/// Returns the value for EVENTINJ after an exit that left `interrupted` in EXITINTINFO.
///
/// INT n, INT3 and INTO are not re-injected: RIP still points to the instruction, which raises the
/// event again.
pub(super) const fn reinjection(interrupted: u64) -> u64 {
    let word = EventWord::from_bits(interrupted);
    let instruction = match word.kind() {
        EventType::SoftwareInterrupt => true,
        EventType::Exception => matches!(word.vector(), 3 | 4),
        _ => false,
    };
    if !word.is_valid() || instruction { 0 } else { interrupted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::word_layout::assert_field;

    #[test]
    fn fields_lie_where_the_manual_draws_them() {
        use EventWord as Word;
        assert_field(0xffu64, u8::MAX, Word::with_vector, Word::vector);
        assert_field(0x800u64, true, Word::with_has_error_code, Word::has_error_code);
        assert_field(0x8000_0000u64, true, Word::with_is_valid, Word::is_valid);
        assert_field(0xffff_ffff_0000_0000u64, u32::MAX, Word::with_error_code, Word::error_code);
        for (bits, kind) in [
            (0, EventType::Interrupt),
            (2, EventType::Nmi),
            (3, EventType::Exception),
            (4, EventType::SoftwareInterrupt),
        ] {
            assert_eq!(Word::new().with_kind(kind).into_bits(), bits << 8);
            assert_eq!(Word::from_bits(!0x700 | bits << 8).kind(), kind);
        }
        for bits in [1, 5, 6, 7] {
            assert_eq!(Word::from_bits(bits << 8).kind(), EventType::Reserved);
        }
    }

    #[test]
    fn events_are_encoded_as_the_manual_draws_them() {
        assert_eq!(encode(InjectedEvent::interrupt(0x30)), 0x8000_0030);
        assert_eq!(encode(InjectedEvent::nmi()), 0x8000_0202);
        assert_eq!(encode(InjectedEvent::invalid_opcode()), 0x8000_0306);
        assert_eq!(encode(InjectedEvent::page_fault(0x15)), 0x15_8000_0b0e);
    }

    #[test]
    fn an_interrupted_delivery_is_repeated_unless_the_instruction_does_it() {
        for word in [0x8000_0030, 0x8000_0202, 0x15_8000_0b0e, 0x8000_0306] {
            assert_eq!(reinjection(word), word);
        }
        for word in [0, 0x30, 0x8000_0480, 0x8000_0303, 0x8000_0304] {
            assert_eq!(reinjection(word), 0, "{word:#x}");
        }
    }
}
