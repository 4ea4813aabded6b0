//! The digest that names an image.

use arrayvec::ArrayString;

/// SHA-256 of an image's content. Nodes do not compute it: chunks have checksums.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageDigest(pub [u8; 32]);

impl ImageDigest {
    /// Returns its first digits, as shown to people.
    pub fn short(&self) -> ArrayString<12> {
        self.digits(6)
    }

    /// Returns all its digits, the name of the image in a definition.
    pub fn text(&self) -> ArrayString<64> {
        self.digits(32)
    }

    fn digits<const N: usize>(&self, bytes: usize) -> ArrayString<N> {
        let mut text = ArrayString::new();
        for byte in self.0.iter().take(bytes) {
            for nibble in [byte >> 4, byte & 15] {
                let _ = text.try_push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
            }
        }
        text
    }

    /// Reads all digits; `None` if `text` is no digest.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl core::fmt::Debug for ImageDigest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ImageDigest({})", self.short())
    }
}
