//! Sizes in their readable form: `256 MiB`.

use crate::quantity;

const UNITS: &[(&str, u32)] = &[("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

/// Parses a whole number and a unit.
///
/// # Errors
/// The fault as text, to be placed behind the key.
pub fn parse(text: &str) -> Result<u64, String> {
    let Some((number, shift)) = quantity::split(text, UNITS) else {
        return Err(format!(
            "“{text}” is no size: write a whole number and B, KiB, MiB, GiB or TiB"
        ));
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("“{text}” is beyond 64 bits"))
}

/// Formats `bytes` in the largest unit that needs no fraction.
pub fn format(bytes: u64) -> String {
    let fits = |shift: &u32| bytes != 0 && bytes.is_multiple_of(1 << shift);
    let (unit, shift) = UNITS.iter().find(|(_, shift)| fits(shift)).unwrap_or(&("B", 0));
    format!("{} {unit}", bytes >> shift)
}

/// Formats `bytes` for reading; rounded down where the largest unit needs a fraction.
pub fn readable(bytes: u64) -> String {
    kernel::size::ReadableSize(bytes).to_string()
}

/// Formats `bytes` in MiB, rounded up: for sums that are no whole multiple of a unit.
pub fn in_mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for bytes in [0, 1, 1023, 1024, 4096 * 3, 256 << 20, 1 << 40, u64::MAX] {
            assert_eq!(parse(&format(bytes)), Ok(bytes));
        }
        assert_eq!(parse("256MiB"), Ok(256 << 20));
    }

    #[test]
    fn what_is_no_size_says_so() {
        for text in ["", "MiB", "256", "256 MB", "-1 MiB", "1.5 GiB", "256 MiB please"] {
            assert!(parse(text).unwrap_err().contains("is no size"), "{text}");
        }
        assert!(parse("99999999999 TiB").unwrap_err().contains("beyond 64 bits"));
    }
}
