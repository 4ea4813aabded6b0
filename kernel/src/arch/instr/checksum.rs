//! CRC32C by the `crc32` instruction, which needs no FPU register (SSE4.2).

#[cfg(miri)]
pub use super::miri::{crc32c, crc32c_page};
#[cfg(not(miri))]
use core::arch::asm;

/// Continues a CRC32C over `bytes`; start with 0.
#[cfg(not(miri))]
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = u64::from(!crc);
    for word in words {
        let word = u64::from_le_bytes(*word);
        // SAFETY: arithmetic on registers; start-up refuses a CPU without SSE4.2.
        unsafe {
            asm!(
                "crc32 {}, {}", inout(reg) state, in(reg) word,
                options(pure, nomem, nostack, preserves_flags)
            )
        };
    }
    for &byte in rest {
        // SAFETY: as above.
        unsafe {
            asm!(
                "crc32 {:r}, {}", inout(reg) state, in(reg_byte) byte,
                options(pure, nomem, nostack, preserves_flags)
            )
        };
    }
    !(state as u32)
}

/// Returns the CRC32C of the 4 KiB from `page` on. Takes 521 instructions: each word is a memory
/// operand, and a loop iteration has 256 of them.
///
/// If the page is written meanwhile, the result may be the checksum of contents that never existed.
///
/// # Safety
/// The page is mapped and readable.
#[cfg(not(miri))]
pub unsafe fn crc32c_page(page: *const u8) -> u32 {
    let mut state = u64::from(u32::MAX);
    // SAFETY: reads twice 2048 bytes from `page` on, which the caller has mapped.
    unsafe {
        asm!(
            "2:",
            ".set tidepool_offset, 0",
            ".rept 256",
            "crc32 {state}, qword ptr [{page} + tidepool_offset]",
            ".set tidepool_offset, tidepool_offset + 8",
            ".endr",
            "add {page}, 2048",
            "dec {turns:e}",
            "jnz 2b",
            state = inout(reg) state,
            page = inout(reg) page => _,
            turns = inout(reg) 2_u32 => _,
            options(readonly, nostack),
        );
    }
    !(state as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc32c() {
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_page_gives_the_same_as_its_bytes() {
        let page: [u8; 4096] = core::array::from_fn(|n| (n * 7 + n / 251) as u8);
        // SAFETY: an array of 4096 bytes.
        let sum = unsafe { crc32c_page(page.as_ptr()) };
        assert_eq!(sum, crc32c(0, &page));
    }

    #[test]
    fn pieces_give_the_same_as_the_whole() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(crc32c(crc32c(0, &bytes[..77]), &bytes[77..]), crc32c(0, &bytes));
    }
}
