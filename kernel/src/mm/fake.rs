//! A stand-in for physical memory on the host: one allocation, seen as frames through a
//! [`DirectMap`].
//!
//! For tests and host tools. The allocation is never freed, as the machine's memory is not.

// UNSAFETY: makes a direct map of what it has allocated.
#![expect(unsafe_code)]

use super::frames::FrameRegion;
use super::phys::DirectMap;
use crate::addr::{Hfn, PAGE_SIZE};
use alloc::alloc::{Layout, alloc, handle_alloc_error};

/// Frames of host memory, filled with a pattern that is not zero, and one of zeros behind them.
#[derive(Clone, Copy, Debug)]
pub struct FakeRam {
    map: DirectMap,
    region: FrameRegion,
}

impl FakeRam {
    /// Allocates `frames` frames, numbered from `first` on.
    ///
    /// # Panics
    /// If `frames` is zero.
    pub fn new(first: Hfn, frames: u32) -> Self {
        assert!(frames > 0, "no memory is no stand-in for memory");
        let bytes = frames as usize * PAGE_SIZE as usize;
        let with_zeros = bytes + PAGE_SIZE as usize;
        let layout = Layout::from_size_align(with_zeros, PAGE_SIZE as usize)
            .expect("a page is a power of two");
        // SAFETY: the size is not zero.
        let base = unsafe { alloc(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: as long as the allocation.
        unsafe { base.write_bytes(0, with_zeros) };
        // SAFETY: shorter than that.
        unsafe { base.write_bytes(0xa5, bytes) };
        let offset = (base.expose_provenance() as u64).wrapping_sub(first.base().as_u64());
        // SAFETY: the frames of the region are in the allocation, which is leaked and has no other
        // user.
        let map = unsafe { DirectMap::new(offset) };
        Self { map, region: FrameRegion { first, count: frames } }
    }

    /// Returns the map through which the frames are seen.
    pub const fn map(&self) -> DirectMap {
        self.map
    }

    /// Returns the frame of zeros, which is not in the region.
    pub const fn zeros(&self) -> Hfn {
        Hfn::new(self.region.first.as_u64() + self.region.count as u64)
    }

    /// Returns the frames.
    pub const fn region(&self) -> FrameRegion {
        self.region
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::crc::crc32c;
    use crate::mm::phys::FrameMemory;

    fn memory() -> (DirectMap, Hfn) {
        let ram = FakeRam::new(Hfn::new(0x100), 3);
        (ram.map(), Hfn::new(0x101))
    }

    #[test]
    fn copies_go_where_they_should_and_nowhere_else() {
        let (map, hfn) = memory();
        map.copy_in(hfn, 4090, b"abcdef");
        let mut buf = [0; 8];
        map.copy_out(hfn, 4088, &mut buf);
        assert_eq!(&buf, b"\xa5\xa5abcdef");
        map.copy_out(Hfn::new(0x102), 0, &mut buf);
        assert_eq!(buf, [0xa5; 8]);
    }

    #[test]
    fn one_bit_anywhere_makes_a_frame_not_zero() {
        let (map, hfn) = memory();
        assert!(!map.is_zero(hfn));
        map.zero(hfn);
        assert!(map.is_zero(hfn));
        for offset in [0, 1, 63, 64, 2048, 4095] {
            map.copy_in(hfn, offset, &[0x80]);
            assert!(!map.is_zero(hfn), "{offset}");
            map.zero(hfn);
        }
    }

    #[test]
    fn the_checksum_of_a_frame_is_that_of_its_bytes() {
        let (map, hfn) = memory();
        let bytes: [u8; 4096] = core::array::from_fn(|n| (n * 31 + n / 256) as u8);
        map.copy_in(hfn, 0, &bytes);
        assert_eq!(map.checksum(hfn), crc32c(&bytes));
    }

    #[test]
    #[should_panic(expected = "stays in its frame")]
    fn a_copy_beyond_the_frame_is_our_bug() {
        let (map, hfn) = memory();
        map.copy_in(hfn, 4095, b"ab");
    }
}
