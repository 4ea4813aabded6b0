//! The loading of a partition's kernel: from the boot archive, or piece by piece from an image
//! store.
//!
//! ```text
//!   Archive ───────────────────────────────> plan ──> job ──> guest runs
//!   Stored ──> images found ──> ranges read ──┘ ^      │ ^
//!                                  └────────────┘      └─┴── the next chunk is read
//! ```
//!
//! A task reads each range, so the runner never waits for a disk in its turn. At most one range is
//! on its way, and the ranges in memory are dropped before the next chunk is asked for. A runner
//! that stops meanwhile drops its half; the task ends by itself.

use super::loaders::staged::StagedImages;
use super::loaders::{ImageRole, ImageSource, LoadJob, MOST_AT_ONCE};
use crate::archive::BootArchive;
use crate::host::Host;
use crate::images::content::ImageReader;
use crate::images::layout::CHUNK;
use crate::storage::stores::{FoundImages, ImageReadError, StoreAtError, StoreOrigin};
use crate::task::outcome::TaskOutcome;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

const _: () = assert!(MOST_AT_ONCE <= CHUNK);

/// A partition's kernel on its way into memory.
pub(super) struct KernelLoading {
    images: LoadedImages,
    /// The plan that is carried out, once it is made.
    pub(super) job: Option<LoadJob>,
}

/// Where the images come from.
enum LoadedImages {
    Archive,
    Stored(Box<StoredLoading>),
}

/// Images in a store.
struct StoredLoading {
    from: StoreOrigin,
    staged: StagedImages,
    readers: [Option<ImageReader>; 2],
    order: StoreOrder,
}

/// The work of a task for this partition.
enum StoreOrder {
    None,
    Find(Arc<TaskOutcome<Result<FoundImages, StoreAtError>>>),
    Read(ImageRole, u64, Arc<TaskOutcome<ReadRange>>),
}

/// A reader, and the bytes that it has read.
type ReadRange = (ImageReader, Result<Vec<u8>, Box<ImageReadError>>);

/// Whether the loading can go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum LoadingState {
    /// It can.
    Ready,
    /// A task has not ended.
    Waits,
    /// It cannot, for this reason.
    Failed(String),
}

const fn place_of(role: ImageRole) -> usize {
    match role {
        ImageRole::Kernel => 0,
        ImageRole::Initrd => 1,
    }
}

impl KernelLoading {
    /// Begins to load a kernel from the archive, or from a store.
    pub(super) fn begin(host: &'static Host, from: Option<StoreOrigin>) -> Self {
        let images = from.map_or(LoadedImages::Archive, |from| {
            let find = host.tasks.order(host.stores.find_images(from));
            LoadedImages::Stored(Box::new(StoredLoading {
                from,
                staged: StagedImages::default(),
                readers: [None, None],
                order: StoreOrder::Find(find),
            }))
        });
        Self { images, job: None }
    }

    /// Takes the result of the task, if there is one.
    pub(super) fn look(&mut self) -> LoadingState {
        match &mut self.images {
            LoadedImages::Archive => LoadingState::Ready,
            LoadedImages::Stored(stored) => stored.look(),
        }
    }

    /// Returns the images as far as they are in memory.
    pub(super) fn source<'a>(&'a self, archive: &'a BootArchive) -> &'a dyn ImageSource {
        match &self.images {
            LoadedImages::Archive => archive,
            LoadedImages::Stored(stored) => &stored.staged,
        }
    }

    /// Carries out a step of the job; the images are borrowed beside it.
    pub(super) fn with_job<T>(
        &mut self,
        archive: &BootArchive,
        step: impl FnOnce(&mut LoadJob, &dyn ImageSource) -> T,
    ) -> Option<T> {
        let source: &dyn ImageSource = match &self.images {
            LoadedImages::Archive => archive,
            LoadedImages::Stored(stored) => &stored.staged,
        };
        self.job.as_mut().map(|job| step(job, source))
    }

    /// Asks for a part of the kernel that the plan needs.
    pub(super) fn read_for_plan(&mut self, host: &'static Host, offset: u64, bytes: u32) {
        if let LoadedImages::Stored(stored) = &mut self.images {
            stored.read(host, ImageRole::Kernel, offset, bytes as usize);
        }
    }

    /// Asks for the chunk of an image that is copied next.
    ///
    /// # Panics
    /// If the image is in the archive, which does not change (our bug).
    pub(super) fn read_chunk(&mut self, host: &'static Host, role: ImageRole, offset: u64) {
        let LoadedImages::Stored(stored) = &mut self.images else {
            unreachable!("the plan was made from this archive")
        };
        let from = offset / CHUNK as u64 * CHUNK as u64;
        stored.staged.clear();
        stored.read(host, role, from, CHUNK);
    }
}

impl StoredLoading {
    fn look(&mut self) -> LoadingState {
        match &self.order {
            StoreOrder::None => LoadingState::Ready,
            StoreOrder::Find(order) => match order.take() {
                None => LoadingState::Waits,
                Some(Err(error)) => LoadingState::Failed(format!("{error}")),
                Some(Ok(found)) => {
                    self.order = StoreOrder::None;
                    self.found(found);
                    LoadingState::Ready
                }
            },
            StoreOrder::Read(role, offset, order) => match order.take() {
                None => LoadingState::Waits,
                Some((_, Err(error))) => LoadingState::Failed(format!("{error}")),
                Some((reader, Ok(bytes))) => {
                    self.staged.put(reader.image().digest, *offset, bytes);
                    self.readers[place_of(*role)] = Some(reader);
                    self.order = StoreOrder::None;
                    LoadingState::Ready
                }
            },
        }
    }

    fn found(&mut self, found: FoundImages) {
        let FoundImages { kernel, initrd } = found;
        self.readers = [Some(kernel), initrd];
        for reader in self.readers.iter().flatten() {
            self.staged.add(reader.image().digest, reader.image().length);
        }
    }

    /// Starts a task that reads a range, or what the image has of it.
    ///
    /// # Panics
    /// If another range is being read (our bug).
    fn read(&mut self, host: &'static Host, role: ImageRole, offset: u64, bytes: usize) {
        let reader = self.readers[place_of(role)].take();
        let mut reader = reader.expect("one range is read at a time, of an image that was found");
        let left = reader.image().length.saturating_sub(offset);
        let (stores, store, len) = (host.stores, self.from.store, left.min(bytes as u64) as usize);
        let order = host.tasks.order(async move {
            let read = stores.read_image(store, &mut reader, offset, len).await;
            (reader, read)
        });
        self.order = StoreOrder::Read(role, offset, order);
    }
}
