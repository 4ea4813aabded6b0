//! The partitions of a fenced member: its heir starts them again from their definitions.
//!
//! ```text
//!   fenced member owns P ── suspended, whole ──> in place: this member's, or nobody's (`moves`)
//!                        ├─ a slot of this node has P ──> free; its runner takes it
//!                        ├─ a store has its definition ──> this member's ── start ─┬─> runs
//!                        └─ no definition ──> free, and told                       └─> free, told
//! ```
//!
//! * One partition at a time. Every member looks at each change of the log; only the heir acts, or
//!   another member if the heir has ended.
//! * What was suspended in the log's epoch goes on in its space: nothing of the dead member is
//!   written there without a decree. If it was on its way to another node, it goes on here.
//! * Every other partition starts from nothing, in a space of its own: what the dead member had
//!   stays in quarantine.
//! * A partition that is not to restart after a crash is not started here either.

use super::Node;
use super::define::stored;
use crate::config::{PartitionConfig, RestartPolicy};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::images::find;
use crate::partition::shared::{MoveMark, SharedPartition};
use crate::space::Uuid;
use crate::storage::log_desk::LogDesk;
use crate::storage::spaces::{LeftSuspension, number_of};
use crate::task::until;
use alloc::format;
use alloc::string::String;
use cluster::decree::Owner;
use cluster::duty::is_heir;
use cluster::state::{ClusterState, Thing};
use core::sync::atomic::Ordering;

/// Takes care of one partition of a fenced member, if there is one and that is this member's to do.
pub(super) fn inherit(node: &'static Node) {
    let Some(members) = node.members else { return };
    let log = members.log;
    let Some((number, from)) = log.with_state(orphan).flatten() else { return };
    if node.is_inheriting.swap(true, Ordering::AcqRel) {
        return;
    }
    node.host.tasks.start(async move {
        settle(node, log, number, from).await;
        node.is_inheriting.store(false, Ordering::Release);
        inherit(node);
    });
}

fn orphan(me: u16, state: &ClusterState) -> Option<(u128, Owner)> {
    state.things().iter().find_map(|row| match (row.thing, row.owner) {
        (Thing::Partition(number), Owner::Slot(slot)) if is_heir(state, slot, me) => {
            Some((number, row.owner))
        }
        _ => None,
    })
}

async fn settle(node: &'static Node, log: &'static LogDesk, number: u128, from: Owner) {
    // A partition that was given to the dead member is being forgotten here.
    let leaves = |shared: &SharedPartition| {
        shared.move_mark() != MoveMark::None && number_of(shared.name()) == number
    };
    let is_leaving = || node.partitions().any(|(_, shared)| leaves(&shared));
    until(|| (!is_leaving()).then_some(())).await;
    if let Some(left) = node.host.spaces.left_suspended(number, from).await {
        return inherit_in_place(node, log, (number, from), &left).await;
    }
    // What belongs to no partition, a member owns under its own number.
    let is_members =
        |_, state: &ClusterState| state.members().iter().any(|row| row.id.incarnation.0 == number);
    let is_members = log.with_state(is_members).unwrap_or(false);
    let is_here =
        is_members || node.partitions().any(|(_, shared)| number_of(shared.name()) == number);
    let found = if is_here { None } else { defined(node, number).await };
    let name = match found {
        Some((name, RestartPolicy::Threshold | RestartPolicy::Immediate)) => name,
        other => {
            // Another member may have been first.
            let is_done = log.own(number, Some(from), Some(Owner::Unowned)).await.is_ok();
            if is_done && !is_here {
                let uuid = format!("{}", Uuid(number.to_be_bytes()));
                let (partition, reason) = match &other {
                    Some((name, _)) => (name.as_str(), "it is not to restart"),
                    None => (uuid.as_str(), "no store here has its definition"),
                };
                report(&ConsoleEvent::NotInherited { partition, reason });
            }
            return;
        }
    };
    let Owner::Slot(slot) = from else { return };
    if log.own(number, Some(from), None).await.is_err() {
        return;
    }
    report(&ConsoleEvent::Inherited { partition: &name, slot });
    if let Err(error) = stored::start_stored(node, name.clone()).await {
        let reason = format!("{error}");
        report(&ConsoleEvent::NotInherited { partition: &name, reason: &reason });
        let _ = log.own(number, None, Some(Owner::Unowned)).await;
    }
}

/// Takes over what a fenced member has left suspended.
async fn inherit_in_place(
    node: &'static Node,
    log: &'static LogDesk,
    (number, from): (u128, Owner),
    left: &LeftSuspension,
) {
    let (Owner::Slot(slot), Some(me)) = (from, log.with_state(|me, _| me)) else { return };
    let goes_on = left.is_to_go_on && !node.moves.is_draining();
    let to = if goes_on { Owner::Slot(me) } else { Owner::Unowned };
    // Another member may have been first.
    if log.hand_over((number, left.space), (from, to), left.sealed).await.is_err() {
        return;
    }
    match to {
        Owner::Slot(_) => report(&ConsoleEvent::Inherited { partition: &left.name, slot }),
        Owner::Unowned => {
            let (partition, incarnation) = (&*left.name, left.incarnation);
            report(&ConsoleEvent::Cold { partition, incarnation });
        }
    }
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
