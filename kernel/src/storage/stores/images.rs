//! The images of a partition: finding them, and reading ranges of them. Every chunk is verified
//! before a byte of it is given out.

use super::{ImageStores, StoreAtError, StoreId};
use crate::block::DiskError;
use crate::images::content::ImageReader;
use crate::images::layout::CHUNK;
use crate::images::{
    ImageDigest, OpenStore, StoreContentError, StoreError, StoreFault, StorePlace,
    StoreRefusedError, StoreSide,
};
use crate::space::Uuid;
use crate::storage::spaces::SpaceLocation;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// The part of a partition that lies in a store: kernel and initrd, and mostly its definition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreOrigin {
    /// The store.
    pub store: StoreId,
    /// Its permanent name: another one may lie at its place one day.
    pub uuid: Uuid,
    /// The kernel.
    pub kernel: ImageDigest,
    /// The initrd.
    pub initrd: Option<ImageDigest>,
    /// The partition's permanent name in its definition there; `None`: its definition is for this
    /// node alone.
    pub definition: Option<Uuid>,
}

/// Readers of a partition's images.
#[derive(Debug)]
pub struct FoundImages {
    /// Of the kernel.
    pub kernel: ImageReader,
    /// Of the initrd.
    pub initrd: Option<ImageReader>,
}

/// An image that cannot be read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageReadError {
    /// The store.
    pub store: StoreId,
    /// Its place.
    pub place: SpaceLocation,
    /// The image.
    pub image: ImageDigest,
    /// The chunk of its content.
    pub chunk: u32,
    /// The error.
    pub error: StoreError<DiskError>,
}

impl core::fmt::Display for ImageReadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "image store {} on {}: ", self.store.0, self.place)?;
        match &self.error {
            // These name image and chunk.
            StoreError::Content(error) => write!(f, "{error}"),
            error => write!(f, "image {}, chunk {}: {error}", self.image.short(), self.chunk),
        }
    }
}

/// Returns readers of a partition's images in an open store.
fn readers(open: &OpenStore, images: &StoreOrigin) -> Result<FoundImages, StoreError<DiskError>> {
    if open.uuid() != images.uuid {
        let place = StorePlace::Superblock(StoreSide::A);
        return Err(StoreContentError { place, fault: StoreFault::OtherStore }.into());
    }
    let reader = |digest| {
        let image = open.directory().image(digest).ok_or(StoreRefusedError::NoImage(digest))?;
        Ok::<_, StoreError<DiskError>>(ImageReader::new(open.uuid(), image.clone()))
    };
    Ok(FoundImages {
        kernel: reader(images.kernel)?,
        initrd: images.initrd.map(reader).transpose()?,
    })
}

impl ImageStores {
    /// Finds the images of a partition.
    ///
    /// # Errors
    /// The store cannot be opened, or does not have them.
    pub async fn find_images(
        &'static self,
        images: StoreOrigin,
    ) -> Result<FoundImages, StoreAtError> {
        let open = self.open(images.store).await?;
        readers(&open, &images).map_err(|error| self.at(images.store, error))
    }

    /// Reads `len` bytes of an image from `offset` on, which it must have.
    ///
    /// # Errors
    /// The chunk that cannot be read, and why.
    pub async fn read_image(
        &'static self,
        store: StoreId,
        reader: &mut ImageReader,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, Box<ImageReadError>> {
        let image = reader.image().digest;
        let place = self.place(store);
        let mut all = Vec::new();
        let end = offset.saturating_add(len as u64);
        for chunk in (offset / CHUNK as u64)..end.div_ceil(CHUNK as u64) {
            let (from, number) = (chunk * CHUNK as u64, chunk as u32);
            let failed =
                |error| Box::new(ImageReadError { store, place, image, chunk: number, error });
            let mut bytes = self.read_chunk(store, reader, number).await.map_err(failed)?;
            bytes.truncate((end - from).min(bytes.len() as u64) as usize);
            bytes.drain(..offset.saturating_sub(from).min(bytes.len() as u64) as usize);
            if all.is_empty() {
                all = bytes;
                continue;
            }
            let fault = StoreContentError {
                place: StorePlace::Chunk(image, number, 0),
                fault: StoreFault::OutOfMemory,
            };
            all.try_reserve(bytes.len()).map_err(|_| failed(fault.into()))?;
            all.append(&mut bytes);
        }
        Ok(all)
    }

    async fn read_chunk(
        &'static self,
        store: StoreId,
        reader: &mut ImageReader,
        chunk: u32,
    ) -> Result<Vec<u8>, StoreError<DiskError>> {
        let no_memory = StoreContentError {
            place: StorePlace::Chunk(reader.image().digest, chunk, 0),
            fault: StoreFault::OutOfMemory,
        };
        let mut bytes = crate::arch::heap::zeroed(CHUNK).map_err(|_| no_memory)?;
        let len = reader.chunk(&mut self.disk(store), chunk, &mut bytes).await?.len();
        bytes.truncate(len);
        Ok(bytes)
    }
}
