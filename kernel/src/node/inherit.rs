//! The partitions of a fenced member: its heir starts them again from their definitions.
//!
//! ```text
//!   fenced member owns P ── suspended, whole ──> in place: this member's, or cold (`moves`)
//!                        ├─ a slot of this node has P ──> free; its runner takes it
//!                        ├─ a store has its definition ──> this member's ── start ─┬─> runs
//!                        │                                                         └─> free, told
//!                        ├─ its space has it suspended ──> free, told
//!                        └─ no definition ──> told; another member's turn ── none has it ──> free
//! ```
//!
//! * One partition at a time. The heir acts at once. Without a definition it is no heir: every
//!   other member tries after [a pause](crate::members::orphans), and the log takes the first.
//! * What was suspended in the log's epoch goes on in its space: nothing of the dead member is
//!   written there without a decree. If it was on its way to another node, it goes on here.
//! * Every other partition starts from nothing, in a space of its own: what the dead member had
//!   stays in quarantine.
//! * A partition that is not to restart after a crash is not started here either.

use super::Node;
use super::define::stored;
use crate::arch::time;
use crate::config::{PartitionConfig, RestartPolicy};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::images::find;
use crate::members::orphans::OrphanTurn;
use crate::partition::shared::{MoveMark, SharedPartition};
use crate::space::Uuid;
use crate::storage::log_desk::LogDesk;
use crate::storage::spaces::{LeftSuspension, number_of};
use crate::task::until;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use cluster::decree::Owner;
use cluster::duty::is_heir;
use cluster::state::{ClusterState, Thing, ThingRow};
use core::sync::atomic::Ordering;

/// A partition of a fenced member.
#[derive(Clone, Copy)]
struct LeftPartition {
    number: u128,
    from: Owner,
    slot: u16,
    is_heir: bool,
}

/// Most partitions of fenced members that are looked at in one turn.
const MAX_LEFT: usize = 32;

/// Takes care of one partition of a fenced member, if there is one and that is this member's to do.
/// To be called when the log has something new, and when a look is due.
pub(super) fn inherit(node: &'static Node) {
    let Some(members) = node.members else { return };
    if node.is_inheriting.swap(true, Ordering::AcqRel) {
        return;
    }
    let (log, watch, now_ns) = (members.log, &members.orphans, time::now_ns());
    let all = log.with_state(left).unwrap_or_default();
    watch.keep(|number| all.iter().any(|one| one.number == number));
    let next = all.iter().find_map(|one| match watch.turn(one.number, one.is_heir, now_ns) {
        OrphanTurn::Later => None,
        turn => Some((*one, turn)),
    });
    let Some((one, turn)) = next else {
        return node.is_inheriting.store(false, Ordering::Release);
    };
    node.host.tasks.start(async move {
        settle(node, log, one, turn).await;
        node.is_inheriting.store(false, Ordering::Release);
        inherit(node);
    });
}

/// Returns the partitions that fenced members own.
fn left(me: u16, state: &ClusterState) -> ArrayVec<LeftPartition, MAX_LEFT> {
    let of = |row: &ThingRow| match (row.thing, row.owner) {
        (Thing::Partition(number), Owner::Slot(slot)) if !state.is_up(slot) => {
            let is_heir = is_heir(state, slot, me);
            Some(LeftPartition { number, from: row.owner, slot, is_heir })
        }
        _ => None,
    };
    state.things().iter().filter_map(of).take(MAX_LEFT).collect()
}

async fn settle(node: &'static Node, log: &'static LogDesk, one: LeftPartition, turn: OrphanTurn) {
    let LeftPartition { number, from, slot, .. } = one;
    // A partition that was given to the dead member is being forgotten here.
    let leaves = |shared: &SharedPartition| {
        shared.move_mark() != MoveMark::None && number_of(shared.name()) == number
    };
    let is_leaving = || node.partitions().any(|(_, shared)| leaves(&shared));
    until(|| (!is_leaving()).then_some(())).await;
    if let Some(left) = node.host.spaces.left_suspended(number, from).await {
        if !inherit_in_place(node, log, (number, from), &left).await {
            put_off(node, number, None);
        }
        return;
    }
    // What belongs to no partition, a member owns under its own number.
    let is_members =
        |_, state: &ClusterState| state.members().iter().any(|row| row.id.incarnation.0 == number);
    let is_members = log.with_state(is_members).unwrap_or(false);
    let is_here = |(_, shared): (_, Arc<SharedPartition>)| number_of(shared.name()) == number;
    if is_members || node.partitions().any(is_here) {
        return free(log, one).await;
    }
    let is_last = turn == OrphanTurn::Last;
    if one.is_heir && !is_last && !node.host.spaces.knows_remains(slot) {
        return put_off(node, number, None);
    }
    if let Some(name) = node.host.spaces.left_machine(number) {
        free(log, one).await;
        return not_inherited(&name, "it is suspended, in a space that waits for that node");
    }
    let name = match defined(node, number).await {
        Some((name, RestartPolicy::Threshold | RestartPolicy::Immediate)) => name,
        Some((name, RestartPolicy::Never)) => {
            free(log, one).await;
            return not_inherited(&name, "it is not to restart");
        }
        // Another member may see the store that has it.
        None if is_last => return free(log, one).await,
        None => {
            let reason = "no store here has its definition";
            return put_off(node, number, one.is_heir.then_some(reason));
        }
    };
    if log.own(number, Some(from), None).await.is_err() {
        return;
    }
    report(&ConsoleEvent::Inherited { partition: &name, slot });
    if let Err(error) = stored::start_stored(node, name.clone()).await {
        not_inherited(&name, &format!("{error}"));
        let _ = log.own(number, None, Some(Owner::Unowned)).await;
    }
}

/// Frees a partition's name. Another member may have been first.
async fn free(log: &'static LogDesk, one: LeftPartition) {
    let _ = log.own(one.number, Some(one.from), Some(Owner::Unowned)).await;
}

/// Has a partition looked at again; tells the reason once.
fn put_off(node: &Node, number: u128, reason: Option<&str>) {
    let Some(members) = node.members else { return };
    members.orphans.put_off(number, time::now_ns());
    if let Some(reason) = reason.filter(|_| members.orphans.tells_first(number)) {
        not_inherited(&format!("{}", Uuid(number.to_be_bytes())), reason);
    }
}

fn not_inherited(partition: &str, reason: &str) {
    report(&ConsoleEvent::NotInherited { partition, reason });
}

/// Takes over what a fenced member has left suspended; returns whether the log has it.
async fn inherit_in_place(
    node: &'static Node,
    log: &'static LogDesk,
    (number, from): (u128, Owner),
    left: &LeftSuspension,
) -> bool {
    let (Owner::Slot(slot), Some(me)) = (from, log.with_state(|me, _| me)) else { return false };
    let goes_on = left.is_to_go_on && !node.moves.is_draining();
    let to = if goes_on { Owner::Slot(me) } else { Owner::Unowned };
    // Another member may have been first.
    if log.hand_over((number, left.space), (from, to), left.sealed).await.is_err() {
        return false;
    }
    match to {
        Owner::Slot(_) => report(&ConsoleEvent::Inherited { partition: &left.name, slot }),
        Owner::Unowned => {
            let (partition, incarnation) = (&*left.name, left.incarnation);
            report(&ConsoleEvent::Cold { partition, incarnation });
        }
    }
    true
}

/// Finds the definition with this number in the stores of this node: the partition's name, and when
/// it restarts. A store that cannot be read has none.
async fn defined(node: &'static Node, number: u128) -> Option<(String, RestartPolicy)> {
    let stores = node.host.stores;
    for id in stores.all() {
        let Ok(open) = stores.open(id).await else { continue };
        let mut disk = stores.disk(id);
        let found = find::each(&mut disk, &open.superblock, |slot| {
            let it = slot.definition().filter(|one| number_of(one.name.as_str()) == number)?;
            let config = PartitionConfig::from_definition(it.encoding, &it.bytes).ok();
            let restart = config.map_or(RestartPolicy::Threshold, |config| config.restart);
            Some((String::from(it.name.as_str()), restart))
        });
        if let Ok(Some(found)) = found.await {
            return Some(found);
        }
    }
    None
}
