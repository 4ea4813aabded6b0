//! Drivers' access to physical memory: copies for the memory disk, volatile words for rings.
//!
//! [`DmaRegion`] is memory that a driver shares with its device: rings, request headers, status
//! bytes. It is accessed only through a [`DeviceWindow`], because the device may write at any time.
//! [`DmaMemory`] copies whole buffers between physical addresses.
//!
//! On the bare machine both use the direct map. In host tests a region is a leaked allocation whose
//! "physical" address is its virtual address, and `fake::FakeDmaMemory` is a vector.

// UNSAFETY: copies between physical addresses, which belong to the submitter of the request.
#![cfg_attr(target_os = "none", expect(unsafe_code))]

use crate::addr::Hpa;
use crate::pci::window::DeviceWindow;
pub use crate::pci::window::RegisterWord;

/// Copies buffers in physical memory.
pub trait DmaMemory: Sync {
    /// Copies `len` bytes, a multiple of eight; the ranges do not overlap.
    fn copy(&self, from: Hpa, to: Hpa, len: u64);
    /// Fills `len` bytes with zeros.
    fn fill_zero(&self, at: Hpa, len: u64);
}

/// Physical memory through the direct map.
#[cfg(target_os = "none")]
#[derive(Clone, Copy)]
pub struct DirectMemory {
    _private: (),
}

#[cfg(target_os = "none")]
impl DirectMemory {
    /// Makes the accessor.
    ///
    /// # Safety
    /// It is only ever given addresses of RAM that its users own for the duration of the access:
    /// buffers belong to the submitter of a request until its completion, regions to their disk.
    pub const unsafe fn new() -> Self {
        Self { _private: () }
    }
}

#[cfg(target_os = "none")]
impl DmaMemory for DirectMemory {
    fn copy(&self, from: Hpa, to: Hpa, len: u64) {
        let (from, to) = (
            crate::arch::direct_map::pointer::<u8>(from),
            crate::arch::direct_map::pointer::<u8>(to),
        );
        // SAFETY: both ranges are RAM in the direct map that their users own (promise to `new`).
        unsafe { crate::arch::instr::copy_words(from, to, len / 8) }
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
    window: DeviceWindow,
}

impl DmaRegion {
    /// Makes a region of the memory in `window`; devices see it at `hpa`.
    ///
    /// # Panics
    /// If it is not aligned to 4 KiB on both sides (our bug: memory is allocated in pages).
    pub fn new(hpa: Hpa, window: DeviceWindow) -> Self {
        assert!(
            hpa.page_offset() == 0 && window.address().is_multiple_of(4096),
            "a DMA region is page-aligned"
        );
        Self { hpa, window }
    }

    /// Makes a region of physical memory that was taken for good.
    ///
    /// # Safety
    /// The range is RAM with no other user.
    #[cfg(target_os = "none")]
    pub unsafe fn of_taken(range: core::ops::Range<Hpa>) -> Self {
        let len = (range.end.as_u64() - range.start.as_u64()) as usize;
        // SAFETY: the caller's promise.
        Self::new(range.start, unsafe { DeviceWindow::of_physical(range.start, len) })
    }

    /// Returns the bytes of the region.
    pub const fn len(&self) -> usize {
        self.window.len()
    }

    /// Returns whether the region has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Returns the hypervisor's view.
    pub const fn window(&self) -> &DeviceWindow {
        &self.window
    }

    /// Reads one value.
    pub fn read<T: RegisterWord>(&self, offset: usize) -> T {
        self.window.read(offset)
    }

    /// Writes one value.
    pub fn write<T: RegisterWord>(&self, offset: usize, value: T) {
        self.window.write(offset, value);
    }

    /// Returns the address of byte `offset` as the device sees it.
    ///
    /// # Panics
    /// If `offset` is not in the region (our bug).
    pub fn hpa(&self, offset: usize) -> Hpa {
        assert!(offset < self.len(), "offset within the DMA region");
        self.hpa.checked_add(offset as u64).expect("RAM does not end at 2^64")
    }
}

#[cfg(test)]
pub mod fake;
