//! Decrees that must have no effect: a node that knows the state proposes none of them, so the
//! rules behind it would never fire.

use super::app::{PARTITIONS, SPACES};
use super::world::World;
use crate::decree::{Decree, Owner};
use crate::state::{MemberStatus, Thing, ThingRow};

impl World {
    /// Returns a decree that has no effect in this node's state; it is noted, and may be void.
    pub(super) fn careless(&mut self, number: usize, things: &[ThingRow]) -> Option<Decree> {
        let me = Owner::Slot(self.nodes[number].node.as_ref()?.me().slot);
        let partition = 1 + u128::from(self.random.below(PARTITIONS as u64));
        let space = 1 + u128::from(self.random.below(SPACES as u64));
        let find = |thing| things.iter().find(|row| row.thing == thing);
        let owner_of = |thing| find(thing).map_or(Owner::Unowned, |row| row.owner);
        let owner = owner_of(Thing::Partition(partition));
        let space_owner = owner_of(Thing::Space(space));
        let bound = find(Thing::Space(space)).map_or(0, |row| row.bound);
        let (what, decree) = match self.random.below(6) {
            0 => {
                let guess = Owner::Slot(self.random.below(6) as u16);
                let from = if owner == guess { return None } else { guess };
                ("void: own, another owner", Decree::Own { partition, from, to: me })
            }
            1 => {
                let to = Owner::Slot(self.slot_that_is_down(number)?);
                ("void: own, to one that is down", Decree::Own { partition, from: owner, to })
            }
            2 => {
                let holds = |row: &&ThingRow| row.bound == partition && row.owner == owner;
                things.iter().find(holds).filter(|_| self.is_up(number, owner))?;
                let decree = Decree::Own { partition, from: owner, to: me };
                ("void: own without the space", decree)
            }
            3 if owner != me || space_owner != Owner::Unowned || bound != 0 => {
                let Owner::Slot(by) = me else { return None };
                ("void: take", Decree::Take { partition, space, by })
            }
            4 if bound != partition => {
                let (from, sealed) = (owner, find(Thing::Space(space))?.epoch);
                let decree = Decree::HandOver { partition, space, from, to: me, sealed };
                ("void: hand over", decree)
            }
            5 => {
                let Owner::Slot(slot) = space_owner else { return None };
                let state = self.nodes[number].node.as_ref()?.state();
                state.is_quarantined(slot).then_some(())?;
                ("void: release in quarantine", Decree::Release { space, from: space_owner })
            }
            _ => return None,
        };
        self.tally(what);
        self.voids.insert(decree);
        Some(decree)
    }

    fn is_up(&self, number: usize, owner: Owner) -> bool {
        let Owner::Slot(slot) = owner else { return false };
        self.nodes[number].node.as_ref().is_some_and(|node| node.state().is_up(slot))
    }

    fn slot_that_is_down(&self, number: usize) -> Option<u16> {
        let state = self.nodes[number].node.as_ref()?.state();
        let is_down = |status| status != MemberStatus::Up;
        state.members().iter().find(|row| is_down(row.status)).map(|row| row.id.slot)
    }
}
