//! CRC32C (Castagnoli) by tables, eight bytes a step. The crate has no instructions of its own, so
//! that it runs anywhere.

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut n = 0;
    while n < 256 {
        let mut sum = n as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        tables[0][n] = sum;
        n += 1;
    }
    let mut n = 0;
    while n < 256 {
        let mut step = 1;
        while step < 8 {
            let before = tables[step - 1][n];
            tables[step][n] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            step += 1;
        }
        n += 1;
    }
    tables
}

static TABLES: [[u32; 256]; 8] = tables();

/// Returns the CRC32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = !0;
    for word in words {
        let word = u64::from_le_bytes(*word) ^ u64::from(sum);
        sum = (0..8).fold(0, |all, n| all ^ TABLES[7 - n][(word >> (8 * n) & 0xff) as usize]);
    }
    !rest.iter().fold(sum, |sum, byte| sum >> 8 ^ TABLES[0][(sum as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_check_values() {
        // RFC 3720 "CRC Examples", and the usual nine digits.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&core::array::from_fn::<u8, 32, _>(|n| n as u8)), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
