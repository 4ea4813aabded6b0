//! The way of a space out of use: its owner's pages are wiped in the background, then it is free.

use super::{BUFFER, Phase, Place, Space, SpaceId, Spaces};
use crate::block::{Disk, DiskError, Operation, SectorRange};
use crate::console::event::Event;
use crate::node::report;
use crate::paging::space::{Drain, Residue, SpaceState};
use alloc::vec;
use alloc::vec::Vec;

/// Sectors zeroed by a request of a scrub: 8 MiB.
const SCRUB_SECTORS: u64 = 16384;

impl Spaces {
    /// Gives a space back: it is scrubbed in the background. Returns whether it was in use or held a dump.
    pub fn release(&'static self, id: SpaceId) -> bool {
        let mut inner = self.space(id).inner.lock();
        if !matches!(inner.phase, Phase::Active | Phase::Dump) {
            return false;
        }
        inner.phase = Phase::Releasing;
        drop(inner);
        self.tasks.start(self.scrub(id));
        true
    }

    /// Releases the dumps of a partition, or only that of one incarnation; returns how many.
    pub fn release_dumps(&'static self, owner: &str, incarnation: Option<u64>) -> usize {
        let wanted = |id: &SpaceId| incarnation.is_none_or(|wanted| self.epoch(*id) == Some(wanted));
        self.of(owner, Phase::Dump).into_iter().filter(wanted).filter(|&id| self.release(id)).count()
    }

    fn epoch(&self, id: SpaceId) -> Option<u64> {
        self.space(id).inner.lock().record.as_ref()?.owner.as_ref().map(|owner| owner.epoch)
    }

    /// Returns whether a dump of a partition is still being written.
    pub fn is_draining(&self, owner: &str) -> bool {
        !self.of(owner, Phase::Draining).is_empty()
    }

    /// Returns the spaces of a partition that are in `phase`.
    fn of(&self, owner: &str, phase: Phase) -> Vec<SpaceId> {
        let is_it = |space: &Space| {
            let inner = space.inner.lock();
            let named = inner.record.as_ref().and_then(|r| r.owner.as_ref()).is_some_and(|o| &*o.name == owner);
            inner.phase == phase && named
        };
        (0..self.spaces.len()).filter(|&n| is_it(&self.spaces[n])).map(SpaceId).collect()
    }

    /// Goes on with releases that a power cut interrupted.
    pub fn resume(&'static self) {
        for id in (0..self.spaces.len()).map(SpaceId) {
            if self.space(id).inner.lock().phase == Phase::Releasing {
                self.tasks.start(self.scrub(id));
            }
        }
    }

    pub(super) async fn scrub(&self, id: SpaceId) {
        let result = self.scrub_blocks(id).await;
        let mut inner = self.space(id).inner.lock();
        match result {
            Ok(()) => inner.phase = Phase::Free,
            Err(error) => {
                inner.phase = Phase::Failed(error);
                drop(inner);
                self.trouble(id, "cannot be scrubbed");
            }
        }
    }

    async fn scrub_blocks(&self, id: SpaceId) -> Result<(), DiskError> {
        let owner = self.space(id).inner.lock().record.as_ref().and_then(|r| r.owner.clone());
        if self.state(id) != Some(SpaceState::Free) && self.state(id) != Some(SpaceState::Releasing) {
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
            (record.owner, record.contents, record.crash) = (None, None, None);
            record.drain = Drain::default();
        })
        .await?;
        if let Some(owner) = owner {
            let Place { disk, number, .. } = self.place(id);
            report(&Event::Released { disk: disk as u8, space: number, partition: &owner.name, incarnation: owner.epoch });
        }
        Ok(())
    }

    /// Makes a range read as zeros, by the device where it can.
    async fn zero(&self, id: SpaceId, range: SectorRange) -> Result<(), DiskError> {
        let disk = self.disk(id);
        if disk.info().write_zeroes {
            let sectors = self.place(id).area.locate(range.first * 512, range.count * 512).ok_or(DiskError::Unsupported)?;
            return self.io.run(disk, Operation::WriteZeroes, sectors, &[]).await;
        }
        let zeros = vec![0; BUFFER];
        let (mut at, end) = (range.first * 512, (range.first + range.count) * 512);
        while at < end {
            let len = (end - at).min(BUFFER as u64);
            self.write(id, at, &zeros[..len as usize]).await?;
            at += len;
        }
        Ok(())
    }

    fn state(&self, id: SpaceId) -> Option<SpaceState> {
        self.space(id).inner.lock().record.as_ref().map(|record| record.state)
    }
}
