//! CRC32C (Castagnoli), the checksum of a block.
//!
//! By the `crc32` instruction: no FPU register, and 560 instructions a page. Three streams at a time would be faster on real cores (the instruction
//! has a latency of three) but need a combination step of some 40 instructions and a table; path length is what is measured for now.

// UNSAFETY: a page is summed where it lies.
#![allow(unsafe_code)]

use crate::arch::instr;

/// CRC32C of a page's content, as it is kept beside its block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Crc32c(pub u32);

/// Returns the CRC32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> Crc32c {
    Crc32c(instr::crc32c(0, bytes))
}

/// Returns the CRC32C of a page in place.
///
/// # Safety
/// The 4 KiB from `page` on are mapped and readable.
pub(super) unsafe fn crc32c_page(page: *const u8) -> Crc32c {
    // SAFETY: the caller's promise.
    Crc32c(unsafe { instr::crc32c_page(page) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_check_values() {
        // RFC 3720 "CRC Examples": 32 bytes of zeros, of ones, ascending; and the usual nine digits.
        assert_eq!(crc32c(&[0; 32]), Crc32c(0x8a91_36aa));
        assert_eq!(crc32c(&[0xff; 32]), Crc32c(0x62a8_ab43));
        assert_eq!(crc32c(&core::array::from_fn::<u8, 32, _>(|n| n as u8)), Crc32c(0x46dd_794e));
        assert_eq!(crc32c(b"123456789"), Crc32c(0xe306_9283));
    }
}
