//! The state on disk: the copy from which a member that is behind, or a joiner, learns.
//!
//! ```text
//!   24  sequence 8 │ number 8 │ used slots 128 │ members 2 │ things 2 │ rows ... │ zeros │ CRC32C
//! ```
//!
//! | row | fields |
//! |---|---|
//! | member, 29 bytes | slot 2, incarnation 16, status 1 (1 up, 2 fenced, 3 quiet), heir or proof 2, since 8 |
//! | thing, 51 bytes | kind 1 (1 partition, 2 space), name 16, owner 2, epoch 8, epoch before 8, bound 16 |
//!
//! A slot has two copies, written in turn. A decree that would make the state too large for a copy
//! is void, so every state can be written.

use crate::decree::{Owner, QuietProof};
use crate::id::MemberId;
use crate::sector::{FieldReader, FieldWriter, SectorError, SectorKind};
use crate::state::{
    ClusterState, MAX_MEMBERS, MAX_THINGS, MEMBER_ROW, MemberRow, MemberStatus, THING_ROW, Thing,
    ThingRow, USED_WORDS,
};

/// Bytes of all that is no row.
const FIXED: usize = 24 + 8 + 8 + 8 * USED_WORDS + 4 + 4;

const _: () = assert!(
    FIXED + MAX_MEMBERS * MEMBER_ROW + MAX_THINGS * THING_ROW <= crate::layout::MAX_STATE as usize
);

impl ClusterState {
    /// Returns the bytes that a copy needs.
    pub(crate) fn encoded_len(&self) -> usize {
        FIXED + self.members.len() * MEMBER_ROW + self.things.len() * THING_ROW
    }

    /// Writes a copy, which fills `bytes`.
    pub fn encode(&self, writer: MemberId, sequence: u64, bytes: &mut [u8]) {
        let mut out = FieldWriter::frame(bytes, SectorKind::State, writer);
        out.u64(sequence);
        out.u64(self.number);
        self.used.iter().for_each(|word| out.u64(*word));
        out.u16(self.members.len() as u16);
        out.u16(self.things.len() as u16);
        for row in &self.members {
            out.member(row.id);
            let (status, detail) = match row.status {
                MemberStatus::Up => (1, 0),
                MemberStatus::Fenced { heir } => (2, heir),
                MemberStatus::Quiet(QuietProof::Left) => (3, 1),
                MemberStatus::Quiet(QuietProof::Confirmed) => (3, 2),
            };
            out.u8(status);
            out.u16(detail);
            out.u64(row.since);
        }
        for row in &self.things {
            let (kind, name) = match row.thing {
                Thing::Partition(name) => (1, name),
                Thing::Space(name) => (2, name),
            };
            out.u8(kind);
            out.u128(name);
            row.owner.write(&mut out);
            out.u64(row.epoch);
            out.u64(row.before);
            out.u128(row.bound);
        }
        out.seal();
    }

    /// Reads a copy and its sequence number.
    ///
    /// # Errors
    /// If it is empty, torn or newer.
    pub fn decode(bytes: &[u8]) -> Result<(u64, Self), SectorError> {
        let (_, mut fields) = FieldReader::open(bytes, SectorKind::State)?;
        let mut state = Self::new(bytes.len());
        let sequence = fields.u64();
        state.number = fields.u64();
        state.used = core::array::from_fn(|_| fields.u64());
        let (members, things) = (fields.u16(), fields.u16());
        for _ in 0..members {
            let row = read_member(&mut fields).ok_or(SectorError::Torn)?;
            state.members.try_push(row).map_err(|_| SectorError::Torn)?;
        }
        for _ in 0..things {
            let row = read_thing(&mut fields).ok_or(SectorError::Torn)?;
            state.things.try_push(row).map_err(|_| SectorError::Torn)?;
        }
        if state.encoded_len() > bytes.len() {
            return Err(SectorError::Torn);
        }
        Ok((sequence, state))
    }

    /// Reads both copies of a slot and returns the later state that is whole.
    pub fn newer(both: &[u8]) -> Option<Self> {
        let (a, b) = both.split_at_checked(both.len() / 2)?;
        match (Self::decode(a), Self::decode(b)) {
            (Ok((_, a)), Ok((_, b))) => Some(if a.number > b.number { a } else { b }),
            (Ok((_, one)), Err(_)) | (Err(_), Ok((_, one))) => Some(one),
            (Err(_), Err(_)) => None,
        }
    }
}

fn read_member(fields: &mut FieldReader<'_>) -> Option<MemberRow> {
    let id = fields.member();
    let status = match (fields.u8(), fields.u16()) {
        (1, _) => MemberStatus::Up,
        (2, heir) => MemberStatus::Fenced { heir },
        (3, 1) => MemberStatus::Quiet(QuietProof::Left),
        (3, 2) => MemberStatus::Quiet(QuietProof::Confirmed),
        _ => return None,
    };
    Some(MemberRow { id, status, since: fields.u64() })
}

fn read_thing(fields: &mut FieldReader<'_>) -> Option<ThingRow> {
    let thing = match (fields.u8(), fields.u128()) {
        (1, name) => Thing::Partition(name),
        (2, name) => Thing::Space(name),
        _ => return None,
    };
    Some(ThingRow {
        thing,
        owner: Owner::read(fields),
        epoch: fields.u64(),
        before: fields.u64(),
        bound: fields.u128(),
    })
}
