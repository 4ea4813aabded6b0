//! The state after a decree: members, owners, epochs. Every member computes it by the same rules,
//! so equal numbers mean equal states.
//!
//! ```text
//!   member:  used slot ── member ──> Up ── fence ──> Fenced ── quiet ──> Quiet (dropped when it owns nothing)
//!   space:   free ── take ──> owned, bound ── hand over ──> owned by another, or cold
//!             ^                    │ fence of the owner: quarantined; only "sealed" leaves it
//!             └──── release ───────┘ by the owner, or after quiet
//! ```
//!
//! The *epoch* of a partition or a space is the number of the decree that gave it to its owner.

use crate::decree::{Decree, Owner, QuietProof};
use crate::id::{Incarnation, MemberId};
use arrayvec::ArrayVec;

/// Bytes of a member's row in its coded form.
pub(crate) const MEMBER_ROW: usize = 29;
/// Bytes of a thing's row in its coded form.
pub(crate) const THING_ROW: usize = 51;
/// Most members that the state can name, quarantined ones included.
pub const MAX_MEMBERS: usize = 128;
/// Most partitions and spaces that the state can name.
pub const MAX_THINGS: usize = 240;
/// Words of the bitmap of used slots.
pub(crate) const USED_WORDS: usize = 16;

/// Where a member stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemberStatus {
    /// It takes part.
    Up,
    /// It must not write; its writes may still land.
    Fenced {
        /// Slot of the heir.
        heir: u16,
    },
    /// Nothing of it lands any more.
    Quiet(QuietProof),
}

/// A member in the state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MemberRow {
    /// Slot and incarnation.
    pub id: MemberId,
    /// Where it stands.
    pub status: MemberStatus,
    /// The decree that set the status.
    pub since: u64,
}

/// What a row is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Thing {
    /// A partition.
    Partition(u128),
    /// A space.
    Space(u128),
}

/// A partition or a space in the state. Those that have no row are unowned, with epoch 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ThingRow {
    /// What it is about.
    pub thing: Thing,
    /// The owner.
    pub owner: Owner,
    /// The decree that gave it to the owner.
    pub epoch: u64,
    /// The epoch of the owner before: that of the record that it has left.
    pub before: u64,
    /// Of a space: the partition that it is bound to; 0: none.
    pub bound: u128,
}

/// Why a decree has no effect. It still uses up its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoidError {
    /// The slot was used before.
    SlotUsed,
    /// A member that it names is not up.
    NotUp,
    /// The member is not fenced.
    NotFenced,
    /// The owner is another one than it says.
    OtherOwner,
    /// The owner is fenced, and not known to be quiet.
    Quarantined,
    /// The record that the proposer read is of another epoch.
    OldRecord,
    /// The space is bound to another partition.
    Bound,
    /// The tables are full.
    Full,
}

/// The state after a decree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterState {
    /// Most bytes of a copy on disk.
    pub(crate) limit: usize,
    pub(crate) number: u64,
    pub(crate) used: [u64; USED_WORDS],
    pub(crate) members: ArrayVec<MemberRow, MAX_MEMBERS>,
    pub(crate) things: ArrayVec<ThingRow, MAX_THINGS>,
}

impl ClusterState {
    /// Returns the number of bytes of a copy.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the state before the first decree; a copy has at most `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            number: 0,
            used: [0; USED_WORDS],
            members: ArrayVec::new_const(),
            things: ArrayVec::new_const(),
        }
    }

    /// Becomes like another state, in place: a state is larger than a kernel stack likes.
    pub fn copy_from(&mut self, other: &Self) {
        (self.limit, self.number, self.used) = (other.limit, other.number, other.used);
        self.members.clone_from(&other.members);
        self.things.clone_from(&other.things);
    }

    /// Goes back to the state before the first decree.
    pub(crate) fn clear(&mut self) {
        (self.number, self.used) = (0, [0; USED_WORDS]);
        self.members.clear();
        self.things.clear();
    }

    /// Returns the number of the last decree.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Returns the members, quarantined ones included.
    pub fn members(&self) -> &[MemberRow] {
        &self.members
    }

    /// Returns the partitions and spaces.
    pub fn things(&self) -> &[ThingRow] {
        &self.things
    }

    /// Returns the member in a slot.
    pub fn member(&self, slot: u16) -> Option<&MemberRow> {
        self.members.iter().find(|row| row.id.slot == slot)
    }

    /// Returns whether the member in a slot takes part.
    pub fn is_up(&self, slot: u16) -> bool {
        self.member(slot).is_some_and(|row| row.status == MemberStatus::Up)
    }

    /// Returns whether a slot was ever a member's.
    pub fn was_used(&self, slot: u16) -> bool {
        let word = self.used.get(usize::from(slot) / 64).copied().unwrap_or(u64::MAX);
        word >> (slot % 64) & 1 == 1
    }

    /// Returns the number of slots that were ever a member's.
    pub fn used_slots(&self) -> u32 {
        self.used.iter().map(|word| word.count_ones()).sum()
    }

    /// Returns the row of a thing; an unowned one if there is none.
    pub fn row(&self, thing: Thing) -> ThingRow {
        let found = self.things.iter().find(|row| row.thing == thing);
        found.copied().unwrap_or(ThingRow {
            thing,
            owner: Owner::Unowned,
            epoch: 0,
            before: 0,
            bound: 0,
        })
    }

    /// Counts the decree, and carries it out.
    ///
    /// # Errors
    /// If it has no effect.
    pub fn apply(&mut self, decree: &Decree) -> Result<(), VoidError> {
        self.number += 1;
        match *decree {
            Decree::Nothing => Ok(()),
            Decree::Member(id) => self.admit(id),
            Decree::Fence { who, heir } => self.fence(who, heir),
            Decree::Quiet { who, proof } => self.quiet(who, proof),
            Decree::Own { partition, from, to } => self.own(partition, from, to),
            Decree::Take { partition, space, by } => self.take(partition, space, by),
            Decree::HandOver { partition, space, from, to, sealed } => {
                self.may_hand_over(partition, space, from, to)?;
                let row = self.row(Thing::Space(space));
                // The hand-over that made a space cold has counted its epoch up.
                let current = if from == Owner::Unowned { row.before } else { row.epoch };
                if current != sealed && !mutant!(OldRecord) {
                    return Err(VoidError::OldRecord);
                }
                self.give(Thing::Partition(partition), to, 0)?;
                self.give(Thing::Space(space), to, partition)
            }
            Decree::Release { space, from } => self.release(space, from),
        }
    }

    fn admit(&mut self, id: MemberId) -> Result<(), VoidError> {
        let slot = usize::from(id.slot);
        if self.was_used(id.slot) || id.incarnation == Incarnation(0) {
            return Err(VoidError::SlotUsed);
        }
        let row = MemberRow { id, status: MemberStatus::Up, since: self.number };
        if !self.has_room(MEMBER_ROW) {
            return Err(VoidError::Full);
        }
        self.members.try_push(row).map_err(|_| VoidError::Full)?;
        if let Some(word) = self.used.get_mut(slot / 64) {
            *word |= 1 << (slot % 64);
        }
        Ok(())
    }

    fn has_room(&self, row: usize) -> bool {
        self.encoded_len() + row <= self.limit
    }

    fn set_status(&mut self, slot: u16, status: MemberStatus) {
        let number = self.number;
        if let Some(row) = self.members.iter_mut().find(|row| row.id.slot == slot) {
            (row.status, row.since) = (status, number);
        }
    }

    fn fence(&mut self, who: u16, heir: u16) -> Result<(), VoidError> {
        if !self.is_up(who) || !self.is_up(heir) || who == heir {
            return Err(VoidError::NotUp);
        }
        self.set_status(who, MemberStatus::Fenced { heir });
        Ok(())
    }

    fn quiet(&mut self, who: u16, proof: QuietProof) -> Result<(), VoidError> {
        match self.member(who).map(|row| row.status) {
            Some(MemberStatus::Fenced { .. }) => {}
            _ => return Err(VoidError::NotFenced),
        }
        self.set_status(who, MemberStatus::Quiet(proof));
        self.drop_quiet();
        Ok(())
    }

    /// Drops members that are quiet and own nothing.
    pub(crate) fn drop_quiet(&mut self) {
        let Self { members, things, .. } = self;
        members.retain(|row| {
            let is_quiet = matches!(row.status, MemberStatus::Quiet(_));
            !is_quiet || things.iter().any(|thing| thing.owner == Owner::Slot(row.id.slot))
        });
    }

    /// Checks that `to` may own something, and that `thing` is `from`'s.
    fn may_give(&self, thing: Thing, from: Owner, to: Owner) -> Result<(), VoidError> {
        match to {
            Owner::Slot(slot) if !self.is_up(slot) && !mutant!(GiveToDown) => {
                return Err(VoidError::NotUp);
            }
            _ => {}
        }
        let is_from = self.row(thing).owner == from || mutant!(StaleOwner);
        if is_from { Ok(()) } else { Err(VoidError::OtherOwner) }
    }

    fn own(&mut self, partition: u128, from: Owner, to: Owner) -> Result<(), VoidError> {
        let thing = Thing::Partition(partition);
        self.may_give(thing, from, to)?;
        // The space of an owner that is up goes with the partition.
        let is_bound =
            |row: &ThingRow| matches!(row.thing, Thing::Space(_)) && row.bound == partition;
        let is_kept = match from {
            Owner::Slot(slot) => self.is_up(slot),
            Owner::Unowned => true,
        };
        let is_bound = is_kept && self.things.iter().any(|row| is_bound(row) && row.owner == from);
        if is_bound && !mutant!(OwnWithoutSpace) {
            return Err(VoidError::Bound);
        }
        self.give(thing, to, 0)?;
        self.drop_quiet();
        self.drop_unowned(thing);
        Ok(())
    }

    /// Forgets an unowned partition without a space: the number of a later decree is
    /// higher than its epoch in any case. A space keeps its row, because its record has an epoch.
    fn drop_unowned(&mut self, partition: Thing) {
        let Thing::Partition(name) = partition else { return };
        let is_unowned = self.row(partition).owner == Owner::Unowned;
        let is_needless = is_unowned && !self.things.iter().any(|row| row.bound == name);
        if is_needless && !mutant!(KeepUnowned) {
            self.things.retain(|row| row.thing != partition);
        }
    }

    fn take(&mut self, partition: u128, space: u128, by: u16) -> Result<(), VoidError> {
        let by = Owner::Slot(by);
        self.may_give(Thing::Partition(partition), by, by)?;
        self.may_give(Thing::Space(space), Owner::Unowned, by)?;
        let is_bound = self.row(Thing::Space(space)).bound != 0 && !mutant!(TakeBound);
        if is_bound || partition == 0 {
            return Err(VoidError::Bound);
        }
        self.give(Thing::Space(space), by, partition)
    }

    fn may_hand_over(
        &self,
        partition: u128,
        space: u128,
        from: Owner,
        to: Owner,
    ) -> Result<(), VoidError> {
        self.may_give(Thing::Partition(partition), from, to)?;
        self.may_give(Thing::Space(space), from, to)?;
        if self.row(Thing::Space(space)).bound != partition && !mutant!(HandOverUnbound) {
            Err(VoidError::Bound)
        } else {
            Ok(())
        }
    }

    fn release(&mut self, space: u128, from: Owner) -> Result<(), VoidError> {
        let thing = Thing::Space(space);
        self.may_give(thing, from, Owner::Unowned)?;
        let may = match from {
            Owner::Slot(slot) => {
                let status = self.member(slot).map(|row| row.status);
                !matches!(status, Some(MemberStatus::Fenced { .. }))
            }
            Owner::Unowned => return Err(VoidError::OtherOwner),
        };
        if !may && !mutant!(ReleaseEarly) {
            return Err(VoidError::Quarantined);
        }
        let bound = self.row(thing).bound;
        self.give(thing, Owner::Unowned, 0)?;
        self.drop_quiet();
        // Its name may have been given back before.
        self.drop_unowned(Thing::Partition(bound));
        Ok(())
    }

    fn give(&mut self, thing: Thing, owner: Owner, bound: u128) -> Result<(), VoidError> {
        let old = self.row(thing);
        // While a suspended space has no owner, the record is the last owner's.
        let is_cold = old.owner == Owner::Unowned && old.bound != 0;
        let before = if is_cold { old.before } else { old.epoch };
        let row = ThingRow { thing, owner, epoch: self.number, before, bound };
        if let Some(there) = self.things.iter_mut().find(|row| row.thing == thing) {
            *there = row;
            return Ok(());
        }
        if !self.has_room(THING_ROW) {
            return Err(VoidError::Full);
        }
        self.things.try_push(row).map_err(|_| VoidError::Full)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
