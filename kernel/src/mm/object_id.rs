//! The number of a memory object.

/// Number of a memory object, unique among the live ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ObjectId(pub(super) u16);

impl ObjectId {
    /// Most live objects at a time.
    pub const COUNT: usize = 64;
    /// The number of no object, for tables that have none yet.
    pub const NONE: Self = Self(u16::MAX);

    /// Returns the raw number, below [`Self::COUNT`].
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// Returns its position in a list of all objects.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Makes an id for a test without objects.
    #[cfg(test)]
    pub const fn of_test(number: u16) -> Self {
        Self(number)
    }
}
