//! The power button: an input of the I/O APIC that the operator pulses.
//!
//! ```text
//!   stop ──> pressed ── the input is open ──> one edge: not pressed
//!               └────── masked: waits for the guest's next write to the I/O APIC
//! ```
//!
//! The DSDT describes it as a generic event device (ACPI 6.5 "Generic Event Device"): its `_EVT`
//! notifies the control-method power button. An edge at a masked input would be lost (82093AA
//! "Interrupt Mask"), so a press while a kernel starts is kept until the kernel has opened the
//! input.

use super::ioapic::{IoApic, LineLevel, RoutedMessage};
use super::map::POWER_BUTTON_PIN;

/// The power button.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PowerButton {
    /// It was pressed, and the guest has not got the edge.
    is_pressed: bool,
}

impl PowerButton {
    /// Presses the button. Presses that the guest has not got are one press.
    pub const fn press(&mut self) {
        self.is_pressed = true;
    }

    /// Returns whether a press waits for the guest to open the input.
    pub const fn is_pressed(&self) -> bool {
        self.is_pressed
    }

    /// Pulses the input if the button is pressed; returns the message that this sends, if any.
    pub fn pulse(&mut self, ioapic: &mut IoApic) -> Option<RoutedMessage> {
        if !self.is_pressed {
            return None;
        }
        let sent = ioapic.set_line(POWER_BUTTON_PIN, LineLevel::High);
        self.is_pressed = sent.is_none();
        // A fall sends nothing.
        sent.or(ioapic.set_line(POWER_BUTTON_PIN, LineLevel::Low))
    }
}
