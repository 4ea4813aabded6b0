//! Stores for tests of the node.

use super::change::{self, StoreAuthor};
use super::device::run;
use super::entry::{ImageDigest, ImageKind, ImageState, StoredImage};
use super::fake::FakeStoreDisk;
use super::layout::{BLOCK, CHUNK, MIN_SLOTS, StoreLayout};
use super::superblock::StoreSuperblock;
use super::write::ImageWriter;
use super::{StoreWrite, open};
use crate::mm::crc::crc32c;
use crate::space::Uuid;
use arrayvec::ArrayString;

/// Blocks of a store.
const BLOCKS: u64 = 1024;
const AUTHOR: StoreAuthor = StoreAuthor { writer: Uuid([1; 16]), now_ns: 99 };

/// Returns the name that a test's image has; a sum serves for tests.
pub fn digest(content: &[u8]) -> ImageDigest {
    let sum = crc32c(content).0.to_le_bytes();
    ImageDigest(core::array::from_fn(|n| sum[n % 4] ^ n as u8))
}

async fn add(disk: &mut FakeStoreDisk, label: &str, content: &[u8]) {
    let image = StoredImage {
        digest: digest(content),
        length: content.len() as u64,
        kind: ImageKind::Kernel,
        state: ImageState::Present,
        is_kept: true,
        extents: Default::default(),
        label: ArrayString::from(label).expect("a short label"),
        added_ns: 1,
    };
    let store = open::open(disk).await.expect("a sound store");
    let image = change::plan::<core::convert::Infallible>(&store, image).expect("room");
    let mut writer = ImageWriter::new(store.uuid(), image).expect("memory");
    for chunk in content.chunks(CHUNK) {
        writer.chunk(disk, chunk).await.expect("a sound store");
    }
    let image = writer.finish(disk).await.expect("a sound store");
    change::put(disk, &store, AUTHOR, image).await.expect("a sound store");
}

/// Makes a store with the fewest slots and these images, by label and content.
pub fn store(images: &[(&str, &[u8])]) -> Vec<u8> {
    let superblock = StoreSuperblock {
        store: Uuid([7; 16]),
        blocks: BLOCKS,
        layout: StoreLayout::new(BLOCKS, MIN_SLOTS).expect("a possible store"),
        created_ns: 5,
    };
    let mut disk = FakeStoreDisk::new(BLOCKS);
    let made = run(async {
        change::format(&mut disk, &superblock, AUTHOR).await.expect("a new store");
        for (label, content) in images {
            add(&mut disk, label, content).await;
        }
        disk.flush().await
    });
    made.expect("this disk never waits").expect("this disk never fails");
    disk.bytes
}

/// Returns the byte at which a chunk of an image begins.
pub fn chunk_at(bytes: &[u8], image: ImageDigest, chunk: u32) -> usize {
    let disk = &mut FakeStoreDisk::of(bytes.to_vec());
    let store = run(open::open(disk)).expect("this disk never waits").expect("a sound store");
    let image = store.directory().image(image).expect("an image of the store");
    let at = image.place(chunk + 1).expect("a chunk of the image");
    StoreLayout::chunk(at) as usize * BLOCK
}
