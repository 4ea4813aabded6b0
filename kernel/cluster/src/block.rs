//! A member's block of the log (Disk Paxos). It has two copies, written in turn, so that a torn
//! write leaves the block before it.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 24 | 8 | sequence: the copy with the higher one counts |
//! | 32 | 8 | number of the decree |
//! | 40 | 8 | `mbal`: ballot that the member has begun |
//! | 48 | 8 | `bal`: ballot in which it accepted a value; 0: none |
//! | 56 | 192 | the value |

use crate::decree::Decree;
use crate::id::MemberId;
use crate::layout::Half;
use crate::sector::{FieldReader, FieldWriter, SECTOR, SectorError, SectorKind};

/// A block of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogBlock {
    /// The writer.
    pub member: MemberId,
    /// Number of this write; also says which copy it is.
    pub sequence: u64,
    /// Number of the decree that is being decided.
    pub number: u64,
    /// Ballot that the member has begun.
    pub begun: u64,
    /// Ballot in which it accepted a value, and the value.
    pub accepted: Option<(u64, Decree)>,
}

impl LogBlock {
    /// Returns the copy that this write goes to.
    pub const fn half(&self) -> Half {
        Half::of(self.sequence)
    }

    /// Encodes the sector.
    pub fn encode(&self) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        let mut out = FieldWriter::frame(&mut bytes, SectorKind::Log, self.member);
        out.u64(self.sequence);
        out.u64(self.number);
        out.u64(self.begun);
        out.u64(self.accepted.map_or(0, |(ballot, _)| ballot));
        if let Some((_, value)) = self.accepted {
            value.write(&mut out);
        }
        out.seal();
        bytes
    }

    /// Decodes a sector.
    ///
    /// # Errors
    /// If it is empty, torn or newer.
    pub fn decode(bytes: &[u8]) -> Result<Self, SectorError> {
        let (member, mut fields) = FieldReader::open(bytes, SectorKind::Log)?;
        let (sequence, number, begun) = (fields.u64(), fields.u64(), fields.u64());
        let accepted = match fields.u64() {
            0 => None,
            ballot => Some((ballot, Decree::read(&mut fields).ok_or(SectorError::Torn)?)),
        };
        Ok(Self { member, sequence, number, begun, accepted })
    }

    /// Decodes both copies of a slot and returns the newer of the whole ones.
    ///
    /// # Errors
    /// If neither is: a newer program's copy is reported first, then a torn one.
    pub fn newer(both: &[u8]) -> Result<Self, SectorError> {
        let (a, b) = both.split_at_checked(SECTOR).ok_or(SectorError::Torn)?;
        match (Self::decode(a), Self::decode(b)) {
            (Ok(a), Ok(b)) => Ok(if a.sequence > b.sequence { a } else { b }),
            (Err(SectorError::Newer(version)), _) | (_, Err(SectorError::Newer(version))) => {
                Err(SectorError::Newer(version))
            }
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(SectorError::Empty), Err(SectorError::Empty)) => Err(SectorError::Empty),
            _ => Err(SectorError::Torn),
        }
    }
}
