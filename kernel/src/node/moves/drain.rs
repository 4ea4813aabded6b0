//! `drain`: this node gives all its partitions away.
//!
//! ```text
//!   least in memory first ──> the member with most room ── no ──> the next one ── none ──> suspended, cold
//! ```

use super::MoveError;
use super::leave::{MoveEnd, plan_to, suspension, whole};
use crate::console::command::DrainOrder;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::members::letters::LetterKind;
use crate::members::{RollRow, RollStatus};
use crate::node::Node;
use crate::node::define::suspend;
use crate::partition::lifecycle::LifecycleView;
use crate::partition::shared::SharedPartition;
use crate::partition_id::PartitionId;
use crate::storage::spaces::Suspension;
use crate::task::until;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use cluster::decree::Owner;
use core::cmp::Reverse;
use core::sync::atomic::Ordering;

/// Begins or ends a drain: of this node, or of another one by mail.
///
/// # Errors
/// [`MoveError`].
pub fn command(node: &'static Node, target: &str, order: DrainOrder) -> Result<(), MoveError> {
    let members = node.members.ok_or(MoveError::NoCluster)?;
    let to = members.target(target).map_err(|error| MoveError::Target(target.into(), error))?;
    match (to.is_own, order) {
        (true, DrainOrder::Begin) => begin(node),
        (true, DrainOrder::End) => {
            end(node);
            Ok(())
        }
        (false, order) => {
            let sent = members.send(to.id.slot, LetterKind::Drain, &[order as u8]);
            sent.map(drop).map_err(|error| MoveError::Mail(target.into(), error))
        }
    }
}

/// Lets the node take partitions again.
pub fn end(node: &Node) {
    if node.moves.is_draining.swap(false, Ordering::AcqRel) {
        report(&ConsoleEvent::Drained { state: "ended", left: running(node).len() as u32 });
    }
}

/// Begins to give all partitions of this node away. From now on none begins here.
///
/// # Errors
/// [`MoveError`].
pub fn begin(node: &'static Node) -> Result<(), MoveError> {
    let members = node.members.ok_or(MoveError::NoCluster)?;
    if members.view().slot.is_none() {
        return Err(MoveError::NotMember);
    }
    if node.moves.is_draining.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    report(&ConsoleEvent::Drained { state: "begun", left: running(node).len() as u32 });
    node.host.tasks.start(async move {
        all(node).await;
        if node.moves.is_draining() {
            report(&ConsoleEvent::Drained { state: "done", left: running(node).len() as u32 });
        }
    });
    Ok(())
}

/// Returns the partitions that have something to lose, those with least in memory first.
fn running(node: &Node) -> Vec<(PartitionId, Arc<SharedPartition>)> {
    let is_there = |view| !matches!(view, LifecycleView::Stopped | LifecycleView::Sealed);
    let mut all: Vec<_> = node.partitions().filter(|(_, one)| is_there(one.view())).collect();
    all.sort_by_key(|(_, shared)| {
        let object = shared.object().and_then(|number| node.host.objects.by_number(number));
        object.map_or(0, |object| object.counts().resident)
    });
    all
}

async fn all(node: &'static Node) {
    for one in running(node) {
        if !node.moves.is_draining() {
            return;
        }
        let shared = one.1.clone();
        let name = String::from(shared.name());
        if let Err(error) = give(node, one).await {
            let reason = &*format!("{error}");
            report(&ConsoleEvent::DrainLeft { partition: &name, reason });
        }
        report(&ConsoleEvent::Drained { state: "goes on", left: running(node).len() as u32 });
    }
}

/// Returns the members that could take a partition, those with most room first.
fn takers(node: &Node) -> Vec<RollRow> {
    let rows = node.members.map(|members| members.desk.rows()).unwrap_or_default();
    let can = |row: &RollRow| {
        !row.is_own && row.status == RollStatus::Up && row.beat.is_some_and(|beat| beat.mail > 0)
    };
    let mut all: Vec<_> = rows.into_iter().filter(can).collect();
    all.sort_by_key(|row| Reverse(row.beat.map_or(0, |beat| beat.details.free_mib)));
    all
}

/// Gives a partition to the first member that takes it, or suspends it without an owner.
async fn give(
    node: &'static Node,
    one: (PartitionId, Arc<SharedPartition>),
) -> Result<(), MoveError> {
    let (_, shared) = &one;
    if shared.view() == LifecycleView::Suspended {
        return make_cold(node, &one).await;
    }
    if shared.known_definition().is_none() {
        return Err(MoveError::NotStored(shared.name().into()));
    }
    for to in takers(node) {
        match whole(node, plan_to(node, one.clone(), to)?).await {
            Ok(()) => return Ok(()),
            Err(MoveError::Refused(..) | MoveError::Silent(_) | MoveError::Mail(..)) => {}
            Err(error) => return Err(error),
        }
    }
    suspend_here(node, shared).await?;
    make_cold(node, &one).await
}

/// Suspends a partition for which there is no room elsewhere.
async fn suspend_here(node: &'static Node, shared: &Arc<SharedPartition>) -> Result<(), MoveError> {
    if !shared.begin_move() {
        return Err(MoveError::Moves(shared.name().into()));
    }
    let _end = MoveEnd(shared.clone());
    let incarnation = shared.incarnation();
    suspend::suspend(node, shared.name())?;
    until(|| suspension(node, shared, incarnation)).await.map(drop)
}

/// Leaves a suspended partition without an owner, and forgets it here.
async fn make_cold(
    node: &'static Node,
    (id, shared): &(PartitionId, Arc<SharedPartition>),
) -> Result<(), MoveError> {
    let name = || String::from(shared.name());
    let Suspension::One(space) = node.host.spaces.suspension_of(&name()) else {
        return Err(MoveError::Ended(name()));
    };
    if !shared.begin_move() {
        return Err(MoveError::Moves(name()));
    }
    let _end = MoveEnd(shared.clone());
    let given = node.host.spaces.give_away(space, Owner::Unowned).await;
    given.map_err(|error| MoveError::NotGiven(name(), error))?;
    node.host.wake();
    node.host.poke(*id);
    until(|| (shared.view() == LifecycleView::Stopped).then_some(())).await;
    report(&ConsoleEvent::Cold { partition: shared.name(), incarnation: shared.incarnation() });
    super::forget(node, *id).await;
    Ok(())
}
