//! Validates entries. An entry that lies outside the usable sectors, or shares sectors with another
//! entry of any type, must not be written to.

use super::layout::GptLayout;
use super::{GptEntry, GptEntryError};
use alloc::vec::Vec;
use gpt_disk_types::GptPartitionEntry;

/// Returns the entries in use, each with its fault.
pub(super) fn judged(
    all: impl Iterator<Item = (u32, GptPartitionEntry)>,
    room: &GptLayout,
) -> Vec<GptEntry> {
    let used = all.filter(|(_, entry)| entry.is_used());
    let mut entries: Vec<GptEntry> =
        used.map(|(number, entry)| typed(number, &entry, room)).collect();
    mark_overlaps(&mut entries);
    entries
}

fn typed(number: u32, entry: &GptPartitionEntry, room: &GptLayout) -> GptEntry {
    let (first, last) = (entry.starting_lba.to_u64(), entry.ending_lba.to_u64());
    let inside = room.first <= first && first <= last && last <= room.last;
    GptEntry {
        number,
        kind: entry.partition_type_guid,
        guid: entry.unique_partition_guid,
        first,
        last,
        fault: (!inside).then_some(GptEntryError::OutOfRange),
    }
}

/// Marks both entries of every pair that shares sectors. An entry outside the usable sectors
/// already has its fault, but it still spoils others: its owner writes to the sectors it names.
fn mark_overlaps(entries: &mut [GptEntry]) {
    for one in 0..entries.len() {
        for other in 0..entries.len() {
            let (a, b) = (entries[one], entries[other]);
            if one != other && a.first <= b.last && b.first <= a.last && a.fault.is_none() {
                entries[one].fault = Some(GptEntryError::Overlaps(b.number));
            }
        }
    }
}
