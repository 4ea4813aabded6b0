//! A page that can be verified by itself: a later reader, of memory or of a dump, detects every
//! wrong bit.
//!
//! ```text
//!  0      magic       u64   "TPWORKER"
//!  8      key         u64   of the run that wrote it
//!  16     index       u64   number of the page in the run
//!  24     generation  u64   number of rewrites
//!  32     crc         u64   CRC-32 (IEEE, as in zlib) of bytes 64..4096
//!  40     zero
//!  64     pseudo-random words, determined by key, index and generation
//! ```
//!
//! Two independent checks. A reader that knows the key generates the words again. Any other reader
//! checks the CRC, which every scripting language has. Only the first check detects a page that
//! belongs elsewhere, or is older than it should be.

#![no_std]
#![warn(missing_docs)]

pub mod trace;
pub mod turmoil;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// First bytes of every page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"TPWORKER");
const WORDS: usize = PAGE_BYTES / 8;
const HEADER_WORDS: usize = 8;

/// A page as words, little-endian.
pub type WorkerPage = [u64; WORDS];

/// The values that determine a page's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageIdentity {
    /// Key of the run.
    pub key: u64,
    /// Number of the page in the run.
    pub index: u64,
    /// Number of rewrites.
    pub generation: u64,
}

/// The fault of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageError {
    /// No magic: this is no worker's page.
    Magic,
    /// The header of another page, with this key, index and generation.
    Identity(PageIdentity),
    /// The word at this index is wrong.
    Word(usize),
    /// The CRC does not match the words.
    Crc,
}

impl PageIdentity {
    /// Fills `page` with its content.
    pub fn fill(&self, page: &mut WorkerPage) {
        let mut stream = self.stream();
        page[HEADER_WORDS..].fill_with(|| stream.next());
        let crc = crc32(&page[HEADER_WORDS..]);
        page[..HEADER_WORDS].copy_from_slice(&[
            MAGIC,
            self.key,
            self.index,
            self.generation,
            u64::from(crc),
            0,
            0,
            0,
        ]);
    }

    /// Checks that `page` has exactly the content of [`PageIdentity::fill`], except for the CRC.
    ///
    /// # Errors
    /// The first fault, as [`PageError`].
    pub fn check(&self, page: &WorkerPage) -> Result<(), PageError> {
        let found = Self::of(page).ok_or(PageError::Magic)?;
        if found != *self {
            return Err(PageError::Identity(found));
        }
        let mut stream = self.stream();
        match page[HEADER_WORDS..].iter().position(|&word| word != stream.next()) {
            Some(position) => Err(PageError::Word(HEADER_WORDS + position)),
            None => Ok(()),
        }
    }

    /// Returns the identity in the header of `page`, or `None` where the magic is missing.
    pub fn of(page: &WorkerPage) -> Option<Self> {
        (page[0] == MAGIC).then_some(Self { key: page[1], index: page[2], generation: page[3] })
    }

    fn stream(&self) -> Stream {
        let mut seed = Stream(self.key);
        let mixed = seed.next() ^ self.index.rotate_left(32) ^ self.generation;
        // Never zero: a xorshift generator does not leave that state.
        Stream(Stream(mixed | 1 << 63).next() | 1)
    }
}

/// Checks the magic and the CRC of a page.
///
/// # Errors
/// [`PageError::Magic`] or [`PageError::Crc`].
pub fn check_crc(page: &WorkerPage) -> Result<PageIdentity, PageError> {
    let identity = PageIdentity::of(page).ok_or(PageError::Magic)?;
    if page[4] == u64::from(crc32(&page[HEADER_WORDS..])) {
        Ok(identity)
    } else {
        Err(PageError::Crc)
    }
}

/// Marsaglia's xorshift64: six instructions a word.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Tables for eight bytes at a time: table `n` has the remainder of a byte that `n` others follow.
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut n = 0;
    while n < 256 {
        let (mut value, mut bit) = (n as u32, 0);
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        tables[0][n] = value;
        n += 1;
    }
    let mut at = 256;
    while at < 8 * 256 {
        let before = tables[at / 256 - 1][at % 256];
        tables[at / 256][at % 256] = before >> 8 ^ tables[0][before as usize & 0xff];
        at += 1;
    }
    tables
}

/// CRC-32 (IEEE 802.3) of the words' little-endian bytes.
pub fn crc32(words: &[u64]) -> u32 {
    static TABLES: [[u32; 256]; 8] = tables();
    let mut crc = u32::MAX;
    for word in words {
        let bytes = (word ^ u64::from(crc)).to_le_bytes();
        crc = 0;
        for (table, byte) in TABLES.iter().rev().zip(bytes) {
            crc ^= table[usize::from(byte)];
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: PageIdentity = PageIdentity { key: 7, index: 3, generation: 1 };

    fn page() -> WorkerPage {
        let mut page = [0; WORDS];
        IDENTITY.fill(&mut page);
        page
    }

    #[test]
    fn crc_is_the_one_of_zlib() {
        assert_eq!(crc32(&[u64::from_le_bytes(*b"12345678")]), 0x9ae0_daaf);
        assert_eq!(crc32(&[]), 0);
        // "1234567812345678", by zlib.
        assert_eq!(crc32(&[u64::from_le_bytes(*b"12345678"); 2]), 0x6bcc_57b7);
    }

    #[test]
    fn every_single_bit_is_noticed() {
        for position in [0, 1, 2, 3, HEADER_WORDS, 100, WORDS - 1] {
            for bit in [0, 31, 63] {
                let mut page = page();
                page[position] ^= 1 << bit;
                assert!(IDENTITY.check(&page).is_err(), "{position} {bit}");
                assert!(
                    position < 4 && position > 0 || check_crc(&page).is_err(),
                    "{position} {bit}"
                );
            }
        }
        assert_eq!((IDENTITY.check(&page()), check_crc(&page())), (Ok(()), Ok(IDENTITY)));
    }

    #[test]
    fn a_page_of_another_run_place_or_time_is_wrong() {
        for other in [
            PageIdentity { key: 8, ..IDENTITY },
            PageIdentity { index: 4, ..IDENTITY },
            PageIdentity { generation: 2, ..IDENTITY },
        ] {
            assert_eq!(other.check(&page()), Err(PageError::Identity(IDENTITY)));
            let mut forged = [0; WORDS];
            other.fill(&mut forged);
            forged[1..4].copy_from_slice(&[IDENTITY.key, IDENTITY.index, IDENTITY.generation]);
            assert!(matches!(IDENTITY.check(&forged), Err(PageError::Word(_))));
        }
    }
}
