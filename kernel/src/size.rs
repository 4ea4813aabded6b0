//! Sizes for people.

use core::fmt;

/// Bytes, shown in the largest unit that leaves a whole number of at most four digits, otherwise
/// with two decimals: `256 MiB`, `259.01 MiB`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadableSize(pub u64);

const UNITS: [(u32, &str); 6] =
    [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
/// Above this, a number of bytes or KiB is hard to read.
const MOST: u64 = 9999;

impl fmt::Display for ReadableSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        let whole =
            |shift: u32| bytes != 0 && bytes.is_multiple_of(1 << shift) && bytes >> shift <= MOST;
        if let Some((shift, unit)) = UNITS.into_iter().find(|(shift, _)| whole(*shift)) {
            return write!(f, "{} {unit}", bytes >> shift);
        }
        if bytes <= MOST {
            return write!(f, "{bytes} bytes");
        }
        let (shift, unit) =
            UNITS.into_iter().find(|(shift, _)| bytes >> shift > 0).unwrap_or((10, "KiB"));
        let hundredths = (u128::from(bytes) * 100) >> shift;
        write!(f, "{}.{:02} {unit}", hundredths / 100, hundredths % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_a_unit_that_people_read() {
        let shown = |bytes| ReadableSize(bytes).to_string();
        assert_eq!([0, 511, 4096, 1 << 20].map(shown), ["0 bytes", "511 bytes", "4 KiB", "1 MiB"]);
        assert_eq!([(272 << 20), (259 << 20) + 12288].map(shown), ["272 MiB", "259.01 MiB"]);
        assert_eq!(
            [10_000, (5 << 30) + 1, 128 << 30].map(shown),
            ["9.76 KiB", "5.00 GiB", "128 GiB"]
        );
        assert_eq!([(1 << 30) + (1 << 29), u64::MAX].map(shown), ["1536 MiB", "15.99 EiB"]);
    }
}
