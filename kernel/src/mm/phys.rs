//! The content of frames, by number.
//!
//! [`FrameMemory`] is the access to physical memory for the pager and the copies. [`DirectMap`]
//! implements it wherever one constant offset maps all of that memory: on the bare machine the
//! direct map, on the host one large allocation (`mm::fake`).
//!
//! Invariants: frames of guests are untyped. Their bytes are copied, cleared or summed through raw
//! pointers, never referenced, because a guest on another CPU may write them at any moment. A
//! caller that needs stable content must let the flush pass first.

// UNSAFETY: the bytes of a frame have no owner in Rust's sense; they are reached by address.
#![expect(unsafe_code)]

use super::crc::{self, Crc32c};
use crate::addr::{Hfn, Hpa, PAGE_SIZE};
use crate::arch::instr;
use core::sync::atomic::AtomicU64;

const WORDS: usize = PAGE_SIZE as usize / 8;

/// Access to the content of frames by number.
pub trait FrameMemory: Sync {
    /// Fills a frame with zeros.
    fn zero(&self, hfn: Hfn);
    /// Copies `bytes` into a frame from `offset` on.
    ///
    /// # Panics
    /// If the copy leaves the frame (our bug: copies are cut at page ends before).
    fn copy_in(&self, hfn: Hfn, offset: usize, bytes: &[u8]);
    /// Copies from a frame from `offset` on.
    ///
    /// # Panics
    /// If the copy leaves the frame (our bug).
    fn copy_out(&self, hfn: Hfn, offset: usize, buf: &mut [u8]);
    /// Copies a whole frame.
    fn copy_frame(&self, from: Hfn, to: Hfn) {
        let mut piece = [0; 512];
        for at in (0..PAGE_SIZE as usize).step_by(piece.len()) {
            self.copy_out(from, at, &mut piece);
            self.copy_in(to, at, &piece);
        }
    }
    /// Returns the CRC32C of the content.
    fn checksum(&self, hfn: Hfn) -> Crc32c;
    /// Returns whether every byte is zero; quick if an early byte is not.
    fn is_zero(&self, hfn: Hfn) -> bool;
    /// Returns the frame's address for a device.
    fn hpa(&self, hfn: Hfn) -> Hpa {
        hfn.base()
    }
}

/// Physical memory seen through a constant offset: the direct map, or a stand-in on the host.
#[derive(Clone, Copy, Debug)]
pub struct DirectMap {
    offset: u64,
}

impl DirectMap {
    /// Makes a map of physical address `n` to virtual address `offset + n`, wrapping.
    ///
    /// # Safety
    /// 1. Every frame that is ever asked for is mapped there, readable and writable, for as long as
    ///    the value or a copy lives.
    /// 2. No other code has a Rust object in those frames.
    pub const unsafe fn new(offset: u64) -> Self {
        Self { offset }
    }

    #[inline]
    fn pointer(&self, hfn: Hfn) -> *mut u8 {
        let address = hfn.base().as_u64().wrapping_add(self.offset);
        core::ptr::with_exposed_provenance_mut(address as usize)
    }

    /// Returns the words of a table page, which the CPU's page walker reads and writes, too.
    #[inline]
    pub(super) fn words(&self, table: Hfn) -> &[AtomicU64; WORDS] {
        // SAFETY: one frame, mapped and without other Rust objects by the contract of `new`,
        // aligned to its size; table pages are only ever accessed as atomics, by the hardware too.
        unsafe { &*self.pointer(table).cast::<[AtomicU64; WORDS]>() }
    }
}

fn check_range(offset: usize, len: usize) {
    assert!(
        offset.checked_add(len).is_some_and(|end| end <= PAGE_SIZE as usize),
        "a copy stays in its frame"
    );
}

impl FrameMemory for DirectMap {
    #[inline]
    fn zero(&self, hfn: Hfn) {
        // SAFETY: one frame, mapped by the contract of `new`.
        unsafe { instr::zero_page(self.pointer(hfn)) };
    }

    fn copy_in(&self, hfn: Hfn, offset: usize, bytes: &[u8]) {
        check_range(offset, bytes.len());
        // SAFETY: inside the frame by the check.
        let to = unsafe { self.pointer(hfn).add(offset) };
        // SAFETY: mapped by the contract of `new`, whose second point keeps `bytes` elsewhere.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn copy_out(&self, hfn: Hfn, offset: usize, buf: &mut [u8]) {
        check_range(offset, buf.len());
        // SAFETY: inside the frame by the check.
        let from = unsafe { self.pointer(hfn).add(offset) };
        // SAFETY: mapped by the contract of `new`, whose second point keeps `buf` elsewhere.
        unsafe { from.copy_to_nonoverlapping(buf.as_mut_ptr(), buf.len()) };
    }

    fn checksum(&self, hfn: Hfn) -> Crc32c {
        // SAFETY: one frame, mapped by the contract of `new`.
        unsafe { crc::crc32c_page(self.pointer(hfn)) }
    }

    fn is_zero(&self, hfn: Hfn) -> bool {
        // SAFETY: one frame, mapped by the contract of `new`.
        unsafe { instr::is_zero_page(self.pointer(hfn)) }
    }
}
