//! The way of a space into use: a free one is chosen, then made ready in the background.
//!
//! ```text
//!   Free ──acquire──┐
//!                   ├─> Activating: old head gone, record ACTIVE with the new epoch ──> Active
//!   Active ─renew───┘                                              └ a write fails ───> Failed
//! ```

use super::{Phase, Space, SpaceId, Spaces};
use crate::addr::PAGE_SIZE;
use crate::block::DiskError;
use crate::mm::layout::RamLayout;
use crate::paging::space::record::Contents;
use crate::paging::space::{Drain, Owner, Residue, SpaceState, Uuid};
use alloc::format;
use alloc::vec::Vec;
use arrayvec::ArrayString;

impl Spaces {
    /// Takes the smallest free space that fits and starts to activate it; `None` if there is none now.
    pub fn acquire(&'static self, owner: &str, ram: &RamLayout, epoch: u64) -> Option<SpaceId> {
        let fits = |space: &Space| space.place.area.fits(ram.pages());
        let mut fitting: Vec<_> = (0..self.spaces.len()).filter(|&n| fits(&self.spaces[n])).map(SpaceId).collect();
        fitting.sort_by_key(|&id| self.place(id).area.bytes());
        let id = fitting.into_iter().find(|&id| self.claim(id, owner))?;
        self.start_activation(id, owner, ram, epoch);
        Some(id)
    }

    /// Activates a space again for the next incarnation of its owner; whatever the last one left there is stale.
    pub fn renew(&'static self, id: SpaceId, owner: &str, ram: &RamLayout, epoch: u64) {
        self.space(id).inner.lock().phase = Phase::Activating;
        self.start_activation(id, owner, ram, epoch);
    }

    /// Takes a space for `owner` if it is free, and clean or its own; a stranger's is scrubbed first and found at a later try.
    fn claim(&'static self, id: SpaceId, owner: &str) -> bool {
        let mut inner = self.space(id).inner.lock();
        if inner.phase != Phase::Free {
            return false;
        }
        let is_strangers = inner.record.as_ref().is_some_and(|record| {
            let is_owners = record.owner.as_ref().is_some_and(|known| known.partition == Uuid::from_name(owner));
            record.residue == Residue::Stale && !is_owners
        });
        inner.phase = if is_strangers { Phase::Releasing } else { Phase::Activating };
        drop(inner);
        if is_strangers {
            self.tasks.start(self.scrub(id));
        }
        !is_strangers
    }

    fn start_activation(&'static self, id: SpaceId, owner: &str, ram: &RamLayout, epoch: u64) {
        let name = ArrayString::from(owner).unwrap_or_default();
        let ram = *ram;
        self.tasks.start(async move {
            let result = self.activate(id, name, &ram, epoch).await;
            self.space(id).inner.lock().phase = result.map_or_else(Phase::Failed, |()| Phase::Active);
            if let Err(error) = result {
                self.trouble(id, &format!("cannot be made ready: {error:?}"));
            }
        });
    }

    async fn activate(&self, id: SpaceId, name: ArrayString<64>, ram: &RamLayout, epoch: u64) -> Result<(), DiskError> {
        let contents = Contents::new(self.place(id).area.bytes(), ram).map_err(|_| DiskError::Unsupported)?;
        // No reader may take the old header for that of what comes now.
        self.deselect(id).await?;
        self.write(id, 0, &[0; PAGE_SIZE as usize]).await?;
        let owner = Owner { name, partition: Uuid::from_name(&name), node: self.node, epoch };
        self.change(id, |record| {
            record.state = SpaceState::Active;
            record.residue = Residue::Stale;
            (record.owner, record.contents) = (Some(owner), Some(contents));
            (record.drain, record.crash) = (Drain::default(), None);
        })
        .await
    }

    /// Returns whether an acquired space can take pages: `None` while it is on the way.
    pub fn is_ready(&self, id: SpaceId) -> Option<Result<(), DiskError>> {
        match self.space(id).inner.lock().phase {
            Phase::Active => Some(Ok(())),
            Phase::Failed(error) => Some(Err(error)),
            _ => None,
        }
    }
}
