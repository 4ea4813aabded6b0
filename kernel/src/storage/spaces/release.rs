//! Takes a space out of use: its owner's pages are wiped in the background, then it is free.

use super::retry::patiently;
use super::{BUFFER, Space, SpaceId, SpaceLocation, SpacePhase, Spaces};
use crate::arch::heap;
use crate::block::patience::SpaceAccess;
use crate::block::request::SECTOR_SIZE;
use crate::block::{Disk, DiskError, DiskOperation, SectorRange};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::space::{Residue, SpaceState};
use crate::storage::DiskLease;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

/// Most sectors that one request of a scrub zeroes: 1 MiB, so that no other request waits long
/// behind it.
const SCRUB_SECTORS: u64 = 2048;

impl Spaces {
    /// Releases a space: it is scrubbed in the background. Returns whether it was in use or held a
    /// dump.
    pub fn release(&'static self, id: SpaceId) -> bool {
        let mut inner = self.space(id).inner.lock();
        if !matches!(
            inner.phase,
            SpacePhase::Active | SpacePhase::Dump | SpacePhase::Suspended | SpacePhase::Sealed
        ) {
            return false;
        }
        if matches!(self.disk(id).lease(), DiskLease::Left | DiskLease::Awaited) {
            // What becomes of it is for the cluster's members to say.
            drop(inner);
            self.set_aside(id, DiskError::Dead);
            return true;
        }
        inner.phase = SpacePhase::Releasing;
        drop(inner);
        self.tasks.start(self.scrub(id));
        true
    }

    /// Returns whether a dump of a partition is still being written.
    pub fn is_draining(&self, owner: &str) -> bool {
        !self.of(owner, SpacePhase::Draining).is_empty()
    }

    /// Returns the spaces of a partition that are in `phase`.
    fn of(&self, owner: &str, phase: SpacePhase) -> Vec<SpaceId> {
        let is_it = |space: &Space| {
            let inner = space.inner.lock();
            let named = inner
                .record
                .as_ref()
                .and_then(|r| r.owner.as_ref())
                .is_some_and(|o| &*o.name == owner);
            inner.phase == phase && named
        };
        (0..self.spaces.len()).filter(|&n| is_it(&self.spaces[n])).map(SpaceId).collect()
    }

    /// Resumes releases, and copies from bases, that a power cut interrupted.
    pub fn resume(&'static self) {
        self.resume_copies();
        for id in (0..self.spaces.len()).map(SpaceId) {
            if self.space(id).inner.lock().phase == SpacePhase::Releasing {
                self.tasks.start(self.scrub(id));
            }
        }
    }

    pub(super) async fn scrub(&'static self, id: SpaceId) {
        match self.scrub_blocks(id).await {
            Ok(()) if self.log_of(id).is_some() => self.give_back(id).await,
            Ok(()) => self.space(id).inner.lock().phase = SpacePhase::Free,
            Err(error) => {
                self.trouble(id, &format!("cannot be scrubbed: {error}; it is tried again later"));
                self.set_aside(id, error);
            }
        }
    }

    /// Wipes a space that stays this node's.
    pub(super) async fn wipe(&self, id: SpaceId) -> Result<(), DiskError> {
        self.scrub_blocks(id).await
    }

    async fn scrub_blocks(&self, id: SpaceId) -> Result<(), DiskError> {
        let gone = self.space(id).inner.lock().record.clone();
        let dump = gone.as_ref().and_then(|record| record.crash.as_ref()).map(|crash| crash.name);
        let owner = gone.and_then(|record| record.owner);
        // Otherwise this node's heir could take the state in place while late writes of the scrub
        // may still land.
        if self.state(id) == Some(SpaceState::Suspended) {
            self.own_again(id).await.map_err(|_| DiskError::Dead)?;
        }
        if self.state(id) != Some(SpaceState::Free) && self.state(id) != Some(SpaceState::Releasing)
        {
            self.change(id, |record| record.state = SpaceState::Releasing).await?;
        }
        self.deselect(id).await?;
        let end = self.layout(id).map_or(0, |layout| layout.blocks().end() / 512);
        let mut at = 0;
        while at < end {
            let count = SCRUB_SECTORS.min(end - at);
            self.zero(id, SectorRange { first: at, count }).await?;
            at += count;
        }
        self.change(id, |record| {
            (record.state, record.residue) = (SpaceState::Free, Residue::Clean);
            record.clear();
        })
        .await?;
        if let Some(owner) = owner {
            let SpaceLocation { disk, number, .. } = self.place(id);
            let (disk, partition, incarnation) = (disk as u8, &owner.name, owner.epoch);
            report(&ConsoleEvent::Released { disk, space: number, partition, incarnation, dump });
        }
        Ok(())
    }

    /// Makes a range read as zeros. Parts that already do are not written: written zeros would
    /// allocate blocks in a sparse image.
    pub(super) async fn zero(&self, id: SpaceId, range: SectorRange) -> Result<(), DiskError> {
        let (mut at, end) = (range.first * SECTOR_SIZE, (range.first + range.count) * SECTOR_SIZE);
        let mut dirty = at..at;
        while at < end {
            let len = (end - at).min(BUFFER as u64);
            let is_zero = self.is_zero(id, at, len as usize).await?;
            at += len;
            if is_zero {
                self.write_zeros(id, dirty).await?;
                dirty = at..at;
            } else {
                dirty.end = at;
            }
        }
        self.write_zeros(id, dirty).await
    }

    /// Writes zeros, by the device's own command if it has one: the device may then free the
    /// blocks.
    async fn write_zeros(&self, id: SpaceId, bytes: Range<u64>) -> Result<(), DiskError> {
        let (disk, len) = (self.disk(id), bytes.end - bytes.start);
        if len == 0 {
            return Ok(());
        }
        if disk.info().write_zeroes {
            return self.order_zeros(id, bytes).await;
        }
        let zeros = heap::zeroed(BUFFER)?;
        for at in bytes.clone().step_by(BUFFER) {
            let len = (bytes.end - at).min(BUFFER as u64);
            self.write(id, at, &zeros[..len as usize]).await?;
        }
        Ok(())
    }

    /// Has the device write zeros.
    async fn order_zeros(&self, id: SpaceId, bytes: Range<u64>) -> Result<(), DiskError> {
        let len = bytes.end - bytes.start;
        let sectors = self.place(id).area.locate(bytes.start, len).ok_or(DiskError::Unsupported)?;
        let access = SpaceAccess::Write(bytes.start, len as usize);
        patiently!(
            self,
            id,
            access,
            self.io.run(self.disk(id), DiskOperation::WriteZeroes, sectors, &[]).await
        )
    }

    fn state(&self, id: SpaceId) -> Option<SpaceState> {
        self.space(id).inner.lock().record.as_ref().map(|record| record.state)
    }
}
