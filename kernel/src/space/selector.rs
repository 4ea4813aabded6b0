//! How people and programs select a dump: by its name, by a prefix of the name, or by its
//! incarnation.
//!
//! ```text
//!   3f2a90c1            at least eight digits: prefix of a name
//!   3f2a90c1-77b0-…     a whole name
//!   2                   fewer digits: an incarnation
//! ```
//!
//! Incarnations begin at 1 at every start, so several dumps may have the same one. Names are never
//! reused.

use super::uuid::Uuid;

/// Least number of digits of a name's prefix.
pub const LEAST_DIGITS: u32 = 8;
/// Number of digits of a whole name.
const ALL_DIGITS: u32 = 32;

/// The selected dumps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DumpSelector {
    /// Dumps whose names begin with these digits, stored in the upper bits of `bits`.
    Name {
        /// The digits, followed by zeros.
        bits: u128,
        /// Number of digits.
        digits: u32,
    },
    /// Dumps of this incarnation.
    Incarnation(u64),
}

impl DumpSelector {
    /// Parses a selector; `None` if the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut bits, mut digits) = (0_u128, 0);
        for byte in text.bytes().filter(|byte| *byte != b'-') {
            let digit = (byte as char).to_digit(16).filter(|_| digits < ALL_DIGITS)?;
            bits = bits << 4 | u128::from(digit);
            digits += 1;
        }
        if digits >= LEAST_DIGITS {
            return Some(Self::Name { bits: bits << (4 * (ALL_DIGITS - digits)), digits });
        }
        text.parse().ok().map(Self::Incarnation)
    }

    /// Returns whether a dump of this name and incarnation is selected.
    pub const fn selects(self, name: Uuid, incarnation: u64) -> bool {
        match self {
            Self::Name { bits, digits } => {
                (u128::from_be_bytes(name.0) ^ bits) >> (4 * (ALL_DIGITS - digits)) == 0
            }
            Self::Incarnation(wanted) => wanted == incarnation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Uuid = Uuid::from_entropy(0x1234_5678_9abc_def0, 0x1122_3344_5566_7788);

    #[test]
    fn a_name_is_taken_whole_or_by_its_beginning() {
        let whole = NAME.to_string();
        assert_eq!(whole, "12345678-9abc-8ef0-9122-334455667788");
        for text in [&whole[..], &whole[..8], &whole[..9], &whole[..20], "123456789ABC8EF0"] {
            let selector = DumpSelector::parse(text).unwrap();
            assert!(selector.selects(NAME, 1), "{text}");
            assert!(!selector.selects(Uuid::from_entropy(0x1234_5679_9abc_def0, 0), 1), "{text}");
        }
        let other = DumpSelector::parse("12345678-9abd").unwrap();
        assert!(!other.selects(NAME, 1));
    }

    #[test]
    fn a_short_number_is_an_incarnation() {
        assert_eq!(DumpSelector::parse("2"), Some(DumpSelector::Incarnation(2)));
        assert!(DumpSelector::parse("2").unwrap().selects(NAME, 2));
        assert!(!DumpSelector::parse("12").unwrap().selects(NAME, 2));
        assert_eq!(DumpSelector::parse("9999999"), Some(DumpSelector::Incarnation(9_999_999)));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in
            ["", "-", "web", "1234567g", "abc", "-1", "+2x", "123456781234567812345678123456789"]
        {
            assert_eq!(DumpSelector::parse(text), None, "{text}");
        }
    }
}
