//! The terms on which a memory object takes part in the pool.

use crate::partition_id::PartitionId;

/// Frames that a vCPU always keeps, so that the instruction in flight can complete.
///
/// One instruction touches at most about thirty pages: two of code, two each of source, destination
/// and stack, three of descriptor tables, each behind up to four of the guest's own page tables. A
/// page that has come in counts as touched, so the clock passes it once before it evicts it. The
/// clock evicts no page of an object that holds no more than its minimum. So before an
/// instruction's first page is evicted, at least as many other pages leave as this number exceeds
/// thirty.
pub const MINIMUM_RESIDENT: u32 = 64;

/// An account of promised frames at the pool: a partition's, for all its incarnations and dump
/// images, or that of an object without terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccountId(u16);

impl AccountId {
    /// Makes the id of account number `number`, which is below
    /// [`MAX_ACCOUNTS`](super::credit::MAX_ACCOUNTS).
    #[inline]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Returns the account of a partition.
    #[inline]
    pub const fn of(partition: PartitionId) -> Self {
        Self(partition.as_u16())
    }

    /// Returns the partition that has this account.
    #[inline]
    pub const fn partition(self) -> PartitionId {
        PartitionId::new(self.0)
    }

    /// Returns its position in a list of all accounts.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The terms of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolTerms {
    /// Account whose credit it draws on.
    pub account: AccountId,
    /// Frames that it keeps while it lives.
    pub minimum: u32,
}

impl PoolTerms {
    /// Returns the terms of a partition with one vCPU.
    pub const fn of_partition(partition: PartitionId) -> Self {
        Self { account: AccountId::of(partition), minimum: MINIMUM_RESIDENT }
    }
}

/// Returns the smallest pool in which `vcpus` vCPUs can all make progress, with a high mark of
/// `high` frames.
pub const fn least_pool(vcpus: u32, high: u32) -> u32 {
    MINIMUM_RESIDENT * vcpus + high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_holds_every_minimum_and_the_free_list() {
        assert_eq!(least_pool(3, 16), 3 * MINIMUM_RESIDENT + 16);
    }
}
