//! The frame of every structure in the area that one member writes.
//!
//! ```text
//!   0      4        6     8             24                  len - 4
//!   ┌──────┬────────┬─────┬─────────────┬───── ─ ─ ─ ───────┬────────┐
//!   │ kind │version │slot │ incarnation │ fields            │ CRC32C │   little-endian
//!   └──────┴────────┴─────┴─────────────┴───── ─ ─ ─ ───────┴────────┘
//! ```
//!
//! Every version keeps kind, version and checksum at their places. So a newer structure is
//! recognised ([`SectorError::Newer`]), and a damaged version is not taken for a newer one.

use crate::crc::crc32c;
use crate::id::{Incarnation, MemberId};

/// Bytes of a sector: a disk writes one whole, or leaves a mixture that the checksum reveals.
pub const SECTOR: usize = 512;
/// Version of all structures that this program writes.
pub const VERSION: u16 = 1;
const CRC_LEN: usize = 4;

/// What a structure is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SectorKind {
    /// A claim to a slot.
    Join,
    /// A beat.
    Beat,
    /// A block of the log.
    Log,
    /// A copy of the state.
    State,
    /// A node's local copy.
    Local,
    /// A member's mail.
    Mail,
}

impl SectorKind {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Join => *b"TCJN",
            Self::Beat => *b"TCBT",
            Self::Log => *b"TCLG",
            Self::State => *b"TCST",
            Self::Local => *b"TCLC",
            Self::Mail => *b"TCML",
        }
    }
}

/// Why a structure cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SectorError {
    /// Zeros: never written.
    Empty,
    /// Half written, damaged or foreign.
    Torn,
    /// Written by a newer program.
    Newer(u16),
}

/// Writes fields one after the other.
pub struct FieldWriter<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> FieldWriter<'a> {
    /// Starts at byte 0 of `bytes`, which it clears.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        bytes.fill(0);
        Self { bytes, at: 0 }
    }

    /// Starts a structure of `member`.
    pub fn frame(bytes: &'a mut [u8], kind: SectorKind, member: MemberId) -> Self {
        let mut out = Self::new(bytes);
        out.raw(&kind.magic());
        out.u16(VERSION);
        out.member_fields(member);
        out
    }

    fn member_fields(&mut self, member: MemberId) {
        self.u16(member.slot);
        self.u128(member.incarnation.0);
    }

    /// Appends bytes. Those beyond the end are dropped; sizes are asserted at compile time.
    pub fn raw(&mut self, field: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.at..self.at + field.len()) {
            room.copy_from_slice(field);
        }
        self.at += field.len();
    }

    /// Appends a byte.
    pub fn u8(&mut self, value: u8) {
        self.raw(&[value]);
    }

    /// Appends two bytes.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends sixteen bytes.
    pub fn u128(&mut self, value: u128) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends slot and incarnation.
    pub fn member(&mut self, member: MemberId) {
        self.member_fields(member);
    }

    /// Returns the number of bytes so far.
    pub const fn len(&self) -> usize {
        self.at
    }

    /// Returns whether there is no byte yet.
    pub const fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Writes the checksum into the last four bytes.
    pub fn seal(self) {
        if let Some((body, crc)) = self.bytes.split_last_chunk_mut::<CRC_LEN>() {
            *crc = crc32c(body).to_le_bytes();
        }
    }
}

/// Reads fields one after the other. Fields beyond the end are zeros.
#[derive(Clone, Copy)]
pub struct FieldReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> FieldReader<'a> {
    /// Starts at byte 0.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Checks a structure and returns its writer and its fields.
    ///
    /// # Errors
    /// If it is empty, torn, of another kind, or of a newer version.
    pub fn open(bytes: &'a [u8], kind: SectorKind) -> Result<(MemberId, Self), SectorError> {
        let (body, crc) = bytes.split_last_chunk::<CRC_LEN>().ok_or(SectorError::Torn)?;
        let mut fields = Self::new(body);
        if fields.raw() != kind.magic() {
            return Err(if is_zero(bytes) { SectorError::Empty } else { SectorError::Torn });
        }
        if crc32c(body).to_le_bytes() != *crc {
            return Err(SectorError::Torn);
        }
        match fields.u16() {
            VERSION => {}
            newer if newer > VERSION => return Err(SectorError::Newer(newer)),
            _ => return Err(SectorError::Torn),
        }
        let member = fields.member();
        Ok((member, fields))
    }

    /// Returns the next `N` bytes.
    pub fn raw<const N: usize>(&mut self) -> [u8; N] {
        let field = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        self.at += N;
        field.copied().unwrap_or([0; N])
    }

    /// Returns the next byte.
    pub fn u8(&mut self) -> u8 {
        let [value] = self.raw();
        value
    }

    /// Returns the next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.raw())
    }

    /// Returns the next four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.raw())
    }

    /// Returns the next eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.raw())
    }

    /// Returns the next sixteen bytes.
    pub fn u128(&mut self) -> u128 {
        u128::from_le_bytes(self.raw())
    }

    /// Returns slot and incarnation.
    pub fn member(&mut self) -> MemberId {
        MemberId { slot: self.u16(), incarnation: Incarnation(self.u128()) }
    }
}

/// Returns whether all bytes are zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && rest.iter().all(|byte| *byte == 0)
}
