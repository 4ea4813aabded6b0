//! Images: each has an entry in the directory, and is named by the SHA-256 of its content.
//!
//! ```text
//!   absent ──add──> Present <──a definition names it── Leaving ──> absent, its chunks are free
//!                      └─────────────remove──────────────^
//! ```

pub use super::digest::ImageDigest;
use super::error::StoreFault;
use super::layout::{CHUNK, StoreLayout};
use super::raw::{LABEL_LEN, MAX_EXTENTS, RawImageExtent, RawStoreEntry};
use super::units::MAX_CONTENT_CHUNKS;
use crate::space::raw::{get_text, put_text};
use arrayvec::{ArrayString, ArrayVec};
use zerocopy::FromZeros;

/// Most bytes of an image.
pub const MAX_LENGTH: u64 = MAX_CONTENT_CHUNKS as u64 * CHUNK as u64;

/// Most bytes of an image's label.
pub const MAX_LABEL: usize = LABEL_LEN;

/// What an image is for. Loaders look at the content, so this only helps people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageKind {
    /// A kernel.
    Kernel,
    /// An initrd.
    Initrd,
}

impl ImageKind {
    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
        }
    }
}

/// Whether new definitions may name an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageState {
    /// They may.
    Present,
    /// It is being removed: a definition that names it is withdrawn.
    Leaving,
}

/// Neighbouring chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageExtent {
    /// First chunk, counted from the store's start.
    pub first: u32,
    /// Number of chunks, at least one.
    pub count: u32,
}

/// The extents of an image, in the order of its content: the first chunk has the checksums.
pub type ImageExtents = ArrayVec<ImageExtent, MAX_EXTENTS>;

/// An entry of the directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredImage {
    /// Name of the image.
    pub digest: ImageDigest,
    /// Bytes of its content, 1 to [`MAX_LENGTH`].
    pub length: u64,
    /// What it is for.
    pub kind: ImageKind,
    /// Whether it stays.
    pub state: ImageState,
    /// Whether it stays without a definition that names it: it was added by itself.
    pub is_kept: bool,
    /// Where it lies.
    pub extents: ImageExtents,
    /// A name for people; not unique.
    pub label: ArrayString<LABEL_LEN>,
    /// Time of its addition in nanoseconds since 1970.
    pub added_ns: u64,
}

/// Returns the chunks of content of `length` bytes; `None` if no image has that length.
pub const fn content_chunks(length: u64) -> Option<u32> {
    if length == 0 || length > MAX_LENGTH {
        return None;
    }
    Some(length.div_ceil(CHUNK as u64) as u32)
}

impl StoredImage {
    /// Returns the number of chunks of the content.
    pub const fn chunks(&self) -> u32 {
        match content_chunks(self.length) {
            Some(chunks) => chunks,
            None => 0,
        }
    }

    /// Returns the number of bytes in a chunk of the content.
    pub fn chunk_len(&self, chunk: u32) -> usize {
        let left = self.length.saturating_sub(u64::from(chunk) * CHUNK as u64);
        left.min(CHUNK as u64) as usize
    }

    /// Returns the place in the store of the image's chunk `n`: 0 has the checksums, the content
    /// follows. `None` beyond its end.
    pub fn place(&self, n: u32) -> Option<u32> {
        let mut before = 0;
        for extent in &self.extents {
            if n - before < extent.count {
                return Some(extent.first + (n - before));
            }
            before += extent.count;
        }
        None
    }

    pub(super) fn encode(&self) -> RawStoreEntry {
        let mut raw = RawStoreEntry::new_zeroed();
        raw.digest = self.digest.0;
        raw.length = self.length.into();
        raw.kind = match self.kind {
            ImageKind::Kernel => 1,
            ImageKind::Initrd => 2,
        }
        .into();
        raw.state = match self.state {
            ImageState::Present => 1,
            ImageState::Leaving => 2,
        }
        .into();
        raw.flags = u32::from(self.is_kept).into();
        raw.extents_count = (self.extents.len() as u32).into();
        for (raw, extent) in raw.extents.iter_mut().zip(&self.extents) {
            *raw = RawImageExtent { first: extent.first.into(), count: extent.count.into() };
        }
        put_text(&mut raw.label, &self.label);
        raw.added_ns = self.added_ns.into();
        raw
    }

    pub(super) fn decode(raw: &RawStoreEntry, layout: &StoreLayout) -> Result<Self, StoreFault> {
        let label = get_text(&raw.label).and_then(|text| ArrayString::from(text).ok());
        Ok(Self {
            digest: ImageDigest(raw.digest),
            length: raw.length.get(),
            kind: match raw.kind.get() {
                1 => ImageKind::Kernel,
                2 => ImageKind::Initrd,
                _ => return Err(StoreFault::Impossible("kind")),
            },
            state: match raw.state.get() {
                1 => ImageState::Present,
                2 => ImageState::Leaving,
                _ => return Err(StoreFault::Impossible("state")),
            },
            is_kept: match raw.flags.get() {
                0 => false,
                1 => true,
                _ => return Err(StoreFault::Impossible("flags")),
            },
            extents: extents(raw, layout)?,
            label: label.ok_or(StoreFault::Impossible("label"))?,
            added_ns: raw.added_ns.get(),
        })
    }
}

/// Reads the extents: within the data, and as many chunks as the length needs.
fn extents(raw: &RawStoreEntry, layout: &StoreLayout) -> Result<ImageExtents, StoreFault> {
    let content = content_chunks(raw.length.get()).ok_or(StoreFault::Impossible("length"))?;
    let listed = raw
        .extents
        .get(..raw.extents_count.get() as usize)
        .ok_or(StoreFault::Impossible("extents_count"))?;
    let (mut extents, mut chunks) = (ImageExtents::new(), 0);
    for extent in listed {
        let (first, count) = (extent.first.get(), extent.count.get());
        let end = first.checked_add(count).filter(|end| *end <= layout.end_chunk());
        if end.is_none() || count == 0 || first < layout.first_chunk() {
            return Err(StoreFault::Impossible("extents"));
        }
        chunks += u64::from(count);
        extents.push(ImageExtent { first, count });
    }
    if chunks != u64::from(content) + 1 {
        return Err(StoreFault::Impossible("extents"));
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_read_back() {
        let digest = ImageDigest(core::array::from_fn(|n| n as u8 * 7));
        assert_eq!(ImageDigest::from_text(&digest.text()), Some(digest));
        assert_eq!(digest.short().as_str(), "00070e151c23");
        for text in ["", "0", &"g".repeat(64), &"0".repeat(63), &"+1".repeat(32)] {
            assert_eq!(ImageDigest::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn an_image_s_chunks_follow_its_extents() {
        let extent = |first, count| ImageExtent { first, count };
        let image = StoredImage {
            digest: ImageDigest([1; 32]),
            length: 3 * CHUNK as u64 + 5,
            kind: ImageKind::Kernel,
            state: ImageState::Present,
            is_kept: true,
            extents: [extent(50, 2), extent(90, 3)].into_iter().collect(),
            label: ArrayString::new(),
            added_ns: 0,
        };
        assert_eq!([0, 1, 2, 4].map(|n| image.place(n)), [Some(50), Some(51), Some(90), Some(92)]);
        assert_eq!((image.place(5), image.place(u32::MAX)), (None, None));
        assert_eq!((image.chunks(), image.chunk_len(2), image.chunk_len(3)), (4, CHUNK, 5));
        assert_eq!(image.chunk_len(4), 0);
        assert_eq!((content_chunks(0), content_chunks(MAX_LENGTH + 1)), (None, None));
    }
}
