//! Opening a store: the superblock, then both copies of the directory.

use super::device::StoreRead;
use super::directory::{FoundDirectory, StoreDirectory, zeros};
use super::error::{StoreContentError, StoreError, StoreFault, StorePlace};
use super::layout::{BLOCK, DIRECTORY_LEN, StoreLayout, StoreSide};
use super::superblock::StoreSuperblock;
use crate::space::Uuid;

/// How often the directory is read if neither copy is whole. The host command may write one while
/// the other one is read, and then the other way round.
const READS: u32 = 3;
/// Time between two such reads.
const PAUSE_NS: u64 = 100_000_000;

/// A store that can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenStore {
    /// The superblock.
    pub superblock: StoreSuperblock,
    /// The directory at the time of the read.
    pub found: FoundDirectory,
}

impl OpenStore {
    /// Returns the store's name.
    pub const fn uuid(&self) -> Uuid {
        self.superblock.store
    }

    /// Returns its places.
    pub const fn layout(&self) -> &StoreLayout {
        &self.superblock.layout
    }

    /// Returns the directory.
    pub const fn directory(&self) -> &StoreDirectory {
        &self.found.directory
    }
}

/// Opens the store on `disk`.
///
/// # Errors
/// The disk's error, or the place that cannot be used and its fault.
pub async fn open<D: StoreRead>(disk: &mut D) -> Result<OpenStore, StoreError<D::Error>> {
    let superblock = superblock(disk).await?;
    let found = directory(disk, &superblock).await?;
    Ok(OpenStore { superblock, found })
}

/// Reads the superblock.
///
/// # Errors
/// As [`open`].
pub async fn superblock<D: StoreRead>(
    disk: &mut D,
) -> Result<StoreSuperblock, StoreError<D::Error>> {
    let place = StorePlace::Superblock(StoreSide::A);
    let blocks = disk.blocks();
    if blocks < 2 {
        return Err(StoreContentError { place, fault: StoreFault::CutOff(blocks) }.into());
    }
    let mut bytes = zeros(2 * BLOCK).map_err(|fault| StoreContentError { place, fault })?;
    disk.read(StoreLayout::superblock(StoreSide::A), &mut bytes).await.map_err(StoreError::Disk)?;
    let (copies, _) = bytes.as_chunks::<BLOCK>();
    let [a, b] = copies else {
        return Err(StoreContentError { place, fault: StoreFault::Impossible("size") }.into());
    };
    Ok(StoreSuperblock::decode([a, b], blocks)?)
}

/// Reads both copies of the directory, and again if neither is whole.
///
/// # Errors
/// As [`open`].
pub async fn directory<D: StoreRead>(
    disk: &mut D,
    superblock: &StoreSuperblock,
) -> Result<FoundDirectory, StoreError<D::Error>> {
    let mut reads = 1;
    loop {
        let found = [
            copy(disk, superblock, StoreSide::A).await?,
            copy(disk, superblock, StoreSide::B).await?,
        ];
        match FoundDirectory::newest(found) {
            Err(error) if error.fault == StoreFault::Checksum && reads < READS => {
                disk.pause(PAUSE_NS).await;
            }
            result => return Ok(result?),
        }
        reads += 1;
    }
}

/// Reads a copy of the directory.
async fn copy<D: StoreRead>(
    disk: &mut D,
    superblock: &StoreSuperblock,
    side: StoreSide,
) -> Result<Result<StoreDirectory, StoreContentError>, StoreError<D::Error>> {
    let mut bytes = match zeros(DIRECTORY_LEN) {
        Ok(bytes) => bytes,
        Err(fault) => {
            return Err(StoreContentError { place: StorePlace::Directory(side), fault }.into());
        }
    };
    disk.read(StoreLayout::directory(side), &mut bytes).await.map_err(StoreError::Disk)?;
    Ok(StoreDirectory::decode_one(&bytes, side, superblock.store, &superblock.layout))
}
