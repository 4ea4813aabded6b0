//! The record as a typed value: whose space this is, what it holds, and how far a drain has come.
//!
//! Decoding checks everything once and names what is wrong; whoever holds a [`Record`] can trust it. Invariants: the
//! layout fits the capacity, the ranges add up to the layout's pages, the progress is not beyond them, and a space
//! in use has an owner's extent.

use arrayvec::{ArrayString, ArrayVec};
use zerocopy::{FromBytes, IntoBytes};

use super::layout::{Layout, LayoutError, RECORD_SIZE, usable};
use super::raw::{self, CHECKED_LEN, MAGIC, MAX_RANGES, NAME_LEN, RawRange, RawRecord, TEXT_LEN, VERSION, get_text, put_text};
use super::state::SpaceState;
use super::uuid::Uuid;
use crate::addr::{Gfn, PAGE_SIZE, PageIndex};
use crate::mm::crc::crc32c;
use crate::mm::layout::{RamLayout, RamRange};

/// Feature bits that this code knows and a reader must know. None yet.
const KNOWN_FEATURES: u64 = 0;

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
        let range = self.ranges.iter().rev().find(|r| r.index <= index.0)?;
        let offset = u64::from(index.0 - range.index);
        if offset < range.count { range.first.checked_add(offset) } else { None }
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

/// Why the owner crashed. Unknown numbers stay what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashReason(pub u32);

impl CrashReason {
    /// A triple fault.
    pub const TRIPLE_FAULT: Self = Self(1);
    /// The guest said so by pvpanic.
    pub const PVPANIC: Self = Self(2);
    /// The guest stored a panic's log by ERST.
    pub const ERST: Self = Self(3);
    /// An operator's command.
    pub const OPERATOR: Self = Self(4);
    /// A page could not be read back.
    pub const LOST_PAGE: Self = Self(5);
    /// The processor refused to enter the guest.
    pub const ENTRY_FAILED: Self = Self(6);
    /// A watchdog.
    pub const WATCHDOG: Self = Self(7);

    /// Returns the word for people and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TRIPLE_FAULT => "triple fault",
            Self::PVPANIC => "pvpanic",
            Self::ERST => "panic log by ERST",
            Self::OPERATOR => "operator",
            Self::LOST_PAGE => "page could not be read back",
            Self::ENTRY_FAILED => "entry failed",
            Self::WATCHDOG => "watchdog",
            _ => "other",
        }
    }
}

/// The crash that a dump is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crash {
    /// Why.
    pub reason: CrashReason,
    /// A number that belongs to the reason.
    pub detail: u32,
    /// When: nanoseconds since 1970.
    pub time_ns: u64,
    /// In words.
    pub text: ArrayString<TEXT_LEN>,
}

/// What a space says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
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
                write!(f, "record is for a device of {recorded} bytes, this one has {actual}")
            }
        }
    }
}

impl Record {
    /// Makes the record of a space that nobody owns yet.
    pub fn free(capacity: u64, space: Uuid, residue: Residue) -> Self {
        Self {
            capacity: usable(capacity),
            space,
            sequence: 1,
            state: SpaceState::Free,
            residue,
            owner: None,
            contents: None,
            drain: Drain::default(),
            crash: None,
        }
    }

    /// Encodes the record, checksum included.
    pub fn encode(&self) -> [u8; RECORD_SIZE as usize] {
        let mut raw = RawRecord::zeroed();
        raw.magic = MAGIC;
        raw.version.set(VERSION);
        raw.record_size.set(RECORD_SIZE as u32);
        raw.features_required.set(KNOWN_FEATURES);
        raw.space_uuid = self.space.0;
        raw.sequence.set(self.sequence);
        raw.state.set(self.state as u32);
        raw.residue.set(u32::from(self.residue == Residue::Stale));
        raw.capacity.set(self.capacity);
        raw.page_size.set(PAGE_SIZE as u32);
        raw.drain_progress.set(self.drain.progress);
        raw.program_headers.set(self.drain.program_headers);
        raw.notes_len.set(self.drain.notes_len);
        self.owner.iter().for_each(|owner| put_owner(&mut raw, owner));
        self.contents.iter().for_each(|contents| put_contents(&mut raw, contents));
        self.crash.iter().for_each(|crash| put_crash(&mut raw, crash));
        raw.crc32c.set(crc32c(&raw.as_bytes()[..CHECKED_LEN]).0);
        zerocopy::transmute!(raw)
    }

    /// Decodes a record from a device of `capacity` bytes.
    ///
    /// # Errors
    /// [`RecordError`] names what is wrong; the first fault counts.
    pub fn decode(bytes: &[u8; RECORD_SIZE as usize], capacity: u64) -> Result<Self, RecordError> {
        let raw = RawRecord::ref_from_bytes(bytes).map_err(|_| RecordError::Field("size"))?;
        check_envelope(raw, bytes, capacity)?;
        let state = SpaceState::from_number(raw.state.get()).ok_or(RecordError::Field("state"))?;
        let record = Self {
            capacity: raw.capacity.get(),
            space: Uuid(raw.space_uuid),
            sequence: raw.sequence.get(),
            state,
            residue: if raw.residue.get() == 0 { Residue::Clean } else { Residue::Stale },
            owner: get_owner(raw)?,
            contents: get_contents(raw)?,
            drain: Drain {
                progress: raw.drain_progress.get(),
                program_headers: raw.program_headers.get(),
                notes_len: raw.notes_len.get(),
            },
            crash: get_crash(raw)?,
        };
        record.check()
    }

    /// Checks what concerns more than one field.
    fn check(self) -> Result<Self, RecordError> {
        // So that counting on never overflows, whatever a record claims.
        if self.sequence >= 1 << 63 {
            return Err(RecordError::Field("sequence"));
        }
        let idle = matches!(self.state, SpaceState::Free | SpaceState::Releasing);
        match &self.contents {
            None if !idle => return Err(RecordError::Field("pages")),
            Some(c) if self.drain.progress > c.layout.pages() => return Err(RecordError::Field("drain_progress")),
            Some(c) if u64::from(self.drain.notes_len) > c.layout.notes().len => return Err(RecordError::Field("notes_len")),
            _ => {}
        }
        if self.owner.is_none() && !idle {
            return Err(RecordError::Field("owner_uuid"));
        }
        Ok(self)
    }
}

/// Checks what must hold before any other field means something.
fn check_envelope(raw: &RawRecord, bytes: &[u8], capacity: u64) -> Result<(), RecordError> {
    if raw.magic != MAGIC {
        return Err(RecordError::Magic);
    }
    // Before the checksum: another version may well compute it over something else.
    if raw.version.get() != VERSION {
        return Err(RecordError::Version(raw.version.get()));
    }
    let (stored, computed) = (raw.crc32c.get(), crc32c(&bytes[..CHECKED_LEN]).0);
    if stored != computed {
        return Err(RecordError::Checksum { stored, computed });
    }
    let unknown = raw.features_required.get() & !KNOWN_FEATURES;
    if unknown != 0 {
        return Err(RecordError::Features(unknown));
    }
    if u64::from(raw.record_size.get()) != RECORD_SIZE {
        return Err(RecordError::Field("record_size"));
    }
    if u64::from(raw.page_size.get()) != PAGE_SIZE {
        return Err(RecordError::Field("page_size"));
    }
    let (recorded, actual) = (raw.capacity.get(), usable(capacity));
    if recorded != actual {
        return Err(RecordError::Capacity { recorded, actual });
    }
    Ok(())
}

fn put_owner(raw: &mut RawRecord, owner: &Owner) {
    raw.epoch.set(owner.epoch);
    raw.owner_uuid = owner.partition.0;
    raw.owner_node = owner.node.0;
    put_text(&mut raw.owner_name, &owner.name);
}

fn get_owner(raw: &RawRecord) -> Result<Option<Owner>, RecordError> {
    let partition = Uuid(raw.owner_uuid);
    if partition == Uuid::NIL {
        return Ok(None);
    }
    let name = get_text(&raw.owner_name).and_then(|text| ArrayString::from(text).ok());
    let name = name.ok_or(RecordError::Field("owner_name"))?;
    Ok(Some(Owner { name, partition, node: Uuid(raw.owner_node), epoch: raw.epoch.get() }))
}

fn put_contents(raw: &mut RawRecord, contents: &Contents) {
    let layout = &contents.layout;
    raw.pages.set(layout.pages());
    raw.notes_start.set(layout.notes().start);
    raw.bitmap_start.set(layout.bitmap().start);
    raw.checksums_start.set(layout.checksums().start);
    raw.data_start.set(layout.blocks().start);
    raw.ranges_count.set(contents.ranges.len() as u32);
    for (raw, range) in raw.ranges.iter_mut().zip(&contents.ranges) {
        *raw = RawRange { first_gfn: range.first.as_u64().into(), pages: range.count.into() };
    }
}

fn get_contents(raw: &RawRecord) -> Result<Option<Contents>, RecordError> {
    if raw.pages.get() == 0 {
        return Ok(None);
    }
    let layout = Layout::for_pages(raw.capacity.get(), raw.pages.get()).map_err(|_| RecordError::Field("pages"))?;
    // Version 1 has one layout for a number of pages; the offsets are there for readers that do not compute it.
    let offsets = [
        (raw.notes_start.get(), layout.notes().start, "notes_start"),
        (raw.bitmap_start.get(), layout.bitmap().start, "bitmap_start"),
        (raw.checksums_start.get(), layout.checksums().start, "checksums_start"),
        (raw.data_start.get(), layout.blocks().start, "data_start"),
    ];
    if let Some((.., name)) = offsets.into_iter().find(|(stored, computed, _)| stored != computed) {
        return Err(RecordError::Field(name));
    }
    Ok(Some(Contents { layout, ranges: get_ranges(raw)? }))
}

fn get_ranges(raw: &RawRecord) -> Result<ArrayVec<RamRange, MAX_RANGES>, RecordError> {
    const WRONG: RecordError = RecordError::Field("ranges");
    let used = raw.ranges.get(..raw.ranges_count.get() as usize).ok_or(RecordError::Field("ranges_count"))?;
    let (mut ranges, mut index, mut next_gfn) = (ArrayVec::new(), 0u64, 0u64);
    for range in used {
        let (first, count) = (range.first_gfn.get(), range.pages.get());
        let end = first.checked_add(count).filter(|end| *end <= 1 << 40).ok_or(WRONG)?;
        if count == 0 || first < next_gfn {
            return Err(WRONG);
        }
        let range_index = u32::try_from(index).map_err(|_| WRONG)?;
        ranges.push(RamRange { first: Gfn::new(first), count, index: range_index });
        (index, next_gfn) = (index + count, end);
    }
    if index == u64::from(raw.pages.get()) { Ok(ranges) } else { Err(WRONG) }
}

fn put_crash(raw: &mut RawRecord, crash: &Crash) {
    raw.crash_reason.set(crash.reason.0);
    raw.crash_detail.set(crash.detail);
    raw.crash_time_ns.set(crash.time_ns);
    put_text(&mut raw.crash_text, &crash.text);
}

fn get_crash(raw: &RawRecord) -> Result<Option<Crash>, RecordError> {
    let reason = CrashReason(raw.crash_reason.get());
    if reason == CrashReason(0) {
        return Ok(None);
    }
    let text = raw::get_text(&raw.crash_text).and_then(|text| ArrayString::from(text).ok());
    let text = text.ok_or(RecordError::Field("crash_text"))?;
    Ok(Some(Crash { reason, detail: raw.crash_detail.get(), time_ns: raw.crash_time_ns.get(), text }))
}

#[cfg(test)]
#[path = "record_tests.rs"]
pub(super) mod tests;
