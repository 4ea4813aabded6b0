//! The image stores of a node: disks and GPT partitions from which partitions start, and into which
//! they are defined.
//!
//! ```text
//!   images::{open, define, find, content} ── the rules, over StoreRead and StoreWrite
//!        │
//!   StoreDisk ── one request at a time, through the store's buffer, again if the disk refuses
//!        │
//!   AsyncIo, QueueLane::Store ── needs no lease: other nodes use the store at the same time
//! ```
//!
//! Nothing of a store is kept in memory: every operation opens it anew, because the host command
//! and other nodes change it meanwhile. So memory does not grow with a store, and a store whose
//! disk was away can be used when the disk is back.

mod disk;
mod images;

pub use disk::StoreDisk;
pub use images::{FoundImages, ImageReadError, StoreOrigin};

use crate::block::DiskError;
use crate::block::dma::DmaRegion;
use crate::images::layout::CHUNK;
use crate::images::{OpenStore, StoreError, open};
use crate::space::Uuid;
use crate::storage::NodeDisk;
use crate::storage::spaces::SpaceLocation;
use crate::sync::{RankedLock, rank};
use crate::task::io::AsyncIo;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a store's buffer: the largest read is a chunk.
pub const STORE_BUFFER: usize = CHUNK;
/// Most commands on stores at the same time: each has some 200 KiB on the heap.
const MOST_COMMANDS: u32 = 4;

/// A store, by its number in the order of disks and of GPT entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreId(pub usize);

/// A place for a store, and the buffer of its requests.
pub struct StoreDevice {
    place: SpaceLocation,
    disk: &'static NodeDisk,
    /// `None` while a request has it.
    buffer: RankedLock<Option<DmaRegion>, { rank::SPACE }>,
}

impl StoreDevice {
    /// Makes the device of a store; `buffer` has [`STORE_BUFFER`] bytes.
    pub const fn new(place: SpaceLocation, disk: &'static NodeDisk, buffer: DmaRegion) -> Self {
        Self { place, disk, buffer: RankedLock::new(Some(buffer)) }
    }
}

/// An error of a store, with the store's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreAtError {
    /// The store.
    pub store: StoreId,
    /// Its place.
    pub place: SpaceLocation,
    /// The error.
    pub error: StoreError<DiskError>,
}

impl core::fmt::Display for StoreAtError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "image store {} on {}: {}", self.store.0, self.place, self.error)
    }
}

/// All image stores of a node.
pub struct ImageStores {
    devices: Box<[StoreDevice]>,
    io: &'static AsyncIo,
    /// This start of the node, as a writer of definitions.
    writer: Uuid,
    /// Commands under way.
    commands: AtomicU32,
}

/// The right to carry out a command on stores, until it is dropped.
pub struct StoreTurn(&'static AtomicU32);

impl Drop for StoreTurn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl ImageStores {
    /// Makes the stores on these devices; `writer` is unique to this start.
    pub const fn new(devices: Box<[StoreDevice]>, io: &'static AsyncIo, writer: Uuid) -> Self {
        Self { devices, io, writer, commands: AtomicU32::new(0) }
    }

    /// Returns the stores.
    pub fn all(&self) -> impl Iterator<Item = StoreId> + use<> {
        (0..self.devices.len()).map(StoreId)
    }

    /// Returns the name of this start as a writer.
    pub const fn writer(&self) -> Uuid {
        self.writer
    }

    /// Returns where a store is.
    ///
    /// # Panics
    /// If there is no such store (our bug: a [`StoreId`] comes from [`Self::all`]).
    pub fn place(&self, store: StoreId) -> SpaceLocation {
        self.devices[store.0].place
    }

    /// Begins a command on stores; `None` while too many are under way.
    pub fn begin(&'static self) -> Option<StoreTurn> {
        let next = |count| (count < MOST_COMMANDS).then_some(count + 1);
        let begun = self.commands.try_update(Ordering::AcqRel, Ordering::Acquire, next);
        begun.ok().map(|_| StoreTurn(&self.commands))
    }

    /// Returns the disk of a store, for the rules in [`crate::images`].
    pub fn disk(&'static self, store: StoreId) -> StoreDisk {
        StoreDisk::new(&self.devices[store.0], self.io)
    }

    /// Adds the store's place to an error.
    pub fn at(&self, store: StoreId, error: impl Into<StoreError<DiskError>>) -> StoreAtError {
        StoreAtError { store, place: self.place(store), error: error.into() }
    }

    /// Opens a store.
    ///
    /// # Errors
    /// The disk's error, or the place that cannot be used and its fault.
    pub async fn open(&'static self, store: StoreId) -> Result<OpenStore, StoreAtError> {
        open::open(&mut self.disk(store)).await.map_err(|error| self.at(store, error))
    }
}
