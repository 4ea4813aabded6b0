//! The checksums of an image's chunks: blocks in the image's first chunk. Each is bound to its
//! image, so that the checksums of an image that had the same chunks before are not taken for its
//! own.

use super::digest::ImageDigest;
use super::error::StoreFault;
use super::raw::{RawChunkSums, SUMS_MAGIC, check, head, sealed};
use super::units::{BLOCK, SUMS_A_BLOCK};
use crate::mm::crc::{Crc32c, crc32c};
use crate::space::Uuid;
use arrayvec::ArrayVec;
use zerocopy::{FromBytes, FromZeros};

/// Checksums of consecutive chunks.
pub type ChunkSums = ArrayVec<Crc32c, SUMS_A_BLOCK>;

/// Returns the checksum of a chunk's bytes, which is that of the image's bytes only.
pub fn sum(bytes: &[u8]) -> Crc32c {
    crc32c(bytes)
}

/// Encodes block `number` of the checksums of `image`.
pub fn encode(store: Uuid, image: ImageDigest, number: u32, sums: &[Crc32c]) -> [u8; BLOCK] {
    let mut raw = RawChunkSums::new_zeroed();
    raw.head = head(SUMS_MAGIC, BLOCK, store);
    raw.digest = image.0;
    raw.number = number.into();
    raw.count = (sums.len().min(SUMS_A_BLOCK) as u32).into();
    for (raw, sum) in raw.sums.iter_mut().zip(sums) {
        *raw = sum.0.into();
    }
    sealed(&raw)
}

/// Decodes block `number` of the checksums of `image`.
///
/// # Errors
/// Its fault.
pub fn decode(
    bytes: &[u8; BLOCK],
    store: Uuid,
    image: ImageDigest,
    number: u32,
) -> Result<ChunkSums, StoreFault> {
    check(bytes, SUMS_MAGIC, BLOCK, Some(store))?;
    let raw = RawChunkSums::ref_from_bytes(bytes).map_err(|_| StoreFault::Impossible("size"))?;
    if raw.digest != image.0 {
        return Err(StoreFault::OtherImage);
    }
    if raw.number.get() != number {
        return Err(StoreFault::Impossible("number"));
    }
    let listed = raw.sums.get(..raw.count.get() as usize).ok_or(StoreFault::Impossible("count"))?;
    Ok(listed.iter().map(|sum| Crc32c(sum.get())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: Uuid = Uuid([3; 16]);
    const IMAGE: ImageDigest = ImageDigest([9; 32]);

    #[test]
    fn sums_read_back_for_their_own_image_only() {
        let sums: Vec<_> = (0..SUMS_A_BLOCK as u32).map(Crc32c).collect();
        let block = encode(STORE, IMAGE, 5, &sums);
        assert_eq!(decode(&block, STORE, IMAGE, 5).unwrap().as_slice(), sums);
        let other = ImageDigest([8; 32]);
        assert_eq!(decode(&block, STORE, other, 5), Err(StoreFault::OtherImage));
        assert_eq!(decode(&block, Uuid([4; 16]), IMAGE, 5), Err(StoreFault::OtherStore));
        assert_eq!(decode(&block, STORE, IMAGE, 6), Err(StoreFault::Impossible("number")));
        let mut damaged = block;
        damaged[100] ^= 1;
        assert_eq!(decode(&damaged, STORE, IMAGE, 5), Err(StoreFault::Checksum));
    }
}
