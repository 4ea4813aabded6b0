//! Checking a store: every copy of every structure, and every byte of every image.

use super::{ImageStore, StoreFile};
use crate::setup::progress::ByteProgress;
use crate::volume::VolumeAccess;
use anyhow::{Context, Result};
use kernel::config::PartitionConfig;
use kernel::images::content::ImageReader;
use kernel::images::layout::{BLOCK, CHUNK, DIRECTORY_LEN};
use kernel::images::{
    DefinitionSlot, ImageDigest, ImageState, StoreContentError, StoreDirectory, StoreLayout,
    StorePlace, StoreRead, StoreSide, StoreSuperblock, StoredDefinition, StoredImage, device,
};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Bytes from which on a check shows its progress.
const LONG: u64 = 256 << 20;

/// The result of a check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreReport {
    /// Faults, each with its place.
    pub faults: Vec<String>,
    /// Remarks that are no faults.
    pub notes: Vec<String>,
    /// Images whose bytes are all right.
    pub images: usize,
    /// Definitions that can be used.
    pub definitions: usize,
}

impl StoreReport {
    fn fault(&mut self, text: impl ToString) {
        self.faults.push(text.to_string());
    }

    /// Checks the store in the image at `path`.
    ///
    /// # Errors
    /// Where the image cannot be read, or has no store.
    pub fn of(path: &Path) -> Result<Self> {
        let mut report = Self::default();
        let mut file = StoreFile::open(path, VolumeAccess::Read)?;
        report.copies(&mut file)?;
        let store = match ImageStore::open(path, VolumeAccess::Read) {
            Ok(store) => store,
            Err(error) if report.faults.is_empty() => return Err(error),
            // The faults of the copies say more.
            Err(_) => return Ok(report),
        };
        report.contents(store)?;
        Ok(report)
    }

    /// Checks the copies of the superblock and of the directory.
    fn copies(&mut self, file: &mut StoreFile) -> Result<()> {
        let (path, blocks) = (file.path().to_owned(), file.block_count());
        let mut sound = None;
        for side in StoreSide::BOTH {
            let bytes = read(file, StoreLayout::superblock(side), BLOCK)?;
            let block = bytes.first_chunk().context("a block was read")?;
            match StoreSuperblock::decode_one(block, blocks) {
                Ok(superblock) => sound = Some(superblock),
                Err(fault) => {
                    self.fault(StoreContentError { place: StorePlace::Superblock(side), fault });
                }
            }
        }
        let Some(superblock) = sound else {
            return Ok(());
        };
        for side in StoreSide::BOTH {
            let bytes = read(file, StoreLayout::directory(side), DIRECTORY_LEN)
                .with_context(|| path.display().to_string())?;
            let read =
                StoreDirectory::decode_one(&bytes, side, superblock.store, &superblock.layout);
            if let Err(error) = read {
                self.fault(error);
            }
        }
        Ok(())
    }

    /// Checks definitions and images.
    fn contents(&mut self, mut store: ImageStore) -> Result<()> {
        let directory = store.directory().clone();
        let mut names: Vec<String> = Vec::new();
        for slot in store.slots()? {
            self.slot(&slot);
            if let Some(definition) = slot.definition() {
                let before = self.faults.len();
                self.definition(definition, &directory);
                if names.iter().any(|name| *name == definition.name.as_str()) {
                    self.fault(format!("definition {}: is there twice", definition.name));
                }
                names.push(definition.name.to_string());
                self.definitions += usize::from(self.faults.len() == before);
            }
        }
        let total = directory.images.iter().map(|image| image.length).sum();
        let mut progress = (total >= LONG)
            .then(|| ByteProgress::new(&format!("{}: checking", store.path().display()), total));
        let mut done = 0;
        for image in &directory.images {
            if image.state == ImageState::Leaving {
                let short = image.digest.short();
                self.notes.push(format!("image {short}: its removal was interrupted"));
            }
            match digest(&mut store, image) {
                Ok(digest) if digest == image.digest => self.images += 1,
                Ok(_) => self.fault(format!("image {}: other content", image.digest.short())),
                Err(error) => self.fault(format!("{error:#}")),
            }
            done += image.length;
            progress.iter_mut().for_each(|progress| progress.set(done));
        }
        Ok(())
    }

    fn slot(&mut self, slot: &DefinitionSlot) {
        for (side, fault) in slot.faults() {
            self.fault(StoreContentError { place: StorePlace::Slot(slot.number, side), fault });
        }
        if slot.is_pending() {
            let number = slot.number;
            self.notes.push(format!("definition slot {number}: taken, and not defined yet"));
        }
    }

    fn definition(&mut self, definition: &StoredDefinition, directory: &StoreDirectory) {
        let name = &definition.name;
        for image in definition.images().filter(|image| directory.image(*image).is_none()) {
            self.fault(format!("definition {name}: there is no image {}", image.short()));
        }
        match PartitionConfig::from_definition(definition.encoding, &definition.bytes) {
            Ok(partition) if partition.name == name.as_str() => {}
            Ok(partition) => {
                self.fault(format!("definition {name}: has the bytes of {}", partition.name));
            }
            Err(error) => self.fault(format!("definition {name}: {error}")),
        }
    }
}

fn read(file: &mut StoreFile, first: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let path = file.path().to_owned();
    let read = device::run(file.read(first, &mut bytes));
    read.context("a file's operations end at once")?.with_context(|| path.display().to_string())?;
    Ok(bytes)
}

/// Reads a whole image and returns its digest.
fn digest(store: &mut ImageStore, image: &StoredImage) -> Result<ImageDigest> {
    let mut reader = ImageReader::new(store.superblock().store, image.clone());
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    for chunk in 0..image.chunks() {
        let bytes = device::run(reader.chunk(&mut store.file, chunk, &mut buffer));
        hash.update(bytes.context("a file's operations end at once")??);
    }
    Ok(ImageDigest(hash.finalize().into()))
}
