//! The configuration space of a function: bytes, the bits of them that the guest may change, and
//! the list of capabilities.
//!
//! Sources: PCI Local Bus Specification 3.0, chapter 6 "Configuration Space"; PCI Express Base
//! Specification 4.0, 7.2.2 "PCI Express Enhanced Configuration Access Mechanism (ECAM)".
//!
//! Accesses of any width at any place are carried out byte by byte. A function has no extended
//! configuration space: it reads as zeros, which is an empty list of extended capabilities.

use crate::dump::state_note::{StateError, StateReader, StateWriter};
use crate::virt::AccessWidth;

/// Bytes of the space without its extension.
pub const CONFIG_BYTES: usize = 256;
/// First byte behind the header.
const HEADER_END: u8 = 0x40;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CLASS: usize = 0x09;
const BAR_0: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES: usize = 0x34;
/// A scratch register for operating systems.
const INTERRUPT_LINE: usize = 0x3c;

const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
const COMMAND_NO_INTX: u16 = 1 << 10;
/// There is a list of capabilities.
const STATUS_LIST: u8 = 1 << 4;

/// What a function is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestFunction {
    /// Vendor and device, also of the subsystem.
    pub vendor: u16,
    /// The device's number.
    pub device: u16,
    /// Base class, subclass and programming interface.
    pub class: u32,
    /// Revision.
    pub revision: u8,
}

/// The configuration space of a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionConfig {
    bytes: [u8; CONFIG_BYTES],
    /// The bits that the guest may change.
    writable: [u8; CONFIG_BYTES],
    /// End of the last capability.
    end: u8,
    /// Place of the pointer to the next capability.
    link: usize,
}

impl FunctionConfig {
    /// Makes the space of a function without BARs and capabilities. Its interrupt pin is 0: it has
    /// no wired interrupt.
    pub fn new(identity: GuestFunction) -> Self {
        let mut bytes = [0; CONFIG_BYTES];
        for at in [0, SUBSYSTEM] {
            bytes[at..at + 2].copy_from_slice(&identity.vendor.to_le_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&identity.device.to_le_bytes());
        }
        bytes[REVISION] = identity.revision;
        bytes[CLASS..CLASS + 3].copy_from_slice(&identity.class.to_le_bytes()[..3]);
        let mut writable = [0; CONFIG_BYTES];
        let command = COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTX;
        writable[COMMAND..COMMAND + 2].copy_from_slice(&command.to_le_bytes());
        writable[INTERRUPT_LINE] = 0xff;
        Self { bytes, writable, end: HEADER_END, link: CAPABILITIES }
    }

    /// Gives the function BAR 0: `bytes` of memory below 4 GiB, a power of two.
    pub fn add_bar(&mut self, bytes: u32) {
        let mask = !(bytes.next_power_of_two() - 1);
        self.writable[BAR_0..BAR_0 + 4].copy_from_slice(&mask.to_le_bytes());
    }

    /// Appends a capability and returns its place. `content` begins with the identifier; its second
    /// byte, the link, is filled in here. The bits of `writable` may be changed by the guest.
    ///
    /// # Panics
    /// If the space has no room for it (our bug: the devices are fixed).
    pub fn add_capability(&mut self, content: &[u8], writable: &[u8]) -> u8 {
        let at = self.end;
        let (start, end) = (usize::from(at), usize::from(at) + content.len());
        assert!(end < CONFIG_BYTES, "all capabilities of a device fit its configuration space");
        self.bytes[start..end].copy_from_slice(content);
        self.writable[start..start + writable.len()].copy_from_slice(writable);
        self.bytes[start + 1] = 0;
        self.bytes[self.link] = at;
        self.bytes[STATUS] |= STATUS_LIST;
        (self.link, self.end) = (start + 1, end.next_multiple_of(4) as u8);
        at
    }

    /// Reads; bytes outside of the space are zeros.
    pub fn read(&self, offset: u16, width: AccessWidth) -> u64 {
        (0..width.bytes()).rev().fold(0, |value, n| {
            let byte = self.bytes.get(usize::from(offset) + n).copied().unwrap_or(0);
            value << 8 | u64::from(byte)
        })
    }

    /// Changes the bits that the guest may change.
    pub fn write(&mut self, offset: u16, width: AccessWidth, value: u64) {
        for (n, new) in value.to_le_bytes().into_iter().enumerate().take(width.bytes()) {
            let at = usize::from(offset) + n;
            let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) else {
                return;
            };
            *byte = *byte & !mask | new & mask;
        }
    }

    /// Reads a word.
    pub fn word(&self, offset: u8) -> u16 {
        self.read(offset.into(), AccessWidth::Word) as u16
    }

    /// Reads a dword.
    pub fn dword(&self, offset: u8) -> u32 {
        self.read(offset.into(), AccessWidth::Dword) as u32
    }

    /// Returns where BAR 0 decodes; `None` while it does not.
    pub fn bar(&self) -> Option<u64> {
        let base = self.dword(BAR_0 as u8);
        (self.word(COMMAND as u8) & COMMAND_MEMORY != 0 && base != 0).then_some(base.into())
    }

    /// Returns whether the function may access memory and send messages.
    pub fn is_master(&self) -> bool {
        self.word(COMMAND as u8) & COMMAND_MASTER != 0
    }

    /// Appends the bytes.
    pub fn save(&self, out: &mut StateWriter) {
        out.bytes(&self.bytes);
    }

    /// Takes saved bytes over, as far as the guest may change them; all others are as they were.
    ///
    /// # Errors
    /// [`StateError`], also if the space is that of another function.
    pub fn restore(&mut self, from: &mut StateReader<'_>) -> Result<(), StateError> {
        let saved: [u8; CONFIG_BYTES] = from.array()?;
        for (at, saved) in saved.into_iter().enumerate() {
            from.check((saved ^ self.bytes[at]) & !self.writable[at] == 0)?;
            self.bytes[at] = saved;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function() -> FunctionConfig {
        let identity =
            GuestFunction { vendor: 0x1af4, device: 0x1044, class: 0xff_0000, revision: 1 };
        let mut config = FunctionConfig::new(identity);
        config.add_bar(0x4000);
        config
    }

    #[test]
    fn every_width_at_every_place_reads_the_same_bytes() {
        let mut config = function();
        config.add_capability(&[9, 0xee, 4, 0x5a], &[0, 0, 0, 0xf0]);
        let byte = |at| config.read(at, AccessWidth::Byte);
        for at in 0..260 {
            for width in [AccessWidth::Word, AccessWidth::Dword, AccessWidth::Qword] {
                let bytes = (0..width.bytes() as u16).rev();
                let whole = bytes.fold(0, |value, n| value << 8 | byte(at + n));
                assert_eq!(config.read(at, width), whole, "{at:#x} {width:?}");
            }
        }
        assert_eq!((byte(0), byte(1), byte(0x40), byte(0x41)), (0xf4, 0x1a, 9, 0));
    }

    #[test]
    fn only_the_bits_of_the_mask_change() {
        let mut config = function();
        let place = config.add_capability(&[9, 0, 4, 0x5a], &[0, 0, 0, 0xf0]);
        for at in (0..CONFIG_BYTES as u16).step_by(8) {
            config.write(at, AccessWidth::Qword, u64::MAX);
        }
        config.write(u16::MAX, AccessWidth::Qword, u64::MAX);
        assert_eq!(config.dword(0), 0x1044_1af4);
        assert_eq!(config.word(4), COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTX);
        assert_eq!(config.dword(0x10), 0xffff_c000, "the size of the BAR");
        assert_eq!([0x14, 0x18, 0x1c, 0x20, 0x24, 0x30].map(|bar| config.dword(bar)), [0; 6]);
        assert_eq!(config.dword(0x3c), 0xff, "no interrupt pin");
        assert_eq!(config.dword(place), 0xfa04_0009);
        config.write(u16::from(place) + 3, AccessWidth::Byte, 0);
        assert_eq!(config.dword(place), 0x0a04_0009);
    }

    #[test]
    fn the_bar_decodes_where_the_guest_puts_it_and_only_while_it_is_on() {
        let mut config = function();
        assert_eq!(config.bar(), None);
        config.write(4, AccessWidth::Word, 2);
        assert_eq!(config.bar(), None, "without an address");
        config.write(0x10, AccessWidth::Dword, 0xc123_7fff);
        assert_eq!(config.bar(), Some(0xc123_4000));
        config.write(4, AccessWidth::Byte, 4);
        assert_eq!((config.bar(), config.is_master()), (None, true));
    }

    #[test]
    fn capabilities_form_a_list() {
        let mut config = function();
        assert_eq!((config.word(6), config.dword(0x34)), (0, 0));
        let places = [config.add_capability(&[5; 6], &[]), config.add_capability(&[6; 4], &[])];
        assert_eq!((places, config.word(6)), ([0x40, 0x48], 0x10));
        assert_eq!((config.dword(0x34), config.word(0x40), config.word(0x48)), (0x40, 0x4805, 6));
    }
}
