//! Names of spaces, partitions and nodes on disk.

/// 128 bits that name one thing for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The name of nobody.
    pub const NIL: Self = Self([0; 16]);

    /// Makes a name from 128 bits of the caller's entropy; sets the version (8, "custom") and variant bits.
    pub const fn from_entropy(high: u64, low: u64) -> Self {
        let mut bytes = ((high as u128) << 64 | low as u128).to_be_bytes();
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// Makes the name that belongs to `text`: the same partition name has the same uuid on every node and boot.
    pub fn from_name(text: &str) -> Self {
        Self::from_entropy(fnv1a(0xcbf2_9ce4_8422_2325, text), fnv1a(0x6c62_272e_07bb_0142, text))
    }
}

/// FNV-1a over `text` from `basis`. A name is no secret: it only has to be well spread.
fn fnv1a(basis: u64, text: &str) -> u64 {
    text.bytes().fold(basis, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl core::fmt::Display for Uuid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            if matches!(n, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl core::fmt::Debug for Uuid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Uuid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_variant_are_set_whatever_the_entropy() {
        assert_eq!(Uuid::from_entropy(u64::MAX, u64::MAX).to_string(), "ffffffff-ffff-8fff-bfff-ffffffffffff");
        assert_eq!(Uuid::from_entropy(0, 0).to_string(), "00000000-0000-8000-8000-000000000000");
    }

    #[test]
    fn names_differ_where_texts_do() {
        assert_eq!(Uuid::from_name("web"), Uuid::from_name("web"));
        assert_ne!(Uuid::from_name("web"), Uuid::from_name("wec"));
        assert_ne!(Uuid::from_name(""), Uuid::NIL);
    }
}
