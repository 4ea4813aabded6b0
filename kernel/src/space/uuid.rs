//! Names of spaces, partitions and nodes on disk.

/// A unique name of 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The name of no object.
    pub const NIL: Self = Self([0; 16]);

    /// Makes a name from 128 bits of the caller's entropy; sets the version (8, "custom") and
    /// variant bits.
    pub const fn from_entropy(high: u64, low: u64) -> Self {
        let mut bytes = ((high as u128) << 64 | low as u128).to_be_bytes();
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// Returns its 128 bits as two numbers.
    pub const fn halves(self) -> (u64, u64) {
        let bits = u128::from_be_bytes(self.0);
        ((bits >> 64) as u64, bits as u64)
    }

    /// Makes the name of a dump in space `space` from values that no two dumps of a space share:
    /// for example the time, and the sequence number of the record that names the dump.
    pub fn of_dump(space: Self, words: [u64; 4]) -> Self {
        let bytes = || space.0.into_iter().chain(words.into_iter().flat_map(u64::to_le_bytes));
        Self::from_entropy(spread(fnv1a(BASES[0], bytes())), spread(fnv1a(BASES[1], bytes())))
    }

    /// Makes the name of a start of a hypervisor from values that may differ between two starts:
    /// the host command's word, the CPU's random numbers, clocks. One value that differs is enough.
    pub fn of_start(word: &[u8], numbers: &[u64]) -> Self {
        let bytes =
            || word.iter().copied().chain(numbers.iter().flat_map(|number| number.to_le_bytes()));
        Self::from_entropy(spread(fnv1a(BASES[0], bytes())), spread(fnv1a(BASES[1], bytes())))
    }

    /// Makes the name that belongs to `text`: a partition name has the same uuid on every node and
    /// boot.
    pub fn from_name(text: &str) -> Self {
        Self::from_entropy(fnv1a(BASES[0], text.bytes()), fnv1a(BASES[1], text.bytes()))
    }
}

/// FNV bases of the two halves of a name.
const BASES: [u64; 2] = [0xcbf2_9ce4_8422_2325, 0x6c62_272e_07bb_0142];

/// FNV-1a over `bytes` from `basis`. A name is no secret; it only needs to be well distributed.
fn fnv1a(basis: u64, bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(basis, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Spreads every bit over the whole word (the finalizer of MurmurHash3), because people type only a
/// name's first digits.
const fn spread(word: u64) -> u64 {
    let word = (word ^ (word >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let word = (word ^ (word >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
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

impl serde::Serialize for Uuid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use core::fmt::Write;
        let mut text = arrayvec::ArrayString::<36>::new();
        write!(text, "{self}").map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
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
        assert_eq!(
            Uuid::from_entropy(u64::MAX, u64::MAX).to_string(),
            "ffffffff-ffff-8fff-bfff-ffffffffffff"
        );
        assert_eq!(Uuid::from_entropy(0, 0).to_string(), "00000000-0000-8000-8000-000000000000");
    }

    #[test]
    fn dumps_of_a_space_differ_in_their_first_digits() {
        let name =
            |n: u64| Uuid::of_dump(Uuid::from_entropy(1, 2), [n, 1_700_000_000_000_000_000, 0, 0]);
        let mut names: Vec<String> = (0..1000).map(|n| name(n).to_string()).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0][..8] != pair[1][..8]));
        assert_ne!(
            name(1),
            Uuid::of_dump(Uuid::from_entropy(1, 3), [1, 1_700_000_000_000_000_000, 0, 0])
        );
    }

    #[test]
    fn one_source_that_differs_makes_another_start() {
        let word = [7; 32];
        let base = Uuid::of_start(&word, &[1, 2, 3]);
        assert_eq!(base, Uuid::of_start(&word, &[1, 2, 3]));
        let mut names = vec![base];
        for n in 0..32 {
            let mut other = word;
            other[n] ^= 1;
            names.push(Uuid::of_start(&other, &[1, 2, 3]));
        }
        // Identical clocks, and a CPU without random numbers.
        names.extend(
            [[0, 2, 3], [1, 0, 3], [1, 2, 0], [0, 0, 0]]
                .map(|numbers| Uuid::of_start(&word, &numbers)),
        );
        names.extend([Uuid::of_start(&[], &[1, 2, 3]), Uuid::of_start(&[], &[0, 0, 0])]);
        for (n, name) in names.iter().enumerate() {
            assert!(!names[..n].contains(name) && *name != Uuid::NIL, "{name}");
        }
    }

    #[test]
    fn names_differ_where_texts_do() {
        assert_eq!(Uuid::from_name("web"), Uuid::from_name("web"));
        assert_ne!(Uuid::from_name("web"), Uuid::from_name("wec"));
        assert_ne!(Uuid::from_name(""), Uuid::NIL);
    }
}
