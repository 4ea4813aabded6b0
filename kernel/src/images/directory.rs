//! The directory: all images, in two copies of 64 KiB that are written in turn.
//!
//! The copy with the higher sequence number counts. Even numbers go to A, odd numbers to B; so a
//! write always goes over the older copy. Only the host command writes it: [`super::change`].

use super::entry::{ImageDigest, ImageState, StoredImage};
use super::error::{StoreContentError, StoreFault, StorePlace};
use super::layout::{BLOCK, DIRECTORY_LEN, MAX_IMAGES, StoreLayout, StoreSide};
use super::raw::{DIRECTORY_MAGIC, RawStoreDirectory, check, head, seal};
use crate::arch::heap;
use crate::mm::crc::crc32c;
use crate::space::Uuid;
use alloc::vec::Vec;
use zerocopy::{FromBytes, IntoBytes};

/// The content of a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreDirectory {
    /// Number of this state, below 2^63.
    pub sequence: u64,
    /// The command that wrote it.
    pub writer: Uuid,
    /// Time of the write in nanoseconds since 1970.
    pub written_ns: u64,
    /// The images; digests are distinct, and no two share a chunk.
    pub images: Vec<StoredImage>,
}

/// The directory in force, and the fault of the other copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundDirectory {
    /// The newer whole copy.
    pub directory: StoreDirectory,
    /// The fault of the other copy, if it has one: a write was cut off, is under way, or the copy
    /// is damaged.
    pub other: Option<StoreContentError>,
}

impl StoreDirectory {
    /// Returns the image with this digest.
    pub fn image(&self, digest: ImageDigest) -> Option<&StoredImage> {
        self.images.iter().find(|image| image.digest == digest)
    }

    /// Returns whether a definition may name this image.
    pub fn offers(&self, digest: ImageDigest) -> bool {
        self.image(digest).is_some_and(|image| image.state == ImageState::Present)
    }

    /// Encodes the copy.
    ///
    /// # Errors
    /// [`StoreFault::OutOfMemory`], or [`StoreFault::Impossible`] with more than [`MAX_IMAGES`].
    pub fn encode(&self, store: Uuid) -> Result<Vec<u8>, StoreFault> {
        let mut bytes = zeros(DIRECTORY_LEN)?;
        let raw = RawStoreDirectory::mut_from_bytes(&mut bytes)
            .map_err(|_| StoreFault::Impossible("size"))?;
        if self.images.len() > MAX_IMAGES {
            return Err(StoreFault::Impossible("count"));
        }
        for (raw, image) in raw.entries.iter_mut().zip(&self.images) {
            *raw = image.encode();
        }
        raw.header.head = head(DIRECTORY_MAGIC, DIRECTORY_LEN, store);
        raw.header.sequence = self.sequence.into();
        raw.header.writer = self.writer.0;
        raw.header.written_ns = self.written_ns.into();
        raw.header.count = (self.images.len() as u32).into();
        raw.header.entries_crc32c = crc32c(raw.entries.as_bytes()).0.into();
        seal(raw.header.as_mut_bytes());
        Ok(bytes)
    }

    /// Decodes both copies.
    ///
    /// # Errors
    /// If neither can be used, or one is a newer program's.
    pub fn decode(
        copies: [&[u8]; 2],
        store: Uuid,
        layout: &StoreLayout,
    ) -> Result<FoundDirectory, StoreContentError> {
        let [a, b] = copies;
        let found = [
            Self::decode_one(a, StoreSide::A, store, layout),
            Self::decode_one(b, StoreSide::B, store, layout),
        ];
        FoundDirectory::newest(found)
    }

    /// Decodes the copy on `side`.
    ///
    /// # Errors
    /// Its fault.
    pub fn decode_one(
        bytes: &[u8],
        side: StoreSide,
        store: Uuid,
        layout: &StoreLayout,
    ) -> Result<Self, StoreContentError> {
        Self::checked(bytes, side, store, layout)
            .map_err(|fault| StoreContentError { place: StorePlace::Directory(side), fault })
    }

    fn checked(
        bytes: &[u8],
        side: StoreSide,
        store: Uuid,
        layout: &StoreLayout,
    ) -> Result<Self, StoreFault> {
        let first = bytes.first_chunk::<BLOCK>().ok_or(StoreFault::Impossible("size"))?;
        check(first, DIRECTORY_MAGIC, DIRECTORY_LEN, Some(store))?;
        let raw =
            RawStoreDirectory::ref_from_bytes(bytes).map_err(|_| StoreFault::Impossible("size"))?;
        if crc32c(raw.entries.as_bytes()).0 != raw.header.entries_crc32c.get() {
            return Err(StoreFault::Checksum);
        }
        let sequence = raw.header.sequence.get();
        if sequence >= 1 << 63 || StoreSide::of(sequence) != side {
            return Err(StoreFault::Impossible("sequence"));
        }
        let listed = raw
            .entries
            .get(..raw.header.count.get() as usize)
            .ok_or(StoreFault::Impossible("count"))?;
        let mut images = Vec::new();
        images.try_reserve_exact(listed.len()).map_err(|_| StoreFault::OutOfMemory)?;
        for entry in listed {
            images.push(StoredImage::decode(entry, layout)?);
        }
        are_apart(&images)?;
        Ok(Self {
            sequence,
            writer: Uuid(raw.header.writer),
            written_ns: raw.header.written_ns.get(),
            images,
        })
    }
}

impl FoundDirectory {
    /// Returns the newer of two decoded copies.
    ///
    /// # Errors
    /// If neither can be used, or one is a newer program's.
    pub fn newest(
        found: [Result<StoreDirectory, StoreContentError>; 2],
    ) -> Result<Self, StoreContentError> {
        if let Some(error) = found
            .iter()
            .filter_map(|copy| copy.as_ref().err())
            .find(|error| error.fault.is_newer() || error.fault == StoreFault::OutOfMemory)
        {
            return Err(*error);
        }
        match found {
            [Ok(a), Ok(b)] => {
                let directory = if a.sequence > b.sequence { a } else { b };
                Ok(Self { directory, other: None })
            }
            [Ok(directory), Err(error)] | [Err(error), Ok(directory)] => {
                Ok(Self { directory, other: Some(error) })
            }
            [Err(error), Err(_)] => Err(error),
        }
    }
}

/// Checks that digests are distinct and no chunk belongs to two images.
fn are_apart(images: &[StoredImage]) -> Result<(), StoreFault> {
    for (n, image) in images.iter().enumerate() {
        if images.iter().take(n).any(|earlier| earlier.digest == image.digest) {
            return Err(StoreFault::Impossible("digest"));
        }
    }
    let extents = images.iter().flat_map(|image| &image.extents);
    let mut taken = Vec::new();
    taken.try_reserve_exact(extents.clone().count()).map_err(|_| StoreFault::OutOfMemory)?;
    taken.extend(extents.map(|extent| (extent.first, extent.first + extent.count)));
    taken.sort_unstable();
    let overlaps = taken.iter().zip(taken.iter().skip(1)).any(|(a, b)| a.1 > b.0);
    if overlaps { Err(StoreFault::Impossible("extents")) } else { Ok(()) }
}

/// Makes zeros.
pub(super) fn zeros(len: usize) -> Result<Vec<u8>, StoreFault> {
    heap::zeroed(len).map_err(|_| StoreFault::OutOfMemory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::entry::{ImageExtent, ImageKind};
    use crate::images::layout::DEFAULT_SLOTS;
    use arrayvec::ArrayString;

    const STORE: Uuid = Uuid([1; 16]);

    fn layout() -> StoreLayout {
        StoreLayout::new(1 << 14, DEFAULT_SLOTS).unwrap()
    }

    fn image(n: u8, extents: &[(u32, u32)]) -> StoredImage {
        let chunks: u32 = extents.iter().map(|extent| extent.1).sum();
        StoredImage {
            digest: ImageDigest([n; 32]),
            length: u64::from(chunks - 1) << 16,
            kind: ImageKind::Initrd,
            state: ImageState::Present,
            is_kept: n.is_multiple_of(2),
            extents: extents.iter().map(|&(first, count)| ImageExtent { first, count }).collect(),
            label: ArrayString::from("vmlinuz-ä").unwrap(),
            added_ns: 5,
        }
    }

    fn directory(sequence: u64, images: Vec<StoredImage>) -> StoreDirectory {
        StoreDirectory { sequence, writer: Uuid([2; 16]), written_ns: 7, images }
    }

    #[test]
    fn the_newer_copy_counts_and_a_torn_one_leaves_the_other() {
        let old = directory(6, vec![image(1, &[(48, 2), (100, 1)])]);
        let new = directory(7, vec![image(1, &[(48, 2), (100, 1)]), image(2, &[(50, 3)])]);
        let (a, b) = (old.encode(STORE).unwrap(), new.encode(STORE).unwrap());
        let read = |a: &[u8], b: &[u8]| StoreDirectory::decode([a, b], STORE, &layout());
        assert_eq!(read(&a, &b), Ok(FoundDirectory { directory: new.clone(), other: None }));
        // The write of B over its predecessor stops after every 512 bytes that differ.
        let before = directory(5, vec![]).encode(STORE).unwrap();
        for sectors in 0..b.len() / 512 {
            let mut torn = before.clone();
            torn[..sectors * 512].copy_from_slice(&b[..sectors * 512]);
            let found = read(&a, &torn).unwrap().directory;
            assert_eq!(found, if torn == b { new.clone() } else { old.clone() }, "{sectors}");
        }
        let fault = read(&a[..100], &b[..100]).unwrap_err();
        assert_eq!(fault.place, StorePlace::Directory(StoreSide::A));
    }

    #[test]
    fn every_damaged_byte_of_a_copy_is_found() {
        let bytes = directory(6, vec![image(1, &[(48, 3)])]).encode(STORE).unwrap();
        // All of the header and the entry, and some of the unused entries.
        for at in (0..BLOCK + 256).chain((BLOCK + 256..bytes.len()).step_by(509)) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let read = StoreDirectory::decode_one(&damaged, StoreSide::A, STORE, &layout());
            assert!(read.is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_program_s_copy_refuses_the_directory() {
        let (a, b) = (directory(6, vec![]), directory(7, vec![]));
        let (a, mut b) = (a.encode(STORE).unwrap(), b.encode(STORE).unwrap());
        b[8] = 2;
        seal(&mut b[..BLOCK]);
        // The rest of a newer copy may be of any form.
        b[BLOCK..].fill(0xff);
        let error = StoreDirectory::decode([&a, &b], STORE, &layout()).unwrap_err();
        assert_eq!(error.fault, StoreFault::NewerVersion(2));
    }

    #[test]
    fn impossible_directories_are_refused() {
        let refused = |images: Vec<StoredImage>, field| {
            let bytes = directory(6, images).encode(STORE).unwrap();
            let read = StoreDirectory::decode_one(&bytes, StoreSide::A, STORE, &layout());
            assert_eq!(read.unwrap_err().fault, StoreFault::Impossible(field));
        };
        refused(vec![image(1, &[(48, 3)]), image(1, &[(60, 2)])], "digest");
        refused(vec![image(1, &[(48, 3)]), image(2, &[(50, 2)])], "extents");
        refused(vec![image(1, &[(48, 3), (49, 1)])], "extents");
        refused(vec![image(1, &[(47, 3)])], "extents");
        refused(vec![image(1, &[(1023, 3)])], "extents");
        refused(vec![StoredImage { length: 1, ..image(1, &[(48, 3)]) }], "extents");
        refused(vec![StoredImage { length: 0, ..image(1, &[(48, 3)]) }], "length");
        refused(vec![StoredImage { length: u64::MAX, ..image(1, &[(48, 3)]) }], "length");
        let bytes = directory(6, vec![]).encode(STORE).unwrap();
        let read = StoreDirectory::decode_one(&bytes, StoreSide::B, STORE, &layout());
        assert_eq!(read.unwrap_err().fault, StoreFault::Impossible("sequence"));
        let read = StoreDirectory::decode_one(&bytes, StoreSide::A, Uuid([9; 16]), &layout());
        assert_eq!(read.unwrap_err().fault, StoreFault::OtherStore);
        let many = (0..=MAX_IMAGES).map(|_| image(1, &[(48, 3)])).collect();
        assert_eq!(directory(6, many).encode(STORE), Err(StoreFault::Impossible("count")));
    }
}
