//! MSI-X: routes a device's interrupt to a vector of a CPU.
//!
//! ```text
//!  table entry (16 bytes, in a BAR)
//!   0   message address
//!   8   message data
//!  12   vector control
//! ```

use bitfield_struct::bitfield;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};
use volatile::{VolatileFieldAccess, VolatilePtr};
use zerocopy::{FromBytes, IntoBytes};

use super::capability::{self, PciCapability};
use super::window::DeviceWindow;

/// Bytes of a table entry.
pub const ENTRY_SIZE: usize = size_of::<MsixEntry>();

/// A table entry.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, VolatileFieldAccess)]
#[repr(C)]
struct MsixEntry {
    address: MessageAddress,
    address_high: u32,
    data: MessageData,
    control: VectorControl,
}

/// The lower half of an entry's address: SDM 3A "Message Address Register Format".
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes)]
struct MessageAddress {
    #[bits(2)]
    __: u8,
    /// "Destination mode": logical, not physical.
    logical: bool,
    redirection_hint: bool,
    __: u8,
    destination: u8,
    #[bits(12, default = 0xfee)]
    range: u16,
}

/// An entry's data: SDM 3A "Message Data Register Format". Zeros mean fixed and edge.
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes)]
struct MessageData {
    vector: u8,
    #[bits(3)]
    delivery_mode: u8,
    #[bits(3)]
    __: u8,
    assert: bool,
    level: bool,
    __: u16,
}

/// An entry's vector control: PCI Local Bus 3.0 "Vector Control for MSI-X Table Entries".
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes)]
struct VectorControl {
    masked: bool,
    #[bits(31)]
    __: u32,
}

/// The first word of the capability: PCI Local Bus 3.0 "MSI-X Capability and Table Structure".
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
struct CapabilityWord {
    id: u8,
    next: u8,
    #[bits(11)]
    last_entry: u16,
    #[bits(3)]
    __: u8,
    mask_all: bool,
    enable: bool,
}

/// Destination of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsixTarget {
    /// The interrupt vector.
    pub vector: u8,
    /// The physical APIC id; without interrupt remapping a message has room for 8 bits.
    pub apic_id: u8,
}

/// The fields of the capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsixCapability {
    at: DeviceFunction,
    offset: u8,
    /// Number of entries in the table.
    pub entries: u16,
    /// Number of the table's base address register.
    pub bar: u8,
    /// Offset of the table in that BAR, in bytes.
    pub table_offset: u32,
}

impl MsixCapability {
    /// Reads the capability; `None` if the function has none.
    pub fn find<C: ConfigurationAccess>(
        access: &C,
        at: DeviceFunction,
        list: &[PciCapability],
    ) -> Option<Self> {
        let found = list.iter().find(|c| c.id == capability::MSIX)?;
        let table = access.read_word(at, found.offset.checked_add(4)?);
        Some(Self {
            at,
            offset: found.offset,
            entries: CapabilityWord::from_bits(u32::from(found.header) << 16).last_entry() + 1,
            bar: (table & 7) as u8,
            table_offset: table & !7,
        })
    }

    /// Returns the size of the table in bytes.
    pub fn table_len(&self) -> usize {
        usize::from(self.entries) * ENTRY_SIZE
    }

    /// Masks all entries of `table` but `entry`, routes that one to `target`, and enables MSI-X.
    ///
    /// # Panics
    /// If the table has no such entry (our bug: `entries` is their number).
    pub fn route<C: ConfigurationAccess>(
        &self,
        access: &mut C,
        table: &DeviceWindow,
        entry: u16,
        target: MsixTarget,
    ) {
        self.control(access, |word| word.with_enable(true).with_mask_all(true));
        for n in 0..self.entries {
            entry_of(table, n).control().write(VectorControl::new().with_masked(true));
        }
        let entry = entry_of(table, entry);
        entry.address().write(MessageAddress::new().with_destination(target.apic_id));
        entry.address_high().write(0);
        entry.data().write(MessageData::new().with_vector(target.vector));
        entry.control().write(VectorControl::new());
        self.control(access, |word| word.with_enable(true).with_mask_all(false));
    }

    /// Changes the capability's first word.
    fn control<C: ConfigurationAccess>(
        &self,
        access: &mut C,
        change: fn(CapabilityWord) -> CapabilityWord,
    ) {
        let word = CapabilityWord::from_bits(access.read_word(self.at, self.offset));
        access.write_word(self.at, self.offset, change(word).into_bits());
    }
}

fn entry_of(table: &DeviceWindow, number: u16) -> VolatilePtr<'_, MsixEntry> {
    table.at(usize::from(number) * ENTRY_SIZE)
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeBus;
    use super::*;
    use crate::arch::word_layout::assert_field;
    use crate::block::dma::fake::region;

    const AT: DeviceFunction = DeviceFunction { bus: 0, device: 1, function: 0 };

    #[test]
    fn one_entry_is_routed_and_all_others_are_masked() {
        let mut bus = FakeBus::default();
        bus.add(AT, 1, 1);
        bus.set(AT, 0x40, 0x0002_0011);
        bus.set(AT, 0x44, 0x0000_0801);
        let list = [PciCapability { id: capability::MSIX, offset: 0x40, header: 2 }];
        let msix = MsixCapability::find(&bus, AT, &list).unwrap();
        assert_eq!(
            (msix.entries, msix.bar, msix.table_offset, msix.table_len()),
            (3, 1, 0x800, 48)
        );

        let memory = region(1);
        let table = memory.window();
        msix.route(&mut bus, table, 1, MsixTarget { vector: 0x41, apic_id: 3 });
        let words: Vec<u32> = (16..32).step_by(4).map(|at| table.read(at)).collect();
        assert_eq!(words, [0xfee0_3000, 0, 0x41, 0]);
        assert_eq!((table.read::<u32>(12), table.read::<u32>(44)), (1, 1));
        assert_eq!(bus.get(AT, 0x40), 0x8002_0011);
    }

    #[test]
    fn words_have_the_manuals_bits() {
        use {CapabilityWord as Capability, MessageAddress as Address, MessageData as Data};
        assert_field(0x4u32, true, Address::with_logical, Address::logical);
        assert_field(0x8u32, true, Address::with_redirection_hint, Address::redirection_hint);
        assert_field(0xf_f000u32, u8::MAX, Address::with_destination, Address::destination);
        assert_field(0xfff0_0000u32, 0xfff, Address::with_range, Address::range);
        assert_field(0xffu32, u8::MAX, Data::with_vector, Data::vector);
        assert_field(0x700u32, 7, Data::with_delivery_mode, Data::delivery_mode);
        assert_field(0x4000u32, true, Data::with_assert, Data::assert);
        assert_field(0x8000u32, true, Data::with_level, Data::level);
        assert_field(0x1u32, true, VectorControl::with_masked, VectorControl::masked);
        assert_field(0xffu32, u8::MAX, Capability::with_id, Capability::id);
        assert_field(0xff00u32, u8::MAX, Capability::with_next, Capability::next);
        assert_field(0x7ff_0000u32, 0x7ff, Capability::with_last_entry, Capability::last_entry);
        assert_field(0x4000_0000u32, true, Capability::with_mask_all, Capability::mask_all);
        assert_field(0x8000_0000u32, true, Capability::with_enable, Capability::enable);
    }

    #[test]
    fn a_function_without_msix_has_none() {
        assert_eq!(MsixCapability::find(&FakeBus::default(), AT, &[]), None);
    }
}
