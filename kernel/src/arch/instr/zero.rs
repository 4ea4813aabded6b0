//! Tests a page for a byte that is not zero.

#[cfg(miri)]
pub use super::miri::is_zero_page;
#[cfg(not(miri))]
use core::arch::asm;

/// Returns whether the 4 KiB from `page` on are zero: 530 instructions if they are, two if the
/// first eight bytes are not.
///
/// # Safety
/// The page is mapped and readable, and aligned to eight bytes.
#[cfg(not(miri))]
#[inline(always)]
pub unsafe fn is_zero_page(page: *const u8) -> bool {
    // SAFETY: the caller's promise; a single volatile access, because the page may be written
    // meanwhile.
    let first = unsafe { page.cast::<u64>().read_volatile() };
    // SAFETY: the caller's promise.
    first == 0 && unsafe { is_all_zero(page) }
}

/// # Safety
/// As for [`is_zero_page`].
#[cfg(not(miri))]
unsafe fn is_all_zero(page: *const u8) -> bool {
    let mut any = 0_u64;
    // SAFETY: reads at most four times 1024 bytes from `page` on, which the caller has mapped.
    unsafe {
        asm!(
            "2:",
            ".set tidepool_zero_offset, 0",
            ".rept 128",
            "or {any}, qword ptr [{page} + tidepool_zero_offset]",
            ".set tidepool_zero_offset, tidepool_zero_offset + 8",
            ".endr",
            "jnz 3f",
            "add {page}, 1024",
            "dec {turns:e}",
            "jnz 2b",
            "3:",
            any = inout(reg) any,
            page = inout(reg) page => _,
            turns = inout(reg) 4_u32 => _,
            options(readonly, nostack),
        );
    }
    any == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_found() {
        let mut page = [0_u64; 512];
        // SAFETY: an array of 4096 bytes.
        assert!(unsafe { is_zero_page(page.as_ptr().cast()) });
        for bit in (0..4096 * 8).step_by(if cfg!(miri) { 61 } else { 1 }) {
            page[bit / 64] = 1 << (bit % 64);
            // SAFETY: as above.
            assert!(!unsafe { is_zero_page(page.as_ptr().cast()) }, "{bit}");
            page[bit / 64] = 0;
        }
    }
}
