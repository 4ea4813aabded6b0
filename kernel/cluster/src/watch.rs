//! What a read of all beats tells: who may be suspected, and whether the own lease goes on.
//!
//! ```text
//!   sighting of a member:  new beat ── since := completion of this read
//!                          the same ── submission of this read >= since + W ──> may be suspected
//!   own lease:             no suspicion of me, no later decree known elsewhere ──> goes on
//! ```
//!
//! A beat that is half written or of a newer program shows life as long as its bytes change, and
//! "suspects everyone" for the reader's lease. If they stay, its writer is suspected like any
//! other: it died in the middle of the write. Beats of members that the log has fenced say
//! nothing: they know no decree as late as the reader's.

use crate::beat::{Beat, BeatMode};
use crate::crc::crc32c;
use crate::id::{Incarnation, MemberId};
use crate::sector::{SECTOR, SectorError};
use crate::state::{ClusterState, MemberStatus};
use crate::timing::ClusterTiming;

/// Incarnation and sequence of a beat; if it cannot be read, [`TORN`] with the checksum of its
/// bytes, and 0.
type BeatMark = (Incarnation, u64);

/// No incarnation begins like this: they are random.
const TORN: u128 = u128::MAX << 64;

/// What was seen last of a slot's beat. A watch keeps one a slot.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// The newest beat.
    mark: BeatMark,
    since_ns: u64,
    is_up: bool,
    mail: MailSighting,
}

/// A slot's mail, as far as it is known.
#[derive(Clone, Copy, Debug)]
struct MailSighting {
    /// Whose mail it is.
    of: Incarnation,
    /// What its beat says: 1 + the version of the block.
    told: u64,
    /// The version that was read last.
    read: u64,
    /// There was no room for all of it.
    has_more: bool,
}

/// Whether all of a block was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MailRest {
    /// All of it.
    Nothing,
    /// There was no room for the rest.
    More,
}

const NO_MAIL: MailSighting =
    MailSighting { of: Incarnation(0), told: 0, read: 0, has_more: false };

impl Sighting {
    /// Nothing was seen yet.
    pub const NEVER: Self =
        Self { mark: (Incarnation(0), 0), since_ns: 0, is_up: false, mail: NO_MAIL };
}

/// The beats that were seen last. `S` has a [`Sighting`] for each slot of the area, in an array or
/// on the caller's heap.
pub struct Watch<S> {
    seen: S,
}

/// Times of a turn.
#[derive(Clone, Copy, Debug)]
pub struct TurnTimes {
    /// Submission of the own beat.
    pub asked_ns: u64,
    /// Submission of the first read.
    pub read_ns: u64,
    /// Completion of the last one.
    pub seen_ns: u64,
}

/// What a turn has found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TurnFound {
    /// The own sector has other bytes than were written: the area or the machine is a copy.
    pub is_foreign: bool,
    /// Slot of the member that knows the latest decree, if it is later than the reader's.
    pub behind: Option<u16>,
    /// Another member suspects the reader, or may do so.
    pub is_suspected: bool,
    /// Another decree ends that suspicion, or tells more: it names the reader, or its writer is
    /// none that the reader knows.
    pub is_named: bool,
    /// A suspicion for the open decree stands in another member's beat.
    pub stands: bool,
    /// A member that may be suspected.
    pub want: Option<MemberId>,
    /// A fenced member that has signed off.
    pub left: Option<u16>,
}

impl<S: AsRef<[Sighting]> + AsMut<[Sighting]>> Watch<S> {
    /// Returns a watch whose sightings are all [`Sighting::NEVER`].
    pub const fn new(seen: S) -> Self {
        Self { seen }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.seen.as_mut().fill(Sighting::NEVER);
    }

    /// Judges the reads of all beats, one a majority's area. `mine` is the beat that was written
    /// before them.
    pub fn look(
        &mut self,
        mine: &Beat,
        state: &ClusterState,
        timing: &ClusterTiming,
        times: &TurnTimes,
        reads: &[&[u8]],
    ) -> TurnFound {
        let mut found = TurnFound::default();
        let mut latest = state.number();
        for slot in 0..self.seen.as_ref().len() as u16 {
            let sectors = reads.iter().map(|read| sector(read, slot));
            if slot == mine.member.slot {
                found.is_foreign = sectors.clone().any(|bytes| bytes != mine.encode());
                continue;
            }
            let mut newest: Option<Beat> = None;
            let mut torn = None;
            for bytes in sectors {
                match Beat::decode(bytes) {
                    Ok(beat) => {
                        if beat.known > latest {
                            (latest, found.behind) = (beat.known, Some(slot));
                        }
                        note_suspicion(&mut found, mine, state, &beat);
                        if newest.is_none_or(|other| other.sequence < beat.sequence) {
                            newest = Some(beat);
                        }
                    }
                    Err(SectorError::Empty) => {}
                    Err(SectorError::Torn | SectorError::Newer(_)) => {
                        // A slot that was used and is not up is a fenced member's.
                        found.is_suspected |= state.is_up(slot) || !state.was_used(slot);
                        found.is_named |= !state.was_used(slot) || mutant!(TornNamesAll);
                        torn = Some(bytes);
                    }
                }
            }
            let mark = match (&newest, torn) {
                (Some(beat), _) => Some((beat.member.incarnation, beat.sequence)),
                (None, Some(bytes)) if !mutant!(TornStandsStill) => {
                    // With the checksum at its end the sum would be the same for all.
                    let body = bytes.split_last_chunk::<4>().map_or(bytes, |(body, _)| body);
                    Some((Incarnation(TORN | u128::from(crc32c(body))), 0))
                }
                (None, _) => None,
            };
            self.sight(slot, (mark, newest.as_ref()), state, times);
            self.judge(&mut found, mine, slot, newest.as_ref(), state, timing, times);
        }
        found
    }

    /// Notes whether the beat has changed.
    fn sight(
        &mut self,
        slot: u16,
        (mark, newest): (Option<BeatMark>, Option<&Beat>),
        state: &ClusterState,
        times: &TurnTimes,
    ) {
        let Some(seen) = self.seen.as_mut().get_mut(usize::from(slot)) else { return };
        let since_ns = if mutant!(WatchFromSubmission) { times.read_ns } else { times.seen_ns };
        let mark = mark.unwrap_or(seen.mark);
        let is_new = mark.0 != seen.mark.0 || mark.1 > seen.mark.1;
        let is_up = state.is_up(slot);
        // A beat that cannot be read tells nothing of mail: what was read stays so.
        if let Some(beat) = newest.filter(|_| is_new) {
            let of = beat.member.incarnation;
            let before = if of == seen.mail.of { seen.mail } else { NO_MAIL };
            seen.mail = MailSighting { of, told: beat.mail, ..before };
        }
        if is_new {
            seen.mark = mark;
        }
        if is_new || is_up && !seen.is_up {
            seen.since_ns = since_ns;
        }
        seen.is_up = is_up;
    }

    /// Returns whether the member in a slot reads mail.
    pub(crate) fn reads_mail(&self, slot: u16) -> bool {
        self.seen.as_ref().get(usize::from(slot)).is_some_and(|seen| seen.mail.told > 0)
    }

    /// Returns the first slot from `from` on whose member has something that was not read yet.
    pub(crate) fn next_mail(&self, state: &ClusterState, from: u16) -> Option<u16> {
        let seen = self.seen.as_ref().iter().enumerate().skip(from.into());
        let is_new = |(slot, seen): &(usize, &Sighting)| {
            (seen.mail.told > seen.mail.read + 1 || seen.mail.has_more) && state.is_up(*slot as u16)
        };
        seen.clone().find(is_new).map(|(slot, _)| slot as u16)
    }

    /// Returns whether a version of a slot's block has something that was not read. An earlier one
    /// can be read after a later one while that is being written to several areas.
    pub(crate) fn has_news(&self, slot: u16, version: u64) -> bool {
        let Some(seen) = self.seen.as_ref().get(usize::from(slot)) else { return false };
        let mail = seen.mail;
        version > mail.read || version == mail.read && mail.has_more || mutant!(OldBlock)
    }

    /// Notes that a version of a slot's block was read.
    pub(crate) fn note_mail(&mut self, slot: u16, version: u64, rest: MailRest) {
        if let Some(seen) = self.seen.as_mut().get_mut(usize::from(slot)) {
            (seen.mail.read, seen.mail.has_more) = (version, rest == MailRest::More);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the whole of a turn")]
    fn judge(
        &self,
        found: &mut TurnFound,
        mine: &Beat,
        slot: u16,
        newest: Option<&Beat>,
        state: &ClusterState,
        timing: &ClusterTiming,
        times: &TurnTimes,
    ) {
        let Some(row) = state.member(slot) else { return };
        let has_left = newest.is_some_and(|beat| {
            beat.mode == BeatMode::Leaving && !beat.is_tainted && beat.member == row.id
        });
        match row.status {
            MemberStatus::Up => {
                let Some(seen) = self.seen.as_ref().get(usize::from(slot)) else { return };
                let is_old = times.read_ns >= seen.since_ns.saturating_add(timing.watch_ns());
                // The present suspect comes first, so that a suspicion can come to its end.
                let is_present = mine.suspicion.is_some_and(|suspicion| suspicion.who == row.id);
                if (is_old || has_left) && (found.want.is_none() || is_present) {
                    found.want = Some(row.id);
                }
            }
            MemberStatus::Fenced { .. } if has_left => found.left = Some(slot),
            MemberStatus::Fenced { .. } | MemberStatus::Quiet(_) => {}
        }
    }
}

fn sector(read: &[u8], slot: u16) -> &[u8] {
    let at = SECTOR * usize::from(slot);
    read.get(at..at + SECTOR).unwrap_or(&[])
}

fn note_suspicion(found: &mut TurnFound, mine: &Beat, state: &ClusterState, beat: &Beat) {
    let Some(suspicion) = beat.suspicion.filter(|one| one.known >= state.number()) else { return };
    found.stands = true;
    let is_me = suspicion.who == mine.member && !mutant!(SuspectBlind);
    found.is_suspected |= is_me;
    found.is_named |= is_me;
}
