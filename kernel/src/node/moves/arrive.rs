//! The target of a move, and of a resume of a cold one: partitions that the log gives to this
//! member together with their suspended spaces.
//!
//! ```text
//!   log: mine ──> space claimed, opened ──> definition ──> resume ── runs ──> told to the source
//!                                             │              │
//!                                             └──────────────┴─ refused: handed on, to the source or cold
//! ```

use super::{MoveReservation, answer::cut, forget};
use crate::arch::time;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::members::letters::{LetterKind, MoveWord};
use crate::node::Node;
use crate::node::define::{self, DefinitionError, stored, suspend};
use crate::partition::lifecycle::LifecycleView;
use crate::partition::shared::{PartitionRequest, SharedPartition};
use crate::partition_id::PartitionId;
use crate::storage::spaces::{SpaceId, number_of};
use crate::task::until;
use crate::time::Ns;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use cluster::decree::Owner;
use cluster::state::{ClusterState, Thing};

/// How long a space may take until it is open.
const OPEN_NS: Ns = Ns::from_secs(60);

/// Looks in the log for partitions that have come to this member.
pub fn look(node: &'static Node) {
    let Some(members) = node.members else { return };
    let Some(mine) = members.log.with_state(bound_to) else { return };
    for (space, partition) in mine {
        let is_here = node.partitions().any(|(_, shared)| {
            number_of(shared.name()) == partition && shared.view() != LifecycleView::Stopped
        });
        let Some(id) = node.host.spaces.find_in_log(space).filter(|_| !is_here) else { continue };
        if matches!(node.host.spaces.arrived(id), Some(None)) || !node.moves.begin_arrival(space) {
            continue;
        }
        node.host.tasks.start(async move {
            arrive(node, id).await;
            node.moves.end_arrival(space);
        });
    }
}

/// Returns the spaces of this member that came from another owner, with their partitions.
fn bound_to(me: u16, state: &ClusterState) -> Vec<(u128, u128)> {
    let mine = state.things().iter().filter(|row| {
        let is_members = state.members().iter().any(|one| one.id.incarnation.0 == row.bound);
        row.owner == Owner::Slot(me) && row.bound != 0 && row.before != 0 && !is_members
    });
    let spaces = mine.filter_map(|row| match row.thing {
        Thing::Space(space) => Some((space, row.bound)),
        Thing::Partition(_) => None,
    });
    spaces.collect()
}

async fn arrive(node: &'static Node, id: SpaceId) {
    let end = time::now_ns().saturating_add(OPEN_NS);
    let opened = until(|| {
        let arrived = node.host.spaces.arrived(id);
        arrived.or_else(|| (time::now_ns() >= end).then_some(None))
    });
    let Some(name) = opened.await else { return };
    let reservation = node.moves.take_reservation(&name);
    match run(node, &name, reservation.as_ref()).await {
        Ok(incarnation) => {
            let space = node.host.spaces.place(id);
            report(&ConsoleEvent::Arrived {
                partition: &name,
                incarnation,
                from: reservation.map(|one| one.from.slot),
                disk: space.disk as u8,
                space: space.number,
            });
            tell_source(node, reservation.as_ref(), None);
        }
        Err(reason) => give_back(node, id, &name, reservation, &reason).await,
    }
}

/// Gives a partition that has come its definition and its runner, and lets it go on.
async fn run(
    node: &'static Node,
    name: &str,
    reservation: Option<&MoveReservation>,
) -> Result<u64, String> {
    let said = |error: DefinitionError| format!("{error}");
    if define::find(node, name).is_err() {
        stored::place_stored(node, name).await.map_err(said)?;
    }
    let (_, shared) = define::find(node, name).map_err(said)?;
    if let Some(reservation) = reservation {
        shared.set_packed_policy(reservation.policy);
    }
    suspend::go_on(node, name).map_err(said)?;
    until(|| has_decided(&shared).then_some(())).await;
    match shared.view() {
        LifecycleView::Suspended | LifecycleView::Stopped => {
            Err("it cannot go on there, as an event of that node tells".into())
        }
        _ => Ok(shared.incarnation()),
    }
}

/// Returns whether the runner has resumed, or has refused to.
fn has_decided(shared: &Arc<SharedPartition>) -> bool {
    !shared.is_asked_to(PartitionRequest::Resume) && shared.view() != LifecycleView::Resuming
}

fn tell_source(
    node: &Node,
    reservation: Option<&MoveReservation>,
    refused: Option<ArrayString<256>>,
) {
    let (Some(members), Some(one)) = (node.members, reservation) else { return };
    let word = MoveWord { number: one.number, refused };
    // A source that gets no word finds out from the log.
    let _ = members.desk.send(one.from, LetterKind::MoveEnded, &word.encode());
}

/// Hands a partition on that cannot go on here: to its source, or without an owner.
async fn give_back(
    node: &'static Node,
    id: SpaceId,
    name: &str,
    reservation: Option<MoveReservation>,
    reason: &str,
) {
    report(&ConsoleEvent::MoveRefused { partition: name, reason });
    let source = reservation.map_or(Owner::Unowned, |one| Owner::Slot(one.from.slot));
    let mut given = node.host.spaces.hand_on(id, source).await;
    if given.is_err() && source != Owner::Unowned {
        given = node.host.spaces.hand_on(id, Owner::Unowned).await;
    }
    match given {
        Ok(_) => {
            if let Ok((number, shared)) = define::find(node, name) {
                leave_suspended(node, number, &shared).await;
            }
            tell_source(node, reservation.as_ref(), Some(cut(reason)));
        }
        Err(error) => {
            let message = &*format!("it can be given to no other node either: {error}");
            report(&ConsoleEvent::Error { place: name, message });
        }
    }
}

/// Forgets a partition whose suspended space is another member's.
async fn leave_suspended(node: &'static Node, id: PartitionId, shared: &Arc<SharedPartition>) {
    node.host.wake();
    node.host.poke(id);
    until(|| (shared.view() == LifecycleView::Stopped).then_some(())).await;
    forget(node, id).await;
}

/// Takes a suspended partition without an owner; it goes on when the log has it.
///
/// # Errors
/// [`DefinitionError`].
pub async fn resume_cold(node: &'static Node, name: String) -> Result<(), DefinitionError> {
    if node.moves.is_draining() {
        return Err(DefinitionError::Draining);
    }
    let partition = number_of(&name);
    let cold = node.host.spaces.cold_space_of(partition);
    let (Some((space, sealed)), Some(members)) = (cold, node.members) else {
        return Err(DefinitionError::Unknown(name));
    };
    if node.host.spaces.find_in_log(space).is_none() {
        return Err(DefinitionError::OutOfReach(name));
    }
    stored::check_stored(node, &name, &[]).await?;
    let things = (partition, space);
    let given = members.log.resume_space(things, sealed).await;
    given.map(drop).map_err(|error| DefinitionError::NotOwned(name, error))
}
