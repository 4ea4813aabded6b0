//! GUID partition tables: which parts of a disk are ours, and which of them can be trusted.
//!
//! ```text
//!   sector 0        protective MBR; its boot-code bytes may hold the header of one selected dump
//!   sector 1        primary header       ─┐
//!   sectors 2..     its entries           ├─ both have CRCs; the backup counts if the primary is damaged
//!   ...             partitions            │
//!   end - 33 ..     the backup's entries  │
//!   last sector     backup header        ─┘
//! ```
//!
//! Types and CRCs come from `gpt_disk_types`; this module decides which tables are accepted. It
//! never writes to a disk: [`make`] only makes the bytes of a new table. UEFI 2.10 "GUID Partition
//! Table (GPT) Disk Layout".
//!
//! Shared by the hypervisor and the host command: the caller reads the sectors.

mod entries;
mod layout;
pub mod make;
mod table;
#[cfg(test)]
mod tests;

use crate::addr::PAGE_SIZE;
use crate::block::SectorRange;
use alloc::vec::Vec;
pub use gpt_disk_types::Guid;
use gpt_disk_types::{GptPartitionType, guid};
pub use table::{read, read_copy};

/// The partition type of a paging space.
pub const SPACE_TYPE: GptPartitionType =
    GptPartitionType(guid!("ab64868d-fb53-4a69-b3c2-43d96540f9a6"));
/// The partition type of an image store.
pub const STORE_TYPE: GptPartitionType =
    GptPartitionType(guid!("be889539-157e-44f9-b4a7-871b51cec173"));
/// The partition type of a cluster area.
pub const CLUSTER_TYPE: GptPartitionType =
    GptPartitionType(guid!("513bd0c6-9496-42b0-b9d7-f14353b72e5e"));
/// Boot-code bytes of the MBR.
pub const BOOT_CODE_LEN: usize = 440;
/// Most bytes of entries that are read: four times the usual 128 entries of 128 bytes.
pub const MAX_ENTRY_BYTES: u64 = 16 * PAGE_SIZE;

/// One of the two copies of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GptCopy {
    /// At the disk's start.
    Primary,
    /// At its end.
    Backup,
}

impl core::fmt::Display for GptCopy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Backup => f.write_str("backup"),
        }
    }
}

/// The fault of a copy of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GptError {
    /// No signature.
    Signature,
    /// A revision, header size or entry size that is not in use.
    Unsupported,
    /// The header's CRC is wrong.
    HeaderCrc,
    /// The header names another place than its own.
    Misplaced,
    /// Its entries, or its usable sectors, lie outside the disk or overlap the table.
    Bounds,
    /// The entries' CRC is wrong.
    EntriesCrc,
}

impl core::fmt::Display for GptError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Signature => "no signature",
            Self::Unsupported => "unknown revision or sizes",
            Self::HeaderCrc => "the header's CRC is wrong",
            Self::Misplaced => "the header belongs elsewhere",
            Self::Bounds => "it describes more than the disk has",
            Self::EntriesCrc => "the entries' CRC is wrong",
        })
    }
}

/// The fault of an entry in a table whose CRCs are right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GptEntryError {
    /// It ends before it begins, or lies outside the usable sectors.
    OutOfRange,
    /// It shares sectors with the entry with this number.
    Overlaps(u32),
}

impl core::fmt::Display for GptEntryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OutOfRange => f.write_str("lies outside the disk's room for partitions"),
            Self::Overlaps(other) => write!(f, "overlaps GPT entry {other}"),
        }
    }
}

/// An entry in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GptEntry {
    /// Its number, from 1 on, as every tool counts.
    pub number: u32,
    /// Its partition type.
    pub kind: GptPartitionType,
    /// Its permanent name.
    pub guid: Guid,
    /// First sector, as the table says.
    pub first: u64,
    /// Last sector, which belongs to the entry.
    pub last: u64,
    /// Why it cannot be used.
    pub fault: Option<GptEntryError>,
}

impl GptEntry {
    /// Returns whether its type is that of a paging space.
    pub fn is_space(&self) -> bool {
        self.kind == SPACE_TYPE
    }

    /// Returns whether its type is that of an image store.
    pub fn is_store(&self) -> bool {
        self.kind == STORE_TYPE
    }

    /// Returns whether its type is that of a cluster area.
    pub fn is_cluster(&self) -> bool {
        self.kind == CLUSTER_TYPE
    }

    /// Returns its sectors, if it can be used.
    pub fn sectors(&self) -> Result<SectorRange, GptEntryError> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(SectorRange { first: self.first, count: self.last - self.first + 1 }),
        }
    }
}

/// A table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GptTable {
    /// The disk's permanent name.
    pub disk: Guid,
    /// Which copy this is.
    pub copy: GptCopy,
    /// Its entries in use, in the order of their numbers.
    pub entries: Vec<GptEntry>,
}

/// The partition table found on a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GptFinding {
    /// No sign of a table.
    None,
    /// A table. If it is the backup, the fault of the primary comes with it.
    Table(GptTable, Option<GptError>),
    /// Signs of a table, and both copies are damaged: primary, backup.
    Damaged(GptError, GptError),
}
