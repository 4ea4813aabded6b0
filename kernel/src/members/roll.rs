//! The members as this node sees them: the state's rows with their last beats.

use super::find::name_of;
use crate::console::event::{ConsoleEvent, MemberReport};
use crate::console::report;
use crate::time::Ns;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use cluster::beat::{Beat, BeatMode};
use cluster::id::MemberId;
use cluster::sector::SECTOR;
use cluster::state::{ClusterState, MAX_MEMBERS, MemberStatus};

/// Where a member stands, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RollStatus {
    /// It takes part.
    Up,
    /// Its last beat says that it leaves.
    Leaving,
    /// It must not write; its writes may still land.
    Fenced,
    /// Nothing of it lands any more; it still owns something.
    Quiet,
}

impl RollStatus {
    /// Returns the word in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Leaving => "leaving",
            Self::Fenced => "fenced",
            Self::Quiet => "quiet",
        }
    }

    fn of(status: MemberStatus, beat: Option<&Beat>) -> Self {
        let has_left = beat.is_some_and(|beat| beat.mode == BeatMode::Leaving);
        match status {
            MemberStatus::Up if has_left => Self::Leaving,
            MemberStatus::Up => Self::Up,
            MemberStatus::Fenced { .. } => Self::Fenced,
            MemberStatus::Quiet(_) => Self::Quiet,
        }
    }
}

/// A member.
#[derive(Clone, Copy, Debug)]
pub struct RollRow {
    /// Slot and incarnation.
    pub id: MemberId,
    /// Where it stands.
    pub status: RollStatus,
    /// Its last beat.
    pub beat: Option<Beat>,
    /// When that was seen first.
    pub seen_ns: Ns,
    /// It is this node.
    pub is_own: bool,
    /// Milliseconds until it had read the last message that this node has sent to it.
    pub mail_ms: Option<u64>,
}

impl RollRow {
    /// Returns its name; empty before its first beat was seen.
    pub fn name(&self) -> &str {
        self.beat.as_ref().map_or("", |beat| beat.details.name())
    }

    /// Describes it for events; `id` is that of a command.
    pub fn report(&self, id: Option<u64>, now_ns: Ns) -> MemberReport<'_> {
        let details = self.beat.as_ref().map(|beat| &beat.details);
        MemberReport {
            id,
            node: self.name(),
            slot: self.id.slot,
            incarnation: name_of(self.id.incarnation.0),
            state: self.status.as_str(),
            own: self.is_own,
            age_ms: self.beat.map(|_| now_ns.saturating_sub(self.seen_ns).as_u64() / 1_000_000),
            decree: self.beat.map(|beat| beat.known),
            free_mib: details.map_or(0, |details| details.free_mib),
            free_spaces: details.map_or(0, |details| details.free_spaces),
            areas: details.map_or(0, |details| details.devices),
            mail_ms: self.mail_ms,
        }
    }
}

/// All members.
pub(super) struct MemberRoll {
    rows: Vec<RollRow>,
    /// Slot of the last living member with this node's name that was told.
    namesake: Option<u16>,
    /// Differs after each change.
    version: u64,
}

impl MemberRoll {
    pub(super) fn new() -> Self {
        Self { rows: Vec::with_capacity(MAX_MEMBERS), namesake: None, version: 0 }
    }

    pub(super) fn rows(&self) -> &[RollRow] {
        &self.rows
    }

    /// Returns a number that differs after each change.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the name of the member in a slot.
    pub(super) fn name_of(&self, slot: u16) -> String {
        let row = self.rows.iter().find(|row| row.id.slot == slot);
        row.map_or_else(String::new, |row| row.name().into())
    }

    /// Notes how long a message was on its way; returns its reader's name.
    pub(super) fn note_mail(&mut self, slot: u16, ms: u64) -> String {
        if let Some(row) = self.rows.iter_mut().find(|row| row.id.slot == slot) {
            row.mail_ms = Some(ms);
        }
        self.name_of(slot)
    }

    /// Takes a new state and what was read of all beats, and tells what has changed.
    pub(super) fn update(
        &mut self,
        me: MemberId,
        state: &ClusterState,
        beats: Option<&[&[u8]]>,
        now_ns: Ns,
    ) {
        self.version += 1;
        let own = self.rows.iter().find(|row| row.id == me).and_then(|row| row.beat);
        for row in state.members() {
            let found = beats.and_then(|reads| newest(reads, row.id));
            let old = self.rows.iter_mut().find(|old| old.id == row.id);
            let (mut next, before) = match &old {
                Some(old) => (**old, Some((old.status, old.beat.is_some()))),
                None => {
                    let (status, is_own) = (RollStatus::Up, row.id == me);
                    let (beat, seen_ns, mail_ms) = (None, now_ns, None);
                    (RollRow { id: row.id, status, beat, seen_ns, is_own, mail_ms }, None)
                }
            };
            if let Some(beat) = found
                && next.beat.is_none_or(|old| old.sequence != beat.sequence)
            {
                let is_alive = next.beat.is_some() && row.status == MemberStatus::Up;
                (next.beat, next.seen_ns) = (Some(beat), now_ns);
                let is_own_name = own.is_some_and(|own| own.details.name == beat.details.name);
                if is_alive && is_own_name && row.id != me && self.namesake != Some(row.id.slot) {
                    self.namesake = Some(row.id.slot);
                    namesake(&next);
                }
            }
            next.is_own = row.id == me;
            next.status = RollStatus::of(row.status, next.beat.as_ref());
            // A member is told with its name, once its first beat was seen.
            let is_news = before != Some((next.status, next.beat.is_some()));
            match old {
                Some(old) => *old = next,
                None => self.rows.push(next),
            }
            if is_news && (next.beat.is_some() || next.status == RollStatus::Fenced) {
                report(&ConsoleEvent::Member(next.report(None, now_ns)));
            }
        }
        self.rows.retain(|row| {
            let stays = state.members().iter().any(|member| member.id == row.id);
            if !stays {
                let gone = MemberReport { state: "gone", ..row.report(None, now_ns) };
                report(&ConsoleEvent::Member(gone));
            }
            stays
        });
    }
}

/// Tells that another living member has this node's name. (An earlier start of the same node does
/// not beat any more.)
fn namesake(row: &RollRow) {
    let message = format!(
        "the name {} is in use: the member in slot {} has it too, and `fence confirm` and `nodes` \
         cannot tell the two apart; give one of them another name",
        row.name(),
        row.id.slot
    );
    report(&ConsoleEvent::Error { place: "[cluster] name", message: &message });
}

/// Returns a member's newest beat.
fn newest(reads: &[&[u8]], id: MemberId) -> Option<Beat> {
    let at = SECTOR * usize::from(id.slot);
    let sectors = reads.iter().filter_map(|read| read.get(at..at + SECTOR));
    let beats = sectors.filter_map(|bytes| Beat::decode(bytes).ok());
    beats.filter(|beat| beat.member == id).max_by_key(|beat| beat.sequence)
}
