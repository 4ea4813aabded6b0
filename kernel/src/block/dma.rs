//! How drivers reach physical memory: copies for the memory disk, volatile words for rings.
//!
//! [`DmaRegion`] is memory that a driver shares with its device (rings, request headers, status bytes). Every access is
//! volatile and checked against the region's length; nobody ever makes a reference into it, because the device
//! may write at any time. [`DmaMemory`] copies whole buffers between physical addresses.
//!
//! On the bare machine both go through the direct map. In host tests a region is a leaked allocation whose
//! "physical" address is its own, and [`fake::FakeMemory`] is a vector.

// UNSAFETY: memory that a device writes can only be reached by raw, volatile accesses.
#![allow(unsafe_code)]

use core::ptr::NonNull;

use crate::addr::Hpa;

/// Copies buffers in physical memory.
pub trait DmaMemory: Sync {
    /// Copies `len` bytes; the ranges do not overlap.
    fn copy(&self, from: Hpa, to: Hpa, len: u64);
    /// Fills `len` bytes with zeros.
    fn fill_zero(&self, at: Hpa, len: u64);
}

/// Physical memory through the direct map.
#[cfg(target_os = "none")]
pub struct DirectMemory {
    _private: (),
}

#[cfg(target_os = "none")]
impl DirectMemory {
    /// Makes the accessor.
    ///
    /// # Safety
    /// Only addresses of RAM that their users own, for as long as the access takes, are ever given to it: buffers
    /// belong to the submitter of a request until its completion, regions to their disk.
    pub const unsafe fn new() -> Self {
        Self { _private: () }
    }
}

#[cfg(target_os = "none")]
impl DmaMemory for DirectMemory {
    fn copy(&self, from: Hpa, to: Hpa, len: u64) {
        let (from, to) = (crate::arch::direct_map::pointer::<u8>(from), crate::arch::direct_map::pointer::<u8>(to));
        // SAFETY: both ranges are RAM in the direct map that their users own (promise to `new`).
        unsafe { core::ptr::copy_nonoverlapping(from, to, len as usize) }
    }

    fn fill_zero(&self, at: Hpa, len: u64) {
        let at = crate::arch::direct_map::pointer::<u8>(at);
        // SAFETY: as in `copy`.
        unsafe { core::ptr::write_bytes(at, 0, len as usize) }
    }
}

/// Physically contiguous memory that a driver shares with its device.
#[derive(Debug)]
pub struct DmaRegion {
    hpa: Hpa,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the region is plain memory; who may write which word when is the ring protocol's business.
unsafe impl Send for DmaRegion {}

impl DmaRegion {
    /// Wraps `len` bytes at `base`, which devices see at `hpa`.
    ///
    /// # Safety
    /// The memory is valid for reads and writes as long as the region lives, aligned to 4 KiB, and used by nobody but
    /// its driver and its device.
    pub unsafe fn new(hpa: Hpa, base: NonNull<u8>, len: usize) -> Self {
        assert!(base.addr().get().is_multiple_of(4096), "a DMA region is page-aligned");
        Self { hpa, base, len }
    }

    /// Wraps physical memory that was taken for ever.
    ///
    /// # Safety
    /// The range is RAM that nobody else uses.
    #[cfg(target_os = "none")]
    pub unsafe fn from_taken(range: core::ops::Range<Hpa>) -> Self {
        let len = (range.end.as_u64() - range.start.as_u64()) as usize;
        let base = NonNull::new(crate::arch::direct_map::pointer(range.start)).expect("the direct map is not at 0");
        // SAFETY: the caller's promise; physical memory is handed out in whole pages.
        unsafe { Self::new(range.start, base, len) }
    }

    /// Returns the bytes of the region.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the region has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns where the device finds byte `offset`.
    pub fn hpa(&self, offset: usize) -> Hpa {
        assert!(offset <= self.len, "offset within the DMA region");
        self.hpa.checked_add(offset as u64).expect("RAM does not end at 2^64")
    }

    /// Returns a pointer to `offset`, aligned for `T`, with room for one.
    fn pointer<T>(&self, offset: usize) -> *mut T {
        let end = offset.checked_add(size_of::<T>());
        assert!(end.is_some_and(|end| end <= self.len), "access within the DMA region");
        assert!(offset.is_multiple_of(align_of::<T>()), "aligned access to the DMA region");
        // SAFETY: the offset is inside the region (asserted above), which is one allocation (promise to `new`).
        unsafe { self.base.as_ptr().add(offset).cast() }
    }

    /// Reads one value.
    pub fn read<T: Word>(&self, offset: usize) -> T {
        let pointer = self.pointer::<T>(offset);
        // SAFETY: `pointer` checked bounds and alignment; every bit pattern is a `Word`; volatile, for the device.
        unsafe { pointer.read_volatile() }
    }

    /// Writes one value.
    pub fn write<T: Word>(&self, offset: usize, value: T) {
        let pointer = self.pointer::<T>(offset);
        // SAFETY: as in `read`.
        unsafe { pointer.write_volatile(value) }
    }
}

/// Integers of which every bit pattern is one.
pub trait Word: Copy + private::Sealed {}

mod private {
    pub trait Sealed {}
}

macro_rules! word {
    ($($t:ty),*) => { $(impl private::Sealed for $t {} impl Word for $t {})* };
}
word!(u8, u16, u32, u64);

#[cfg(test)]
pub mod fake;
