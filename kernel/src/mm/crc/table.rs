//! CRC32C of a page by eight tables, a word at a time ("slicing by eight").
//!
//! A word is eight bytes. Each byte acts on the sum as if zeros followed it: table `k` holds the
//! sum of a byte with `7 - k` bytes of zeros behind it. So eight lookups take in the whole word.

/// The polynomial, bits reversed (RFC 3720 12.1 "CRC32C").
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// 32-bit sums of a byte and the zeros behind it.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(sum & 1));
            bit += 1;
        }
        tables[7][byte] = sum;
        byte += 1;
    }
    let mut table = 7;
    while table > 0 {
        table -= 1;
        let mut byte = 0;
        while byte < 256 {
            let nearer = tables[table + 1][byte];
            tables[table][byte] = (nearer >> 8) ^ tables[7][(nearer & 0xff) as usize];
            byte += 1;
        }
    }
    tables
}

/// Returns the CRC32C of the 512 words from `page` on.
///
/// If another CPU writes the page meanwhile, the result is the checksum of no content that the page
/// ever had.
///
/// # Safety
/// The page is mapped and readable, and aligned to a word.
pub(super) unsafe fn crc32c_page(page: *const u64) -> u32 {
    let mut sum = u32::MAX;
    for index in 0..512 {
        // SAFETY: inside the page.
        let at = unsafe { page.add(index) };
        // SAFETY: the caller has mapped it.
        let word = unsafe { at.read_volatile() } ^ u64::from(sum);
        let byte = |number: u32| (word >> (8 * number)) as u8 as usize;
        sum = TABLES[0][byte(0)]
            ^ TABLES[1][byte(1)]
            ^ TABLES[2][byte(2)]
            ^ TABLES[3][byte(3)]
            ^ TABLES[4][byte(4)]
            ^ TABLES[5][byte(5)]
            ^ TABLES[6][byte(6)]
            ^ TABLES[7][byte(7)];
    }
    !sum
}
