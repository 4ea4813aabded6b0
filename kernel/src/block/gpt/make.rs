//! Makes a new table: the bytes for both ends of a disk with paging spaces, image stores and
//! cluster areas.

use super::{BOOT_CODE_LEN, CLUSTER_TYPE, SPACE_TYPE, STORE_TYPE};
use crate::block::SectorRange;
use crate::block::request::SECTOR_SIZE;
use alloc::vec;
use alloc::vec::Vec;
use bytemuck::bytes_of;
use gpt_disk_types::{
    BlockSize, GptHeader, GptHeaderRevision, GptPartitionEntry, GptPartitionEntryArray,
    GptPartitionEntryArrayLayout, GptPartitionEntrySize, GptPartitionType, Guid, Lba, LbaLe,
    MasterBootRecord, U32Le,
};

/// Entries of a new table: the number that every tool expects.
const ENTRIES: u32 = 128;
const ENTRY_SIZE: u32 = 128;
const ENTRY_SECTORS: u64 = (ENTRIES * ENTRY_SIZE) as u64 / SECTOR_SIZE;
/// Alignment of partitions in sectors: 1 MiB.
const ALIGN: u64 = (1 << 20) / SECTOR_SIZE;
/// Sectors at the end of the disk for the backup.
const TAIL: u64 = ENTRY_SECTORS + 1;

/// The use of a part of a new table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewPart {
    /// A paging space.
    Space,
    /// An image store.
    Store,
    /// A cluster area.
    Cluster,
}

impl NewPart {
    const fn partition_type(self) -> GptPartitionType {
        match self {
            Self::Space => SPACE_TYPE,
            Self::Store => STORE_TYPE,
            Self::Cluster => CLUSTER_TYPE,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Space => "tidepool space",
            Self::Store => "tidepool store",
            Self::Cluster => "tidepool cluster",
        }
    }
}

/// A space, a store or a cluster area of a new table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewSpace {
    /// Its sectors.
    pub sectors: SectorRange,
    /// Its permanent name.
    pub guid: Guid,
    /// Its use.
    pub kind: NewPart,
}

/// Why spaces do not fit on a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GptCapacityError {
    /// There are none, or more than the table has entries for.
    Count,
    /// The disk has fewer bytes than these.
    Needs(u64),
}

/// Places spaces of these sizes in bytes one after the other on a disk of `disk_bytes`, each
/// aligned to 1 MiB.
///
/// # Errors
/// [`GptCapacityError`] says why they do not fit.
pub fn place(disk_bytes: u64, sizes: &[u64]) -> Result<Vec<SectorRange>, GptCapacityError> {
    if sizes.is_empty() || sizes.len() > ENTRIES as usize {
        return Err(GptCapacityError::Count);
    }
    let mut at = ALIGN;
    let mut placed = Vec::new();
    for size in sizes {
        let count = size.div_ceil(SECTOR_SIZE);
        placed.push(SectorRange { first: at, count });
        at = at
            .checked_add(count)
            .and_then(|end| end.checked_next_multiple_of(ALIGN))
            .ok_or(GptCapacityError::Needs(u64::MAX))?;
    }
    let end = placed.last().map_or(0, |last| last.first + last.count) + TAIL;
    if end > disk_bytes / SECTOR_SIZE {
        return Err(GptCapacityError::Needs(end.saturating_mul(SECTOR_SIZE)));
    }
    Ok(placed)
}

/// Bytes to write, and their place on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GptWrite {
    /// First byte on the disk.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Makes both copies of a table of spaces for a disk of `disk_bytes`: the backup, then the
/// protective MBR with the primary.
///
/// # Panics
/// If the spaces were not placed by [`place`] for the same size.
pub fn table(disk_bytes: u64, disk: Guid, spaces: &[NewSpace]) -> [GptWrite; 2] {
    let sectors = disk_bytes / SECTOR_SIZE;
    let entries = entries(spaces);
    let layout = layout(2);
    let mut storage = entries.clone();
    let array = GptPartitionEntryArray::new(layout, BlockSize::BS_512, &mut storage)
        .expect("the array has whole sectors");
    let mut header = GptHeader {
        revision: GptHeaderRevision::VERSION_1_0,
        my_lba: LbaLe::from_u64(1),
        alternate_lba: LbaLe::from_u64(sectors - 1),
        first_usable_lba: LbaLe::from_u64(2 + ENTRY_SECTORS),
        last_usable_lba: LbaLe::from_u64(sectors - 1 - TAIL),
        disk_guid: disk,
        partition_entry_lba: LbaLe::from_u64(2),
        number_of_partition_entries: U32Le::from_u32(ENTRIES),
        partition_entry_array_crc32: array.calculate_crc32(),
        ..GptHeader::default()
    };
    header.update_header_crc32();
    let mut start = vec![0; BOOT_CODE_LEN];
    start.extend_from_slice(&bytes_of(&MasterBootRecord::protective_mbr(sectors))[BOOT_CODE_LEN..]);
    start.extend_from_slice(&sector_of(&header));
    start.extend_from_slice(&entries);

    (header.my_lba, header.alternate_lba) = (header.alternate_lba, header.my_lba);
    header.partition_entry_lba = LbaLe::from_u64(sectors - TAIL);
    header.update_header_crc32();
    let mut end = entries;
    end.extend_from_slice(&sector_of(&header));
    [
        GptWrite { offset: (sectors - TAIL) * SECTOR_SIZE, bytes: end },
        GptWrite { offset: 0, bytes: start },
    ]
}

fn layout(start: u64) -> GptPartitionEntryArrayLayout {
    let entry_size = GptPartitionEntrySize::new(ENTRY_SIZE).expect("128 is the least size");
    GptPartitionEntryArrayLayout { start_lba: Lba(start), entry_size, num_entries: ENTRIES }
}

fn entries(spaces: &[NewSpace]) -> Vec<u8> {
    let mut bytes = vec![0; (ENTRIES * ENTRY_SIZE) as usize];
    for (space, slot) in spaces.iter().zip(bytes.as_chunks_mut::<{ ENTRY_SIZE as usize }>().0) {
        let entry = GptPartitionEntry {
            partition_type_guid: space.kind.partition_type(),
            unique_partition_guid: space.guid,
            starting_lba: LbaLe::from_u64(space.sectors.first),
            ending_lba: LbaLe::from_u64(space.sectors.first + space.sectors.count - 1),
            name: space.kind.name().parse().unwrap_or_default(),
            ..GptPartitionEntry::default()
        };
        slot.copy_from_slice(bytes_of(&entry));
    }
    bytes
}

fn sector_of(header: &GptHeader) -> [u8; SECTOR_SIZE as usize] {
    let mut sector = [0; SECTOR_SIZE as usize];
    let bytes = bytes_of(header);
    sector[..bytes.len()].copy_from_slice(bytes);
    sector
}
