//! Events in the layout of EVENTINJ and EXITINTINFO. Pure.
//!
//! ```text
//!  63            32 31 30   12 11 10  8 7      0
//!  | error code    | V |  0   | E | type | vector |
//! ```
//!
//! See: APM 2 "Event Injection".

use crate::virt::exit::{InjectedEvent, InjectionKind};

/// The word holds an event.
pub const VALID: u64 = 1 << 31;
const HAS_ERROR_CODE: u64 = 1 << 11;
const TYPE_MASK: u64 = 7 << 8;
const TYPE_INTERRUPT: u64 = 0;
const TYPE_NMI: u64 = 2 << 8;
const TYPE_EXCEPTION: u64 = 3 << 8;
const TYPE_SOFTWARE_INTERRUPT: u64 = 4 << 8;

/// Encodes an event for EVENTINJ.
pub const fn encode(event: InjectedEvent) -> u64 {
    let kind = match event.kind {
        InjectionKind::Interrupt => TYPE_INTERRUPT,
        InjectionKind::Nmi => TYPE_NMI,
        InjectionKind::Exception => TYPE_EXCEPTION,
    };
    let error = match event.error_code {
        Some(code) => HAS_ERROR_CODE | (code as u64) << 32,
        None => 0,
    };
    VALID | kind | error | event.vector as u64
}

/// Returns the value for EVENTINJ after an exit that left `interrupted` in EXITINTINFO.
///
/// INT n, INT3 and INTO are not re-injected: RIP still points to the instruction, which raises the
/// event again.
pub const fn reinjection(interrupted: u64) -> u64 {
    let instruction = match interrupted & TYPE_MASK {
        TYPE_SOFTWARE_INTERRUPT => true,
        TYPE_EXCEPTION => matches!(interrupted & 0xff, 3 | 4),
        _ => false,
    };
    if interrupted & VALID == 0 || instruction { 0 } else { interrupted }
}

#[cfg(test)]
mod tests {
    use super::*;

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
