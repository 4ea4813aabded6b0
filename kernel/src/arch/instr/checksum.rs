//! CRC32C by the `crc32` instruction, which needs no FPU register (SSE4.2).

use core::arch::asm;

/// Continues a CRC32C over `bytes`; start with 0.
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = u64::from(!crc);
    for word in words {
        let word = u64::from_le_bytes(*word);
        // SAFETY: arithmetic on registers; start-up refuses a CPU without SSE4.2.
        unsafe { asm!("crc32 {}, {}", inout(reg) state, in(reg) word, options(pure, nomem, nostack, preserves_flags)) };
    }
    for &byte in rest {
        // SAFETY: as above.
        unsafe { asm!("crc32 {:r}, {}", inout(reg) state, in(reg_byte) byte, options(pure, nomem, nostack, preserves_flags)) };
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
    fn pieces_give_the_same_as_the_whole() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(crc32c(crc32c(0, &bytes[..77]), &bytes[77..]), crc32c(0, &bytes));
    }
}
