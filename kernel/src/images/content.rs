//! Reading an image chunk by chunk. Every chunk is compared with its checksum before it is given
//! out.
//!
//! An image that is removed while it is read ends in [`StoreFault::Checksum`] or
//! [`StoreFault::OtherImage`], never in bytes of another image.

use super::device::StoreRead;
use super::entry::StoredImage;
use super::error::{StoreContentError, StoreError, StoreFault, StorePlace};
use super::layout::{BLOCK, CHUNK, StoreLayout};
use super::sums::{self, ChunkSums};
use super::units::SUMS_A_BLOCK;
use crate::space::Uuid;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A reader of one image.
#[derive(Debug)]
pub struct ImageReader {
    store: Uuid,
    image: StoredImage,
    /// The block of checksums read last, and its number.
    sums: Option<(u32, Box<ChunkSums>)>,
}

impl ImageReader {
    /// Makes a reader of `image` in `store`.
    pub const fn new(store: Uuid, image: StoredImage) -> Self {
        Self { store, image, sums: None }
    }

    /// Returns the image.
    pub const fn image(&self) -> &StoredImage {
        &self.image
    }

    /// Returns the place of a chunk of the content.
    fn place(&self, chunk: u32) -> Result<(u64, StorePlace), StoreContentError> {
        let at = chunk.checked_add(1).and_then(|n| self.image.place(n));
        let block = at.map_or(0, StoreLayout::chunk);
        let place = StorePlace::Chunk(self.image.digest, chunk, block);
        match at {
            Some(_) if chunk < self.image.chunks() => Ok((block, place)),
            _ => Err(StoreContentError { place, fault: StoreFault::Impossible("chunk") }),
        }
    }

    /// Reads chunk `chunk` of the content into `into`, which has [`CHUNK`] bytes; returns the bytes
    /// that belong to the image.
    ///
    /// # Errors
    /// The disk's error, or the place and its fault.
    pub async fn chunk<'b, D: StoreRead>(
        &mut self,
        disk: &mut D,
        chunk: u32,
        into: &'b mut [u8],
    ) -> Result<&'b [u8], StoreError<D::Error>> {
        let (block, place) = self.place(chunk)?;
        let fault = |fault| StoreContentError { place, fault };
        let expected = self.sum(disk, chunk).await?;
        let len = self.image.chunk_len(chunk);
        let read = into
            .get_mut(..len.next_multiple_of(BLOCK))
            .ok_or(fault(StoreFault::Impossible("buffer")))?;
        disk.read(block, read).await.map_err(StoreError::Disk)?;
        let bytes = read.get(..len).ok_or(fault(StoreFault::Impossible("buffer")))?;
        if sums::sum(bytes) != expected {
            return Err(fault(StoreFault::Checksum).into());
        }
        Ok(bytes)
    }

    /// Returns the checksum of a chunk.
    async fn sum<D: StoreRead>(
        &mut self,
        disk: &mut D,
        chunk: u32,
    ) -> Result<crate::mm::crc::Crc32c, StoreError<D::Error>> {
        let number = chunk / SUMS_A_BLOCK as u32;
        let block = self.image.place(0).map_or(0, StoreLayout::chunk) + u64::from(number);
        let place = StorePlace::Sums(self.image.digest, block);
        let fault = |fault| StoreContentError { place, fault };
        if self.sums.as_ref().is_none_or(|(there, _)| *there != number) {
            let mut bytes = super::directory::zeros(BLOCK).map_err(fault)?;
            disk.read(block, &mut bytes).await.map_err(StoreError::Disk)?;
            let bytes = bytes.first_chunk().ok_or(fault(StoreFault::Impossible("size")))?;
            let sums = sums::decode(bytes, self.store, self.image.digest, number).map_err(fault)?;
            self.sums = Some((number, Box::new(sums)));
        }
        let sums = self.sums.as_ref().map(|(_, sums)| sums);
        let sum = sums.and_then(|sums| sums.get(chunk as usize % SUMS_A_BLOCK));
        Ok(*sum.ok_or(fault(StoreFault::Impossible("count")))?)
    }

    /// Reads the whole image; the memory for it is asked for before anything is read.
    ///
    /// # Errors
    /// As [`Self::chunk`], or [`StoreFault::OutOfMemory`].
    pub async fn whole<D: StoreRead>(
        &mut self,
        disk: &mut D,
    ) -> Result<Vec<u8>, StoreError<D::Error>> {
        let (_, place) = self.place(0)?;
        let no_memory = |_| StoreContentError { place, fault: StoreFault::OutOfMemory };
        let mut all = Vec::new();
        let len = usize::try_from(self.image.length)
            .map_err(|_| StoreContentError { place, fault: StoreFault::OutOfMemory })?;
        all.try_reserve_exact(len).map_err(no_memory)?;
        let mut buffer =
            super::directory::zeros(CHUNK).map_err(|fault| StoreContentError { place, fault })?;
        for chunk in 0..self.image.chunks() {
            let bytes = self.chunk(disk, chunk, &mut buffer).await?;
            all.extend_from_slice(bytes);
        }
        Ok(all)
    }
}
