//! Changes of the directory, by the host command.
//!
//! ```text
//!   format:  superblocks := 0; flush; slots := 0, directories := empty; flush; superblocks; flush
//!   add:     chunks, checksums; flush; publish
//!   remove:  publish "leaving"; read the definitions; publish without, or as it was
//!   publish: read the directory, unchanged? write the older copy; flush; read, mine? the same over
//!            the other copy
//! ```
//!
//! So both copies have the images that were announced, and a damaged copy costs none.
//!
//! **Two commands at once.** A lock keeps them apart where both see the same file. Without a common
//! lock one of them finds another sequence number or writer, before or after its write, and reports
//! [`StoreRefusedError::Overtaken`]. If it had taken the same chunks, the checksums of the image
//! that lost them reveal it.
//!
//! **A node defines what the command removes.** The command marks the image first and then reads
//! the definitions; the node writes its definition first and then reads the directory. So one of
//! them sees the other: the command keeps the image, or the node withdraws the definition.

use super::device::StoreWrite;
use super::directory::{FoundDirectory, StoreDirectory, zeros};
use super::entry::{ImageDigest, ImageState, StoredImage};
use super::error::{StoreContentError, StoreError, StorePlace, StoreRefusedError};
use super::layout::{CHUNK, CHUNK_BLOCKS, MAX_IMAGES, StoreLayout, StoreSide};
use super::open::{self, OpenStore};
use super::superblock::StoreSuperblock;
use super::{extents, find};
use crate::space::Uuid;
use alloc::vec::Vec;

/// The command that makes a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreAuthor {
    /// Its name; no other command ever has it.
    pub writer: Uuid,
    /// The time in nanoseconds since 1970.
    pub now_ns: u64,
}

/// Makes an empty store, whatever the disk holds.
///
/// # Errors
/// The disk's error. The disk then has no store.
pub async fn format<D: StoreWrite>(
    disk: &mut D,
    superblock: &StoreSuperblock,
    author: StoreAuthor,
) -> Result<(), StoreError<D::Error>> {
    let place = StorePlace::Directory(StoreSide::A);
    let content = |fault| StoreContentError { place, fault };
    let blank = zeros(CHUNK).map_err(content)?;
    let data = u64::from(superblock.layout.first_chunk());
    // The first chunk has the superblocks: without them there is no store.
    for chunk in 0..data {
        disk.write(chunk * CHUNK_BLOCKS, &blank).await.map_err(StoreError::Disk)?;
        if chunk == 0 {
            disk.flush().await.map_err(StoreError::Disk)?;
        }
    }
    for (sequence, side) in (0..).zip(StoreSide::BOTH) {
        let empty = StoreDirectory {
            sequence,
            writer: author.writer,
            written_ns: author.now_ns,
            images: Vec::new(),
        };
        let bytes = empty.encode(superblock.store).map_err(content)?;
        disk.write(StoreLayout::directory(side), &bytes).await.map_err(StoreError::Disk)?;
    }
    disk.flush().await.map_err(StoreError::Disk)?;
    for side in StoreSide::BOTH {
        let block = StoreLayout::superblock(side);
        disk.write(block, &superblock.encode()).await.map_err(StoreError::Disk)?;
    }
    disk.flush().await.map_err(StoreError::Disk)
}

/// Plans the entry of a new image: chooses its chunks. `image` has no extents yet.
///
/// # Errors
/// [`StoreError::Refused`] if the store has no room.
pub fn plan<E>(store: &OpenStore, image: StoredImage) -> Result<StoredImage, StoreError<E>> {
    let chunks = super::entry::content_chunks(image.length)
        .ok_or(StoreRefusedError::Length(image.length))?;
    if store.directory().images.len() >= MAX_IMAGES {
        return Err(StoreRefusedError::TooManyImages.into());
    }
    let extents = extents::choose(store.directory(), store.layout(), chunks + 1)?;
    Ok(StoredImage { extents, ..image })
}

/// Publishes `images` in place of those of `store`, and returns the store after that.
///
/// # Errors
/// [`StoreRefusedError::Overtaken`] if another command has written the directory since `store` was
/// read.
pub async fn publish<D: StoreWrite>(
    disk: &mut D,
    store: &OpenStore,
    author: StoreAuthor,
    images: Vec<StoredImage>,
) -> Result<OpenStore, StoreError<D::Error>> {
    let before = open::directory(disk, &store.superblock).await?;
    let named = |directory: &StoreDirectory| (directory.sequence, directory.writer);
    if named(&before.directory) != named(store.directory()) {
        return Err(StoreRefusedError::Overtaken.into());
    }
    let mut next = StoreDirectory {
        sequence: before.directory.sequence,
        writer: author.writer,
        written_ns: author.now_ns,
        images,
    };
    next.sequence += 1;
    put_copy(disk, &store.superblock, &next).await?;
    next.sequence += 1;
    let found = put_copy(disk, &store.superblock, &next).await?;
    Ok(OpenStore { superblock: store.superblock, found })
}

/// Writes a copy of the directory, and returns the directory as it is read after that.
async fn put_copy<D: StoreWrite>(
    disk: &mut D,
    superblock: &StoreSuperblock,
    next: &StoreDirectory,
) -> Result<FoundDirectory, StoreError<D::Error>> {
    let side = StoreSide::of(next.sequence);
    let bytes = next
        .encode(superblock.store)
        .map_err(|fault| StoreContentError { place: StorePlace::Directory(side), fault })?;
    disk.write(StoreLayout::directory(side), &bytes).await.map_err(StoreError::Disk)?;
    disk.flush().await.map_err(StoreError::Disk)?;
    let found = open::directory(disk, superblock).await?;
    if found.directory == *next { Ok(found) } else { Err(StoreRefusedError::Overtaken.into()) }
}

/// Publishes the directory with `image`: a new entry, or another version of an entry.
///
/// # Errors
/// As [`publish`].
pub async fn put<D: StoreWrite>(
    disk: &mut D,
    store: &OpenStore,
    author: StoreAuthor,
    image: StoredImage,
) -> Result<OpenStore, StoreError<D::Error>> {
    let mut images = store.directory().images.clone();
    match images.iter_mut().find(|there| there.digest == image.digest) {
        Some(there) => *there = image,
        None => images.push(image),
    }
    publish(disk, store, author, images).await
}

/// Removes images that no definition names; returns the store after that and, of the others, each
/// digest with the number of a slot that names it.
///
/// # Errors
/// [`StoreRefusedError::NoImage`]; the place of a slot that cannot be read, because it may name
/// any image. After an error the images may stay marked as leaving, which another removal or an
/// addition ends.
pub async fn remove<D: StoreWrite>(
    disk: &mut D,
    store: &OpenStore,
    author: StoreAuthor,
    digests: &[ImageDigest],
) -> Result<(OpenStore, Vec<(ImageDigest, u32)>), StoreError<D::Error>> {
    if let Some(absent) = digests.iter().find(|digest| store.directory().image(**digest).is_none())
    {
        return Err(StoreRefusedError::NoImage(*absent).into());
    }
    let mut images = store.directory().images.clone();
    for image in images.iter_mut().filter(|image| digests.contains(&image.digest)) {
        image.state = ImageState::Leaving;
    }
    let marked = publish(disk, store, author, images).await?;
    let named = named(disk, &store.superblock, digests).await?;
    let mut images = marked.directory().images.clone();
    let is_named = |digest| named.iter().any(|(there, _)| *there == digest);
    images.retain(|image| !digests.contains(&image.digest) || is_named(image.digest));
    for image in images.iter_mut().filter(|image| is_named(image.digest)) {
        image.state = ImageState::Present;
    }
    Ok((publish(disk, &marked, author, images).await?, named))
}

/// Returns those of `digests` that definitions name, each with a slot.
async fn named<D: StoreWrite>(
    disk: &mut D,
    superblock: &StoreSuperblock,
    digests: &[ImageDigest],
) -> Result<Vec<(ImageDigest, u32)>, StoreError<D::Error>> {
    let mut named: Vec<(ImageDigest, u32)> = Vec::new();
    let unreadable = find::each(disk, superblock, |slot| {
        for digest in slot.definition().into_iter().flat_map(|definition| definition.images()) {
            if digests.contains(&digest) && named.iter().all(|(there, _)| *there != digest) {
                named.push((digest, slot.number));
            }
        }
        let is_secret = slot.is_unreadable() && !slot.is_pending();
        is_secret.then(|| slot.faults().next().map(|(side, fault)| (slot.number, side, fault)))
    })
    .await?;
    match unreadable.flatten() {
        Some((number, side, fault)) => {
            Err(StoreContentError { place: StorePlace::Slot(number, side), fault }.into())
        }
        None => Ok(named),
    }
}

/// Returns the images that nothing needs: not kept for themselves, and named by no definition.
///
/// # Errors
/// As [`remove`].
pub async fn unused<D: StoreWrite>(
    disk: &mut D,
    store: &OpenStore,
) -> Result<Vec<ImageDigest>, StoreError<D::Error>> {
    let loose = store.directory().images.iter().filter(|image| !image.is_kept);
    let loose: Vec<_> = loose.map(|image| image.digest).collect();
    let named = named(disk, &store.superblock, &loose).await?;
    let is_named = |digest: &ImageDigest| named.iter().any(|(there, _)| there == digest);
    Ok(loose.into_iter().filter(|digest| !is_named(digest)).collect())
}
