//! Whole operations on a store in memory: what they leave, also after a power cut, and beside
//! another program.

mod cuts;
mod together;

use super::change::{self, StoreAuthor};
use super::content::ImageReader;
use super::define::{Definer, KnownDefinition};
use super::device::run;
use super::fake::FakeStoreDisk;
use super::layout::{CHUNK, MAX_IMAGES};
use super::slot::DefinitionName;
use super::write::ImageWriter;
use super::*;
use crate::mm::crc::crc32c;
use crate::space::Uuid;
use arrayvec::ArrayString;
use std::collections::BTreeMap;

const BLOCKS: u64 = 512;
const STORE: Uuid = Uuid([7; 16]);
const AUTHOR: StoreAuthor = StoreAuthor { writer: Uuid([1; 16]), now_ns: 99 };

fn superblock() -> StoreSuperblock {
    StoreSuperblock {
        store: STORE,
        blocks: BLOCKS,
        layout: StoreLayout::new(BLOCKS, 8).unwrap(),
        created_ns: 5,
    }
}

fn formatted() -> FakeStoreDisk {
    let mut disk = FakeStoreDisk::new(BLOCKS);
    run(change::format(&mut disk, &superblock(), AUTHOR)).unwrap().unwrap();
    disk.operations.clear();
    disk
}

/// Content of `len` bytes that differs for each `n`.
fn content(n: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 509) as u8 ^ (at as u8) ^ n).collect()
}

/// A name for content; a sum serves for tests.
fn digest(content: &[u8]) -> ImageDigest {
    let sum = crc32c(content).0.to_le_bytes();
    ImageDigest(core::array::from_fn(|n| sum[n % 4] ^ n as u8))
}

fn entry(content: &[u8], is_kept: bool) -> StoredImage {
    StoredImage {
        digest: digest(content),
        length: content.len() as u64,
        kind: ImageKind::Kernel,
        state: ImageState::Present,
        is_kept,
        extents: Default::default(),
        label: ArrayString::from("vmlinuz").unwrap(),
        added_ns: 1,
    }
}

/// Adds an image as the host command does.
async fn add<D: StoreWrite>(
    disk: &mut D,
    author: StoreAuthor,
    content: &[u8],
) -> Result<ImageDigest, StoreError<D::Error>> {
    let store = open::open(disk).await?;
    let entry = change::plan(&store, entry(content, true))?;
    let mut writer = ImageWriter::new(store.uuid(), entry)?;
    for chunk in content.chunks(CHUNK) {
        writer.chunk(disk, chunk).await?;
    }
    let image = writer.finish(disk).await?;
    change::put(disk, &store, author, image).await?;
    Ok(digest(content))
}

fn add_now(disk: &mut FakeStoreDisk, content: &[u8]) -> ImageDigest {
    run(add(disk, AUTHOR, content)).unwrap().unwrap()
}

fn definition(name: &str, kernel: ImageDigest) -> StoredDefinition {
    StoredDefinition {
        name: DefinitionName::from(name).unwrap(),
        partition: Uuid::from_name(name),
        generation: 0,
        kernel,
        initrd: None,
        encoding: 1,
        bytes: kernel.0.to_vec(),
    }
}

fn definer(n: u8) -> Definer {
    Definer { superblock: superblock(), writer: Uuid([n; 16]) }
}

/// All that a store holds, as a reader finds it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Contents {
    images: Vec<ImageDigest>,
    /// Generation and kernel by name.
    definitions: BTreeMap<String, (u64, ImageDigest)>,
}

/// Reads a store as a node does; every image must have the bytes of its name.
fn contents(bytes: &[u8]) -> Contents {
    let disk = &mut FakeStoreDisk::of(bytes.to_vec());
    let store = run(open::open(disk)).unwrap().expect("the store opens");
    let mut found = Contents::default();
    for image in &store.directory().images {
        let mut reader = ImageReader::new(store.uuid(), image.clone());
        let bytes = run(reader.whole(disk)).unwrap().expect("an image in the directory is whole");
        assert_eq!(digest(&bytes), image.digest);
        found.images.push(image.digest);
    }
    found.images.sort_unstable();
    run(find::each(disk, &store.superblock, |slot| {
        if let Some(definition) = slot.definition() {
            let what = (definition.generation, definition.kernel);
            let earlier = found.definitions.insert(definition.name.to_string(), what);
            assert_eq!(earlier, None, "two definitions of {}", definition.name);
            assert_eq!(definition.bytes, definition.kernel.0, "the parts belong together");
        }
        None::<()>
    }))
    .unwrap()
    .unwrap();
    found
}

#[test]
fn a_name_that_the_store_has_is_not_taken_by_a_new_definition() {
    let disk = &mut formatted();
    let kernel = add_now(disk, &content(1, 4096));
    run(definer(2).define_new(disk, definition("web", kernel))).unwrap().unwrap();
    let before = contents(&disk.bytes);
    let refused = run(definer(3).define_new(disk, definition("web", kernel))).unwrap();
    assert_eq!(refused, Err(StoreError::Refused(StoreRefusedError::Exists(1))));
    assert_eq!(contents(&disk.bytes), before);
    run(definer(3).undefine(disk, "web", None)).unwrap().unwrap();
    run(definer(3).define_new(disk, definition("web", kernel))).unwrap().unwrap();
}

#[test]
fn an_image_and_a_definition_read_back() {
    let disk = &mut formatted();
    let (kernel, initrd) = (content(1, 3 * CHUNK + 5), content(2, 4096));
    let (kernel, initrd) = (add_now(disk, &kernel), add_now(disk, &initrd));
    let wanted = StoredDefinition { initrd: Some(initrd), ..definition("web", kernel) };
    let defined = run(definer(2).define(disk, wanted.clone())).unwrap().unwrap();
    assert_eq!(defined.generation, 1);
    let found = run(find::definition(disk, &superblock(), "web")).unwrap().unwrap();
    assert_eq!(found, Some(StoredDefinition { generation: 1, ..wanted.clone() }));
    assert_eq!(run(find::definition(disk, &superblock(), "we")).unwrap(), Ok(None));
    let again = run(definer(3).define(disk, wanted)).unwrap().unwrap();
    assert_eq!((again.generation, again.slot), (2, defined.slot));
    let store = run(open::open(disk)).unwrap().unwrap();
    assert_eq!(store.found.other, None);
    assert_eq!(store.directory().image(kernel).unwrap().length, 3 * CHUNK as u64 + 5);
    let whole = contents(&disk.bytes);
    for block in StoreSide::BOTH.into_iter().flat_map(|side| {
        let directory = StoreLayout::directory(side);
        [StoreLayout::superblock(side), directory, StoreLayout::slot(defined.slot, side)]
    }) {
        let mut bytes = disk.bytes.clone();
        bytes[block as usize * 4096 + 99] ^= 1;
        assert_eq!(contents(&bytes), whole, "one damaged copy costs nothing: block {block}");
    }
    run(definer(3).undefine(disk, "web", None)).unwrap().unwrap();
    assert!(contents(&disk.bytes).definitions.is_empty());
    let gone = run(definer(3).undefine(disk, "web", None)).unwrap();
    assert_eq!(gone, Err(StoreRefusedError::NoDefinition.into()));
}

#[test]
fn a_definition_that_another_program_has_changed_is_left_alone() {
    let disk = &mut formatted();
    let kernel = add_now(disk, &content(1, 4096));
    let mine = definition("web", kernel);
    run(definer(2).define_new(disk, mine.clone())).unwrap().unwrap();
    let first = KnownDefinition { partition: mine.partition, generation: 1 };
    assert_eq!(run(definer(2).change(disk, mine.clone(), first)).unwrap().unwrap().generation, 2);
    let second = KnownDefinition { generation: 2, ..first };
    let other = KnownDefinition { partition: Uuid([9; 16]), ..second };
    let before = contents(&disk.bytes);
    let changed = StoreError::Refused(StoreRefusedError::Changed);
    for known in [first, other, KnownDefinition { generation: 3, ..first }] {
        assert_eq!(run(definer(3).change(disk, mine.clone(), known)).unwrap(), Err(changed));
        assert_eq!(run(definer(3).undefine(disk, "web", Some(known))).unwrap(), Err(changed));
        assert_eq!(contents(&disk.bytes), before, "{known:?}");
    }
    run(definer(3).undefine(disk, "web", Some(second))).unwrap().unwrap();
    let gone = StoreError::Refused(StoreRefusedError::NoDefinition);
    assert_eq!(run(definer(3).change(disk, mine, second)).unwrap(), Err(gone));
    assert!(contents(&disk.bytes).definitions.is_empty());
}

#[test]
fn a_definition_names_only_images_that_are_there() {
    let disk = &mut formatted();
    let absent = ImageDigest([8; 32]);
    let refused = run(definer(2).define(disk, definition("web", absent))).unwrap();
    assert_eq!(refused, Err(StoreRefusedError::NoImage(absent).into()));
    assert!(disk.operations.is_empty(), "nothing was written");
}

#[test]
fn an_image_leaves_when_no_definition_names_it() {
    let disk = &mut formatted();
    let (one, two) = (add_now(disk, &content(1, 9000)), add_now(disk, &content(2, 9000)));
    run(definer(2).define(disk, definition("web", one))).unwrap().unwrap();
    let store = run(open::open(disk)).unwrap().unwrap();
    let (store, named) = run(change::remove(disk, &store, AUTHOR, &[one, two])).unwrap().unwrap();
    assert!(matches!(named[..], [(digest, _)] if digest == one));
    assert_eq!(contents(&disk.bytes).images, [one]);
    assert!(store.directory().offers(one), "it is no longer marked as leaving");
    run(definer(2).undefine(disk, "web", None)).unwrap().unwrap();
    let (store, _) = run(change::remove(disk, &store, AUTHOR, &[one])).unwrap().unwrap();
    assert_eq!(contents(&disk.bytes), Contents::default());
    let gone = run(change::remove(disk, &store, AUTHOR, &[one])).unwrap();
    assert_eq!(gone, Err(StoreRefusedError::NoImage(one).into()));
}

#[test]
fn an_image_that_only_definitions_need_is_unused_without_them() {
    let disk = &mut formatted();
    let (kept, loose) = (add_now(disk, &content(1, 9000)), add_now(disk, &content(2, 9000)));
    let store = run(open::open(disk)).unwrap().unwrap();
    let image = store.directory().image(loose).unwrap().clone();
    let image = StoredImage { is_kept: false, ..image };
    let store = run(change::put(disk, &store, AUTHOR, image)).unwrap().unwrap();
    run(definer(2).define(disk, definition("web", loose))).unwrap().unwrap();
    assert_eq!(run(change::unused(disk, &store)).unwrap(), Ok(vec![]));
    run(definer(2).undefine(disk, "web", None)).unwrap().unwrap();
    assert_eq!(run(change::unused(disk, &store)).unwrap(), Ok(vec![loose]));
    assert!(store.directory().offers(kept));
}

#[test]
fn a_full_store_says_so_and_takes_an_image_again_when_one_has_left() {
    let disk = &mut formatted();
    // 16 chunks of data: 14 and their checksums leave one.
    let large = add_now(disk, &content(1, 14 * CHUNK));
    let refused = run(add(disk, AUTHOR, &content(2, 5))).unwrap();
    assert_eq!(refused, Err(StoreRefusedError::Full { needs: 2, free: 1 }.into()));
    let store = run(open::open(disk)).unwrap().unwrap();
    run(change::remove(disk, &store, AUTHOR, &[large])).unwrap().unwrap();
    add_now(disk, &content(2, 5));
    for length in [0, entry::MAX_LENGTH + 1] {
        let store = run(open::open(disk)).unwrap().unwrap();
        let wanted = StoredImage { length, ..entry(b"x", true) };
        let refused = change::plan::<()>(&store, wanted);
        assert_eq!(refused, Err(StoreRefusedError::Length(length).into()));
    }
}

#[test]
fn scattered_room_is_used_up_to_eight_pieces() {
    let disk = &mut formatted();
    let small: Vec<_> = (0..8).map(|n| add_now(disk, &content(n, 100))).collect();
    for n in (0..8).step_by(2) {
        let store = run(open::open(disk)).unwrap().unwrap();
        run(change::remove(disk, &store, AUTHOR, &[small[n]])).unwrap().unwrap();
    }
    let pieces = content(9, 7 * CHUNK);
    let image = add_now(disk, &pieces);
    let store = run(open::open(disk)).unwrap().unwrap();
    assert_eq!(store.directory().image(image).unwrap().extents.len(), 4);
    assert_eq!(contents(&disk.bytes).images.len(), 5);

    let layout = StoreLayout::new(1 << 13, 8).unwrap();
    let extent = |n: u32| ImageExtent { first: 16 + 4 * n, count: 2 };
    let image = |n: u8| StoredImage {
        digest: ImageDigest([n; 32]),
        extents: [extent(n.into())].into_iter().collect(),
        ..entry(b"x", true)
    };
    let images = (0..124).map(image).collect();
    let directory = StoreDirectory { sequence: 0, writer: STORE, written_ns: 0, images };
    let chosen = extents::choose::<()>(&directory, &layout, 16).unwrap();
    assert_eq!(chosen.len(), 8);
    assert_eq!(
        extents::choose::<()>(&directory, &layout, 17),
        Err(StoreRefusedError::Scattered { needs: 17, largest: 16 }.into())
    );
}

#[test]
fn a_full_directory_and_full_slots_say_so() {
    let disk = &mut formatted();
    let kernel = add_now(disk, &content(1, 10));
    for n in 0..8 {
        run(definer(2).define(disk, definition(&format!("p{n}"), kernel))).unwrap().unwrap();
    }
    let refused = run(definer(2).define(disk, definition("one-more", kernel))).unwrap();
    assert_eq!(refused, Err(StoreRefusedError::NoSlot.into()));
    run(definer(2).undefine(disk, "p3", None)).unwrap().unwrap();
    run(definer(2).define(disk, definition("one-more", kernel))).unwrap().unwrap();
    let store = run(open::open(disk)).unwrap().unwrap();
    let mut found = store.found.clone();
    found.directory.images = vec![store.directory().images[0].clone(); MAX_IMAGES];
    let full = OpenStore { found, ..store };
    let refused = change::plan::<()>(&full, entry(b"x", true));
    assert_eq!(refused, Err(StoreRefusedError::TooManyImages.into()));
}

#[test]
fn a_damaged_byte_of_an_image_is_named_by_its_place() {
    let disk = &mut formatted();
    let image = add_now(disk, &content(1, 2 * CHUNK + 50));
    let store = run(open::open(disk)).unwrap().unwrap();
    let entry = store.directory().image(image).unwrap().clone();
    let read = |bytes: Vec<u8>| {
        let mut reader = ImageReader::new(STORE, entry.clone());
        run(reader.whole(&mut FakeStoreDisk::of(bytes))).unwrap()
    };
    let first = StoreLayout::chunk(entry.place(0).unwrap());
    for (block, place) in [
        (first, StorePlace::Sums(image, first)),
        (first + 16, StorePlace::Chunk(image, 0, first + 16)),
        (first + 48, StorePlace::Chunk(image, 2, first + 48)),
    ] {
        let mut bytes = disk.bytes.clone();
        bytes[block as usize * 4096 + 49] ^= 4;
        let fault = StoreFault::Checksum;
        assert_eq!(read(bytes), Err(StoreContentError { place, fault }.into()));
    }
    let mut unused = disk.bytes.clone();
    unused[(first as usize + 48) * 4096 + 50] ^= 4;
    assert!(read(unused).is_ok(), "bytes behind the image's end do not count");
}

#[test]
fn a_reader_of_a_removed_image_never_gets_another_one_s_bytes() {
    let disk = &mut formatted();
    let old = add_now(disk, &content(1, 2 * CHUNK));
    let store = run(open::open(disk)).unwrap().unwrap();
    let entry = store.directory().image(old).unwrap().clone();
    let mut reader = ImageReader::new(STORE, entry.clone());
    let mut buffer = vec![0; CHUNK];
    run(reader.chunk(disk, 0, &mut buffer)).unwrap().unwrap();
    run(change::remove(disk, &store, AUTHOR, &[old])).unwrap().unwrap();
    add_now(disk, &content(2, 2 * CHUNK));
    // The reader has the checksums of the old image, and its successor does not.
    let error = run(reader.chunk(disk, 1, &mut buffer)).unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Content(e) if e.fault == StoreFault::Checksum));
    let mut reader = ImageReader::new(STORE, entry);
    let error = run(reader.chunk(disk, 1, &mut buffer)).unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Content(e) if e.fault == StoreFault::OtherImage));
}

#[test]
fn older_and_newer_programs_leave_each_other_s_structures_alone() {
    let disk = &mut formatted();
    let kernel = add_now(disk, &content(1, 10));
    run(definer(2).define(disk, definition("web", kernel))).unwrap().unwrap();
    let newer = |block: u64, bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let block = &mut bytes[block as usize * 4096..][..4096];
        block[8] = 2;
        raw::seal(block);
        bytes
    };
    let fault = |bytes: Vec<u8>| {
        let mut disk = FakeStoreDisk::of(bytes);
        let refused = run(definer(2).define(&mut disk, definition("mail", kernel))).unwrap();
        assert!(disk.operations.is_empty(), "nothing was written");
        match refused {
            Err(StoreError::Content(error)) => (error.place, error.fault),
            other => panic!("{other:?}"),
        }
    };
    let two = StoreFault::NewerVersion(2);
    for side in StoreSide::BOTH {
        let bytes = newer(StoreLayout::directory(side), &disk.bytes);
        assert_eq!(fault(bytes), (StorePlace::Directory(side), two));
        let bytes = newer(StoreLayout::superblock(side), &disk.bytes);
        let error = run(open::open(&mut FakeStoreDisk::of(bytes))).unwrap().unwrap_err();
        let place = StorePlace::Superblock(side);
        assert_eq!(error, StoreContentError { place, fault: two }.into());
    }
    let slot = run(find::each(disk, &superblock(), |slot| {
        slot.definition().is_some().then_some(slot.number)
    }))
    .unwrap()
    .unwrap()
    .unwrap();
    for side in StoreSide::BOTH {
        let bytes = newer(StoreLayout::slot(slot, side), &disk.bytes);
        assert_eq!(fault(bytes.clone()), (StorePlace::Slot(slot, side), two));
        // What a newer definition names is unknown, so no image is removed.
        let disk = &mut FakeStoreDisk::of(bytes);
        let store = run(open::open(disk)).unwrap().unwrap();
        let refused = run(change::remove(disk, &store, AUTHOR, &[kernel])).unwrap();
        assert!(matches!(refused, Err(StoreError::Content(e)) if e.fault == two));
    }
}

#[test]
fn a_slot_that_was_left_behind_is_given_back_and_one_in_use_is_not() {
    let disk = &mut formatted();
    let kernel = add_now(disk, &content(1, 10));
    let reserve = |bytes: &mut Vec<u8>, slot: u32, sequence: u64| {
        let name = DefinitionName::from("web").unwrap();
        let state = SlotState::Reserved(name);
        let copy = slot::SlotCopy { sequence, writer: Uuid([9; 16]), state };
        let block = StoreLayout::slot(slot, StoreSide::of(sequence));
        fake::apply(bytes, block, &copy.encode(slot, STORE));
    };
    reserve(&mut disk.bytes, 3, 1);
    // The program that reserved slot 3 is gone; another one changes slot 5 all the time.
    let defined = run(definer(2).define(disk, definition("web", kernel))).unwrap().unwrap();
    assert!(disk.now_ns > define::LEFT_BEHIND_NS);
    run(definer(2).undefine(disk, "web", None)).unwrap().unwrap();
    reserve(&mut disk.bytes, defined.slot, 7);
    let mut sequence = 7;
    disk.hook = Some(Box::new(move |_, bytes| {
        sequence += 1;
        reserve(bytes, defined.slot, sequence);
    }));
    let busy = run(definer(2).define(disk, definition("web", kernel))).unwrap();
    assert_eq!(busy, Err(StoreRefusedError::Busy.into()));
    disk.hook = None;
    assert_eq!(run(definer(2).give_back_left_behind(disk)).unwrap(), Ok(1));
    assert_eq!(run(definer(2).give_back_left_behind(disk)).unwrap(), Ok(0));
    run(definer(2).define(disk, definition("web", kernel))).unwrap().unwrap();
}

#[test]
fn a_slow_program_does_not_believe_its_reservation() {
    let disk = &mut formatted();
    let kernel = add_now(disk, &content(1, 10));
    let before = disk.bytes.clone();
    disk.cost_ns = define::TAKE_NS;
    let slow = run(definer(2).define(disk, definition("web", kernel))).unwrap();
    assert_eq!(slow, Err(StoreRefusedError::TooSlow.into()));
    // One read or write stands still; another slot serves.
    for stall in 0..12 {
        let mut disk = FakeStoreDisk::of(before.clone());
        disk.stall = Some((stall, 3 * define::TAKE_NS));
        run(definer(2).define(&mut disk, definition("web", kernel))).unwrap().unwrap();
        assert_eq!(contents(&disk.bytes).definitions.len(), 1, "{stall}");
    }
    let reserved = disk.bytes.clone();
    disk.cost_ns = 1;
    run(definer(3).define(disk, definition("web", kernel))).unwrap().unwrap();
    assert_eq!(contents(&reserved).definitions.len(), 0);
}
