//! The record as a typed value: owner and contents of the space, and the progress of a drain.
//!
//! Decoding (`codec`) checks every field once and names the fault, so a [`SpaceRecord`] can be
//! trusted. Invariants: the layout fits the capacity, the ranges add up to the layout's pages, the
//! progress does not exceed them, and a space in use has contents.

use arrayvec::{ArrayString, ArrayVec};

use super::crash::{PartialCause, RecordedCrash};
use super::layout::{LayoutError, SpaceLayout, usable};
use super::missing::MissingPages;
use super::raw::{MAX_RANGES, NAME_LEN, VERSION};
use super::state::SpaceState;
use super::uuid::Uuid;
use crate::addr::{Gfn, PageIndex};
use crate::mm::crc::Crc32c;
use crate::mm::layout::{RamLayout, RamRange};

/// Whether the blocks still hold old data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Residue {
    /// They read as zeros, or hold no partition's data.
    Clean,
    /// They hold the last owner's pages. Another owner may use the space only after it is scrubbed.
    Stale,
}

/// The owner of a space; for a free and stale space, the last owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpaceOwner {
    /// The partition's name.
    pub name: ArrayString<NAME_LEN>,
    /// The partition.
    pub partition: Uuid,
    /// The node that runs it.
    pub node: Uuid,
    /// The incarnation.
    pub epoch: u64,
}

/// The RAM whose pages the blocks hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpaceContents {
    /// Positions of the parts of the space.
    pub layout: SpaceLayout,
    /// The RAM ranges, ascending; page indexes are counted without holes.
    pub ranges: ArrayVec<RamRange, MAX_RANGES>,
}

impl SpaceContents {
    /// Describes the RAM of `ram` in a space on a device of `capacity` bytes.
    ///
    /// # Errors
    /// [`LayoutError`] if it does not fit.
    pub fn new(capacity: u64, ram: &RamLayout) -> Result<Self, LayoutError> {
        let layout = SpaceLayout::for_pages(capacity, ram.pages())?;
        Ok(Self { layout, ranges: ram.ranges().collect() })
    }

    /// Returns the guest page of RAM page `index`.
    pub fn gfn_of(&self, index: PageIndex) -> Option<Gfn> {
        self.place_of(index).map(|(gfn, _)| gfn)
    }

    /// Returns the guest page of RAM page `index`, and the number of pages from it to the end of
    /// its range.
    pub fn place_of(&self, index: PageIndex) -> Option<(Gfn, u32)> {
        let range = self.ranges.iter().rev().find(|r| r.index <= index.0)?;
        let offset = u64::from(index.0 - range.index);
        let left = u32::try_from(range.count.checked_sub(offset)?).ok().filter(|left| *left > 0)?;
        Some((range.first.checked_add(offset)?, left))
    }
}

/// Progress of a drain, and the size of the dump's metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DrainRecord {
    /// Every page below this is final: it has its bit in the bitmap or is zero.
    pub progress: u32,
    /// Program headers that were written.
    pub program_headers: u32,
    /// Bytes of notes that were written.
    pub notes_len: u32,
}

/// Checksums (CRC32C) of the parts around the blocks of a suspended partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SuspensionSeal {
    /// Of the notes.
    pub notes: Crc32c,
    /// Of the bitmap, all its bytes up to the checksums.
    pub bitmap: Crc32c,
    /// Of the checksums of all pages; a page without a block has 0.
    pub checksums: Crc32c,
}

/// The base of a child's space: pages of the child that are not in its own blocks may be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceBase {
    /// Name of the sealed state.
    pub dump: Uuid,
    /// The incarnation that was sealed.
    pub generation: u64,
    /// Whether the child's own pages are all in its blocks.
    pub own: OwnPages,
}

/// What a child's record says about the child's own pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnPages {
    /// Some are in memory only.
    Open,
    /// All have a bit: each page without one, from the progress on, is the base's.
    Written,
}

/// The set of fields that the record has on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordFormat {
    /// Those below byte 508, as the first release wrote them. The space is upgraded at its next
    /// activation.
    Original,
    /// All; announced by bit 0 of `features_required`.
    Extended,
}

/// The record of a space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpaceRecord {
    /// The set of fields that the record has on disk.
    pub format: RecordFormat,
    /// Bytes of the device when it was formatted, whole pages only.
    pub capacity: u64,
    /// The space's name.
    pub space: Uuid,
    /// Number of this version of the record; the higher of the two copies counts.
    pub sequence: u64,
    /// State of the space.
    pub state: SpaceState,
    /// Whether the blocks hold old data.
    pub residue: Residue,
    /// Its owner.
    pub owner: Option<SpaceOwner>,
    /// Its contents; `None` in a free and clean space.
    pub contents: Option<SpaceContents>,
    /// Progress of a drain.
    pub drain: DrainRecord,
    /// Pages below the progress that are missing; none in an [`RecordFormat::Original`] record.
    pub missing: MissingPages,
    /// Why the dump is not complete.
    pub partial_cause: PartialCause,
    /// The crash, if there was one; for a suspended partition the suspension.
    pub crash: Option<RecordedCrash>,
    /// The base that the space's owner was cloned from, while the space does not stand alone.
    pub base: Option<SpaceBase>,
    /// In SUSPENDED and SEALED, and only there: the checksums of the parts around the blocks.
    pub seal: Option<SuspensionSeal>,
    /// The cluster that the space belongs to, whatever it holds: only members write to it.
    pub cluster: Option<Uuid>,
}

/// Fault of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// No magic at the start: no record at all.
    Magic,
    /// Another version of the format.
    Version(u32),
    /// The checksum does not match the bytes.
    Checksum {
        /// The checksum in the record.
        stored: u32,
        /// The checksum of its bytes.
        computed: u32,
    },
    /// Feature bits that this reader does not know.
    Features(u64),
    /// The named field has an impossible value.
    Field(&'static str),
    /// The device's size differs from the one in the record.
    Capacity {
        /// The size in the record.
        recorded: u64,
        /// The size of the device.
        actual: u64,
    },
}

impl RecordError {
    /// Returns whether the record is a newer program's and otherwise sound as far as this program
    /// can tell.
    pub const fn is_newer(self) -> bool {
        matches!(self, Self::Features(_))
            || matches!(self, Self::Version(version) if version > VERSION)
    }
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic => write!(f, "no record magic"),
            Self::Version(v) => write!(f, "record version {v}, this program knows {VERSION}"),
            Self::Checksum { stored, computed } => {
                write!(f, "record CRC32C is {stored:#010x}, its bytes give {computed:#010x}")
            }
            Self::Features(bits) => write!(f, "unknown required feature bits {bits:#x}"),
            Self::Field(name) => write!(f, "record field `{name}` has an impossible value"),
            Self::Capacity { recorded, actual } => {
                let [recorded, actual] =
                    [recorded, actual].map(|bytes| crate::size::ReadableSize(*bytes));
                write!(f, "record is for a device of {recorded}, this one has {actual}")
            }
        }
    }
}

impl SpaceRecord {
    /// Makes the record of a space that never had an owner.
    pub fn free(capacity: u64, space: Uuid, residue: Residue) -> Self {
        Self {
            format: RecordFormat::Extended,
            capacity: usable(capacity),
            space,
            sequence: 1,
            state: SpaceState::Free,
            residue,
            owner: None,
            contents: None,
            drain: DrainRecord::default(),
            missing: MissingPages::default(),
            partial_cause: PartialCause::NONE,
            crash: None,
            base: None,
            seal: None,
            cluster: None,
        }
    }

    /// Clears owner, contents and dump, for a space that becomes free and clean.
    pub fn clear(&mut self) {
        (self.owner, self.contents) = (None, None);
        self.forget_dump();
    }

    /// Clears the crash and the progress of its drain.
    pub fn forget_dump(&mut self) {
        self.drain = DrainRecord::default();
        self.missing = MissingPages::default();
        self.partial_cause = PartialCause::NONE;
        self.crash = None;
        self.base = None;
        self.seal = None;
    }
}
