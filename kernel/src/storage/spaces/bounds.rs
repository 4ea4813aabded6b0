//! Counts the dumps of one partition, for the limit on their number.

use super::{SpaceId, SpaceInner, SpacePhase, Spaces};
use crate::dump::bound::DumpCensus;
use crate::space::{SpaceState, Uuid};

impl Spaces {
    /// Counts the dumps of `owner`; `live` is the space of its incarnation, which holds none.
    pub fn dumps_of(&self, owner: &str, live: Option<SpaceId>) -> DumpCensus {
        self.dumps_of_user(Uuid::from_name(owner), live)
    }

    /// As [`Self::dumps_of`], for the partition with this uuid.
    pub(super) fn dumps_of_user(&self, user: Uuid, live: Option<SpaceId>) -> DumpCensus {
        let mut census = DumpCensus::default();
        for id in (0..self.spaces.len()).map(SpaceId).filter(|id| Some(*id) != live) {
            count(&mut census, &self.space(id).inner.lock(), user);
        }
        census
    }
}

/// Adds a space's dump, if it belongs to the partition.
fn count(census: &mut DumpCensus, inner: &SpaceInner, user: Uuid) {
    let owner = inner.record.as_ref().and_then(|record| record.owner.as_ref());
    let is_owners = owner.is_some_and(|owner| owner.partition == user);
    let state = inner.record.as_ref().map(|record| record.state);
    match inner.phase {
        SpacePhase::Draining if inner.user == Some(user) && state == Some(SpaceState::Draining) => {
            census.promised += 1
        }
        // The incarnation may have crashed while its space was being activated: the space waits for
        // the dump.
        SpacePhase::Activating | SpacePhase::Active | SpacePhase::Draining
            if inner.user == Some(user) =>
        {
            census.unpromised += 1
        }
        SpacePhase::Dump | SpacePhase::Failed(_) | SpacePhase::Unusable
            if is_owners && !inner.is_refused && holds_dump(state) =>
        {
            census.kept += 1;
            census.droppable += u32::from(may_go(inner));
        }
        _ => {}
    }
}

/// Returns whether a record in this state stands for a dump, or for the remains of one after a
/// power cut or a disk error.
const fn holds_dump(state: Option<SpaceState>) -> bool {
    matches!(
        state,
        Some(
            SpaceState::Crashed | SpaceState::Draining | SpaceState::Complete | SpaceState::Partial
        )
    )
}

/// Returns whether a dump may be dropped in favour of a newer one.
pub(super) fn may_go(inner: &SpaceInner) -> bool {
    let state = inner.record.as_ref().map(|record| record.state);
    inner.phase == SpacePhase::Dump
        && !inner.is_selected
        && matches!(state, Some(SpaceState::Complete | SpaceState::Partial))
}
