//! A window onto registers or memory that a device may change at any time.
//!
//! Every access is volatile, aligned and checked against the window's length: a window gives
//! [`VolatilePtr`]s, and no reference into it is ever made.

// UNSAFETY: device memory can only be reached by raw, volatile accesses.
#![expect(unsafe_code)]

use core::ptr::NonNull;
use volatile::VolatilePtr;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes that are copied with one check.
const PIECE: usize = 64;

/// A range of device memory.
#[derive(Debug)]
pub struct DeviceWindow {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a window is plain memory reached by volatile accesses, and it stores only integers. The
// protocol with the device decides which CPU may write which word when.
unsafe impl Send for DeviceWindow {}

impl DeviceWindow {
    /// Wraps `len` bytes at `base`.
    ///
    /// # Safety
    /// 1. The bytes are valid for volatile reads and writes as long as the window lives.
    /// 2. No reference points into them, and no access by a driver there endangers memory in use:
    ///    the driver's protocol with the device ensures that.
    pub unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }

    /// Wraps physical addresses: a device's registers, or memory that is never freed.
    ///
    /// # Safety
    /// As for [`DeviceWindow::new`], for the direct map of `base`.
    #[cfg(target_os = "none")]
    pub unsafe fn of_physical(base: crate::addr::Hpa, len: usize) -> Self {
        let base = NonNull::new(crate::arch::direct_map::pointer(base))
            .expect("the direct map is not at 0");
        // SAFETY: the caller's promise.
        unsafe { Self::new(base, len) }
    }

    /// Returns the size of the window in bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the window has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the address of byte 0.
    pub fn address(&self) -> usize {
        self.base.addr().get()
    }

    /// Returns the `T` at `offset`: a register, or a structure of registers.
    ///
    /// # Panics
    /// If the value is not inside the window or not aligned (our bug: layouts are computed, and the
    /// device's numbers are checked before).
    pub fn at<T: RegisterWord>(&self, offset: usize) -> VolatilePtr<'_, T> {
        let end = offset.checked_add(size_of::<T>());
        assert!(end.is_some_and(|end| end <= self.len), "access within the window");
        // SAFETY: the offset is inside (asserted above) the window, which is one range (promise to
        // `new`).
        let pointer: NonNull<T> = unsafe { self.base.add(offset) }.cast();
        assert!(pointer.is_aligned(), "aligned access to the window");
        // SAFETY: bounds and alignment are checked above, and every bit pattern is a
        // `RegisterWord`. The bytes are valid as long as the window lives (promise to `new`); its
        // user's protocol with the device keeps other CPUs from them.
        unsafe { VolatilePtr::new(pointer) }
    }

    /// Reads one value.
    pub fn read<T: RegisterWord>(&self, offset: usize) -> T {
        self.at(offset).read()
    }

    /// Copies bytes out, in pieces of words where they are aligned: whole buffers go through here.
    pub fn copy_out(&self, offset: usize, buf: &mut [u8]) {
        let words = if self.is_aligned(offset) { buf.len() / PIECE * PIECE } else { 0 };
        let (whole, rest) = buf.split_at_mut(words);
        for (n, piece) in whole.as_chunks_mut::<PIECE>().0.iter_mut().enumerate() {
            let words: [u64; PIECE / 8] = self.read(offset + n * PIECE);
            piece.copy_from_slice(words.as_bytes());
        }
        rest.iter_mut().enumerate().for_each(|(n, byte)| *byte = self.read(offset + words + n));
    }

    /// Copies bytes in, likewise.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let words = if self.is_aligned(offset) { bytes.len() / PIECE * PIECE } else { 0 };
        let (whole, rest) = bytes.split_at(words);
        for (n, piece) in whole.as_chunks::<PIECE>().0.iter().enumerate() {
            let mut words = [0_u64; PIECE / 8];
            words.as_mut_bytes().copy_from_slice(piece);
            self.write(offset + n * PIECE, words);
        }
        rest.iter().enumerate().for_each(|(n, byte)| self.write(offset + words + n, *byte));
    }

    fn is_aligned(&self, offset: usize) -> bool {
        self.address().wrapping_add(offset).is_multiple_of(size_of::<u64>())
    }

    /// Writes one value.
    pub fn write<T: RegisterWord>(&self, offset: usize, value: T) {
        self.at(offset).write(value);
    }
}

/// Integers and structures of them without gaps: every bit pattern is valid.
pub trait RegisterWord: Copy + FromBytes + IntoBytes {}

impl<T: Copy + FromBytes + IntoBytes> RegisterWord for T {}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> DeviceWindow {
        let memory: &'static mut [u64] = Box::leak(vec![0u64; 2].into_boxed_slice());
        // SAFETY: leaked memory without another reference.
        unsafe { DeviceWindow::new(NonNull::from(memory).cast(), 16) }
    }

    #[test]
    fn values_lie_where_they_were_written() {
        let w = window();
        w.write(4, 0x1122_3344_u32);
        assert_eq!(
            (w.read::<u64>(0), w.read::<u16>(6), w.read::<u8>(4)),
            (0x1122_3344 << 32, 0x1122, 0x44)
        );
    }

    #[test]
    fn bytes_of_any_number_and_place_are_copied_whole() {
        let memory: &'static mut [u64] = Box::leak(vec![0u64; 32].into_boxed_slice());
        // SAFETY: leaked memory without another reference.
        let w = unsafe { DeviceWindow::new(NonNull::from(memory).cast(), 256) };
        let bytes: Vec<u8> = (1..=200).collect();
        for (offset, len) in [(0, 200), (8, 64), (16, 130), (3, 90), (40, 7)] {
            w.copy_in(0, &[0; 256]);
            w.copy_in(offset, &bytes[..len]);
            let mut all = [0; 256];
            w.copy_out(0, &mut all);
            let mut expected = [0; 256];
            expected[offset..offset + len].copy_from_slice(&bytes[..len]);
            assert_eq!(all, expected, "{len} bytes at {offset}");
            let mut part = vec![0; len];
            w.copy_out(offset, &mut part);
            assert_eq!(part, bytes[..len]);
        }
    }

    #[test]
    #[should_panic(expected = "within the window")]
    fn an_access_across_the_end_is_our_bug() {
        window().read::<u32>(14);
    }

    #[test]
    #[should_panic(expected = "aligned")]
    fn an_unaligned_access_is_our_bug() {
        window().write(2, 0u32);
    }
}
