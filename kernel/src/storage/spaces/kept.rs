//! The dumps and suspended partitions that spaces hold: lists them, and selects those that a
//! command means.

use super::{SpaceId, SpaceLocation, SpacePhase, Spaces};
use crate::console::command::DumpChoice;
use crate::space::{PartialCause, RecordedCrash, SpaceOwner, SpaceRecord, SpaceState};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// A dump that is kept.
#[derive(Clone, Debug)]
pub struct KeptDump {
    /// Its space.
    pub id: SpaceId,
    /// Location of the space.
    pub place: SpaceLocation,
    /// State in its record.
    pub state: SpaceState,
    /// Partition and incarnation that crashed.
    pub owner: SpaceOwner,
    /// The crash.
    pub crash: RecordedCrash,
    /// Why it is partial.
    pub cause: Option<PartialCause>,
    /// Slot of the fenced member that has left it: it is only read until nothing of that member
    /// lands any more.
    pub waits_for: Option<u16>,
}

impl KeptDump {
    /// Describes the dump that a record stands for; `None` if it stands for none.
    pub(super) fn of(
        id: SpaceId,
        place: SpaceLocation,
        record: &SpaceRecord,
        waits_for: Option<u16>,
    ) -> Option<Self> {
        let (owner, crash) = (record.owner.clone()?, record.crash.clone()?);
        let cause = (record.state == SpaceState::Partial).then_some(record.partial_cause);
        Some(Self { id, place, state: record.state, owner, crash, cause, waits_for })
    }
}

/// Why dumps cannot be released.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DumpReleaseError {
    /// No dump matches.
    None,
    /// It is still being written.
    Draining,
    /// A fenced member, in this slot, has left it, and its writes may still land.
    Quarantined(u16),
    /// Several dumps have this number, or a name with this prefix; they are listed.
    Ambiguous(String),
}

impl Spaces {
    /// Returns every dump that is kept, in the order of spaces.
    pub fn kept_dumps(&self) -> Vec<KeptDump> {
        let dump = |(n, space): (usize, &super::Space)| {
            let inner = space.inner.lock();
            let is_kept = matches!(
                inner.phase,
                SpacePhase::Dump | SpacePhase::Suspended | SpacePhase::Sealed
            );
            let record = inner.record.as_ref().filter(|_| is_kept)?;
            KeptDump::of(SpaceId(n), space.place, record, None)
        };
        self.spaces.iter().enumerate().filter_map(dump).collect()
    }

    /// Returns the bases that a command selects.
    pub fn chosen_bases(&self, choice: DumpChoice<'_>) -> Vec<KeptDump> {
        let mut dumps = self.kept_dumps();
        dumps.retain(|dump| dump.state == SpaceState::Sealed && chooses(choice, dump));
        dumps
    }

    /// Releases the dumps that a command selects.
    ///
    /// # Errors
    /// [`DumpReleaseError`]; then no dump is released.
    pub fn release_dumps(&'static self, choice: DumpChoice<'_>) -> Result<(), DumpReleaseError> {
        let mut dumps = self.kept_dumps();
        dumps.retain(|dump| chooses(choice, dump));
        if dumps.len() > 1 && !matches!(choice, DumpChoice::All(_)) {
            return Err(DumpReleaseError::Ambiguous(names(&dumps)));
        }
        match dumps.iter().filter(|dump| self.release(dump.id)).count() {
            0 if self.is_any_draining(choice) => Err(DumpReleaseError::Draining),
            0 => Err(self
                .left_by(choice)
                .map_or(DumpReleaseError::None, DumpReleaseError::Quarantined)),
            _ => Ok(()),
        }
    }

    /// Returns the fenced member that has left a dump which the command selects.
    fn left_by(&self, choice: DumpChoice<'_>) -> Option<u16> {
        self.remains().iter().find(|dump| chooses(choice, dump))?.waits_for
    }

    /// Returns whether a dump that the command may select is still being written.
    fn is_any_draining(&self, choice: DumpChoice<'_>) -> bool {
        match choice {
            DumpChoice::All(owner) | DumpChoice::One(owner, _) => self.is_draining(owner),
            DumpChoice::Named(selector) => self.spaces.iter().any(|space| {
                let inner = space.inner.lock();
                let crash = inner.record.as_ref().and_then(|record| record.crash.as_ref());
                inner.phase == SpacePhase::Draining
                    && crash.is_some_and(|crash| selector.selects(crash.name, 0))
            }),
        }
    }
}

fn chooses(choice: DumpChoice<'_>, dump: &KeptDump) -> bool {
    match choice {
        // A suspended partition is given back only by its own name.
        DumpChoice::All(owner) => &*dump.owner.name == owner && !dump.state.is_whole_machine(),
        DumpChoice::One(owner, selector) => {
            &*dump.owner.name == owner && selector.selects(dump.crash.name, dump.owner.epoch)
        }
        DumpChoice::Named(selector) => selector.selects(dump.crash.name, dump.owner.epoch),
    }
}

/// Lists the names of dumps, each with partition and incarnation.
fn names(dumps: &[KeptDump]) -> String {
    let mut text = String::new();
    for dump in dumps {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ =
            write!(text, "{comma}{} ({} {})", dump.crash.name, dump.owner.name, dump.owner.epoch);
    }
    text
}
