//! The states of a space, and the one table of legal transitions.
//!
//! ```text
//!            activate            crash          described             sealed
//!   FREE ───────────────> ACTIVE ─────> CRASHED ─────────> DRAINING ──────────> COMPLETE ─┐
//!    ^  ^                  │ │ ^           │                  │ drain failed or           │ release
//!    │  └─ found at a start┘ │ └─restart   │                  │ found at a start          v
//!    │                       │             │                  └─────────────> PARTIAL ─> RELEASING
//!    │                       │             └ no pages ──────────────────────────────────> │
//!    │                       └ partition ended ─────────────────────────────────────────> │
//!    └─────────────────────── scrubbed ───────────────────────────────────────────────────┘
//!
//!   ACTIVE ── suspend ──> SUSPENDED ── resume ──> ACTIVE
//!                            ├ given back ──> RELEASING
//!                            └ seal ──> SEALED ── no child any more ──> RELEASING
//! ```

/// State of a space. The numbers are the ones on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum SpaceState {
    /// Without an owner.
    Free = 1,
    /// Holds pages of a running incarnation.
    Active = 2,
    /// A crashed incarnation's pages are being written.
    Draining = 3,
    /// A complete dump.
    Complete = 4,
    /// A dump of the pages that were final.
    Partial = 5,
    /// Released; being scrubbed.
    Releasing = 6,
    /// A suspended partition: all its pages, its vCPU and its devices.
    Suspended = 7,
    /// A suspended partition that is kept for good: the base of its children.
    Sealed = 8,
    /// The owner has crashed. No metadata of its pages is written yet, and the bitmap is
    /// meaningless.
    Crashed = 9,
}

use SpaceState::*;

/// Every legal transition.
const TRANSITIONS: &[(SpaceState, SpaceState)] = &[
    (Free, Active),
    (Free, Releasing), // stale blocks of another owner are scrubbed first
    (Active, Active),  // the same partition restarts without a dump: next epoch
    (Active, Crashed),
    (Crashed, Draining),
    (Crashed, Releasing),
    (Active, Draining), // by the first release, which had no CRASHED
    (Active, Releasing),
    (Active, Suspended),
    (Suspended, Active),
    (Suspended, Releasing),
    (Suspended, Sealed),
    (Sealed, Releasing),
    (Active, Free), // found at a start: no owner is left
    (Draining, Complete),
    (Draining, Partial),
    (Complete, Releasing),
    (Partial, Releasing),
    (Releasing, Free),
];

impl SpaceState {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 9] =
        [Free, Active, Draining, Complete, Partial, Releasing, Suspended, Sealed, Crashed];

    /// Returns the state with this number on disk.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u32 == number)
    }

    /// Returns whether `next` may follow. Within DRAINING and RELEASING a record may be rewritten
    /// (progress).
    pub fn may_become(self, next: Self) -> bool {
        (self == next && matches!(self, Draining | Releasing))
            || TRANSITIONS.contains(&(self, next))
    }

    /// Returns whether the space holds a dump, or at least the record of a crash. Only a release
    /// may end that.
    pub const fn holds_dump(self) -> bool {
        matches!(self, Crashed | Draining | Complete | Partial)
    }

    /// Returns whether the space opens as an ELF core, or tells at least of a crash: a dump, or a
    /// suspended partition. No command of the host overwrites it unasked.
    pub const fn is_kept(self) -> bool {
        self.holds_dump() || self.is_whole_machine()
    }

    /// Returns whether the space holds a partition with its machine.
    pub const fn is_whole_machine(self) -> bool {
        matches!(self, Suspended | Sealed)
    }

    /// Returns whether bitmap and checksums describe the blocks.
    pub const fn describes_pages(self) -> bool {
        matches!(self, Draining | Complete | Partial | Suspended | Sealed)
    }

    /// Returns the name for people and events.
    pub const fn name(self) -> &'static str {
        match self {
            Free => "free",
            Active => "active",
            Draining => "draining",
            Complete => "complete",
            Partial => "partial",
            Releasing => "releasing",
            Suspended => "suspended",
            Sealed => "sealed",
            Crashed => "crashed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_disk_are_stable() {
        assert_eq!(SpaceState::ALL.map(|s| s as u32), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(SpaceState::ALL.into_iter().all(|s| SpaceState::from_number(s as u32) == Some(s)));
        let words = crate::log::history::words::SPACES;
        assert!(SpaceState::ALL.into_iter().all(|s| words[s as usize] == s.name()));
        assert_eq!((SpaceState::from_number(0), SpaceState::from_number(10)), (None, None));
    }

    #[test]
    fn a_dump_is_never_free_or_active_without_a_release() {
        for dump in SpaceState::ALL.into_iter().filter(|s| s.holds_dump()) {
            assert!(!dump.may_become(Free) && !dump.may_become(Active), "{dump:?}");
        }
    }

    #[test]
    fn a_suspended_partition_goes_on_or_is_given_back() {
        for state in SpaceState::ALL {
            let next = matches!(state, Active | Releasing | Sealed);
            assert_eq!(Suspended.may_become(state), next);
            assert_eq!(state.may_become(Suspended), state == Active);
        }
        assert!(Suspended.describes_pages() && !Suspended.holds_dump());
    }

    #[test]
    fn a_base_never_changes_until_it_is_given_back() {
        for state in SpaceState::ALL {
            assert_eq!(state.may_become(Sealed), state == Suspended);
            assert_eq!(Sealed.may_become(state), state == Releasing);
        }
    }
}
