//! Encodes a typed record into its 4,096 bytes, and decodes it with every field checked once.

use arrayvec::{ArrayString, ArrayVec};
use zerocopy::{FromBytes, IntoBytes};

use super::crash::{CrashReason, PartialCause, RecordedCrash};
use super::layout::{RECORD_SIZE, SpaceLayout, usable};
use super::missing::{MissingPages, MissingRange};
use super::raw::{
    CHECKED_LEN, FEATURE_BASE, FEATURE_CLUSTER, FEATURE_EXTENDED, FEATURE_SEALED,
    FEATURE_SUSPENDED, MAGIC, MAX_RANGES, RawMissing, RawRange, RawRecord,
};
use super::raw::{VERSION, get_text, put_text};
use super::record::{
    DrainRecord, OwnPages, RecordError, RecordFormat, Residue, SpaceBase, SpaceContents,
    SpaceOwner, SpaceRecord, SuspensionSeal,
};
use super::state::SpaceState;
use super::uuid::Uuid;
use crate::addr::{Gfn, PAGE_SIZE};
use crate::mm::crc::{Crc32c, crc32c};
use crate::mm::layout::RamRange;

/// Required feature bits that this code knows.
const KNOWN_FEATURES: u64 =
    FEATURE_EXTENDED | FEATURE_SUSPENDED | FEATURE_SEALED | FEATURE_BASE | FEATURE_CLUSTER;
/// Those that say that the space holds a partition with its machine.
const MACHINE_FEATURES: u64 = FEATURE_SUSPENDED | FEATURE_SEALED;

impl SpaceRecord {
    /// Encodes the record, checksum included.
    pub fn encode(&self) -> [u8; RECORD_SIZE as usize] {
        let mut raw = RawRecord::zeroed();
        raw.magic = MAGIC;
        raw.version.set(VERSION);
        raw.record_size.set(RECORD_SIZE as u32);
        if self.format == RecordFormat::Extended {
            put_extended(&mut raw, self);
        }
        // A space that is given back or goes on has no such fields any more.
        let seal = self.seal.filter(|_| self.state.is_whole_machine());
        seal.iter().for_each(|seal| put_seal(&mut raw, seal, self.state));
        self.base.iter().for_each(|base| put_base(&mut raw, base));
        self.cluster.iter().for_each(|cluster| put_cluster(&mut raw, *cluster));
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
    /// [`RecordError`] names the first fault found.
    pub fn decode(bytes: &[u8; RECORD_SIZE as usize], capacity: u64) -> Result<Self, RecordError> {
        let raw = RawRecord::ref_from_bytes(bytes).map_err(|_| RecordError::Field("size"))?;
        check_envelope(raw, bytes, capacity)?;
        let state = SpaceState::from_number(raw.state.get()).ok_or(RecordError::Field("state"))?;
        let format = match raw.features_required.get() & FEATURE_EXTENDED {
            0 => RecordFormat::Original,
            _ => RecordFormat::Extended,
        };
        let contents = get_contents(raw)?;
        let record = Self {
            format,
            capacity: raw.capacity.get(),
            space: Uuid(raw.space_uuid),
            sequence: raw.sequence.get(),
            state,
            residue: if raw.residue.get() == 0 { Residue::Clean } else { Residue::Stale },
            owner: get_owner(raw)?,
            missing: get_missing(raw, format, &contents)?,
            partial_cause: match format {
                RecordFormat::Original => PartialCause::NONE,
                RecordFormat::Extended => PartialCause(raw.partial_cause.get()),
            },
            contents,
            drain: DrainRecord {
                progress: raw.drain_progress.get(),
                program_headers: raw.program_headers.get(),
                notes_len: raw.notes_len.get(),
            },
            crash: get_crash(raw, format, state)?,
            seal: get_seal(raw, state)?,
            base: get_base(raw)?,
            cluster: get_cluster(raw)?,
        };
        record.check()
    }

    /// Checks the constraints between fields.
    fn check(self) -> Result<Self, RecordError> {
        // Keeps increments from overflowing, for any record on disk.
        if self.sequence >= 1 << 63 {
            return Err(RecordError::Field("sequence"));
        }
        let idle = matches!(self.state, SpaceState::Free | SpaceState::Releasing);
        match &self.contents {
            None if !idle => return Err(RecordError::Field("pages")),
            None if !self.missing.is_empty() => return Err(RecordError::Field("missing")),
            Some(c) if self.drain.progress > c.layout.pages() => {
                return Err(RecordError::Field("drain_progress"));
            }
            Some(c) if u64::from(self.drain.notes_len) > c.layout.notes().len => {
                return Err(RecordError::Field("notes_len"));
            }
            _ => {}
        }
        if self.owner.is_none() && !idle {
            return Err(RecordError::Field("owner_uuid"));
        }
        if self.state == SpaceState::Crashed && self.format == RecordFormat::Original {
            return Err(RecordError::Field("state"));
        }
        let is_suspended = self.state.is_whole_machine();
        if self.seal.is_some() != is_suspended
            || is_suspended && self.format == RecordFormat::Original
        {
            return Err(RecordError::Field("state"));
        }
        if is_suspended && self.crash.is_none() {
            return Err(RecordError::Field("crash_reason"));
        }
        // A suspended partition lacks no page, either.
        if is_suspended && !self.missing.is_empty() {
            return Err(RecordError::Field("missing"));
        }
        // What others depend on, and what stands alone, depends on nothing itself.
        let may_inherit = matches!(
            self.state,
            SpaceState::Active | SpaceState::Crashed | SpaceState::Draining | SpaceState::Releasing
        );
        if self.base.is_some() && (!may_inherit || self.format == RecordFormat::Original) {
            return Err(RecordError::Field("base_dump_uuid"));
        }
        // A complete dump lacks no page: each has a bit or is zero.
        if self.state == SpaceState::Complete && !self.missing.is_empty() {
            return Err(RecordError::Field("missing"));
        }
        Ok(self)
    }
}

/// Checks the fields that the meaning of all others depends on.
fn check_envelope(raw: &RawRecord, bytes: &[u8], capacity: u64) -> Result<(), RecordError> {
    if raw.magic != MAGIC {
        return Err(RecordError::Magic);
    }
    // Before the checksum: a newer program may compute it differently.
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

/// Returns whether the checksum at the end of a record matches the bytes before it.
pub(super) fn has_checksum(bytes: &[u8; RECORD_SIZE as usize]) -> bool {
    let stored: [u8; 4] = core::array::from_fn(|n| bytes[CHECKED_LEN + n]);
    crc32c(&bytes[..CHECKED_LEN]).0 == u32::from_le_bytes(stored)
}

fn put_owner(raw: &mut RawRecord, owner: &SpaceOwner) {
    raw.epoch.set(owner.epoch);
    raw.owner_uuid = owner.partition.0;
    raw.owner_node = owner.node.0;
    put_text(&mut raw.owner_name, &owner.name);
}

fn get_owner(raw: &RawRecord) -> Result<Option<SpaceOwner>, RecordError> {
    let partition = Uuid(raw.owner_uuid);
    if partition == Uuid::NIL {
        return Ok(None);
    }
    let name = get_text(&raw.owner_name).and_then(|text| ArrayString::from(text).ok());
    let name = name.ok_or(RecordError::Field("owner_name"))?;
    Ok(Some(SpaceOwner { name, partition, node: Uuid(raw.owner_node), epoch: raw.epoch.get() }))
}

fn put_contents(raw: &mut RawRecord, contents: &SpaceContents) {
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

fn get_contents(raw: &RawRecord) -> Result<Option<SpaceContents>, RecordError> {
    if raw.pages.get() == 0 {
        return Ok(None);
    }
    let layout = SpaceLayout::for_pages(raw.capacity.get(), raw.pages.get())
        .map_err(|_| RecordError::Field("pages"))?;
    // In version 1 the number of pages determines the layout; the offsets are there for readers
    // that do not compute it.
    let offsets = [
        (raw.notes_start.get(), layout.notes().start, "notes_start"),
        (raw.bitmap_start.get(), layout.bitmap().start, "bitmap_start"),
        (raw.checksums_start.get(), layout.checksums().start, "checksums_start"),
        (raw.data_start.get(), layout.blocks().start, "data_start"),
    ];
    if let Some((.., name)) = offsets.into_iter().find(|(stored, computed, _)| stored != computed) {
        return Err(RecordError::Field(name));
    }
    Ok(Some(SpaceContents { layout, ranges: get_ranges(raw)? }))
}

fn get_ranges(raw: &RawRecord) -> Result<ArrayVec<RamRange, MAX_RANGES>, RecordError> {
    const WRONG: RecordError = RecordError::Field("ranges");
    let used = raw
        .ranges
        .get(..raw.ranges_count.get() as usize)
        .ok_or(RecordError::Field("ranges_count"))?;
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

/// Encodes the fields from byte 508 on.
fn put_extended(raw: &mut RawRecord, record: &SpaceRecord) {
    raw.features_required.set(FEATURE_EXTENDED);
    raw.partial_cause.set(record.partial_cause.0);
    raw.missing_count.set(record.missing.ranges().len() as u32);
    for (raw, range) in raw.missing.iter_mut().zip(record.missing.ranges()) {
        *raw = RawMissing { first: range.first.into(), count: range.count.into() };
    }
    if let Some(crash) = &record.crash {
        raw.dump_uuid = crash.name.0;
        raw.crash_detail_64.set(crash.detail);
        raw.registers_len.set(crash.registers.len() as u32);
        raw.registers[..crash.registers.len()].copy_from_slice(&crash.registers);
    }
}

fn put_seal(raw: &mut RawRecord, seal: &SuspensionSeal, state: SpaceState) {
    raw.features_required.set(raw.features_required.get() | feature_of(state));
    raw.notes_crc32c.set(seal.notes.0);
    raw.bitmap_crc32c.set(seal.bitmap.0);
    raw.checksums_crc32c.set(seal.checksums.0);
}

/// Returns the feature bit of a state with a machine.
fn feature_of(state: SpaceState) -> u64 {
    match state {
        SpaceState::Suspended => FEATURE_SUSPENDED,
        SpaceState::Sealed => FEATURE_SEALED,
        _ => 0,
    }
}

fn put_base(raw: &mut RawRecord, base: &SpaceBase) {
    raw.features_required.set(raw.features_required.get() | FEATURE_BASE);
    raw.base_dump_uuid = base.dump.0;
    raw.base_generation.set(base.generation);
    raw.base_own_pages.set(u32::from(base.own == OwnPages::Written));
}

fn get_base(raw: &RawRecord) -> Result<Option<SpaceBase>, RecordError> {
    if raw.features_required.get() & FEATURE_BASE == 0 {
        return Ok(None);
    }
    let dump = Uuid(raw.base_dump_uuid);
    if dump == Uuid::NIL {
        return Err(RecordError::Field("base_dump_uuid"));
    }
    let own = match raw.base_own_pages.get() {
        0 => OwnPages::Open,
        1 => OwnPages::Written,
        _ => return Err(RecordError::Field("base_own_pages")),
    };
    Ok(Some(SpaceBase { dump, generation: raw.base_generation.get(), own }))
}

fn put_cluster(raw: &mut RawRecord, cluster: Uuid) {
    raw.features_required.set(raw.features_required.get() | FEATURE_CLUSTER);
    raw.cluster_uuid = cluster.0;
}

fn get_cluster(raw: &RawRecord) -> Result<Option<Uuid>, RecordError> {
    match Uuid(raw.cluster_uuid) {
        _ if raw.features_required.get() & FEATURE_CLUSTER == 0 => Ok(None),
        Uuid::NIL => Err(RecordError::Field("cluster_uuid")),
        cluster => Ok(Some(cluster)),
    }
}

fn get_seal(raw: &RawRecord, state: SpaceState) -> Result<Option<SuspensionSeal>, RecordError> {
    let features = raw.features_required.get() & MACHINE_FEATURES;
    if features != feature_of(state) {
        return Err(RecordError::Field("state"));
    }
    let seal = (features != 0).then(|| SuspensionSeal {
        notes: Crc32c(raw.notes_crc32c.get()),
        bitmap: Crc32c(raw.bitmap_crc32c.get()),
        checksums: Crc32c(raw.checksums_crc32c.get()),
    });
    Ok(seal)
}

fn get_missing(
    raw: &RawRecord,
    format: RecordFormat,
    contents: &Option<SpaceContents>,
) -> Result<MissingPages, RecordError> {
    if format == RecordFormat::Original {
        return Ok(MissingPages::default());
    }
    let used = raw.missing.get(..raw.missing_count.get() as usize);
    let used = used.ok_or(RecordError::Field("missing_count"))?;
    let pages = contents.as_ref().map_or(u32::MAX, |contents| contents.layout.pages());
    let range = |raw: &RawMissing| MissingRange { first: raw.first.get(), count: raw.count.get() };
    MissingPages::from_ranges(used.iter().map(range), pages).ok_or(RecordError::Field("missing"))
}

fn put_crash(raw: &mut RawRecord, crash: &RecordedCrash) {
    raw.crash_reason.set(crash.reason.0);
    raw.crash_detail.set(crash.detail as u32);
    raw.crash_time_ns.set(crash.time_ns);
    put_text(&mut raw.crash_text, &crash.text);
}

fn get_crash(
    raw: &RawRecord,
    format: RecordFormat,
    state: SpaceState,
) -> Result<Option<RecordedCrash>, RecordError> {
    let reason = CrashReason(raw.crash_reason.get());
    // The first release sealed some crashes without a reason, but none without its time; every dump
    // belongs to a crash.
    if reason == CrashReason::NONE && raw.crash_time_ns.get() == 0 && !state.holds_dump() {
        return Ok(None);
    }
    let text = get_text(&raw.crash_text).and_then(|text| ArrayString::from(text).ok());
    let text = text.ok_or(RecordError::Field("crash_text"))?;
    let time_ns = raw.crash_time_ns.get();
    let (name, detail, registers) = match format {
        RecordFormat::Original => {
            let space = Uuid(raw.space_uuid);
            let name = Uuid::of_dump(space, [raw.epoch.get(), time_ns, 0, 0]);
            (name, u64::from(raw.crash_detail.get()), ArrayVec::new())
        }
        RecordFormat::Extended => {
            let used = raw.registers.get(..raw.registers_len.get() as usize);
            let used = used.ok_or(RecordError::Field("registers_len"))?;
            let registers =
                ArrayVec::try_from(used).map_err(|_| RecordError::Field("registers_len"))?;
            (Uuid(raw.dump_uuid), raw.crash_detail_64.get(), registers)
        }
    };
    if name == Uuid::NIL {
        return Err(RecordError::Field("dump_uuid"));
    }
    Ok(Some(RecordedCrash { name, reason, detail, time_ns, text, registers }))
}

#[cfg(test)]
#[path = "codec_tests.rs"]
pub(super) mod tests;
