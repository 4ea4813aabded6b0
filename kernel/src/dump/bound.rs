//! Decides whether a partition keeps another dump: the configuration's `dumps` and `when_full`.

use crate::config::{DumpBound, DumpOverflow};

/// Counts of one partition's dumps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DumpCensus {
    /// Dumps that no task writes any more, including those on spaces that are out of use for now.
    pub kept: u32,
    /// Of these, the dumps that may be dropped for a newer one: COMPLETE or PARTIAL, and not
    /// selected.
    pub droppable: u32,
    /// Dumps being written whose record says DRAINING on the disk.
    pub promised: u32,
    /// Dumps being written whose record does not yet: a power cut may leave nothing of them.
    pub unpromised: u32,
}

impl DumpCensus {
    /// Returns their sum.
    pub const fn all(&self) -> u32 {
        self.kept + self.promised + self.unpromised
    }
}

/// Consequence of a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashDumpAction {
    /// A dump.
    Dump,
    /// A restart without one.
    Skip,
}

/// Decides on a crash of a partition that has these dumps.
pub const fn at_crash(bound: DumpBound, census: &DumpCensus) -> CrashDumpAction {
    let has_room = census.all() < bound.most;
    let makes_room = match bound.when_full {
        DumpOverflow::Skip => false,
        // Each unpromised dump will itself replace one of the droppable ones.
        DumpOverflow::DropOldest => census.droppable > census.unpromised,
    };
    if has_room || makes_room { CrashDumpAction::Dump } else { CrashDumpAction::Skip }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(kept: u32, droppable: u32, unpromised: u32) -> DumpCensus {
        DumpCensus { kept, droppable, promised: 0, unpromised }
    }

    fn verdict(when_full: DumpOverflow, census: &DumpCensus) -> CrashDumpAction {
        at_crash(DumpBound { most: 2, when_full }, census)
    }

    #[test]
    fn below_the_bound_every_crash_has_its_dump() {
        for when_full in [DumpOverflow::Skip, DumpOverflow::DropOldest] {
            assert_eq!(verdict(when_full, &census(0, 0, 0)), CrashDumpAction::Dump);
            assert_eq!(verdict(when_full, &census(0, 0, 1)), CrashDumpAction::Dump);
            assert_eq!(verdict(when_full, &census(1, 0, 0)), CrashDumpAction::Dump);
        }
    }

    #[test]
    fn at_the_bound_a_crash_is_skipped_and_dumps_on_their_way_count() {
        for held in [census(2, 2, 0), census(1, 1, 1), census(0, 0, 2), census(9, 9, 0)] {
            assert_eq!(verdict(DumpOverflow::Skip, &held), CrashDumpAction::Skip);
        }
        let draining = DumpCensus { kept: 1, droppable: 1, promised: 1, unpromised: 0 };
        assert_eq!(verdict(DumpOverflow::Skip, &draining), CrashDumpAction::Skip);
    }

    #[test]
    fn a_new_dump_needs_an_old_one_that_may_go_to_itself() {
        assert_eq!(verdict(DumpOverflow::DropOldest, &census(2, 1, 0)), CrashDumpAction::Dump);
        assert_eq!(verdict(DumpOverflow::DropOldest, &census(2, 0, 0)), CrashDumpAction::Skip);
        assert_eq!(verdict(DumpOverflow::DropOldest, &census(2, 1, 1)), CrashDumpAction::Skip);
        assert_eq!(verdict(DumpOverflow::DropOldest, &census(2, 2, 1)), CrashDumpAction::Dump);
    }
}
