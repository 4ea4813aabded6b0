//! The memory map for a guest: the RAM that it may use.

use arrayvec::ArrayVec;

use crate::addr::PAGE_SIZE;
use crate::mm::layout::{HOLE_BASE, HOLE_END, RamLayout};
use crate::partition::devices::map::{
    ACPI_BASE, BusPresence, ECAM_BASE, ECAM_BYTES, ERST_BUFFER_BYTES, FIRMWARE_BASE, FIRST_MIB,
    erst_buffer,
};

/// The type of a range. The values are ACPI's address range types; the Linux and the PVH boot
/// protocol use the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum MemoryRangeType {
    /// Free to use.
    Ram = 1,
    /// Not to be used, except as the ACPI tables say.
    Reserved = 2,
}

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryMapEntry {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub bytes: u64,
    /// Type.
    pub kind: MemoryRangeType,
}

/// Returns the map of `layout`, ascending; empty ranges are left out.
///
/// The ERST exchange buffer, above 1 MiB, is "reserved": Linux marks ranges of other types busy,
/// and its ERST driver could not claim the buffer. The configuration spaces of a PCI bus are
/// reserved, too: Linux does not believe in them otherwise.
pub fn entries(layout: &RamLayout, bus: BusPresence) -> ArrayVec<MemoryMapEntry, 7> {
    let ram = u64::from(layout.pages()).saturating_mul(PAGE_SIZE);
    let buffer = erst_buffer(layout).as_u64();
    let high = ram.saturating_sub(HOLE_BASE);
    let ecam = match bus {
        BusPresence::Present => ECAM_BASE + ECAM_BYTES,
        BusPresence::Absent => ECAM_BASE,
    };
    let entry =
        |base, end: u64, kind| MemoryMapEntry { base, bytes: end.saturating_sub(base), kind };
    [
        entry(0, FIRMWARE_BASE, MemoryRangeType::Ram),
        entry(FIRMWARE_BASE, 0xa_0000, MemoryRangeType::Reserved),
        entry(ACPI_BASE, FIRST_MIB, MemoryRangeType::Reserved),
        entry(FIRST_MIB, buffer, MemoryRangeType::Ram),
        entry(buffer, buffer + ERST_BUFFER_BYTES, MemoryRangeType::Reserved),
        entry(ECAM_BASE, ecam, MemoryRangeType::Reserved),
        entry(HOLE_END, HOLE_END.saturating_add(high), MemoryRangeType::Ram),
    ]
    .into_iter()
    .filter(|entry| entry.bytes > 0)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_ascend_do_not_overlap_and_end_with_the_ram() {
        for (bytes, count, end) in [(256 << 20, 5, 256 << 20), (5u64 << 30, 6, 6u64 << 30)] {
            let map = entries(&RamLayout::new(bytes).unwrap(), BusPresence::Absent);
            assert_eq!(map.len(), count);
            assert_eq!(map.last().map(|e| e.base + e.bytes), Some(end));
            let with_bus = entries(&RamLayout::new(bytes).unwrap(), BusPresence::Present);
            assert_eq!(with_bus.iter().filter(|entry| !map.contains(entry)).count(), 1);
            for map in [map, with_bus] {
                assert!(map.windows(2).all(|w| w[0].base + w[0].bytes <= w[1].base));
            }
        }
    }

    #[test]
    fn usable_and_exchange_memory_above_one_mib_add_up_to_the_ram() {
        let map = entries(&RamLayout::new(64 << 20).unwrap(), BusPresence::Absent);
        let above: u64 = map.iter().filter(|e| e.base >= FIRST_MIB).map(|e| e.bytes).sum();
        assert_eq!(above, (64 << 20) - FIRST_MIB);
    }
}
