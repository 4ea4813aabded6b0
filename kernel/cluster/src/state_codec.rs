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

/// The largest number in a copy: no cluster comes to it, and the numbers after it fit a word.
pub(crate) const MOST: u64 = u64::MAX >> 1;
/// Bytes of all that is no row.
const FIXED: usize = 24 + 8 + 8 + 8 * USED_WORDS + 4 + 4;

const _: () = assert!(
    FIXED + MAX_MEMBERS * MEMBER_ROW + MAX_THINGS * THING_ROW <= crate::layout::MAX_STATE as usize
);

impl ClusterState {
    /// Returns the bytes that a copy needs.
    pub(crate) fn encoded_len(&self) -> usize {
        encoded_len(self.members.len(), self.things.len())
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
        let mut state = Self::new(bytes.len());
        let sequence = state.read(bytes)?;
        Ok((sequence, state))
    }

    /// Becomes the state of a copy, in place, and returns the copy's sequence number. A state has
    /// 25 KiB, so it is not passed by value where stacks are small.
    ///
    /// # Errors
    /// If the copy is empty, torn or newer; the state is then as before.
    pub fn read(&mut self, bytes: &[u8]) -> Result<u64, SectorError> {
        let (_, mut fields) = FieldReader::open(bytes, SectorKind::State)?;
        let (sequence, number) = (fields.u64(), fields.u64());
        let used = core::array::from_fn(|_| fields.u64());
        let (members, things) = (fields.u16(), fields.u16());
        let rows = fields;
        let is_whole = number <= MOST
            && usize::from(members) <= MAX_MEMBERS
            && usize::from(things) <= MAX_THINGS
            && encoded_len(members.into(), things.into()) <= bytes.len()
            && (0..members).all(|_| read_member(&mut fields).is_some())
            && (0..things).all(|_| read_thing(&mut fields).is_some());
        if !is_whole {
            return Err(SectorError::Torn);
        }
        (self.limit, self.number, self.used) = (bytes.len(), number, used);
        fields = rows;
        self.members.clear();
        self.members.extend((0..members).filter_map(|_| read_member(&mut fields)));
        self.things.clear();
        self.things.extend((0..things).filter_map(|_| read_thing(&mut fields)));
        Ok(sequence)
    }

    /// Returns the number of the last decree in a copy; `None` if it is not whole.
    pub fn number_of(bytes: &[u8]) -> Option<u64> {
        let (_, mut fields) = FieldReader::open(bytes, SectorKind::State).ok()?;
        let _sequence = fields.u64();
        Some(fields.u64())
    }

    /// Returns both copies of a slot.
    pub fn halves(both: &[u8]) -> [&[u8]; 2] {
        let (a, b) = both.split_at(both.len() / 2);
        [a, b]
    }

    /// Reads both copies of a slot and returns the later state that is whole.
    pub fn newer(both: &[u8]) -> Option<Self> {
        let mut copies = Self::halves(both);
        copies.sort_unstable_by_key(|copy| Self::number_of(copy));
        let mut state = Self::new(0);
        copies.iter().rev().any(|copy| state.read(copy).is_ok()).then_some(state)
    }
}

/// Returns the bytes of a copy with so many rows.
const fn encoded_len(members: usize, things: usize) -> usize {
    FIXED + members * MEMBER_ROW + things * THING_ROW
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
