//! The virtual machine generation ID: a number in the guest's memory that changes when the guest's
//! time or identity was doubled, and an input of the I/O APIC that tells of the change.
//!
//! ```text
//!   doubled ──> number changed in memory, pending ── the input is open ──> one edge: not pending
//!                                          └──────── masked: waits for the guest's next write to the I/O APIC
//! ```
//!
//! Linux's `vmgenid` reseeds its random numbers then. The number lies in the page of the firmware's
//! entry, which the memory map reserves. A plain resume goes on once and doubles nothing, so it
//! changes nothing; the number of an incarnation is new at each boot.

use super::ioapic::{IoApic, LineLevel, RoutedMessage};
use super::map::GENERATION_PIN;
use super::saved::SavedDevice;
use crate::dump::state_note::{StateError, StatePart, StateReader, StateWriter};
use crate::time::Ticks;

/// The notice of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GenerationNotice {
    /// The number has changed, and the guest has not got the edge.
    is_pending: bool,
}

impl GenerationNotice {
    /// Notes that the number has changed.
    pub const fn raise(&mut self) {
        self.is_pending = true;
    }

    /// Returns whether a notice waits for the guest to open the input.
    pub const fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// Pulses the input if a notice is pending; returns the message that this sends, if any.
    pub fn pulse(&mut self, ioapic: &mut IoApic) -> Option<RoutedMessage> {
        if !self.is_pending {
            return None;
        }
        let sent = ioapic.set_line(GENERATION_PIN, LineLevel::High);
        self.is_pending = sent.is_none();
        // A fall sends nothing.
        sent.or(ioapic.set_line(GENERATION_PIN, LineLevel::Low))
    }
}

impl SavedDevice for GenerationNotice {
    const PART: StatePart = StatePart::Generation;

    fn save(&self, out: &mut StateWriter, _: Ticks) {
        out.bool(self.is_pending);
    }

    fn restore(&mut self, from: &mut StateReader<'_>, _: Ticks) -> Result<(), StateError> {
        self.is_pending = from.bool()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Register of the input's lower half in the I/O APIC, behind the selector.
    const REDIRECTION: u32 = 0x10 + 2 * GENERATION_PIN as u32;

    #[test]
    fn a_change_is_one_edge_once_the_input_is_open() {
        let (mut notice, mut ioapic) = (GenerationNotice::default(), IoApic::new());
        assert!(notice.pulse(&mut ioapic).is_none());
        notice.raise();
        assert!(notice.pulse(&mut ioapic).is_none() && notice.is_pending(), "it is masked");
        let _ = ioapic.write(0, REDIRECTION);
        let _ = ioapic.write(0x10, 0x77);
        let sent = notice.pulse(&mut ioapic).expect("it is open");
        assert_eq!((sent.1.vector, notice.is_pending()), (0x77, false));
        assert!(notice.pulse(&mut ioapic).is_none());
    }
}
