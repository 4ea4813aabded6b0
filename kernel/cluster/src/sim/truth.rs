//! The truth beside the nodes' beliefs, and the properties that must hold.
//!
//! The system tests include this file too, and compare what real nodes did.

use cluster::crc::crc32c;
use cluster::decree::{Decree, Owner};
use cluster::id::{Incarnation, MemberId};
use cluster::state::{ClusterState, Thing};
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Truth {
    pub(super) state: ClusterState,
    decided: Vec<Decree>,
    digests: Vec<u32>,
    winners: BTreeMap<u16, Incarnation>,
    failed: BTreeSet<Incarnation>,
    /// Fences that may be decided for the open number.
    open_fences: Vec<u16>,
    /// True time of the end of each slot's lease.
    pub(super) leases: BTreeMap<u16, u64>,
    /// Writes of a start that may still land, from the check of the lease on.
    pub(super) flying: BTreeMap<Incarnation, usize>,
}

fn digest(state: &ClusterState) -> u32 {
    let mut bytes = vec![0; state.limit()];
    state.encode(MemberId::default(), 0, &mut bytes);
    crc32c(&bytes)
}

impl Truth {
    /// Begins before the first decree; a copy of the state has at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        let state = ClusterState::new(limit);
        Self {
            digests: vec![digest(&state)],
            state,
            decided: Vec::new(),
            winners: BTreeMap::new(),
            failed: BTreeSet::new(),
            open_fences: Vec::new(),
            leases: BTreeMap::new(),
            flying: BTreeMap::new(),
        }
    }

    pub(super) fn won(&mut self, me: MemberId) {
        let other = self.winners.insert(me.slot, me.incarnation);
        assert_eq!(other, None, "slot {} has two winners", me.slot);
    }

    pub(super) fn failed(&mut self, me: Incarnation) {
        self.failed.insert(me);
        let is_member = self.state.members().iter().any(|row| row.id.incarnation == me);
        assert!(!is_member, "a member's registration has failed");
    }

    fn lease_of(&self, slot: u16) -> u64 {
        self.leases.get(&slot).copied().unwrap_or(0)
    }

    /// A fence was proposed: from now on it may be decided at any moment.
    pub(super) fn proposes(&mut self, who: u16, number: u64, now: u64) {
        if number == self.state.number() + 1 {
            assert!(self.lease_of(who) <= now, "the fence of slot {who} is open under its lease");
            self.open_fences.push(who);
        }
    }

    /// Returns whether the lease before had ended.
    pub(super) fn extended(&mut self, slot: u16, end: u64, now: u64) -> bool {
        if end > now {
            assert!(
                !self.open_fences.contains(&slot),
                "slot {slot} extends while its fence is open"
            );
            assert!(self.state.is_up(slot), "slot {slot} extends, and is fenced");
        }
        self.leases.insert(slot, end).is_some_and(|before| before < now)
    }

    pub(super) fn decided(&mut self, number: u64, decree: Decree, after: &ClusterState, now: u64) {
        assert!(number <= self.state.number() + 1, "decree {number} leaves a gap");
        if number == self.state.number() + 1 {
            self.decide(decree, now);
        }
        assert_eq!(self.decided[number as usize - 1], decree, "decree {number} was decided twice");
        self.learned(number, after);
    }

    fn decide(&mut self, decree: Decree, now: u64) {
        let effect = self.state.apply(&decree);
        match decree {
            Decree::Member(id) if effect.is_ok() => {
                assert!(!self.failed.contains(&id.incarnation), "a failed start became a member");
                assert_eq!(self.winners.get(&id.slot), Some(&id.incarnation), "never won");
            }
            Decree::Fence { who, .. } if effect.is_ok() => {
                assert!(self.lease_of(who) <= now, "slot {who} is fenced under its lease");
            }
            Decree::Quiet { who, .. } if effect.is_ok() => {
                let flying = self.flying.get(&self.winners[&who]).copied().unwrap_or(0);
                assert_eq!(flying, 0, "slot {who} is called quiet");
            }
            _ => {}
        }
        self.no_row_is_needless();
        self.owners_are_up();
        self.decided.push(decree);
        self.digests.push(digest(&self.state));
        self.open_fences.clear();
    }

    /// A partition that has neither an owner nor a space has no row.
    fn no_row_is_needless(&self) {
        let things = self.state.things();
        for row in things.iter().filter(|row| row.owner == Owner::Unowned) {
            let Thing::Partition(name) = row.thing else { continue };
            let has_space = things.iter().any(|other| other.bound == name);
            assert!(has_space, "partition {name} has no owner and no space, and a row");
        }
    }

    /// The last decree gave nothing to a member that is not up.
    fn owners_are_up(&self) {
        let last = self.state.number();
        for row in self.state.things().iter().filter(|row| row.epoch == last) {
            let Owner::Slot(slot) = row.owner else { continue };
            assert!(
                self.state.is_up(slot),
                "{:?} was given to slot {slot}, which is down",
                row.thing
            );
        }
    }

    pub(super) fn learned(&self, number: u64, after: &ClusterState) {
        let known = self.digests.get(number as usize);
        assert_eq!(known, Some(&digest(after)), "another state after decree {number}");
    }

    /// A write reaches a space.
    pub(super) fn lands(&self, space: u128, slot: u16, epoch: u64) {
        let row = self.state.row(Thing::Space(space));
        assert_eq!(
            (row.owner, row.epoch),
            (Owner::Slot(slot), epoch),
            "a write of slot {slot} in epoch {epoch} lands in space {space}"
        );
    }
}
