//! Decides which free spaces are kept for partitions that have fewer than they are entitled to. A
//! partition is entitled to one space for its incarnation, and to another for the next one if a
//! crash leaves a dump and is followed by a restart.
//!
//! A partition that has fewer takes any free space that fits. Another partition takes one only if
//! the remaining free spaces are enough for those that lack some. So a partition that crashes
//! repeatedly waits for the spaces of its own dumps, and no other partition waits for it. The rule
//! holds only if there are as many fitting spaces as all partitions are entitled to.

use crate::config::{DumpPolicy, RestartPolicy};
use alloc::vec::Vec;

/// Returns how many spaces a partition with this policy is entitled to.
pub const fn own_spaces(dump: DumpPolicy, restart: RestartPolicy) -> usize {
    match (dump, restart) {
        (DumpPolicy::Off, _) | (_, RestartPolicy::Never) => 1,
        (DumpPolicy::Aided, RestartPolicy::Threshold | RestartPolicy::Immediate) => 2,
    }
}

/// A partition's need of spaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceNeed {
    /// Pages of its memory.
    pub pages: u32,
    /// Number of spaces of this size.
    pub count: usize,
}

/// Returns whether spaces of the given page counts can meet all needs at once, without sharing.
///
/// Both lists are compared in descending order: if each need fits the space of the same rank, all
/// fit together.
pub fn meets(needs: &[SpaceNeed], spaces: &[u32]) -> bool {
    shortfall(needs, spaces).is_none()
}

/// Returns the pages of the largest memory that gets no space.
pub fn shortfall(needs: &[SpaceNeed], spaces: &[u32]) -> Option<u32> {
    let mut wanted: Vec<u32> =
        needs.iter().flat_map(|need| core::iter::repeat_n(need.pages, need.count)).collect();
    let mut spaces = spaces.to_vec();
    wanted.sort_unstable_by(|a, b| b.cmp(a));
    spaces.sort_unstable_by(|a, b| b.cmp(a));
    let mut spaces = spaces.into_iter();
    wanted.into_iter().find(|pages| spaces.next().is_none_or(|space| space < *pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn need(pages: u32, count: usize) -> SpaceNeed {
        SpaceNeed { pages, count }
    }

    #[test]
    fn each_need_has_spaces_of_its_own() {
        assert!(meets(&[], &[]) && meets(&[need(5, 0)], &[]));
        assert!(
            meets(&[need(5, 2)], &[5, 6])
                && !meets(&[need(5, 2)], &[5, 4])
                && !meets(&[need(5, 2)], &[9])
        );
        assert!(meets(&[need(2, 2), need(8, 1)], &[2, 8, 2]));
        assert!(!meets(&[need(8, 2), need(2, 2)], &[8, 2, 2, 2]));
        assert_eq!(shortfall(&[need(8, 2), need(2, 2)], &[8, 2, 2, 2]), Some(8));
        assert_eq!(shortfall(&[need(8, 1), need(2, 2)], &[8, 2]), Some(2));
    }
}
