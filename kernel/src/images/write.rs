//! Writing a new image into free chunks. Nothing names them until the directory is published, so an
//! interruption leaves the store as it was.

use super::device::StoreWrite;
use super::entry::StoredImage;
use super::error::{StoreContentError, StoreError, StoreFault, StorePlace, StoreRefusedError};
use super::layout::{BLOCK, CHUNK, StoreLayout};
use super::sums;
use super::units::SUMS_A_BLOCK;
use crate::mm::crc::Crc32c;
use crate::space::Uuid;
use alloc::vec::Vec;

/// A writer of one image: its chunks in order, then [`Self::finish`].
#[derive(Debug)]
pub struct ImageWriter {
    store: Uuid,
    image: StoredImage,
    sums: Vec<Crc32c>,
}

impl ImageWriter {
    /// Makes a writer of `image`, whose extents are free.
    ///
    /// # Errors
    /// [`StoreFault::OutOfMemory`].
    pub fn new(store: Uuid, image: StoredImage) -> Result<Self, StoreContentError> {
        let mut sums = Vec::new();
        let place = StorePlace::Chunk(image.digest, 0, 0);
        sums.try_reserve_exact(image.chunks() as usize)
            .map_err(|_| StoreContentError { place, fault: StoreFault::OutOfMemory })?;
        Ok(Self { store, image, sums })
    }

    /// Writes the next chunk: [`CHUNK`] bytes, or the rest of the image.
    ///
    /// # Errors
    /// The disk's error; [`StoreRefusedError::Length`] if the image has other chunks.
    pub async fn chunk<D: StoreWrite>(
        &mut self,
        disk: &mut D,
        bytes: &[u8],
    ) -> Result<(), StoreError<D::Error>> {
        let number = self.sums.len() as u32;
        let wrong =
            StoreRefusedError::Length(u64::from(number) * CHUNK as u64 + bytes.len() as u64);
        let at = self.image.place(number + 1).ok_or(wrong)?;
        if bytes.is_empty() || bytes.len() != self.image.chunk_len(number) {
            return Err(wrong.into());
        }
        let block = StoreLayout::chunk(at);
        let (whole, rest) = bytes.split_at(bytes.len() / BLOCK * BLOCK);
        if !whole.is_empty() {
            disk.write(block, whole).await.map_err(StoreError::Disk)?;
        }
        if !rest.is_empty() {
            let mut last = [0; BLOCK];
            last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            let block = block + (whole.len() / BLOCK) as u64;
            disk.write(block, &last).await.map_err(StoreError::Disk)?;
        }
        self.sums.push(sums::sum(bytes));
        Ok(())
    }

    /// Writes the checksums, makes everything durable, and returns the entry for the directory.
    ///
    /// # Errors
    /// As [`Self::chunk`].
    pub async fn finish<D: StoreWrite>(
        self,
        disk: &mut D,
    ) -> Result<StoredImage, StoreError<D::Error>> {
        if self.sums.len() != self.image.chunks() as usize {
            return Err(StoreRefusedError::Length(self.sums.len() as u64 * CHUNK as u64).into());
        }
        let first = self.image.place(0).map_or(0, StoreLayout::chunk);
        for (number, sums) in (0..).zip(self.sums.chunks(SUMS_A_BLOCK)) {
            let block = sums::encode(self.store, self.image.digest, number, sums);
            disk.write(first + u64::from(number), &block).await.map_err(StoreError::Disk)?;
        }
        disk.flush().await.map_err(StoreError::Disk)?;
        Ok(self.image)
    }
}
