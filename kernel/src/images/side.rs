//! The two copies of a structure.

/// One of two copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreSide {
    /// The copy of even sequence numbers.
    A,
    /// The copy of odd sequence numbers.
    B,
}

impl StoreSide {
    /// Both sides, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Returns the side on which a copy with this sequence number lies.
    pub const fn of(sequence: u64) -> Self {
        if sequence.is_multiple_of(2) { Self::A } else { Self::B }
    }

    /// Returns 0 for A and 1 for B.
    pub const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

impl core::fmt::Display for StoreSide {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}
