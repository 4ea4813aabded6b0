//! Reading and writing a space outside its blocks, through the buffer of its device; and changes of its record.

use super::{BUFFER, SpaceId, Spaces, next};
use crate::addr::Hpa;
use crate::block::dma::DmaRegion;
use crate::block::{DiskError, Operation, Segment};
use crate::node::task::until;
use crate::paging::space::{Record, Side};

impl Spaces {
    /// Changes the record: makes durable what it will claim, writes the next version, flushes, and only then believes it.
    ///
    /// # Errors
    /// The disk's; the old record is valid then.
    pub async fn change(&self, id: SpaceId, change: impl FnOnce(&mut Record)) -> Result<(), DiskError> {
        self.io.flush(self.disk(id)).await?;
        let old = self.space(id).inner.lock().record.clone().ok_or(DiskError::Dead)?;
        let record = next(old, change);
        self.write_record(id, &record).await?;
        self.tell(id, &record);
        self.space(id).inner.lock().record = Some(record);
        Ok(())
    }

    pub(super) async fn write_record(&self, id: SpaceId, record: &Record) -> Result<(), DiskError> {
        let start = Side::of(record.sequence).start(record.capacity).ok_or(DiskError::Unsupported)?;
        // On the heap: a future keeps it while it waits, and is itself part of larger ones that pass over the stack.
        let bytes = record.encode().to_vec();
        self.write(id, start, &bytes).await?;
        self.io.flush(self.disk(id)).await
    }

    /// Writes `bytes` (whole sectors, at most [`BUFFER`]) through the device's buffer.
    ///
    /// # Errors
    /// The disk's; [`DiskError::Unsupported`] where a byte lies outside the space.
    pub async fn write(&self, id: SpaceId, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let buffer = self.take_buffer(id).await;
        bytes.iter().enumerate().for_each(|(n, byte)| buffer.write(n, *byte));
        let at = buffer.hpa(0);
        let result = self.transfer(id, Operation::Write, offset, at, bytes.len()).await;
        self.give_buffer(id, buffer);
        result
    }

    /// Reads `bytes` (whole sectors, at most [`BUFFER`]) through the device's buffer.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn read(&self, id: SpaceId, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        let buffer = self.take_buffer(id).await;
        let at = buffer.hpa(0);
        let result = self.transfer(id, Operation::Read, offset, at, bytes.len()).await;
        bytes.iter_mut().enumerate().for_each(|(n, byte)| *byte = buffer.read(n));
        self.give_buffer(id, buffer);
        result
    }

    /// As [`Self::read`], of any length.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn read_all(&self, id: SpaceId, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        for (at, piece) in (offset..).step_by(BUFFER).zip(bytes.chunks_mut(BUFFER)) {
            self.read(id, at, piece).await?;
        }
        Ok(())
    }

    async fn transfer(&self, id: SpaceId, operation: Operation, offset: u64, at: Hpa, len: usize) -> Result<(), DiskError> {
        let sectors = self.place(id).area.locate(offset, len as u64).ok_or(DiskError::Unsupported)?;
        self.io.run(self.disk(id), operation, sectors, &[Segment { base: at, len: len as u32 }]).await
    }

    pub(super) async fn take_buffer(&self, id: SpaceId) -> DmaRegion {
        until(|| self.device(id).take_buffer()).await
    }

    pub(super) fn give_buffer(&self, id: SpaceId, buffer: DmaRegion) {
        self.device(id).give_buffer(buffer);
    }
}
