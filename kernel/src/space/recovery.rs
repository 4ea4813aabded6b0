//! Decides what a start does with each device it finds. No decision loses a dump or foreign data.
//!
//! | device | decision |
//! |---|---|
//! | blank | format |
//! | foreign, damaged, a newer program's | leave alone; only an explicit format changes it |
//! | of a cluster that this node is no member of | leave alone |
//! | FREE | use |
//! | ACTIVE | its owner ended with the last run: FREE, blocks stale |
//! | CRASHED | keep until released: the crash's record is all there is |
//! | DRAINING, the child's own pages written | copy the rest from the base, then COMPLETE |
//! | DRAINING, else | update the header from bitmap and progress, then PARTIAL |
//! | COMPLETE, PARTIAL | keep until released |
//! | RELEASING | continue scrubbing, then FREE |
//! | SUSPENDED | keep until it is resumed or released |
//! | SEALED | keep until it is released |

use super::classify::DeviceContent;
use super::record::{OwnPages, Residue, SpaceBase, SpaceRecord};
use super::state::SpaceState;

/// Decision about a device.
#[expect(
    clippy::large_enum_variant,
    reason = "few exist, only at start-up, so boxing gains nothing"
)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecoveryAction {
    /// Format it as a space.
    Format,
    /// Leave it alone.
    Leave,
    /// Use it: it is free.
    Use,
    /// Write this record: the owner is gone.
    Reclaim(SpaceRecord),
    /// Update the ELF header, then write PARTIAL.
    Finish,
    /// A dump: keep it.
    Keep,
    /// A suspended partition: keep it. Its ELF header is written again if a resume was cut off.
    KeepSuspended,
    /// A base: keep it, likewise.
    KeepSealed,
    /// The dump of a child: copy from its base what the child had not written.
    Inherit,
    /// Continue scrubbing.
    Scrub,
}

/// Decides what a start does with a device of this class.
pub fn recovery(class: &DeviceContent) -> RecoveryAction {
    let record = match class {
        DeviceContent::Blank => return RecoveryAction::Format,
        DeviceContent::Foreign(_)
        | DeviceContent::Damaged(_)
        | DeviceContent::Newer(_)
        | DeviceContent::Closed(_) => return RecoveryAction::Leave,
        DeviceContent::Space(record) => record,
    };
    match record.state {
        SpaceState::Free => RecoveryAction::Use,
        SpaceState::Active => RecoveryAction::Reclaim(reclaimed(record)),
        SpaceState::Draining => match record.base {
            Some(SpaceBase { own: OwnPages::Written, .. }) => RecoveryAction::Inherit,
            _ => RecoveryAction::Finish,
        },
        SpaceState::Crashed | SpaceState::Complete | SpaceState::Partial => RecoveryAction::Keep,
        SpaceState::Releasing => RecoveryAction::Scrub,
        SpaceState::Suspended => RecoveryAction::KeepSuspended,
        SpaceState::Sealed => RecoveryAction::KeepSealed,
    }
}

/// Returns the next record of an ACTIVE space whose owner is gone.
///
/// The owner's name stays: while its blocks are there, no other partition gets the space
/// unscrubbed.
fn reclaimed(record: &SpaceRecord) -> SpaceRecord {
    let mut free = record.clone();
    free.sequence += 1;
    (free.state, free.residue) = (SpaceState::Free, Residue::Stale);
    free.forget_dump();
    free
}

#[cfg(test)]
mod tests {
    use super::super::classify::ForeignData;
    use super::super::codec::tests::sample;
    use super::*;

    fn of(state: SpaceState) -> RecoveryAction {
        recovery(&DeviceContent::Space(SpaceRecord { state, ..sample() }))
    }

    #[test]
    fn nothing_that_a_start_does_loses_a_dump() {
        for state in SpaceState::ALL.into_iter().filter(|s| s.holds_dump()) {
            assert!(
                matches!(of(state), RecoveryAction::Keep | RecoveryAction::Finish),
                "{state:?}"
            );
        }
    }

    #[test]
    fn data_that_is_not_ours_is_left_alone() {
        assert_eq!(recovery(&DeviceContent::Foreign(ForeignData::Unknown)), RecoveryAction::Leave);
        assert_eq!(recovery(&DeviceContent::Blank), RecoveryAction::Format);
        assert_eq!(
            (of(SpaceState::Sealed), of(SpaceState::Suspended)),
            (RecoveryAction::KeepSealed, RecoveryAction::KeepSuspended)
        );
    }

    #[test]
    fn a_space_whose_owner_is_gone_is_free_but_stale() {
        let RecoveryAction::Reclaim(record) = of(SpaceState::Active) else {
            panic!("not reclaimed")
        };
        assert_eq!(
            (record.state, record.residue, record.sequence),
            (SpaceState::Free, Residue::Stale, 8)
        );
        assert_eq!(record.owner, sample().owner);
        assert!(SpaceState::Active.may_become(record.state));
    }
}
