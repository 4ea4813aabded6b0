//! CRC32C (Castagnoli), the checksum of a block.
//!
//! It uses the `crc32` instruction: no FPU register, and 521 instructions a page. Three streams at
//! a time would be faster on real cores (the instruction has a latency of three), but need a table
//! and a combination step of some 40 instructions; for now the path length is what counts.
//!
//! An emulator may compute the instruction bit by bit: under QEMU's TCG a page then takes 27 us,
//! and by tables 7 us. So [`choose`] measures once which way is faster here.

// UNSAFETY: a page is summed where it lies.
#![expect(unsafe_code)]

mod table;

use crate::addr::PAGE_SIZE;
use crate::arch::instr;
use crate::time::Ns;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Set if pages are summed by tables here, not by the instruction.
static BY_TABLES: AtomicBool = AtomicBool::new(false);
/// Runs of the measurement; the fastest one counts.
const TURNS: usize = 4;

/// CRC32C of a page's content, as stored beside its block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Crc32c(pub u32);

/// Returns the CRC32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> Crc32c {
    Crc32c(instr::crc32c(0, bytes))
}

/// Continues a CRC32C over `bytes`; begin with the default.
pub fn crc32c_on(sum: Crc32c, bytes: &[u8]) -> Crc32c {
    Crc32c(instr::crc32c(sum.0, bytes))
}

/// Returns the CRC32C of a page in place.
///
/// # Safety
/// The 4 KiB from `page` on are mapped and readable.
pub(super) unsafe fn crc32c_page(page: *const u8) -> Crc32c {
    if BY_TABLES.load(Relaxed) {
        // SAFETY: the caller's promise.
        return Crc32c(unsafe { table::crc32c_page(page.cast()) });
    }
    // SAFETY: the caller's promise.
    Crc32c(unsafe { instr::crc32c_page(page) })
}

/// Measures both ways by `clock` and keeps the faster one. Both give the same sums, so a call may
/// come at any time.
pub fn choose(clock: impl Fn() -> Ns) {
    let page = [0x5a_u64; PAGE_SIZE as usize / 8];
    let fastest = |sum: &dyn Fn() -> u32| {
        let turn = |_| {
            let start = clock();
            black_box(sum());
            clock() - start
        };
        (0..TURNS).map(turn).min().unwrap_or(Ns::MAX)
    };
    // SAFETY: an array of a page's size.
    let by_instruction = fastest(&|| unsafe { instr::crc32c_page(page.as_ptr().cast()) });
    // SAFETY: as above.
    let by_tables = fastest(&|| unsafe { table::crc32c_page(page.as_ptr()) });
    BY_TABLES.store(by_tables < by_instruction, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_check_values() {
        // RFC 3720 "CRC Examples": 32 bytes of zeros, of ones, ascending; and the usual nine
        // digits.
        assert_eq!(crc32c(&[0; 32]), Crc32c(0x8a91_36aa));
        assert_eq!(crc32c(&[0xff; 32]), Crc32c(0x62a8_ab43));
        assert_eq!(crc32c(&core::array::from_fn::<u8, 32, _>(|n| n as u8)), Crc32c(0x46dd_794e));
        assert_eq!(crc32c(b"123456789"), Crc32c(0xe306_9283));
        let first = crc32c_on(Crc32c::default(), b"1234");
        assert_eq!(crc32c_on(first, b"56789"), Crc32c(0xe306_9283));
    }

    #[test]
    fn tables_and_the_instruction_give_the_same_sum() {
        let pages = [
            [0; 512],
            [u64::MAX; 512],
            core::array::from_fn(|n| (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            core::array::from_fn(|n| u64::from(n == 511) << 63),
        ];
        for page in pages {
            // SAFETY: an array of a page's size.
            let by_tables = unsafe { table::crc32c_page(page.as_ptr()) };
            // SAFETY: as above.
            let by_instruction = unsafe { instr::crc32c_page(page.as_ptr().cast()) };
            assert_eq!(by_tables, by_instruction);
        }
    }
}
