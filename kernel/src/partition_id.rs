//! The number of a partition on its node.

/// A partition's number, counted from 0 in the order of the configuration.
///
/// It names the partition to everything below it: the host, the run queue, the pool's accounts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct PartitionId(u16);

impl PartitionId {
    /// The first partition.
    pub const FIRST: Self = Self(0);

    /// Makes the id of partition number `number`.
    #[inline]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[inline]
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// Returns its position in a list of all partitions.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
