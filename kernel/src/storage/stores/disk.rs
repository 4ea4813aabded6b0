//! The blocks of a store, over the awaited I/O of tasks.
//!
//! A refused request is tried again, as for paging spaces. While another task has the buffer, a
//! request waits; if the disk has it and does not answer, the request fails.

use super::{STORE_BUFFER, StoreDevice};
use crate::arch::time;
use crate::block::dma::DmaRegion;
use crate::block::patience::{AfterRefusal, PAUSE_NS, RetryCount};
use crate::block::{Disk, DiskError, DiskOperation, QueueLane, SectorRange};
use crate::images::layout::{BLOCK, CHUNK, DIRECTORY_LEN};
use crate::images::{StoreRead, StoreWrite};
use crate::storage::spaces::sleep;
use crate::task::io::AsyncIo;
use crate::task::until;
use crate::time::Ns;

const _: () = assert!(STORE_BUFFER >= CHUNK && STORE_BUFFER >= DIRECTORY_LEN);

/// The blocks of a store.
#[derive(Clone, Copy)]
pub struct StoreDisk {
    device: &'static StoreDevice,
    io: &'static AsyncIo,
}

/// Waits and returns true if a request is to be made again.
async fn is_again(tries: &mut RetryCount, result: Result<(), DiskError>) -> bool {
    let is_again = result.is_err_and(|error| tries.refused(error) == AfterRefusal::Again);
    if is_again {
        sleep(PAUSE_NS).await;
    }
    is_again
}

impl StoreDisk {
    pub(super) const fn new(device: &'static StoreDevice, io: &'static AsyncIo) -> Self {
        Self { device, io }
    }

    fn sectors(&self, first: u64, len: usize) -> Result<SectorRange, DiskError> {
        let at = first.checked_mul(BLOCK as u64).filter(|_| len <= STORE_BUFFER);
        at.and_then(|at| self.device.place.area.locate(at, len as u64))
            .ok_or(DiskError::Unsupported)
    }

    async fn take_buffer(&self) -> Result<DmaRegion, DiskError> {
        let StoreDevice { disk, buffer, .. } = self.device;
        // One lock after the other.
        let own = || buffer.lock().take();
        until(|| match own().or_else(|| self.io.take_returned(*disk, QueueLane::Store)) {
            Some(buffer) => Some(Ok(buffer)),
            None => disk.is_dead().then_some(Err(DiskError::Dead)),
        })
        .await
    }

    /// Carries out one request on the buffer.
    async fn carry_out(
        &self,
        operation: DiskOperation,
        sectors: SectorRange,
        buffer: DmaRegion,
    ) -> (Result<(), DiskError>, Option<DmaRegion>) {
        self.io.transfer(self.device.disk, QueueLane::Store, operation, sectors, buffer).await
    }

    fn give_buffer(&self, buffer: Option<DmaRegion>) {
        if let Some(buffer) = buffer {
            *self.device.buffer.lock() = Some(buffer);
        }
    }

    async fn read_once(&self, first: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let sectors = self.sectors(first, into.len())?;
        let buffer = self.take_buffer().await?;
        let (result, buffer) = self.carry_out(DiskOperation::Read, sectors, buffer).await;
        if let (Ok(()), Some(buffer)) = (result, &buffer) {
            for (at, word) in (0..).step_by(8).zip(into.as_chunks_mut::<8>().0) {
                *word = buffer.read::<u64>(at).to_le_bytes();
            }
        }
        self.give_buffer(buffer);
        result
    }

    async fn write_once(&self, first: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let sectors = self.sectors(first, bytes.len())?;
        let buffer = self.take_buffer().await?;
        for (at, word) in (0..).step_by(8).zip(bytes.as_chunks::<8>().0) {
            buffer.write(at, u64::from_le_bytes(*word));
        }
        let (result, buffer) = self.carry_out(DiskOperation::Write, sectors, buffer).await;
        self.give_buffer(buffer);
        result
    }
}

impl StoreRead for StoreDisk {
    type Error = DiskError;

    fn blocks(&self) -> u64 {
        self.device.place.area.bytes() / BLOCK as u64
    }

    async fn read(&mut self, first: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let mut tries = RetryCount::default();
        loop {
            let result = self.read_once(first, into).await;
            if !is_again(&mut tries, result).await {
                return result;
            }
        }
    }

    async fn pause(&mut self, ns: u64) {
        sleep(Ns::new(ns)).await;
    }
}

impl StoreWrite for StoreDisk {
    async fn write(&mut self, first: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut tries = RetryCount::default();
        loop {
            let result = self.write_once(first, bytes).await;
            if !is_again(&mut tries, result).await {
                return result;
            }
        }
    }

    async fn flush(&mut self) -> Result<(), DiskError> {
        let mut tries = RetryCount::default();
        loop {
            let result = self.io.flush_in(self.device.disk, QueueLane::Store).await;
            if !is_again(&mut tries, result).await {
                return result;
            }
        }
    }

    fn now_ns(&self) -> u64 {
        time::now_ns().as_u64()
    }
}
