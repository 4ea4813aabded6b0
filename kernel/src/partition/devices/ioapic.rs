//! The I/O APIC: 24 inputs, each with a redirection entry. 82093AA, with the EOI register of
//! version 0x20.
//!
//! A change of an input returns the [`InterruptMessage`] for the local APIC; the platform delivers
//! it. A level-triggered input sends one message, then none until its EOI comes back (remote IRR).
//! If it is still high then, it sends another one.

use super::saved::SavedDevice;
use crate::dump::state_note::{StateError, StatePart, StateReader, StateWriter};
use crate::time::Ticks;
use bitfield_struct::bitfield;

use super::lapic::{DeliveryMode, InterruptMessage, MessageDestination, TriggerMode};
use super::map::IOAPIC_ID;

/// Inputs.
pub const PINS: usize = 24;

const SELECT: u16 = 0x00;
const WINDOW: u16 = 0x10;
const EOI: u16 = 0x40;

const VERSION: u32 = 0x20 | ((PINS as u32 - 1) << 16);
const FIRST_ENTRY: u8 = 0x10;

/// A redirection entry: 82093AA "IOREDTBL\[23:0\]".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
struct RedirectionEntry {
    vector: u8,
    #[bits(3)]
    delivery_mode: u8,
    /// "Destination mode": logical, not physical.
    logical: bool,
    /// "Delivery status".
    pending: bool,
    active_low: bool,
    /// A level-triggered interrupt is being handled.
    remote_irr: bool,
    /// "Trigger mode": level, not edge.
    level: bool,
    masked: bool,
    #[bits(39)]
    __: u64,
    destination: u8,
}

const MASKED: RedirectionEntry = RedirectionEntry::new().with_masked(true);
/// Only the device changes these.
const READ_ONLY: u64 = RedirectionEntry::new().with_pending(true).with_remote_irr(true).into_bits();

/// A message and its destination.
pub type RoutedMessage = (MessageDestination, InterruptMessage);

/// State of an input line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineLevel {
    /// Inactive.
    Low,
    /// Active.
    High,
}

/// The I/O APIC.
#[derive(Clone, Debug)]
pub struct IoApic {
    select: u8,
    id: u32,
    entries: [RedirectionEntry; PINS],
    /// One bit for each input; set while the input is high.
    high: u32,
}

impl IoApic {
    /// Makes the device as it is after reset: everything masked.
    pub const fn new() -> Self {
        Self { select: 0, id: (IOAPIC_ID as u32) << 24, entries: [MASKED; PINS], high: 0 }
    }

    /// Reads the dword at `offset` of the register page.
    pub fn read(&self, offset: u16) -> u32 {
        match offset {
            SELECT => u32::from(self.select),
            WINDOW => self.read_selected(),
            _ => u32::MAX,
        }
    }

    /// Writes the dword at `offset`; returns the message that the write releases, if any.
    pub fn write(&mut self, offset: u16, value: u32) -> Option<RoutedMessage> {
        match offset {
            SELECT => self.select = value as u8,
            WINDOW => return self.write_selected(value),
            EOI => return self.end_of_interrupt(value as u8),
            _ => {}
        }
        None
    }

    /// Sets input `pin`; returns the message that the change sends, if any.
    pub fn set_line(&mut self, pin: u8, line: LineLevel) -> Option<RoutedMessage> {
        let bit = 1u32.checked_shl(u32::from(pin)).filter(|_| usize::from(pin) < PINS)?;
        let was_high = self.high & bit != 0;
        match line {
            LineLevel::Low => {
                self.high &= !bit;
                None
            }
            LineLevel::High => {
                self.high |= bit;
                let level = self.entries[usize::from(pin)].level();
                if level || !was_high { self.fire(usize::from(pin)) } else { None }
            }
        }
    }

    /// Ends the level-triggered interrupt `vector`; an input that is still high sends again.
    pub fn end_of_interrupt(&mut self, vector: u8) -> Option<RoutedMessage> {
        let mut again = None;
        for pin in 0..PINS {
            let entry = &mut self.entries[pin];
            if entry.vector() == vector && entry.level() && entry.remote_irr() {
                entry.set_remote_irr(false);
                again = again.or(self.fire_if_level_high(pin));
            }
        }
        again
    }

    /// Returns the message that a rise of input `pin` would send, without sending it.
    pub fn would_send(&self, pin: u8) -> Option<RoutedMessage> {
        self.clone().fire(usize::from(pin))
    }

    fn read_selected(&self) -> u32 {
        match self.select {
            0 | 2 => self.id,
            1 => VERSION,
            index => match self.entry_of(index) {
                Some((pin, shift)) => (self.entries[pin].into_bits() >> shift) as u32,
                None => u32::MAX,
            },
        }
    }

    fn write_selected(&mut self, value: u32) -> Option<RoutedMessage> {
        if self.select == 0 {
            self.id = value & 0x0f00_0000;
            return None;
        }
        let (pin, shift) = self.entry_of(self.select)?;
        let writable = (u64::from(u32::MAX) << shift) & !READ_ONLY;
        let entry = &mut self.entries[pin];
        let kept = entry.into_bits() & !writable;
        *entry = RedirectionEntry::from_bits(kept | (u64::from(value) << shift) & writable);
        if !entry.level() {
            entry.set_remote_irr(false);
        }
        self.fire_if_level_high(pin)
    }

    /// Splits a register index into the entry and the shift of its half.
    fn entry_of(&self, index: u8) -> Option<(usize, u32)> {
        let n = usize::from(index.checked_sub(FIRST_ENTRY)?);
        (n / 2 < PINS).then_some((n / 2, if n.is_multiple_of(2) { 0 } else { 32 }))
    }

    fn fire_if_level_high(&mut self, pin: usize) -> Option<RoutedMessage> {
        let level_high = self.entries[pin].level() && self.high & (1 << pin) != 0;
        if level_high { self.fire(pin) } else { None }
    }

    fn fire(&mut self, pin: usize) -> Option<RoutedMessage> {
        let entry = &mut self.entries[pin];
        if entry.masked() || entry.remote_irr() {
            return None;
        }
        let trigger = if entry.level() { TriggerMode::Level } else { TriggerMode::Edge };
        if trigger == TriggerMode::Level {
            entry.set_remote_irr(true);
        }
        let set = u32::from(entry.destination());
        let destination = if entry.logical() {
            MessageDestination::Logical(set)
        } else {
            MessageDestination::Physical(set)
        };
        Some((
            destination,
            InterruptMessage {
                vector: entry.vector(),
                delivery: DeliveryMode::of(entry.delivery_mode()),
                trigger,
            },
        ))
    }
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl SavedDevice for IoApic {
    const PART: StatePart = StatePart::IoApic;

    fn save(&self, out: &mut StateWriter, _: Ticks) {
        out.u8(self.select);
        out.u32(self.id);
        self.entries.iter().for_each(|entry| out.u64(entry.into_bits()));
        out.u32(self.high);
    }

    fn restore(&mut self, from: &mut StateReader<'_>, _: Ticks) -> Result<(), StateError> {
        self.select = from.u8()?;
        self.id = from.u32()? & 0x0f00_0000;
        for entry in &mut self.entries {
            *entry = RedirectionEntry::from_bits(from.u64()?);
        }
        self.high = from.u32()?;
        from.check(self.high >> PINS == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::word_layout::assert_field;

    const LEVEL: u32 = 1 << 15;
    const REMOTE_IRR: u32 = 1 << 14;

    #[test]
    fn entries_have_the_manuals_bits() {
        use RedirectionEntry as Word;
        assert_field(0xffu64, u8::MAX, Word::with_vector, Word::vector);
        assert_field(0x700u64, 7, Word::with_delivery_mode, Word::delivery_mode);
        assert_field(0x800u64, true, Word::with_logical, Word::logical);
        assert_field(0x1000u64, true, Word::with_pending, Word::pending);
        assert_field(0x2000u64, true, Word::with_active_low, Word::active_low);
        assert_field(0x4000u64, true, Word::with_remote_irr, Word::remote_irr);
        assert_field(0x8000u64, true, Word::with_level, Word::level);
        assert_field(0x1_0000u64, true, Word::with_masked, Word::masked);
        assert_field(0xff00_0000_0000_0000u64, u8::MAX, Word::with_destination, Word::destination);
    }

    /// A guest's write reaches all bits but those of the device.
    #[test]
    fn a_write_leaves_the_devices_bits() {
        let mut ioapic = with_entry(3, u32::MAX);
        assert_eq!(ioapic.read(WINDOW), !0x5000);
        assert_eq!(ioapic.write(SELECT, 0x17), None);
        assert_eq!(ioapic.write(WINDOW, u32::MAX), None);
        assert_eq!(ioapic.read(WINDOW), u32::MAX);
    }

    fn with_entry(pin: u8, low: u32) -> IoApic {
        let mut ioapic = IoApic::new();
        assert_eq!(ioapic.write(SELECT, u32::from(FIRST_ENTRY + 2 * pin)), None);
        assert_eq!(ioapic.write(WINDOW, low), None);
        ioapic
    }

    #[test]
    fn an_edge_is_sent_once_a_rise() {
        let mut ioapic = with_entry(4, 0x31);
        let message = ioapic.set_line(4, LineLevel::High).unwrap().1;
        assert_eq!((message.vector, message.trigger), (0x31, TriggerMode::Edge));
        assert_eq!(ioapic.set_line(4, LineLevel::High), None);
        assert_eq!(ioapic.set_line(4, LineLevel::Low), None);
        assert!(ioapic.set_line(4, LineLevel::High).is_some());
    }

    #[test]
    fn a_level_input_is_sent_again_after_its_end_while_it_is_high() {
        let mut ioapic = with_entry(9, 0x41 | LEVEL);
        assert!(ioapic.set_line(9, LineLevel::High).is_some());
        assert_eq!(ioapic.set_line(9, LineLevel::High), None, "remote IRR");
        assert_eq!(ioapic.read(WINDOW) & REMOTE_IRR, REMOTE_IRR);
        assert!(ioapic.end_of_interrupt(0x41).is_some());
        assert_eq!(ioapic.set_line(9, LineLevel::Low), None);
        assert_eq!(ioapic.end_of_interrupt(0x41), None);
    }

    #[test]
    fn a_masked_level_input_is_sent_when_it_is_unmasked() {
        let mut ioapic = with_entry(9, 0x41 | LEVEL | 1 << 16);
        assert_eq!(ioapic.set_line(9, LineLevel::High), None);
        assert!(ioapic.write(WINDOW, 0x41 | LEVEL).is_some());
    }

    #[test]
    fn the_destination_is_the_entrys_top_byte() {
        let mut ioapic = with_entry(1, 0x31 | 1 << 11);
        assert_eq!(ioapic.write(SELECT, 0x13), None);
        assert_eq!(ioapic.write(WINDOW, 0x0300_0000), None);
        assert_eq!(ioapic.set_line(1, LineLevel::High).unwrap().0, MessageDestination::Logical(3));
    }

    #[test]
    fn registers_and_pins_that_are_not_there_do_nothing() {
        let mut ioapic = with_entry(23, 0x31);
        assert!(ioapic.set_line(23, LineLevel::High).is_some());
        for pin in 24..=255 {
            assert_eq!(ioapic.set_line(pin, LineLevel::High), None);
        }
        assert_eq!(ioapic.write(SELECT, 0x40), None);
        assert_eq!((ioapic.read(WINDOW), ioapic.write(WINDOW, 7)), (u32::MAX, None));
        assert_eq!(ioapic.write(SELECT, 1), None);
        assert_eq!(ioapic.read(WINDOW), 0x17_0020);
    }
}
