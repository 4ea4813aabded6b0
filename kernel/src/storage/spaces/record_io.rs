//! Reads and writes a space outside its blocks, through its device's buffer; changes its record.

use super::retry::patiently;
use super::{SpaceId, Spaces, next};
use crate::block::dma::DmaRegion;
use crate::block::patience::SpaceAccess;
use crate::block::{Disk, DiskError, DiskOperation, QueueLane};
use crate::space::SpaceRecord;
use crate::task::until;

impl Spaces {
    /// Changes the record: flushes the data it will claim, writes the next version, flushes that,
    /// and only then adopts it.
    ///
    /// # Errors
    /// The disk's error; the old record is then still valid.
    pub async fn change(
        &self,
        id: SpaceId,
        change: impl FnOnce(&mut SpaceRecord),
    ) -> Result<(), DiskError> {
        self.flush(id).await?;
        self.change_now(id, change).await
    }

    /// As [`Self::change`], for a record that claims nothing about earlier writes.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn change_now(
        &self,
        id: SpaceId,
        change: impl FnOnce(&mut SpaceRecord),
    ) -> Result<(), DiskError> {
        let old = self.take_record(id).await;
        let result = match old {
            Some(old) => self.write_next(id, next(old, change)).await,
            None => Err(DiskError::Dead),
        };
        let changed = result.map(|record| {
            self.tell(id, &record);
            self.space(id).inner.lock().record = Some(record);
        });
        self.give_record(id);
        changed
    }

    async fn write_next(&self, id: SpaceId, record: SpaceRecord) -> Result<SpaceRecord, DiskError> {
        self.write_record(id, &record).await?;
        Ok(record)
    }

    pub(super) async fn write_record(
        &self,
        id: SpaceId,
        record: &SpaceRecord,
    ) -> Result<(), DiskError> {
        patiently!(
            self,
            id,
            SpaceAccess::Record,
            self.write_record_in(id, QueueLane::Common, record).await
        )
    }

    /// Makes all earlier writes durable.
    ///
    /// # Errors
    /// The disk's error, after some tries.
    pub async fn flush(&self, id: SpaceId) -> Result<(), DiskError> {
        patiently!(self, id, SpaceAccess::Flush, self.io.flush(self.disk(id)).await)
    }

    /// Writes `bytes` (whole sectors, at most [`super::BUFFER`]) through the device's buffer.
    ///
    /// # Errors
    /// The disk's error, after some tries; [`DiskError::Unsupported`] if a byte lies outside the
    /// space.
    pub async fn write(&self, id: SpaceId, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let access = SpaceAccess::Write(offset, bytes.len());
        patiently!(self, id, access, self.write_in(id, QueueLane::Common, offset, bytes).await)
    }

    /// Reads `bytes` (whole sectors, at most [`super::BUFFER`]) through the device's buffer.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn read(&self, id: SpaceId, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        let access = SpaceAccess::Read(offset, bytes.len());
        patiently!(self, id, access, self.read_in(id, QueueLane::Common, offset, bytes).await)
    }

    /// As [`Self::read`], but with a single try and without an event on failure.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_once(
        &self,
        id: SpaceId,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), DiskError> {
        self.read_in(id, QueueLane::Common, offset, bytes).await
    }

    /// As [`Self::write`], in the given lane. In [`QueueLane::Beat`] at most
    /// [`BEAT_BUFFER`](super::BEAT_BUFFER) bytes; it then waits for no other task.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) async fn write_in(
        &self,
        id: SpaceId,
        lane: QueueLane,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        let sectors =
            self.place(id).area.locate(offset, bytes.len() as u64).ok_or(DiskError::Unsupported)?;
        let buffer = self.take_buffer(id, lane).await?;
        buffer.window().copy_in(0, bytes);
        let (result, buffer) =
            self.io.transfer(self.disk(id), lane, DiskOperation::Write, sectors, buffer).await;
        self.give_buffer(id, lane, buffer);
        result
    }

    /// As [`Self::read`], in the given lane.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) async fn read_in(
        &self,
        id: SpaceId,
        lane: QueueLane,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), DiskError> {
        let sectors =
            self.place(id).area.locate(offset, bytes.len() as u64).ok_or(DiskError::Unsupported)?;
        let buffer = self.take_buffer(id, lane).await?;
        let (result, buffer) =
            self.io.transfer(self.disk(id), lane, DiskOperation::Read, sectors, buffer).await;
        if let (Ok(()), Some(buffer)) = (result, &buffer) {
            buffer.window().copy_out(0, bytes);
        }
        self.give_buffer(id, lane, buffer);
        result
    }

    /// Returns whether a piece (whole sectors, at most [`BUFFER`](super::BUFFER)) reads as zeros.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) async fn is_zero(
        &self,
        id: SpaceId,
        offset: u64,
        len: usize,
    ) -> Result<bool, DiskError> {
        let is_zero = |buffer: &DmaRegion| (0..len).step_by(8).all(|n| buffer.read::<u64>(n) == 0);
        self.holds(id, offset, len, is_zero).await
    }

    /// Returns whether the space holds `bytes` (whole sectors, at most [`BUFFER`](super::BUFFER))
    /// at `offset`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn is_there(
        &self,
        id: SpaceId,
        offset: u64,
        bytes: &[u8],
    ) -> Result<bool, DiskError> {
        let is_it = |buffer: &DmaRegion| {
            bytes.iter().enumerate().all(|(n, byte)| buffer.read::<u8>(n) == *byte)
        };
        self.holds(id, offset, bytes.len(), is_it).await
    }

    async fn holds(
        &self,
        id: SpaceId,
        offset: u64,
        len: usize,
        is_right: impl Fn(&DmaRegion) -> bool + Sync,
    ) -> Result<bool, DiskError> {
        let access = SpaceAccess::Read(offset, len);
        patiently!(self, id, access, self.holds_once(id, offset, len, &is_right).await)
    }

    async fn holds_once(
        &self,
        id: SpaceId,
        offset: u64,
        len: usize,
        is_right: impl FnOnce(&DmaRegion) -> bool,
    ) -> Result<bool, DiskError> {
        let sectors =
            self.place(id).area.locate(offset, len as u64).ok_or(DiskError::Unsupported)?;
        let buffer = self.take_buffer(id, QueueLane::Common).await?;
        let (result, buffer) = self
            .io
            .transfer(self.disk(id), QueueLane::Common, DiskOperation::Read, sectors, buffer)
            .await;
        let answer = result.map(|()| buffer.as_ref().is_some_and(is_right));
        self.give_buffer(id, QueueLane::Common, buffer);
        answer
    }

    /// Takes the device's buffer of a lane. Waits while another task or a late request has it.
    ///
    /// # Errors
    /// [`DiskError::Dead`]: the disk does not answer, and may still hold the buffer.
    pub(super) async fn take_buffer(
        &self,
        id: SpaceId,
        lane: QueueLane,
    ) -> Result<DmaRegion, DiskError> {
        let (device, disk) = (self.device(id), self.disk(id));
        until(|| match device.take_buffer(lane).or_else(|| self.io.take_returned(disk, lane)) {
            Some(buffer) => Some(Ok(buffer)),
            None => disk.is_dead().then_some(Err(DiskError::Dead)),
        })
        .await
    }

    /// Returns a buffer, unless the disk still has it.
    pub(super) fn give_buffer(&self, id: SpaceId, lane: QueueLane, buffer: Option<DmaRegion>) {
        if let Some(buffer) = buffer {
            self.device(id).give_buffer(lane, buffer);
        }
    }
}
