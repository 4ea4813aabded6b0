//! Suspended partitions that change hands: the log says whose they are, the record in which epoch
//! they were suspended.
//!
//! ```text
//!   Suspended ── give_away ──> Departing ── claim ended, decree ──> Shared (another member's, or cold)
//!       ^                          │ void
//!       └──── claimed again <──────┘
//!   Shared ── the log gives it to this member ──> opened ──> Suspended ── own_again ──> Resuming
//! ```
//!
//! * The epoch of a suspended state is the detail of its record. It is the log's while the member
//!   that wrote it is the owner, and the epoch before it after a hand-over.
//! * A partition goes on only after the log has an epoch that the suspended record does not have: a
//!   hand-over to this member, or a take-back. From then on no heir believes the record.
//! * What a fenced member has suspended may be inherited in place: everything before the record has
//!   completed, and nothing is written to the space without another decree.

use super::{SpaceId, SpacePhase, Spaces};
use crate::block::{Disk, DiskError};
use crate::space::{CrashReason, DeviceContent, SpaceRecord, SpaceState, Uuid};
use crate::storage::log_desk::{LogDesk, OwnError};
use crate::storage::spaces::SharedStanding;
use arrayvec::ArrayString;
use cluster::decree::Owner;
use cluster::inherit::{self, RecordState};
use cluster::state::{ClusterState, Thing, ThingRow, VoidError};

/// Why a suspended partition was not given away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GiveError {
    /// The space holds no suspended partition that waits.
    Gone,
    /// It is on no disk of a cluster.
    Alone,
    /// The disk's.
    Disk(DiskError),
    /// The log's.
    Owner(OwnError),
}

impl core::fmt::Display for GiveError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Gone => f.write_str("its suspended state is gone"),
            Self::Alone => f.write_str("its paging space is on no disk of a cluster"),
            Self::Disk(error) => write!(f, "{error}"),
            Self::Owner(error) => write!(f, "{error}"),
        }
    }
}

/// What a fenced member has left of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftSuspension {
    /// The partition's name.
    pub name: ArrayString<64>,
    /// The incarnation.
    pub incarnation: u64,
    /// The space, as the log names it.
    pub space: u128,
    /// The epoch of its record.
    pub sealed: u64,
    /// It was on its way to another node, and is to go on.
    pub is_to_go_on: bool,
}

/// Returns the part of a record that the rules of the cluster look at.
fn seen(record: &SpaceRecord) -> Option<inherit::SpaceRecord> {
    let is_suspended = record.state == SpaceState::Suspended;
    let epoch = record.crash.as_ref().filter(|_| is_suspended)?.detail;
    Some(inherit::SpaceRecord { state: RecordState::Suspended, epoch })
}

impl Spaces {
    /// Returns the epoch of a space that the log gives to this member.
    pub fn own_epoch(&self, id: SpaceId) -> Option<u64> {
        match self.standing(id) {
            Some((SharedStanding::Own, epoch)) => Some(epoch),
            _ => None,
        }
    }

    /// Returns the name of a space in the log, if its disk belongs to a cluster.
    pub fn name_in_log(&self, id: SpaceId) -> Option<u128> {
        self.log_of(id).map(|_| self.thing(id))
    }

    /// Returns the name in the log of the space in which a partition of this node runs.
    pub fn space_in_log(&self, owner: &str) -> Option<u128> {
        let user = Uuid::from_name(owner);
        let mut all = (0..self.spaces.len()).map(SpaceId);
        let id = all.find(|id| {
            let inner = self.space(*id).inner.lock();
            inner.phase == SpacePhase::Active && inner.user == Some(user)
        })?;
        self.name_in_log(id)
    }

    /// Returns the space with this name in the log, if its disk answers.
    pub fn find_in_log(&self, space: u128) -> Option<SpaceId> {
        let mut all = (0..self.spaces.len()).map(SpaceId);
        all.find(|id| self.name_in_log(*id) == Some(space) && !self.disk(*id).is_dead())
    }

    fn row(&self, id: SpaceId) -> Option<(u16, ThingRow)> {
        let thing = Thing::Space(self.thing(id));
        self.log_of(id)?.with_state(|me, state| (me, state.row(thing)))
    }

    /// Returns whether a space holds a suspended partition without an owner.
    pub(super) fn is_cold(&self, id: SpaceId) -> bool {
        self.row(id).is_some_and(|(_, row)| row.owner == Owner::Unowned && row.bound != 0)
    }

    /// Returns the cold space of a partition, and the epoch of its record; `None` if there is none.
    pub fn cold_space_of(&self, partition: u128) -> Option<(u128, u64)> {
        let find = |_, state: &ClusterState| {
            let is_its = |row: &&ThingRow| row.bound == partition && row.owner == Owner::Unowned;
            state.things().iter().find(is_its).and_then(|row| match row.thing {
                Thing::Space(space) => Some((space, row.before)),
                Thing::Partition(_) => None,
            })
        };
        self.log.get()?.with_state(find).flatten()
    }

    /// Returns whether the space holds a suspended partition that the log has given to this member,
    /// and that has not gone on here; its name. `None` while that is not known.
    pub fn arrived(&self, id: SpaceId) -> Option<Option<ArrayString<64>>> {
        let Some((me, row)) = self.row(id).filter(|(me, row)| row.owner == Owner::Slot(*me)) else {
            return Some(None);
        };
        debug_assert!(row.owner == Owner::Slot(me));
        let inner = self.space(id).inner.lock();
        let record = match inner.phase {
            SpacePhase::Shared | SpacePhase::Looking | SpacePhase::Failed(_) => return None,
            SpacePhase::Unusable if inner.record.is_none() => return None,
            SpacePhase::Suspended => inner.record.as_ref(),
            _ => None,
        };
        let fits = |record: &&SpaceRecord| {
            seen(record).is_some_and(|record| inherit::may_resume(record, &row))
        };
        let owner = record.filter(fits).and_then(|record| record.owner.as_ref());
        Some(owner.map(|owner| owner.name))
    }

    /// Has the log say that a suspended partition goes on here, before its record may say so.
    ///
    /// # Errors
    /// The log does not give it to this member, or the record is of an earlier owner.
    pub async fn own_again(&self, id: SpaceId) -> Result<(), OwnError> {
        let Some(log) = self.log_of(id) else { return Ok(()) };
        let (me, row) = self.row(id).ok_or(OwnError::NotMember)?;
        let mine = Owner::Slot(me);
        if row.owner != mine {
            return Err(OwnError::Void(VoidError::OtherOwner));
        }
        let record = self.record(id);
        let record = record.as_ref().and_then(seen);
        // Handed over to this member: the record is of the epoch before.
        if record.is_some_and(|record| inherit::may_resume(record, &row)) {
            return Ok(());
        }
        // What was adopted after its member was quiet has an epoch of that member; programs that
        // knew no epochs wrote 0.
        let is_adopted = self.node_as_partition() == Some(row.bound);
        let is_own = record.is_some_and(|record| [0, row.epoch].contains(&record.epoch));
        if !is_own && !is_adopted {
            return Err(OwnError::Void(VoidError::OldRecord));
        }
        let things = (row.bound, self.thing(id));
        log.hand_over(things, (mine, mine), row.epoch).await.map(drop)
    }

    /// Gives a suspended partition with its space to another member, or to none: then any member
    /// may resume it.
    ///
    /// # Errors
    /// [`GiveError`]; the partition is still suspended here, unless the membership has ended.
    pub async fn give_away(&'static self, id: SpaceId, to: Owner) -> Result<u64, GiveError> {
        let log = self.log_of(id).ok_or(GiveError::Alone)?;
        {
            let mut inner = self.space(id).inner.lock();
            if inner.phase != SpacePhase::Suspended {
                return Err(GiveError::Gone);
            }
            inner.phase = SpacePhase::Departing;
        }
        let given = self.give(id, log, to).await;
        match given {
            Ok(_) => {
                let mut inner = self.space(id).inner.lock();
                (inner.phase, inner.looked, inner.user) = (SpacePhase::Shared, None, None);
            }
            Err(_) => self.keep_at_home(id).await,
        }
        self.note_log();
        given
    }

    async fn give(
        &'static self,
        id: SpaceId,
        log: &'static LogDesk,
        to: Owner,
    ) -> Result<u64, GiveError> {
        // A request without an answer may still land.
        if self.disk(id).is_dead() {
            return Err(GiveError::Disk(DiskError::Dead));
        }
        let (me, row) = self.row(id).ok_or(GiveError::Owner(OwnError::NotMember))?;
        self.end_own_claim(id).await.map_err(GiveError::Disk)?;
        let things = (row.bound, self.thing(id));
        log.hand_over(things, (Owner::Slot(me), to), row.epoch).await.map_err(GiveError::Owner)
    }

    /// Ends this node's claim, so that the next owner need not watch it.
    pub(super) async fn end_own_claim(&self, id: SpaceId) -> Result<(), DiskError> {
        let holding = {
            let _turn = self.beats.turn(self.place(id).disk).await;
            self.space(id).inner.lock().holding.take()
        };
        match holding {
            Some(holding) => self.end_claim(id, &holding.claim()).await,
            None => Ok(()),
        }
    }

    /// Claims a space again that was not given away; it is opened anew if that fails.
    async fn keep_at_home(&'static self, id: SpaceId) {
        let is_own = self.own_epoch(id).is_some();
        let is_claimed = is_own && self.claim_space(id).await.is_ok() && !self.is_refused(id);
        let phase = if is_claimed { SpacePhase::Suspended } else { SpacePhase::Shared };
        let mut inner = self.space(id).inner.lock();
        (inner.phase, inner.looked) = (phase, None);
    }

    /// Gives a suspended partition on that the log has handed over to this member and that cannot
    /// go on here: the record says so in this member's epoch.
    ///
    /// # Errors
    /// As [`Self::give_away`].
    pub async fn hand_on(&'static self, id: SpaceId, to: Owner) -> Result<u64, GiveError> {
        let epoch = self.own_epoch(id).ok_or(GiveError::Owner(OwnError::NotMember))?;
        if !self.is_suspended(id) {
            return Err(GiveError::Gone);
        }
        let changed = self.change(id, |record| {
            record.crash.iter_mut().for_each(|crash| crash.detail = epoch);
        });
        changed.await.map_err(GiveError::Disk)?;
        self.give_away(id, to).await
    }

    /// Looks whether a fenced member has left a partition suspended, whole and in the log's epoch.
    pub async fn left_suspended(
        &'static self,
        partition: u128,
        from: Owner,
    ) -> Option<LeftSuspension> {
        let find = |_, state: &ClusterState| {
            let is_its = |row: &&ThingRow| row.bound == partition && row.owner == from;
            state.things().iter().find(is_its).copied()
        };
        let row = self.log.get()?.with_state(find).flatten()?;
        let Thing::Space(space) = row.thing else { return None };
        let id = self.find_in_log(space)?;
        let Ok(Some(DeviceContent::Space(record))) = self.class(id).await else { return None };
        let known = seen(&record).filter(|known| inherit::may_inherit(*known, &row))?;
        let is_to_go_on = record.crash.is_some_and(|crash| crash.reason == CrashReason::MOVED);
        let owner = record.owner?;
        let (name, incarnation) = (owner.name, owner.epoch);
        Some(LeftSuspension { name, incarnation, space, sealed: known.epoch, is_to_go_on })
    }
}
