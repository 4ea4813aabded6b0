//! Stand-ins in Rust for the instructions that unit tests reach: Miri executes no assembly.
//!
//! Each function has the contract of the instruction's own function, and more: Miri checks bounds,
//! initialisation, alignment and data races of every access, of which assembly is exempt. The tests
//! of the instructions run against these functions, too.
//!
//! The CRC uses the intrinsics of SSE4.2, which Miri computes itself. They require the feature in
//! the whole program; `.ci/miri` turns it on.

use crate::time::Ticks;
use core::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

const WORDS: usize = 512;

/// Stands in for [`super::crc32c`].
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    // SAFETY: the program is built for CPUs with SSE4.2; Miri checks it.
    let word = |state, bytes: &[u8; 8]| unsafe { _mm_crc32_u64(state, u64::from_le_bytes(*bytes)) };
    let state = words.iter().fold(u64::from(!crc), word) as u32;
    // SAFETY: as above.
    !rest.iter().fold(state, |state, byte| unsafe { _mm_crc32_u8(state, *byte) })
}

/// Stands in for [`super::crc32c_page`].
///
/// # Safety
/// As there.
pub unsafe fn crc32c_page(page: *const u8) -> u32 {
    let mut bytes = [0; WORDS * 8];
    // SAFETY: the caller's promise, and an array of the same size that is ours.
    unsafe { page.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
    crc32c(0, &bytes)
}

/// Stands in for [`super::is_zero_page`].
///
/// # Safety
/// As there.
pub unsafe fn is_zero_page(page: *const u8) -> bool {
    // SAFETY: the caller's promise.
    unsafe { page.cast::<[u64; WORDS]>().read() == [0; WORDS] }
}

/// Stands in for [`super::zero_page`].
///
/// # Safety
/// As there.
pub unsafe fn zero_page(page: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { page.cast::<u64>().write_bytes(0, WORDS) };
}

/// Stands in for [`super::copy_words`].
///
/// # Safety
/// As there.
pub unsafe fn copy_words(from: *const u8, to: *mut u8, words: u64) {
    // SAFETY: the caller's promise.
    unsafe { from.cast::<u64>().copy_to_nonoverlapping(to.cast(), words as usize) };
}

/// Stands in for [`super::rdtsc`]: a counter that every look moves on.
pub fn rdtsc() -> Ticks {
    static TICKS: AtomicU64 = AtomicU64::new(1_000);
    Ticks::new(TICKS.fetch_add(1_000, Relaxed))
}
