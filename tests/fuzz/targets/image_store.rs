//! An image store of which any bytes are changed: it opens or says why not, images lie within it
//! and apart, and a structure that was read is written back so that it reads the same.
#![no_main]

use fuzz::Input;
use kernel::images::change::{self, StoreAuthor};
use kernel::images::content::ImageReader;
use kernel::images::define::Definer;
use kernel::images::device::run;
use kernel::images::layout::{BLOCK, CHUNK};
use kernel::images::slot::DefinitionName;
use kernel::images::write::ImageWriter;
use kernel::images::{
    ImageDigest, ImageKind, ImageState, StoreDirectory, StoreLayout, StoreRead, StoreSide,
    StoreSuperblock, StoreWrite, StoredDefinition, StoredImage, extents, find, open,
};
use kernel::mm::crc::crc32c;
use kernel::space::Uuid;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const BLOCKS: u64 = 320;
const AUTHOR: StoreAuthor = StoreAuthor { writer: Uuid([1; 16]), now_ns: 9 };

/// A disk in memory.
struct Memory(Vec<u8>);

impl StoreRead for Memory {
    type Error = ();

    fn blocks(&self) -> u64 {
        BLOCKS
    }

    async fn read(&mut self, first: u64, into: &mut [u8]) -> Result<(), ()> {
        let at = usize::try_from(first).ok().and_then(|first| first.checked_mul(BLOCK));
        let from = at.and_then(|at| self.0.get(at..)?.get(..into.len())).ok_or(())?;
        into.copy_from_slice(from);
        Ok(())
    }

    async fn pause(&mut self, _ns: u64) {}
}

impl StoreWrite for Memory {
    async fn write(&mut self, first: u64, bytes: &[u8]) -> Result<(), ()> {
        let at = usize::try_from(first).ok().and_then(|first| first.checked_mul(BLOCK));
        let to = at.and_then(|at| self.0.get_mut(at..)?.get_mut(..bytes.len())).ok_or(())?;
        to.copy_from_slice(bytes);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ()> {
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        0
    }
}

/// A store with an image and a definition.
static SAMPLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut disk = Memory(vec![0; BLOCKS as usize * BLOCK]);
    let layout = StoreLayout::new(BLOCKS, 8).expect("the least store");
    let superblock =
        StoreSuperblock { store: Uuid([7; 16]), blocks: BLOCKS, layout, created_ns: 1 };
    let content = [5; 5000];
    let image = StoredImage {
        digest: ImageDigest([3; 32]),
        length: 5000,
        kind: ImageKind::Kernel,
        state: ImageState::Present,
        is_kept: true,
        extents: Default::default(),
        label: Default::default(),
        added_ns: 2,
    };
    let definition = StoredDefinition {
        name: DefinitionName::from("web").expect("a short name"),
        partition: Uuid([4; 16]),
        generation: 0,
        kernel: image.digest,
        initrd: None,
        encoding: 1,
        bytes: vec![1, 2, 3],
    };
    run(async {
        change::format(&mut disk, &superblock, AUTHOR).await?;
        let store = open::open(&mut disk).await?;
        let mut writer = ImageWriter::new(store.uuid(), change::plan(&store, image)?)?;
        writer.chunk(&mut disk, &content).await?;
        let image = writer.finish(&mut disk).await?;
        change::put(&mut disk, &store, AUTHOR, image).await?;
        Definer { superblock, writer: Uuid([2; 16]) }.define(&mut disk, definition).await
    })
    .expect("memory answers at once")
    .expect("the store has room");
    disk.0
});

fuzz_target!(|bytes: &[u8]| {
    let (input, mut disk) = (&mut Input::new(bytes), Memory(SAMPLE.clone()));
    let slot = (48..64).find(|block| disk.0[block * BLOCK] != 0).unwrap_or(48);
    while !input.is_empty() {
        let blocks = [0, 1, 16, 32, slot, slot ^ 1, 17, 33, 256];
        let (what, at, len) = (input.u8(), usize::from(input.u16()), input.u8() & 31);
        let at = blocks[usize::from(what & 0x3f) % blocks.len()] * BLOCK + at % BLOCK;
        disk.0[at..].iter_mut().zip(input.bytes(len.into())).for_each(|(to, byte)| *to = *byte);
        if what >= 0x40 {
            seal(&mut disk.0, &blocks);
        }
    }
    let Ok(store) = run(open::open(&mut disk)).expect("memory answers at once") else { return };
    let (layout, directory) = (store.layout(), store.directory());
    let runs = extents::free(directory, layout).expect("memory has room");
    let taken = directory.images.iter().flat_map(|image| &image.extents);
    let sum: u32 = runs.iter().chain(taken).map(|extent| extent.count).sum();
    assert_eq!(sum, layout.data_chunks(), "every chunk is free or one image's");
    let mut again = directory.clone();
    again.sequence &= !1;
    let bytes = again.encode(store.uuid()).expect("it was read");
    assert_eq!(StoreDirectory::decode_one(&bytes, StoreSide::A, store.uuid(), layout), Ok(again));
    for image in &directory.images {
        let mut reader = ImageReader::new(store.uuid(), image.clone());
        if let Ok(bytes) = run(reader.whole(&mut disk)).expect("memory answers at once") {
            assert_eq!(bytes.len() as u64, image.length);
        }
    }
    look(&mut disk, &store.superblock);
    let definer = Definer { superblock: store.superblock, writer: Uuid([6; 16]) };
    let _ = run(definer.undefine(&mut disk, "web", None)).expect("memory answers at once");
    let _ = run(change::publish(&mut disk, &store, AUTHOR, vec![]));
});

fn look(disk: &mut Memory, superblock: &StoreSuperblock) {
    let looked = run(find::each(disk, superblock, |slot| {
        assert!(!(slot.is_free() && slot.definition().is_some()));
        for (side, copy) in StoreSide::BOTH.into_iter().zip(&slot.copies) {
            let Ok(copy) = copy else { continue };
            assert_eq!(StoreSide::of(copy.sequence), side);
            let bytes = copy.encode(slot.number, superblock.store);
            let again =
                kernel::images::slot::SlotCopy::decode(&bytes, slot.number, side, superblock.store);
            assert_eq!(again.as_ref(), Ok(copy));
        }
        None::<()>
    }));
    assert_eq!(looked, Some(Ok(None)));
}

/// Makes all checksums right.
fn seal(disk: &mut [u8], blocks: &[usize]) {
    for directory in [16, 32] {
        let entries = crc32c(&disk[(directory + 1) * BLOCK..directory * BLOCK + CHUNK]).0;
        disk[directory * BLOCK + 84..][..4].copy_from_slice(&entries.to_le_bytes());
    }
    for block in blocks.iter().filter(|block| !matches!(block, 17 | 33)) {
        let block = &mut disk[block * BLOCK..][..BLOCK];
        let crc = crc32c(&block[..BLOCK - 4]).0;
        block[BLOCK - 4..].copy_from_slice(&crc.to_le_bytes());
    }
}
