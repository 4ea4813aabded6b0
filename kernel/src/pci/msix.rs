//! MSI-X: routes a device's interrupt to a vector of a CPU.
//!
//! ```text
//!  table entry (16 bytes, in a BAR)
//!   0   message address   0xfee << 20 | APIC id << 12     (SDM 3A "Message Address Register Format")
//!   8   message data      vector, fixed, edge             (SDM 3A "Message Data Register Format")
//!  12   vector control    bit 0: masked
//! ```

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use super::capability::{self, PciCapability};
use super::window::DeviceWindow;

/// Bytes of a table entry.
pub const ENTRY_SIZE: usize = 16;
const ENABLE: u32 = 1 << 31;
const MASK_ALL: u32 = 1 << 30;
const MASKED: u32 = 1;

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
            entries: (found.header & 0x7ff) + 1,
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
        self.control(access, ENABLE | MASK_ALL);
        for n in 0..self.entries {
            table.write(usize::from(n) * ENTRY_SIZE + 12, MASKED);
        }
        let at = usize::from(entry) * ENTRY_SIZE;
        table.write(at, 0xfee0_0000 | u32::from(target.apic_id) << 12);
        table.write(at + 4, 0u32);
        table.write(at + 8, u32::from(target.vector));
        table.write(at + 12, 0u32);
        self.control(access, ENABLE);
    }

    /// Sets enable and mask; leaves the rest of the word unchanged.
    fn control<C: ConfigurationAccess>(&self, access: &mut C, bits: u32) {
        let word = access.read_word(self.at, self.offset) & !(ENABLE | MASK_ALL);
        access.write_word(self.at, self.offset, word | bits);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeBus;
    use super::*;
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
    fn a_function_without_msix_has_none() {
        assert_eq!(MsixCapability::find(&FakeBus::default(), AT, &[]), None);
    }
}
