//! Puts a space into use: a free one is chosen, then prepared in the background.
//!
//! ```text
//!   Free ──acquire──┐
//!                   ├─> Activating: old head zeroed, record ACTIVE with the new epoch ──> Active
//!   Active ─renew───┘                                              └ a write fails ───> Failed
//! ```

use super::{SpaceId, SpacePhase, Spaces};
use crate::addr::PAGE_SIZE;
use crate::block::{Disk, DiskError, SectorRange};
use crate::mm::layout::RamLayout;
use crate::space::record::SpaceContents;
use crate::space::{RecordFormat, Residue, SpaceBase, SpaceOwner, SpaceRecord, SpaceState, Uuid};
use alloc::format;
use alloc::vec::Vec;
use arrayvec::ArrayString;

impl Spaces {
    /// Takes the smallest free space that fits and starts to activate it; `None` if there is none
    /// now. The space must be on a disk that answers, and must not be reserved for another
    /// partition.
    pub fn acquire(&'static self, owner: &str, ram: &RamLayout, epoch: u64) -> Option<SpaceId> {
        self.acquire_for(owner, ram, epoch, None)
    }

    /// The same for a child of `base`, if there is one: the record names it.
    pub fn acquire_for(
        &'static self,
        owner: &str,
        ram: &RamLayout,
        epoch: u64,
        base: Option<SpaceBase>,
    ) -> Option<SpaceId> {
        let fits =
            |id: &SpaceId| self.place(*id).area.fits(ram.pages()) && !self.disk(*id).is_dead();
        let mut fitting: Vec<_> = (0..self.spaces.len()).map(SpaceId).filter(fits).collect();
        fitting.sort_by_key(|&id| self.place(id).area.bytes());
        let mut strangers = Vec::new();
        let choosing = self.choosing.lock();
        let chosen = fitting
            .into_iter()
            .find(|&id| self.is_for(id, owner) && self.claim(id, owner, &mut strangers));
        drop(choosing);
        strangers.into_iter().for_each(|id| self.tasks.start(self.scrub(id)));
        let Some(id) = chosen else { return self.acquire_shared(owner, ram, (epoch, base)) };
        self.start_activation(id, owner, ram, (epoch, base));
        Some(id)
    }

    /// Activates a space again for the next incarnation of its owner. The previous incarnation's
    /// contents are stale.
    pub fn renew(&'static self, id: SpaceId, owner: &str, ram: &RamLayout, epoch: u64) {
        self.space(id).inner.lock().phase = SpacePhase::Activating;
        self.start_activation(id, owner, ram, (epoch, None));
    }

    /// Takes a free space for `owner` if it is clean or holds only the owner's old pages. A space
    /// with another partition's pages is scrubbed first; a later attempt finds it.
    fn claim(&self, id: SpaceId, owner: &str, strangers: &mut Vec<SpaceId>) -> bool {
        let mut inner = self.space(id).inner.lock();
        if inner.phase != SpacePhase::Free {
            return false;
        }
        let is_strangers = inner.record.as_ref().is_some_and(|record| {
            let is_owners = record
                .owner
                .as_ref()
                .is_some_and(|known| known.partition == Uuid::from_name(owner));
            record.residue == Residue::Stale && !is_owners
        });
        inner.phase = if is_strangers { SpacePhase::Releasing } else { SpacePhase::Activating };
        if !is_strangers {
            (inner.user, inner.is_selected) = (Some(Uuid::from_name(owner)), false);
        }
        drop(inner);
        strangers.extend(is_strangers.then_some(id));
        !is_strangers
    }

    fn start_activation(
        &'static self,
        id: SpaceId,
        owner: &str,
        ram: &RamLayout,
        of: (u64, Option<SpaceBase>),
    ) {
        let name = ArrayString::from(owner).unwrap_or_default();
        let ram = *ram;
        self.tasks.start(async move { self.activate_and_tell(id, name, &ram, of).await });
    }

    pub(super) async fn activate_and_tell(
        &self,
        id: SpaceId,
        name: ArrayString<64>,
        ram: &RamLayout,
        of: (u64, Option<SpaceBase>),
    ) {
        match self.activate(id, name, ram, of).await {
            Ok(()) => {
                let mut inner = self.space(id).inner.lock();
                (inner.phase, inner.failures) = (SpacePhase::Active, 0);
                inner.has_old_tables = false;
            }
            Err(error) => {
                self.trouble(
                    id,
                    &format!("cannot be made ready: {error}; it is tried again later"),
                );
                self.set_aside(id, error);
            }
        }
    }

    async fn activate(
        &self,
        id: SpaceId,
        name: ArrayString<64>,
        ram: &RamLayout,
        (epoch, base): (u64, Option<SpaceBase>),
    ) -> Result<(), DiskError> {
        let contents = SpaceContents::new(self.place(id).area.bytes(), ram)
            .map_err(|_| DiskError::Unsupported)?;
        // A reader must not take the old header for the header of the new contents.
        self.deselect(id).await?;
        self.write(id, 0, &[0; PAGE_SIZE as usize]).await?;
        // The old bits must go too: a crash writes only the bitmap sectors with set bits.
        let bitmap = contents.layout.bitmap();
        self.zero(id, SectorRange { first: bitmap.start / 512, count: bitmap.len / 512 }).await?;
        let is_original = |record: &SpaceRecord| record.format == RecordFormat::Original;
        let was_original = self.space(id).inner.lock().record.as_ref().is_some_and(is_original);
        let owner = SpaceOwner { name, partition: Uuid::from_name(&name), node: self.node, epoch };
        self.change(id, |record| {
            record.state = SpaceState::Active;
            record.residue = Residue::Stale;
            (record.owner, record.contents) = (Some(owner), Some(contents));
            record.forget_dump();
            record.base = base;
            record.format = RecordFormat::Extended;
        })
        .await?;
        // A program that does not know extended records would take the previous copy, which says
        // FREE, for the newest. So both copies are written.
        if was_original { self.change(id, |_| ()).await } else { Ok(()) }
    }

    /// Returns whether an acquired space can take pages; `None` while it is being activated.
    pub fn is_ready(&self, id: SpaceId) -> Option<Result<(), DiskError>> {
        match self.space(id).inner.lock().phase {
            SpacePhase::Active => Some(Ok(())),
            SpacePhase::Failed(error) => Some(Err(error)),
            // It has turned out to hold something, or another member has it.
            SpacePhase::Shared
            | SpacePhase::Looking
            | SpacePhase::Unusable
            | SpacePhase::Dump
            | SpacePhase::Suspended
            | SpacePhase::Sealed => Some(Err(DiskError::Dead)),
            _ => None,
        }
    }
}
