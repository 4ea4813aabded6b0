//! Spaces that hold suspended partitions.
//!
//! ```text
//!   Active ── sealed ──> Suspended ── begin_resume ──> Resuming ── ACTIVE on the disk ──> Active
//!                          ^  └─ release ──> Releasing    │
//!                          └────────────── refused ───────┘
//! ```
//!
//! The record decides: until it says SUSPENDED the partition runs, and until it says ACTIVE again
//! the suspended state is whole. A write of the record that failed may still be on the disk, so the
//! record that counts is then written again ([`Spaces::settle`]).

use super::{SpaceId, SpacePhase, Spaces, sleep};
use crate::addr::PAGE_SIZE;
use crate::block::DiskError;
use crate::space::{SpaceRecord, SpaceState, Uuid};
use crate::storage::describe::{self, PutMode, RecoveredPages};
use crate::time::Ns;
use alloc::format;
use alloc::string::String;

/// How often a record that counts is written again after a failure.
const TRIES: u32 = 20;
/// Pause between two tries.
const PAUSE_NS: Ns = Ns::from_secs(1);

/// The suspended states of a partition on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Suspension {
    /// None.
    None,
    /// One, in this space.
    One(SpaceId),
    /// Several; their names.
    Several(String),
}

impl Spaces {
    /// Returns the suspended state of a partition.
    pub fn suspension_of(&self, owner: &str) -> Suspension {
        let user = Uuid::from_name(owner);
        let mut kept = self.kept_dumps();
        kept.retain(|dump| dump.state == SpaceState::Suspended && dump.owner.partition == user);
        match kept.as_slice() {
            [] => Suspension::None,
            [only] => Suspension::One(only.id),
            several => {
                let names = several.iter().map(|dump| format!("{}", dump.crash.name));
                Suspension::Several(names.collect::<alloc::vec::Vec<_>>().join(", "))
            }
        }
    }

    /// Returns whether a space holds a suspended partition that waits.
    pub fn is_suspended(&self, id: SpaceId) -> bool {
        self.space(id).inner.lock().phase == SpacePhase::Suspended
    }

    /// Returns the record of a space.
    pub fn record(&self, id: SpaceId) -> Option<SpaceRecord> {
        self.space(id).inner.lock().record.clone()
    }

    /// Notes that a space holds a suspended partition from now on: its record says so.
    pub fn keep_suspended(&self, id: SpaceId) {
        self.space(id).inner.lock().phase = SpacePhase::Suspended;
    }

    /// Takes a suspended partition's space for its resume; returns whether it was there.
    pub fn begin_resume(&self, id: SpaceId) -> bool {
        let mut inner = self.space(id).inner.lock();
        let is_there = inner.phase == SpacePhase::Suspended;
        if is_there {
            inner.phase = SpacePhase::Resuming;
        }
        is_there
    }

    /// Gives the space back after a resume that was refused: nothing has changed.
    pub fn refuse_resume(&self, id: SpaceId) {
        self.space(id).inner.lock().phase = SpacePhase::Suspended;
    }

    /// Says on the disk that the suspended partition runs again. From then on pages may be written.
    ///
    /// # Errors
    /// The disk's. The record that counts is still the old one, unless even that cannot be written
    /// any more.
    pub async fn activate_suspended(&self, id: SpaceId, owner: &str) -> Result<(), DiskError> {
        // No reader may take the header for that of the pages to come. If the power fails here, the
        // next start makes the header again.
        self.deselect(id).await?;
        self.write(id, 0, &[0; PAGE_SIZE as usize]).await?;
        let node = self.node;
        let changed = self
            .change(id, |record| {
                record.state = SpaceState::Active;
                record.owner.iter_mut().for_each(|owner| owner.node = node);
                record.forget_dump();
            })
            .await;
        if let Err(error) = changed {
            self.settle(id).await?;
            return Err(error);
        }
        let mut inner = self.space(id).inner.lock();
        (inner.phase, inner.failures) = (SpacePhase::Active, 0);
        (inner.user, inner.has_old_tables) = (Some(Uuid::from_name(owner)), true);
        Ok(())
    }

    /// Makes the record that counts the newest one on the disk, after another one could not be
    /// written and may be there all the same. Tries for some time.
    ///
    /// # Errors
    /// The disk's: it is unknown which of the two records the disk has.
    pub async fn settle(&self, id: SpaceId) -> Result<(), DiskError> {
        let mut tries = 0;
        loop {
            match self.change_now(id, |_| ()).await {
                Ok(()) => return Ok(()),
                Err(error) if tries == TRIES => return Err(error),
                Err(_) => tries += 1,
            }
            sleep(PAUSE_NS).await;
        }
    }

    /// Notes that header and bitmap on the disk belong to a suspension that did not come about, and
    /// takes the header away.
    pub async fn drop_tables(&self, id: SpaceId) {
        self.space(id).inner.lock().has_old_tables = true;
        // A header that stays is overwritten at the next crash or activation.
        let _ = self.write(id, 0, &[0; PAGE_SIZE as usize]).await;
    }

    /// Returns whether the tables around the blocks may hold something else than zeros although no
    /// dump is there.
    pub fn has_old_tables(&self, id: SpaceId) -> bool {
        self.space(id).inner.lock().has_old_tables
    }

    /// Brings the ELF header of a suspended partition up to date: a resume that a power cut ended
    /// may have taken it away.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn describe_suspended(
        &self,
        id: SpaceId,
        record: &SpaceRecord,
    ) -> Result<(), DiskError> {
        let Some(contents) = &record.contents else { return Ok(()) };
        let (progress, missing) = (record.drain.progress, &record.missing);
        let mut pages = RecoveredPages::new(self, id, contents, progress, missing)?;
        let notes_len = record.drain.notes_len;
        let (_, written) = describe::headers(&mut pages, notes_len, PutMode::Repair).await?;
        if written > 0 { self.flush(id).await } else { Ok(()) }
    }
}
