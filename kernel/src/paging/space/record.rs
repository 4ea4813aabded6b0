//! The record as a typed value: whose space this is, what it holds, and how far a drain has come.
//!
//! Decoding (`codec`) checks everything once and names what is wrong; whoever holds a [`Record`] can trust it. Invariants: the
//! layout fits the capacity, the ranges add up to the layout's pages, the progress is not beyond them, and a space
//! in use has an owner's extent.

use arrayvec::{ArrayString, ArrayVec};

use super::crash::{Crash, PartialCause};
use super::layout::{Layout, LayoutError, usable};
use super::missing::MissingPages;
use super::raw::{MAX_RANGES, NAME_LEN, VERSION};
use super::state::SpaceState;
use super::uuid::Uuid;
use crate::addr::{Gfn, PageIndex};
use crate::mm::layout::{RamLayout, RamRange};

/// Whether the blocks still hold what somebody wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Residue {
    /// They read as zeros or as nobody's data.
    Clean,
    /// They hold the last owner's pages: nobody else may have the space before it is scrubbed.
    Stale,
}

/// Whose space it is, or, while it is free and stale, was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
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
pub struct Contents {
    /// Where the parts of the space lie.
    pub layout: Layout,
    /// The RAM ranges, ascending; page indexes are counted without holes.
    pub ranges: ArrayVec<RamRange, MAX_RANGES>,
}

impl Contents {
    /// Describes the RAM of `ram` in a space on a device of `capacity` bytes.
    ///
    /// # Errors
    /// [`LayoutError`] where it does not fit.
    pub fn new(capacity: u64, ram: &RamLayout) -> Result<Self, LayoutError> {
        let layout = Layout::for_pages(capacity, ram.pages())?;
        Ok(Self { layout, ranges: ram.ranges().collect() })
    }

    /// Returns the guest page of RAM page `index`.
    pub fn gfn_of(&self, index: PageIndex) -> Option<Gfn> {
        self.place_of(index).map(|(gfn, _)| gfn)
    }

    /// Returns the guest page of RAM page `index`, and how many pages there are from it to the end of its range.
    pub fn place_of(&self, index: PageIndex) -> Option<(Gfn, u32)> {
        let range = self.ranges.iter().rev().find(|r| r.index <= index.0)?;
        let offset = u64::from(index.0 - range.index);
        let left = u32::try_from(range.count.checked_sub(offset)?).ok().filter(|left| *left > 0)?;
        Some((range.first.checked_add(offset)?, left))
    }
}

/// How far a drain has come, and the extent of what describes the dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drain {
    /// Every page below this is final: it has its bit in the bitmap or is zero.
    pub progress: u32,
    /// Program headers that were written.
    pub program_headers: u32,
    /// Bytes of notes that were written.
    pub notes_len: u32,
}

/// Which fields the record has on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordFormat {
    /// Those below byte 508, as the first release wrote them. Such a space is upgraded when it is activated.
    Original,
    /// All; announced by bit 0 of `features_required`.
    Extended,
}

/// What a space says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Which fields the record has on disk.
    pub format: RecordFormat,
    /// Bytes of the device when it was formatted, whole pages only.
    pub capacity: u64,
    /// The space's name.
    pub space: Uuid,
    /// Number of this version of the record; the newer of the two copies counts.
    pub sequence: u64,
    /// What it is used for.
    pub state: SpaceState,
    /// Whether old blocks lie in it.
    pub residue: Residue,
    /// Whose it is.
    pub owner: Option<Owner>,
    /// What it holds; none in a free space.
    pub contents: Option<Contents>,
    /// How far a drain has come.
    pub drain: Drain,
    /// Pages below the progress that are missing; none in an [`RecordFormat::Original`] record.
    pub missing: MissingPages,
    /// Why the dump is not whole.
    pub partial_cause: PartialCause,
    /// The crash, once there was one.
    pub crash: Option<Crash>,
}

/// What is wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// No magic at the start: no record at all.
    Magic,
    /// Another version of the format.
    Version(u32),
    /// The checksum is not that of the bytes.
    Checksum {
        /// In the record.
        stored: u32,
        /// Of its bytes.
        computed: u32,
    },
    /// Feature bits that this reader does not know.
    Features(u64),
    /// The named field has an impossible value.
    Field(&'static str),
    /// The device has not the size that the record was written for.
    Capacity {
        /// In the record.
        recorded: u64,
        /// Of the device.
        actual: u64,
    },
}

impl RecordError {
    /// Returns whether the record is sound as far as this program can tell, and a newer program's.
    pub const fn is_newer(self) -> bool {
        matches!(self, Self::Features(_)) || matches!(self, Self::Version(version) if version > VERSION)
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
                let [recorded, actual] = [recorded, actual].map(|bytes| crate::console::size::ReadableSize(*bytes));
                write!(f, "record is for a device of {recorded}, this one has {actual}")
            }
        }
    }
}

impl Record {
    /// Makes the record of a space that nobody owns yet.
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
            drain: Drain::default(),
            missing: MissingPages::default(),
            partial_cause: PartialCause::NONE,
            crash: None,
        }
    }

    /// Forgets owner, contents and dump, as a space does that becomes free and clean.
    pub fn clear(&mut self) {
        (self.owner, self.contents) = (None, None);
        self.forget_dump();
    }

    /// Forgets the crash, and how far its drain came.
    pub fn forget_dump(&mut self) {
        self.drain = Drain::default();
        self.missing = MissingPages::default();
        self.partial_cause = PartialCause::NONE;
        self.crash = None;
    }
}
