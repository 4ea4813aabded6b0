//! Spaces that hold bases: suspended partitions that are kept for their children.
//!
//! ```text
//!   Suspended ── begin_resume ──> Resuming ── SEALED on the disk ──> Sealed ── release ──> Releasing
//!      ^                             │ refused                         │
//!      └─────────────────────────────┘            named by the records of children: holders
//! ```
//!
//! Nothing of a base's space is written any more, apart from its header at a start.

use super::{SpaceId, SpacePhase, Spaces};
use crate::block::DiskError;
use crate::space::{SpaceBase, SpaceState, Uuid};
use alloc::vec::Vec;
use arrayvec::ArrayString;

impl Spaces {
    /// Says on the disk that a suspended partition, whose space was taken for this, is a base.
    ///
    /// # Errors
    /// The disk's. The record that counts is still the old one, unless even that cannot be written
    /// any more; both records keep all of the partition.
    pub async fn seal(&self, id: SpaceId) -> Result<(), DiskError> {
        if let Err(error) = self.change(id, |record| record.state = SpaceState::Sealed).await {
            self.settle(id).await?;
            return Err(error);
        }
        self.space(id).inner.lock().phase = SpacePhase::Sealed;
        Ok(())
    }

    /// Returns whether a space holds a base.
    pub fn is_sealed(&self, id: SpaceId) -> bool {
        self.space(id).inner.lock().phase == SpacePhase::Sealed
    }

    /// Returns whether a space holds a partition with its machine: suspended, about to be sealed or
    /// to go on, or a base.
    pub fn is_whole_machine(&self, id: SpaceId) -> bool {
        let phase = self.space(id).inner.lock().phase;
        matches!(
            phase,
            SpacePhase::Suspended
                | SpacePhase::Sealed
                | SpacePhase::Resuming
                | SpacePhase::Departing
        )
    }

    /// Returns the base that a partition has become.
    pub fn base_of(&self, owner: &str) -> Option<SpaceId> {
        let user = Uuid::from_name(owner);
        let of_owner = |id: &SpaceId| {
            let inner = self.space(*id).inner.lock();
            let owner = inner.record.as_ref().and_then(|record| record.owner.as_ref());
            inner.phase == SpacePhase::Sealed && owner.is_some_and(|o| o.partition == user)
        };
        (0..self.spaces.len()).map(SpaceId).find(of_owner)
    }

    /// Returns the name of the sealed state in a space, and the incarnation that was sealed.
    pub fn base_in(&self, id: SpaceId) -> Option<(Uuid, u64)> {
        let record = self.record(id)?;
        Some((record.crash?.name, record.owner?.epoch))
    }

    /// Returns the space that holds the base which a child's record names.
    pub fn find_base(&self, base: &SpaceBase) -> Option<SpaceId> {
        let is_it = |id: &SpaceId| {
            self.is_sealed(*id) && self.base_in(*id) == Some((base.dump, base.generation))
        };
        (0..self.spaces.len()).map(SpaceId).find(is_it)
    }

    /// Returns the owners of the spaces that depend on a base.
    pub fn holders(&self, base: Uuid) -> Vec<ArrayString<64>> {
        let holder = |id| {
            let inner = self.space(SpaceId(id)).inner.lock();
            let record = inner.record.as_ref()?;
            let is_held = record.base.is_some_and(|of| of.dump == base)
                && matches!(record.state, SpaceState::Active | SpaceState::Draining);
            record.owner.as_ref().filter(|_| is_held).map(|owner| owner.name)
        };
        (0..self.spaces.len()).filter_map(holder).collect()
    }
}
