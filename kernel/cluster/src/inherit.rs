//! What a space's record lets its owner, or an heir, do. The log says *whose* a space is; the
//! record describes the contents, if it is of the log's epoch.
//!
//! | the owner | record | then |
//! |---|---|---|
//! | this member, by a take | any | the space is this member's: activate it |
//! | this member, by a take-back, directly after its own epoch | | go on from memory |
//! | this member, by another hand-over | SUSPENDED in the epoch before | resume from it |
//! | a fenced member | SUSPENDED in the log's epoch | inherit it in place: nothing may write to it |
//! | a fenced member | anything else | quarantine: the partition starts anew elsewhere |

use crate::decree::Owner;
use crate::state::ThingRow;

/// The part of a record's state that matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordState {
    /// No contents.
    Free,
    /// Pages of a running partition.
    Active,
    /// A whole partition that stands still. Everything before it has completed.
    Suspended,
}

/// The part of a record that matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceRecord {
    /// Its state.
    pub state: RecordState,
    /// Epoch of the owner that wrote it.
    pub epoch: u64,
}

/// Returns whether an heir may go on in a fenced member's space.
pub fn may_inherit(record: SpaceRecord, row: &ThingRow) -> bool {
    let is_whole = record.state == RecordState::Suspended || mutant!(InPlace);
    let is_current = record.epoch == row.epoch || mutant!(OldRecord);
    is_whole && is_current
}

/// Returns whether the new owner may go on from what the owner before has left.
pub fn may_resume(record: SpaceRecord, row: &ThingRow) -> bool {
    let is_last = record.epoch == row.before || mutant!(OldRecord);
    record.state == RecordState::Suspended && is_last
}

/// Returns whether a member that suspended a partition in `epoch` may go on from its own memory,
/// because the log has given the space back to it and to no other member in between.
pub fn may_go_on(row: &ThingRow, slot: u16, epoch: u64) -> bool {
    let is_next = row.before == epoch || mutant!(KeepMemory);
    row.owner == Owner::Slot(slot) && row.epoch > epoch && is_next
}

/// Returns whether a member that starts may put a space's record in order.
pub fn may_recover(row: &ThingRow, slot: u16) -> bool {
    row.owner == Owner::Slot(slot) || mutant!(JoinerRecovers)
}

/// What an owner knows about the requests that it has submitted to a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnRequests {
    /// Requests that have not completed.
    pub in_flight: usize,
    /// Set if a request was abandoned: it may land at any time.
    pub is_tainted: bool,
}

impl OwnRequests {
    /// Returns whether nothing of them can land any more.
    pub fn are_quiet(self) -> bool {
        self.in_flight == 0 && (!self.is_tainted || mutant!(AbandonedRequest))
    }
}
