//! What a fenced member has left whole: dumps, suspended partitions and bases. Its heir lists them
//! at once, and they are read where they lie.
//!
//! ```text
//!   quarantined ── the record, every 10 s ──> COMPLETE, PARTIAL, SUSPENDED, SEALED ──> listed, read only
//!        │                                └─> ACTIVE, CRASHED, DRAINING, RELEASING ──> waits unseen
//!        └── nothing of the member lands any more ──> unowned, adopted: a dump of the adopter
//! ```
//!
//! * The log goes on giving the space to the fenced member, so no member writes to it or takes it.
//! * All writes of a whole state have ended before its record was written. A release writes
//!   RELEASING, and flushes, before it writes anything else. So what was read between two equal
//!   records is whole, although a late write of the dead member may still give the space back.

use super::{KeptDump, SpaceId, SpacePhase, Spaces};
use crate::arch::time;
use crate::space::{CrashReason, SpaceRecord, SpaceState};
use crate::time::Ns;
use alloc::boxed::Box;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use cluster::duty::is_heir;
use cluster::state::ClusterState;
use core::sync::atomic::Ordering;

/// Time between two looks at a record: a late write may have given the space back.
const LOOK_NS: Ns = Ns::from_secs(10);

/// What the heir of a space's fenced owner has found there.
#[derive(Default)]
pub(super) struct SpaceRemains {
    /// The record of a whole state.
    record: Option<Box<SpaceRecord>>,
    /// When to look again.
    due_ns: Ns,
}

/// Returns whether a state is whole: nothing of it is still to be written.
const fn is_whole(state: SpaceState) -> bool {
    matches!(
        state,
        SpaceState::Complete | SpaceState::Partial | SpaceState::Suspended | SpaceState::Sealed
    )
}

impl Spaces {
    /// Looks at a space of the fenced member in `slot`, if this member is the heir and a look is
    /// due.
    pub(super) fn look_at_remains(&'static self, id: SpaceId, slot: u16) {
        let is_ours = |me, state: &ClusterState| is_heir(state, slot, me);
        if !self.log_of(id).and_then(|log| log.with_state(is_ours)).unwrap_or(false) {
            return;
        }
        let (now_ns, mut inner) = (time::now_ns(), self.space(id).inner.lock());
        if inner.phase != SpacePhase::Shared {
            return;
        }
        let is_due = now_ns >= inner.remains.due_ns;
        if is_due {
            inner.phase = SpacePhase::Looking;
            inner.remains.due_ns = now_ns.saturating_add(LOOK_NS);
        }
        self.mend_due_ns.lower(inner.remains.due_ns, Ordering::AcqRel);
        drop(inner);
        if is_due {
            self.tasks.start(self.find_remains(id));
        }
    }

    async fn find_remains(&self, id: SpaceId) {
        let ending = self.look(id).await;
        let capacity = self.place(id).area.bytes();
        let record = ending.ok().and_then(|(_, ending)| ending.record(capacity));
        let is_ours = |record: &SpaceRecord| {
            is_whole(record.state)
                && record.cluster.is_none_or(|of| Some(of) == self.cluster_of(id))
        };
        {
            let mut inner = self.space(id).inner.lock();
            inner.remains.record = record.filter(is_ours).map(Box::new);
            inner.phase = SpacePhase::Shared;
        }
        // The log may have given the space to this member meanwhile.
        self.note_log();
    }

    /// Returns whether all spaces of the fenced member in `slot` have been looked at.
    pub fn knows_remains(&self, slot: u16) -> bool {
        (0..self.spaces.len()).map(SpaceId).all(|id| {
            let is_its = self.quarantined_of(id) == Some(slot);
            let inner = self.space(id).inner.lock();
            !is_its || inner.phase == SpacePhase::Shared && inner.remains.due_ns > Ns::ZERO
        })
    }

    /// Returns the name of the partition with this number, if a fenced member has left it
    /// suspended, or as a base. A partition on its way to that member is to run: it starts anew.
    pub fn left_machine(&self, number: u128) -> Option<ArrayString<64>> {
        let is_it = |dump: &&KeptDump| {
            let rests = dump.state.is_whole_machine() && dump.crash.reason != CrashReason::MOVED;
            rests && u128::from_be_bytes(dump.owner.partition.0) == number
        };
        self.remains().iter().find(is_it).map(|dump| dump.owner.name)
    }

    /// Forgets the remains of a fenced member: the space has no owner any more, or another one.
    pub(super) fn forget_remains(&self, id: SpaceId) {
        self.space(id).inner.lock().remains = SpaceRemains::default();
    }

    /// Returns what fenced members have left whole, as far as this member is their heir.
    pub fn remains(&self) -> Vec<KeptDump> {
        let of = |(n, space): (usize, &super::Space)| {
            let waits_for = self.quarantined_of(SpaceId(n));
            let inner = space.inner.lock();
            let record = inner.remains.record.as_ref().filter(|_| waits_for.is_some())?;
            KeptDump::of(SpaceId(n), space.place, record, waits_for)
        };
        self.spaces.iter().enumerate().filter_map(of).collect()
    }
}
