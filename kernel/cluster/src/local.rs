//! The local copy: what a node knew last of its cluster, on a device of the node's own.
//!
//! It answers where the area does not, and it reveals an area that was restored from an old image:
//! a decree that a beat has announced is never forgotten by the area.
//!
//! ```text
//!   0        4096            4096 + C            4096 + 2 C       C = 28,672
//!   ┌────────┬───────────────┬───────────────────┐
//!   │ header │ copy A        │ copy B            │   written in turn, the higher sequence counts
//!   └────────┴───────────────┴───────────────────┘
//! ```
//!
//! | structure | fields |
//! |---|---|
//! | header, 512 bytes | magic `TIDELOCL` 8, version 4 (1), required features 8 (none yet), zeros, CRC32C in the last 4 |
//! | copy, framed as in [`crate::sector`], kind `TCLC` | sequence 8, cluster's uuid 16, decree announced 8, written at 8 (ns since 1970), is a member 1, name 32, slots used 2, slots 2, rows 2, bytes of the state 4, rows, state |
//! | row, 77 bytes | slot 2, incarnation 16, status 1 (1 up, 2 leaving, 3 fenced, 4 quiet), own 1, name 32, has a beat 1, its age in ms 8, its decree 8, free MiB 4, free spaces 4 |

use crate::crc::crc32c;
use crate::id::MemberId;
use crate::layout::{Extent, Half, MAX_STATE};
use crate::sector::{FieldReader, FieldWriter, SECTOR, SectorError, SectorKind};
use crate::state::MAX_MEMBERS;
use crate::state_codec::MOST;

/// The first bytes of a device for local copies.
pub const LOCAL_MAGIC: &[u8; 8] = b"TIDELOCL";
/// Bytes of a copy.
pub const COPY: usize = 28 * 1024;
/// Bytes that a device needs.
pub const LOCAL_BYTES: u64 = (FIRST + 2 * COPY) as u64;

const FIRST: usize = 4096;
const LOCAL_VERSION: u32 = 1;
const ROW: usize = 77;
const HEAD: usize = 24 + 8 + 16 + 8 + 8 + 1 + 32 + 2 + 2 + 2 + 4;
const _: () = assert!(HEAD + MAX_MEMBERS * ROW + MAX_STATE as usize + 4 <= COPY);

/// Where a member stood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalStatus {
    /// It took part.
    Up,
    /// Its last beat said that it leaves.
    Leaving,
    /// It was fenced.
    Fenced,
    /// Nothing of it could land any more.
    Quiet,
}

/// A member as it was seen last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalRow {
    /// Its slot and incarnation.
    pub id: MemberId,
    /// Where it stood.
    pub status: LocalStatus,
    /// It was the node that wrote the copy.
    pub is_own: bool,
    /// Its name, filled up with zeros.
    pub name: [u8; 32],
    /// Its last beat, if one was seen.
    pub beat: Option<LocalBeat>,
}

/// What the last beat of a member said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalBeat {
    /// Its age when the copy was written.
    pub age_ms: u64,
    /// The last decree that it announced.
    pub decree: u64,
    /// Free MiB of its pool.
    pub free_mib: u32,
    /// Its free paging spaces.
    pub free_spaces: u32,
}

/// What a node knew of its cluster, without members and state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalCopy {
    /// Who wrote it.
    pub member: MemberId,
    /// Number of the copy.
    pub sequence: u64,
    /// The cluster's name.
    pub cluster: u128,
    /// The last decree that the writer has announced in a beat.
    pub decree: u64,
    /// When it was written, in nanoseconds since 1970.
    pub written_ns: u64,
    /// The writer was a member.
    pub is_member: bool,
    /// The writer's name, filled up with zeros.
    pub name: [u8; 32],
    /// Slots that were ever used.
    pub used: u16,
    /// Slots of the area.
    pub slots: u16,
}

/// What a device's two copies say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalFound {
    /// Nothing was written yet.
    Blank,
    /// The last copy. `is_mended` if the other one is damaged.
    Copy {
        /// The copy.
        copy: LocalCopy,
        /// Its place.
        half: Half,
        /// The other copy is damaged.
        is_mended: bool,
    },
    /// No copy is whole.
    Torn,
    /// A newer program has written one; this one leaves the device alone.
    Newer(u16),
}

/// Why a device is no device for local copies of this program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalHeaderError {
    /// It has no such header.
    Foreign,
    /// The header is damaged.
    Torn,
    /// A newer program has made it.
    Newer(u32),
    /// It needs features that this program does not know.
    Features(u64),
}

impl core::fmt::Display for LocalHeaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Foreign => f.write_str("it has no header of a local copy"),
            Self::Torn => f.write_str("its header is damaged"),
            Self::Newer(version) => write!(f, "it has version {version}, this program knows 1"),
            Self::Features(bits) => write!(f, "it needs unknown features {bits:#x}"),
        }
    }
}

/// Makes the header.
pub fn header() -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    let mut out = FieldWriter::new(&mut bytes);
    out.raw(LOCAL_MAGIC);
    out.u32(LOCAL_VERSION);
    out.u64(0);
    out.seal();
    bytes
}

/// Checks a header.
///
/// # Errors
/// [`LocalHeaderError`] says why the device is left alone.
pub fn check_header(bytes: &[u8]) -> Result<(), LocalHeaderError> {
    let bytes: &[u8; SECTOR] = bytes.first_chunk().ok_or(LocalHeaderError::Foreign)?;
    let mut fields = FieldReader::new(bytes);
    if fields.raw() != *LOCAL_MAGIC {
        return Err(LocalHeaderError::Foreign);
    }
    let (version, features) = (fields.u32(), fields.u64());
    if bytes.split_last_chunk().is_none_or(|(body, crc)| crc32c(body).to_le_bytes() != *crc) {
        return Err(LocalHeaderError::Torn);
    }
    match (version, features) {
        (LOCAL_VERSION, 0) => Ok(()),
        (LOCAL_VERSION, bits) => Err(LocalHeaderError::Features(bits)),
        (newer, _) => Err(LocalHeaderError::Newer(newer)),
    }
}

/// Returns the place of a copy.
pub const fn place(half: Half) -> Extent {
    let number = match half {
        Half::A => 0,
        Half::B => 1,
    };
    Extent { at: (FIRST + number * COPY) as u64, len: COPY }
}

/// Judges both copies.
pub fn found(copies: [&[u8]; 2]) -> LocalFound {
    let read = copies.map(LocalCopy::decode);
    if let Some(version) = read.iter().find_map(|one| match one {
        Err(SectorError::Newer(version)) => Some(*version),
        _ => None,
    }) {
        return LocalFound::Newer(version);
    }
    let is_blank = read.iter().all(|one| *one == Err(SectorError::Empty));
    let is_mended = read.contains(&Err(SectorError::Torn));
    let whole = read.into_iter().zip([Half::A, Half::B]);
    let whole = whole.filter_map(|(one, half)| Some((one.ok()?, half)));
    match whole.max_by_key(|(copy, _)| copy.sequence) {
        Some((copy, half)) => LocalFound::Copy { copy, half, is_mended },
        None if is_blank => LocalFound::Blank,
        None => LocalFound::Torn,
    }
}

impl LocalCopy {
    /// Writes the copy with members and a state into `bytes`, a copy's room.
    pub fn encode(
        &self,
        rows: impl ExactSizeIterator<Item = LocalRow>,
        state: &[u8],
        bytes: &mut [u8],
    ) {
        let mut out = FieldWriter::frame(bytes, SectorKind::Local, self.member);
        out.u64(self.sequence);
        out.u128(self.cluster);
        out.u64(self.decree);
        out.u64(self.written_ns);
        out.u8(self.is_member.into());
        out.raw(&self.name);
        out.u16(self.used);
        out.u16(self.slots);
        let count = rows.len().min(MAX_MEMBERS);
        out.u16(count as u16);
        out.u32(state.len() as u32);
        rows.take(count).for_each(|row| row.write(&mut out));
        out.raw(state);
        out.seal();
    }

    /// Reads a copy.
    ///
    /// # Errors
    /// If it is empty, torn or newer.
    pub fn decode(bytes: &[u8]) -> Result<Self, SectorError> {
        let (copy, count, state, mut fields) = Self::open(bytes)?;
        let is_whole = copy.sequence <= MOST
            && count <= MAX_MEMBERS
            && state <= MAX_STATE as usize
            && (0..count).all(|_| LocalRow::read(&mut fields).is_some());
        if is_whole { Ok(copy) } else { Err(SectorError::Torn) }
    }

    /// Returns the fields before the rows, the numbers of rows and of the bytes of the state, and
    /// what follows.
    fn open(bytes: &[u8]) -> Result<(Self, usize, usize, FieldReader<'_>), SectorError> {
        let (member, mut fields) = FieldReader::open(bytes, SectorKind::Local)?;
        let copy = Self {
            member,
            sequence: fields.u64(),
            cluster: fields.u128(),
            decree: fields.u64(),
            written_ns: fields.u64(),
            is_member: fields.u8() == 1,
            name: fields.raw(),
            used: fields.u16(),
            slots: fields.u16(),
        };
        Ok((copy, fields.u16().into(), fields.u32() as usize, fields))
    }

    /// Returns the members in a copy that [`Self::decode`] has taken.
    pub fn rows(bytes: &[u8]) -> impl Iterator<Item = LocalRow> {
        let opened = Self::open(bytes).ok();
        let (count, mut fields) =
            opened.map_or((0, FieldReader::new(&[])), |(_, count, _, fields)| (count, fields));
        (0..count).map_while(move |_| LocalRow::read(&mut fields))
    }

    /// Returns the state in a copy that [`Self::decode`] has taken.
    pub fn state(bytes: &[u8]) -> &[u8] {
        let Ok((_, count, len, _)) = Self::open(bytes) else { return &[] };
        let at = HEAD + count * ROW;
        bytes.get(at..at.saturating_add(len)).unwrap_or(&[])
    }
}

impl LocalRow {
    fn write(&self, out: &mut FieldWriter<'_>) {
        out.member(self.id);
        out.u8(match self.status {
            LocalStatus::Up => 1,
            LocalStatus::Leaving => 2,
            LocalStatus::Fenced => 3,
            LocalStatus::Quiet => 4,
        });
        out.u8(self.is_own.into());
        out.raw(&self.name);
        out.u8(self.beat.is_some().into());
        let beat =
            self.beat.unwrap_or(LocalBeat { age_ms: 0, decree: 0, free_mib: 0, free_spaces: 0 });
        out.u64(beat.age_ms);
        out.u64(beat.decree);
        out.u32(beat.free_mib);
        out.u32(beat.free_spaces);
    }

    fn read(fields: &mut FieldReader<'_>) -> Option<Self> {
        let id = fields.member();
        let status = match fields.u8() {
            1 => LocalStatus::Up,
            2 => LocalStatus::Leaving,
            3 => LocalStatus::Fenced,
            4 => LocalStatus::Quiet,
            _ => return None,
        };
        let (is_own, name, has_beat) = (fields.u8() == 1, fields.raw(), fields.u8() == 1);
        let (age_ms, decree) = (fields.u64(), fields.u64());
        let (free_mib, free_spaces) = (fields.u32(), fields.u32());
        let beat = has_beat.then_some(LocalBeat { age_ms, decree, free_mib, free_spaces });
        Some(Self { id, status, is_own, name, beat })
    }

    /// Returns the member's name; empty before its first beat.
    pub fn text(&self) -> &str {
        text(&self.name)
    }
}

/// Returns a name without the zeros behind it.
pub fn text(name: &[u8; 32]) -> &str {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    core::str::from_utf8(&name[..end]).unwrap_or("?")
}
