//! Reads a table: the primary, otherwise the backup, each only if everything in it is right.

use super::entries;
use super::layout::GptLayout;
use super::{GptCopy, GptError, GptFinding, GptTable, MAX_ENTRY_BYTES};
use crate::block::request::SECTOR_SIZE;
use alloc::vec;
use bytemuck::pod_read_unaligned;
use gpt_disk_types::{
    BlockSize, GptHeader, GptHeaderRevision, GptPartitionEntryArray, MasterBootRecord,
};

const SECTOR: usize = SECTOR_SIZE as usize;
/// Bytes of a header; larger headers are allowed, but not used in practice.
const HEADER_LEN: usize = size_of::<GptHeader>();
/// The MBR partition type of a protective MBR, which announces a GPT.
const PROTECTIVE: u8 = 0xee;

/// Looks for a table on a disk of `sectors` sectors; `read` fills a buffer with whole sectors from
/// the given one on.
///
/// # Errors
/// Any error of `read`.
pub fn read<E>(
    sectors: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<GptFinding, E> {
    if sectors < 3 {
        return Ok(GptFinding::None);
    }
    let mut mbr = [0; SECTOR];
    read(0, &mut mbr)?;
    let primary = match read_copy(GptCopy::Primary, sectors, &mut read)? {
        Ok(table) => return Ok(GptFinding::Table(table, None)),
        Err(fault) => fault,
    };
    // A backup without a primary may be left over from a former use of the disk: it counts only if
    // the protective MBR or the primary header still points to a table.
    if primary == GptError::Signature && !is_protective(&mbr) {
        return Ok(GptFinding::None);
    }
    Ok(match read_copy(GptCopy::Backup, sectors, &mut read)? {
        Ok(table) => GptFinding::Table(table, Some(primary)),
        Err(backup) => GptFinding::Damaged(primary, backup),
    })
}

/// Reads one copy of the table.
///
/// # Errors
/// The outer result has the error of `read`, the inner one the fault of the copy.
pub fn read_copy<E>(
    copy: GptCopy,
    sectors: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Result<GptTable, GptError>, E> {
    let at = match copy {
        GptCopy::Primary => 1,
        GptCopy::Backup => sectors.saturating_sub(1),
    };
    let mut sector = [0; SECTOR];
    read(at, &mut sector)?;
    let header: GptHeader = pod_read_unaligned(&sector[..HEADER_LEN]);
    let room = match judge(&header, copy, at, sectors) {
        Ok(room) => room,
        Err(fault) => return Ok(Err(fault)),
    };
    let mut bytes = vec![0; (room.entry_sectors * SECTOR_SIZE) as usize];
    read(room.entries_at, &mut bytes)?;
    Ok(table(&header, copy, &room, &mut bytes))
}

fn judge(header: &GptHeader, copy: GptCopy, at: u64, sectors: u64) -> Result<GptLayout, GptError> {
    if !header.is_signature_valid() {
        return Err(GptError::Signature);
    }
    let header_len = header.header_size.to_u32() as usize;
    if { header.revision } != GptHeaderRevision::VERSION_1_0 || header_len != HEADER_LEN {
        return Err(GptError::Unsupported);
    }
    if header.calculate_header_crc32() != { header.header_crc32 } {
        return Err(GptError::HeaderCrc);
    }
    if header.my_lba.to_u64() != at {
        return Err(GptError::Misplaced);
    }
    let layout = header.get_partition_entry_array_layout().map_err(|_| GptError::Unsupported)?;
    let bytes = layout
        .num_bytes_exact()
        .filter(|bytes| (1..=MAX_ENTRY_BYTES).contains(bytes))
        .ok_or(GptError::Unsupported)?;
    let (first, last) = (header.first_usable_lba.to_u64(), header.last_usable_lba.to_u64());
    let room = GptLayout {
        entries_at: layout.start_lba.to_u64(),
        entry_sectors: bytes.div_ceil(SECTOR_SIZE),
        first,
        last,
    };
    if room.is_sound(copy, sectors) { Ok(room) } else { Err(GptError::Bounds) }
}

fn table(
    header: &GptHeader,
    copy: GptCopy,
    room: &GptLayout,
    bytes: &mut [u8],
) -> Result<GptTable, GptError> {
    let layout = header.get_partition_entry_array_layout().map_err(|_| GptError::Unsupported)?;
    let array = GptPartitionEntryArray::new(layout, BlockSize::BS_512, bytes)
        .map_err(|_| GptError::Unsupported)?;
    if array.calculate_crc32() != { header.partition_entry_array_crc32 } {
        return Err(GptError::EntriesCrc);
    }
    let used =
        (0..layout.num_entries).filter_map(|n| Some((n + 1, *array.get_partition_entry(n)?)));
    Ok(GptTable { disk: header.disk_guid, copy, entries: entries::judged(used, room) })
}

fn is_protective(sector: &[u8; SECTOR]) -> bool {
    let mbr: MasterBootRecord = pod_read_unaligned(sector);
    mbr.signature == [0x55, 0xaa]
        && mbr.partitions.iter().any(|record| record.os_indicator == PROTECTIVE)
}
