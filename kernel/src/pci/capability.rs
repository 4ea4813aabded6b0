//! Walks the list of a function's capabilities, with a bound.

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

/// Identifier of a vendor-specific capability.
pub const VENDOR: u8 = 0x09;
/// Identifier of MSI-X.
pub const MSIX: u8 = 0x11;
/// Status register: the function has a list.
const HAS_LIST: u32 = 1 << 20;
/// Most capabilities for which the space after the header has room.
const MOST: usize = (256 - 64) / 4;

/// One entry of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciCapability {
    /// Its identifier.
    pub id: u8,
    /// Offset of its registers.
    pub offset: u8,
    /// Bits 16 to 31 of its first word.
    pub header: u16,
}

/// Fault of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapabilityListError {
    /// A pointer that leads into the header or is unaligned.
    Pointer(u8),
    /// The list does not end.
    Endless,
}

/// Collects a function's capabilities.
///
/// # Errors
/// [`CapabilityListError`] if the list is malformed: such a device is not used.
pub fn capabilities<C: ConfigurationAccess>(
    access: &C,
    at: DeviceFunction,
) -> Result<arrayvec::ArrayVec<PciCapability, MOST>, CapabilityListError> {
    let mut list = arrayvec::ArrayVec::new();
    if access.read_word(at, 4) & HAS_LIST == 0 {
        return Ok(list);
    }
    let mut offset = access.read_word(at, 0x34) as u8 & !3;
    while offset != 0 {
        if offset < 64 || !offset.is_multiple_of(4) {
            return Err(CapabilityListError::Pointer(offset));
        }
        let word = access.read_word(at, offset);
        let entry = PciCapability { id: word as u8, offset, header: (word >> 16) as u16 };
        list.try_push(entry).map_err(|_| CapabilityListError::Endless)?;
        offset = (word >> 8) as u8;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeBus;
    use super::*;

    const AT: DeviceFunction = DeviceFunction { bus: 0, device: 1, function: 0 };

    fn list(words: &[(u8, u32)], first: u32) -> Result<Vec<u8>, CapabilityListError> {
        let mut bus = FakeBus::default();
        bus.add(AT, 1, 1);
        bus.set(AT, 4, HAS_LIST);
        bus.set(AT, 0x34, first);
        words.iter().for_each(|(offset, word)| bus.set(AT, *offset, *word));
        capabilities(&bus, AT).map(|list| list.iter().map(|c| c.id).collect())
    }

    #[test]
    fn entries_come_in_the_order_of_the_list() {
        assert_eq!(list(&[(0x40, 0x8011), (0x80, 0x0009)], 0x40), Ok(vec![MSIX, VENDOR]));
    }

    #[test]
    fn a_loop_ends_and_a_pointer_into_the_header_is_refused() {
        assert_eq!(
            list(&[(0x40, 0x8011), (0x80, 0x4009)], 0x40),
            Err(CapabilityListError::Endless)
        );
        assert_eq!(list(&[(0x40, 0x1011)], 0x40), Err(CapabilityListError::Pointer(0x10)));
        assert_eq!(list(&[(0x40, 0x8211)], 0x40), Err(CapabilityListError::Pointer(0x82)));
    }

    #[test]
    fn no_list_is_an_empty_list() {
        let mut bus = FakeBus::default();
        bus.add(AT, 1, 1);
        assert_eq!(capabilities(&bus, AT), Ok(arrayvec::ArrayVec::new()));
    }
}
