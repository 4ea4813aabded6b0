//! What a member proposes without being asked, so that nothing of a fenced member is forgotten.
//! Every member does so at every turn; a decree whose `from` no longer matches is void.

use crate::decree::{Decree, Owner, QuietProof};
use crate::state::{ClusterState, MemberStatus, Thing, ThingRow};

/// Returns whether `me` takes care of what a member in `slot` owns: it is fenced, and `me` is its
/// heir, or the heir is not up.
pub fn is_heir(state: &ClusterState, slot: u16, me: u16) -> bool {
    match state.member(slot).map(|row| row.status) {
        Some(MemberStatus::Fenced { heir }) => heir == me || !state.is_up(heir),
        // The heir may have stopped before it came to this.
        Some(MemberStatus::Quiet(_)) => true,
        Some(MemberStatus::Up) | None => false,
    }
}

/// Returns the next duty. `left` is a fenced member whose last beat says LEAVING.
pub fn duty(state: &ClusterState, left: Option<u16>) -> Option<Decree> {
    if let Some(who) = left {
        return Some(Decree::Quiet { who, proof: QuietProof::Left });
    }
    let release = |row: &ThingRow| {
        let (Thing::Space(space), Owner::Slot(slot)) = (row.thing, row.owner) else { return None };
        let status = state.member(slot)?.status;
        let is_quiet = matches!(status, MemberStatus::Quiet(_));
        is_quiet.then_some(Decree::Release { space, from: row.owner })
    };
    state.things().iter().find_map(release)
}
