//! Who owned what when, by the decrees of a cluster's log. It shares no code with the product.

use super::blocks::{RecordedDecree, WrittenDecree};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The time from which something has an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnedSince {
    /// Its slot.
    pub owner: Option<u16>,
    /// By the server's clock.
    pub since: Duration,
}

/// The owners of one thing, in order.
type Owners = Vec<OwnedSince>;

/// All owners.
#[derive(Clone, Default, Debug)]
pub struct OwnerLedger {
    spaces: BTreeMap<u128, Owners>,
    partitions: BTreeMap<u128, Owners>,
    bound: BTreeMap<u128, u128>,
    used: BTreeSet<u16>,
    up: BTreeSet<u16>,
    /// When a slot was fenced.
    pub fenced: BTreeMap<u16, Duration>,
    /// When nothing of a slot could land any more.
    pub quiet: BTreeMap<u16, Duration>,
    /// Decrees without effect.
    pub void: usize,
}

fn owner_in(all: &BTreeMap<u128, Owners>, name: u128) -> Option<u16> {
    all.get(&name).and_then(|owners| owners.last()).and_then(|last| last.owner)
}

impl OwnerLedger {
    /// Carries all decrees out.
    ///
    /// # Errors
    /// For a hand-over: no trial has one.
    pub fn of(decrees: &[RecordedDecree]) -> Result<Self> {
        let mut ledger = Self::default();
        for one in decrees {
            if !ledger.apply(one)? {
                ledger.void += 1;
            }
        }
        Ok(ledger)
    }

    /// Returns whether the decree has an effect.
    fn apply(&mut self, one: &RecordedDecree) -> Result<bool> {
        let since = one.since;
        let may_own =
            |up: &BTreeSet<u16>, to: Option<u16>| to.is_none_or(|slot| up.contains(&slot));
        Ok(match one.decree {
            WrittenDecree::Nothing => true,
            WrittenDecree::Member(slot, _) => self.used.insert(slot) && self.up.insert(slot),
            WrittenDecree::Fence(who, heir) => {
                let is_due = who != heir && self.up.contains(&heir) && self.up.remove(&who);
                is_due && self.fenced.insert(who, since).is_none()
            }
            WrittenDecree::Quiet(who) => {
                let is_due = self.fenced.contains_key(&who) && !self.quiet.contains_key(&who);
                is_due && self.quiet.insert(who, since).is_none()
            }
            WrittenDecree::Own(partition, from, to) => {
                let is_kept = from.is_none_or(|slot| self.up.contains(&slot));
                let holds = |(space, of): (&u128, &u128)| {
                    *of == partition && owner_in(&self.spaces, *space) == from
                };
                let is_due = may_own(&self.up, to)
                    && owner_in(&self.partitions, partition) == from
                    && !(is_kept && self.bound.iter().any(holds));
                is_due && give(&mut self.partitions, partition, to, since)
            }
            WrittenDecree::Take(partition, space, by) => {
                let is_due = self.up.contains(&by)
                    && owner_in(&self.partitions, partition) == Some(by)
                    && owner_in(&self.spaces, space).is_none()
                    && !self.bound.contains_key(&space);
                if is_due {
                    self.bound.insert(space, partition);
                }
                is_due && give(&mut self.spaces, space, Some(by), since)
            }
            WrittenDecree::Release(space, from) => {
                let may = from.is_some_and(|slot| {
                    !self.fenced.contains_key(&slot) || self.quiet.contains_key(&slot)
                });
                let is_due = may && owner_in(&self.spaces, space) == from;
                if is_due {
                    self.bound.remove(&space);
                }
                is_due && give(&mut self.spaces, space, None, since)
            }
            WrittenDecree::HandOver(..) => bail!("decree {} is a hand-over", one.number),
        })
    }

    /// Returns the owner of a space at a time.
    pub fn of_space(&self, space: u128, at: Duration) -> Option<u16> {
        owner_at(&self.spaces, space, at)
    }

    /// Returns the owner of a partition at a time.
    pub fn of_partition(&self, partition: u128, at: Duration) -> Option<u16> {
        owner_at(&self.partitions, partition, at)
    }
}

fn owner_at(all: &BTreeMap<u128, Owners>, name: u128, at: Duration) -> Option<u16> {
    let owners = all.get(&name)?;
    owners.iter().rev().find(|one| one.since <= at).and_then(|one| one.owner)
}

fn give(all: &mut BTreeMap<u128, Owners>, name: u128, owner: Option<u16>, since: Duration) -> bool {
    all.entry(name).or_default().push(OwnedSince { owner, since });
    true
}
