//! MSI-X of a function: the table of messages, their masks, and the messages that are pending.
//!
//! ```text
//!   signal ──┬─ enabled, not masked ──> message ──> local APIC
//!            ├─ masked ──────────────> pending ── unmasked ──> message
//!            └─ off ─────────────────> nothing
//! ```
//!
//! Sources: PCI Local Bus Specification 3.0, 6.8.2 "MSI-X Capability and Table Structure"; SDM 3A
//! "Message Signalled Interrupts". A message goes to the local APIC only: an address that is not
//! that of an interrupt is a write that no memory takes.

use crate::dump::state_note::{StateError, StateReader, StateWriter};
use crate::partition::devices::ioapic::RoutedMessage;
use crate::partition::devices::lapic::{
    DeliveryMode, InterruptMessage, MessageDestination, TriggerMode,
};
use crate::virt::AccessWidth;
use arrayvec::ArrayVec;
use bitfield_struct::bitfield;

/// Most vectors of a function.
pub const MOST_VECTORS: usize = 8;
/// Bytes of a table entry.
pub const ENTRY_BYTES: u16 = 16;
/// The identifier of the capability.
pub const MSIX_ID: u8 = 0x11;
/// Bits of the message control that the guest may change.
pub const CONTROL_WRITABLE: u16 = CONTROL_ENABLE | CONTROL_MASK;

const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_MASK: u16 = 1 << 14;
/// Place of the vector control in an entry; its lowest bit masks the vector.
const ENTRY_CONTROL: usize = 12;

/// The lower half of a message's address.
#[bitfield(u32)]
struct MessageWordAddress {
    #[bits(2)]
    __: u8,
    logical: bool,
    redirection_hint: bool,
    __: u8,
    destination: u8,
    #[bits(12)]
    range: u16,
}

/// The data of a message.
#[bitfield(u32)]
struct MessageWordData {
    vector: u8,
    #[bits(3)]
    delivery_mode: u8,
    #[bits(4)]
    __: u8,
    level: bool,
    __: u16,
}

/// The range of addresses that are interrupts.
const INTERRUPT_RANGE: u16 = 0xfee;

/// Messages that a change has released.
pub type ReleasedMessages = ArrayVec<RoutedMessage, MOST_VECTORS>;

/// The table of a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageVectors {
    entries: ArrayVec<[u8; ENTRY_BYTES as usize], MOST_VECTORS>,
    /// One bit a vector.
    pending: u64,
}

impl MessageVectors {
    /// Makes `count` vectors, all masked.
    pub fn new(count: usize) -> Self {
        let mut masked = [0; ENTRY_BYTES as usize];
        masked[ENTRY_CONTROL] = 1;
        Self { entries: (0..count.min(MOST_VECTORS)).map(|_| masked).collect(), pending: 0 }
    }

    /// Returns the number of vectors.
    pub fn count(&self) -> u16 {
        self.entries.len() as u16
    }

    /// Reads the table; zeros behind it.
    pub fn read(&self, offset: u16, width: AccessWidth) -> u64 {
        let byte = |at: usize| self.entries.as_flattened().get(at).copied().unwrap_or(0);
        let first = usize::from(offset);
        (0..width.bytes()).rev().fold(0, |value, n| value << 8 | u64::from(byte(first + n)))
    }

    /// Writes the table; returns what that releases.
    pub fn write(
        &mut self,
        offset: u16,
        width: AccessWidth,
        value: u64,
        control: u16,
    ) -> ReleasedMessages {
        let bytes = self.entries.as_flattened_mut();
        for (n, new) in value.to_le_bytes().into_iter().enumerate().take(width.bytes()) {
            if let Some(byte) = bytes.get_mut(usize::from(offset) + n) {
                *byte = new;
            }
        }
        self.release(control)
    }

    /// Reads the pending bits; zeros behind them.
    pub fn read_pending(&self, offset: u16, width: AccessWidth) -> u64 {
        let shifted = self.pending.checked_shr(u32::from(offset) * 8).unwrap_or(0);
        shifted & width.mask()
    }

    /// Signals a vector; returns the message that is due at once.
    pub fn signal(&mut self, vector: u16, control: u16) -> Option<RoutedMessage> {
        if control & CONTROL_ENABLE == 0 {
            return None;
        }
        let entry = self.entries.get(usize::from(vector))?;
        if control & CONTROL_MASK != 0 || is_masked(entry) {
            self.pending |= 1 << vector;
            return None;
        }
        message(entry)
    }

    /// Returns the pending messages that nothing masks any more. To be called after each change of
    /// the table or of the message control.
    pub fn release(&mut self, control: u16) -> ReleasedMessages {
        let mut released = ReleasedMessages::new();
        if self.pending == 0 || control & (CONTROL_ENABLE | CONTROL_MASK) != CONTROL_ENABLE {
            return released;
        }
        for (vector, entry) in self.entries.iter().enumerate() {
            if self.pending >> vector & 1 != 0 && !is_masked(entry) {
                self.pending &= !(1 << vector);
                released.extend(message(entry));
            }
        }
        released
    }

    /// Returns whether messages can be sent.
    pub const fn is_enabled(control: u16) -> bool {
        control & CONTROL_ENABLE != 0
    }

    /// Appends table and pending bits.
    pub fn save(&self, out: &mut StateWriter) {
        out.counted(self.entries.as_flattened());
        out.u64(self.pending);
    }

    /// Takes a saved table of the same length over.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn restore(&mut self, from: &mut StateReader<'_>) -> Result<(), StateError> {
        let saved = from.counted(self.entries.as_flattened().len())?;
        from.check(saved.len() == self.entries.as_flattened().len())?;
        self.entries.as_flattened_mut().copy_from_slice(saved);
        self.pending = from.u64()?;
        from.check(self.pending >> self.entries.len() == 0)
    }
}

const fn is_masked(entry: &[u8; ENTRY_BYTES as usize]) -> bool {
    entry[ENTRY_CONTROL] & 1 != 0
}

/// Decodes an entry's message; `None` if it is no interrupt.
fn message(entry: &[u8; ENTRY_BYTES as usize]) -> Option<RoutedMessage> {
    let word = |at: usize| entry[at..].first_chunk().copied().map_or(0, u32::from_le_bytes);
    let (address, data) = (MessageWordAddress::from(word(0)), MessageWordData::from(word(8)));
    if address.range() != INTERRUPT_RANGE || word(4) != 0 {
        return None;
    }
    let set = u32::from(address.destination());
    let destination = if address.logical() {
        MessageDestination::Logical(set)
    } else {
        MessageDestination::Physical(set)
    };
    let delivery = DeliveryMode::of(data.delivery_mode());
    let trigger = if data.level() { TriggerMode::Level } else { TriggerMode::Edge };
    Some((destination, InterruptMessage { vector: data.vector(), delivery, trigger }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: u16 = CONTROL_ENABLE;

    fn table() -> MessageVectors {
        let mut vectors = MessageVectors::new(2);
        for vector in 0..2 {
            let at = vector * ENTRY_BYTES;
            assert!(vectors.write(at, AccessWidth::Dword, 0xfee0_1000, ON).is_empty());
            let data = 0x41 + u64::from(vector);
            assert!(vectors.write(at + 8, AccessWidth::Dword, data, ON).is_empty());
        }
        vectors
    }

    #[test]
    fn a_vector_that_is_open_sends_its_message() {
        let mut vectors = table();
        assert!(vectors.write(28, AccessWidth::Dword, 0, ON).is_empty());
        let (destination, sent) = vectors.signal(1, ON).unwrap();
        assert_eq!(destination, MessageDestination::Physical(1));
        assert_eq!((sent.vector, sent.trigger), (0x42, TriggerMode::Edge));
        assert_eq!((vectors.signal(1, 0), vectors.signal(2, ON)), (None, None));
        assert_eq!(vectors.read_pending(0, AccessWidth::Qword), 0);
    }

    #[test]
    fn a_masked_vector_is_pending_until_both_masks_are_open() {
        let mut vectors = table();
        assert_eq!((vectors.signal(0, ON), vectors.signal(1, ON | CONTROL_MASK)), (None, None));
        assert_eq!(vectors.read_pending(0, AccessWidth::Byte), 3);
        assert!(vectors.write(12, AccessWidth::Dword, 0, ON | CONTROL_MASK).is_empty());
        assert!(vectors.release(0).is_empty(), "MSI-X is off");
        let released = vectors.release(ON);
        assert_eq!((released.len(), released[0].1.vector), (1, 0x41));
        assert_eq!(vectors.write(28, AccessWidth::Byte, 0, ON).len(), 1);
        assert_eq!(vectors.read_pending(0, AccessWidth::Qword), 0);
    }

    #[test]
    fn an_address_that_is_no_interrupt_is_no_message() {
        let mut vectors = table();
        let _ = vectors.write(12, AccessWidth::Dword, 0, ON);
        assert!(vectors.signal(0, ON).is_some());
        let _ = vectors.write(4, AccessWidth::Dword, 1, ON);
        assert_eq!(vectors.signal(0, ON), None);
        let _ = vectors.write(0, AccessWidth::Qword, 0x1000, ON);
        assert_eq!(vectors.signal(0, ON), None);
        assert_eq!(vectors.read_pending(0, AccessWidth::Qword), 0);
    }

    #[test]
    fn accesses_behind_the_table_read_zeros_and_change_nothing() {
        let mut vectors = table();
        let before = vectors.clone();
        assert_eq!(vectors.read(0xffff, AccessWidth::Qword), 0);
        assert_eq!(vectors.read(30, AccessWidth::Dword) >> 16, 0);
        let _ = vectors.write(32, AccessWidth::Qword, u64::MAX, ON);
        assert_eq!(vectors, before);
        assert_eq!(vectors.read_pending(8, AccessWidth::Qword), 0);
    }
}
