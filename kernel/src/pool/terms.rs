//! On which terms a memory object takes part in the pool.

/// Frames that a vCPU keeps whatever happens, so that the instruction in flight can always complete.
///
/// The most that one instruction touches is some thirty pages: two of code, two each of source, destination and stack, three of
/// descriptor tables, each behind up to four tables of the guest's own. A page that has come in counts as touched, so the
/// clock passes it once before it takes it; and it takes none while there are no more than these, so between an instruction's first page
/// and its last at least as many others leave as this is larger than thirty.
pub const MINIMUM_RESIDENT: u32 = 64;

/// The terms of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Whose credit it draws on: a partition's, for all its incarnations and dump images.
    pub account: usize,
    /// Frames that it keeps while it lives.
    pub minimum: u32,
}

impl Terms {
    /// Returns the terms of partition number `index` with one vCPU.
    pub const fn of_partition(index: usize) -> Self {
        Self { account: index, minimum: MINIMUM_RESIDENT }
    }
}

/// Returns the least pool in which `vcpus` vCPUs can all go on, with `high` frames as the high mark.
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
