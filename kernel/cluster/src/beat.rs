//! A beat: the sector by which a member shows that it is alive, what it knows, and whom it
//! suspects.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 24 | 8, 8 | sequence; nonce of this write |
//! | 40 | 8 | number of the last decree whose state copy this member has written |
//! | 48 | 1, 1 | mode: 1 up, 2 leaving; tainted: a request was abandoned |
//! | 50 | 2, 16 | the suspect's slot and incarnation; incarnation 0: no suspicion |
//! | 68 | 8 | number of the last decree that the suspecting member knew |
//! | 76 | 8 | bit n: reaches the cluster's device n |
//! | 84 | 4, 4 | free frames, in MiB; free spaces |
//! | 92 | 32 | name, UTF-8, zero-padded |
//! | 124 | 8 | mail: 1 + the version of the block; 0: it reads no mail (an older program) |

use crate::id::{Incarnation, MemberId};
use crate::sector::{FieldReader, FieldWriter, SECTOR, SectorError, SectorKind};

/// What a member says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BeatMode {
    /// It runs, or would like to.
    Up,
    /// It submits nothing any more, and everything that it submitted has completed.
    Leaving,
}

/// A suspicion. It has to lie on the disk before a fence is proposed, so that the suspect sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suspicion {
    /// The suspect.
    pub who: MemberId,
    /// Last decree that the suspecting member knew. A later decree ends the suspicion.
    pub known: u64,
}

/// A beat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beat {
    /// The writer.
    pub member: MemberId,
    /// Counted up with every beat.
    pub sequence: u64,
    /// Differs between two copies of a machine.
    pub nonce: u64,
    /// Last decree whose state copy this member has written.
    pub known: u64,
    /// What the member says about itself.
    pub mode: BeatMode,
    /// Set if a request was abandoned: it may still land.
    pub is_tainted: bool,
    /// The suspicion that stands.
    pub suspicion: Option<Suspicion>,
    /// What it says about the member beside that.
    pub details: BeatDetails,
    /// 1 + the version of its block of mail; 0 if it reads none.
    pub mail: u64,
}

/// What a beat says about its member for people and for placement. No rule depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BeatDetails {
    /// Devices of the cluster that the member reaches, one a bit.
    pub devices: u64,
    /// Free memory in MiB.
    pub free_mib: u32,
    /// Free spaces.
    pub free_spaces: u32,
    /// Name for people, UTF-8, zero-padded.
    pub name: [u8; 32],
}

impl BeatDetails {
    /// Says nothing.
    pub const NONE: Self = Self { devices: 0, free_mib: 0, free_spaces: 0, name: [0; 32] };

    /// Returns the name; a name that is no text is empty.
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        let name = self.name.get(..end).unwrap_or_default();
        core::str::from_utf8(name).unwrap_or_default()
    }
}

impl Beat {
    /// Returns a first beat without details.
    pub const fn new(member: MemberId) -> Self {
        Self {
            member,
            sequence: 0,
            nonce: 0,
            known: 0,
            mode: BeatMode::Up,
            is_tainted: false,
            suspicion: None,
            details: BeatDetails::NONE,
            mail: 0,
        }
    }

    /// Encodes the sector.
    pub fn encode(&self) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        let mut out = FieldWriter::frame(&mut bytes, SectorKind::Beat, self.member);
        out.u64(self.sequence);
        out.u64(self.nonce);
        out.u64(self.known);
        out.u8(match self.mode {
            BeatMode::Up => 1,
            BeatMode::Leaving => 2,
        });
        out.u8(self.is_tainted.into());
        let suspicion = self.suspicion.unwrap_or(Suspicion { who: MemberId::default(), known: 0 });
        out.member(suspicion.who);
        out.u64(suspicion.known);
        out.u64(self.details.devices);
        out.u32(self.details.free_mib);
        out.u32(self.details.free_spaces);
        out.raw(&self.details.name);
        out.u64(self.mail);
        out.seal();
        bytes
    }

    /// Decodes a sector.
    ///
    /// # Errors
    /// If it is empty, torn or newer.
    pub fn decode(bytes: &[u8]) -> Result<Self, SectorError> {
        let (member, mut fields) = FieldReader::open(bytes, SectorKind::Beat)?;
        let (sequence, nonce, known) = (fields.u64(), fields.u64(), fields.u64());
        let mode = match fields.u8() {
            1 => BeatMode::Up,
            2 => BeatMode::Leaving,
            _ => return Err(SectorError::Torn),
        };
        let is_tainted = fields.u8() != 0;
        let suspicion = Suspicion { who: fields.member(), known: fields.u64() };
        Ok(Self {
            member,
            sequence,
            nonce,
            known,
            mode,
            is_tainted,
            suspicion: (suspicion.who.incarnation != Incarnation(0)).then_some(suspicion),
            details: BeatDetails {
                devices: fields.u64(),
                free_mib: fields.u32(),
                free_spaces: fields.u32(),
                name: fields.raw(),
            },
            mail: fields.u64(),
        })
    }
}
