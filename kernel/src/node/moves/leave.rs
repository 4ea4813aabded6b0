//! The source of a move.
//!
//! ```text
//!   asked ── yes ──> suspending, asked again now and then ──> handed over ── it runs there ──> forgotten
//!     │ no             │ crash, stop, disk: it stays             │ void        │ given back: goes on here
//!     └──> refused     └──> move_failed                          └──> taken back by decree, goes on here
//! ```

use super::{MoveError, forget, is_fresh};
use crate::arch::time;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::members::letters::{LetterKind, MoveQuestion};
use crate::members::{Members, RollRow};
use crate::node::Node;
use crate::node::define::{self, suspend};
use crate::partition::lifecycle::LifecycleView;
use crate::partition::resume::machine_here;
use crate::partition::shared::{MoveMark, SharedPartition};
use crate::partition_id::PartitionId;
use crate::storage::spaces::{SpaceId, Suspension, number_of};
use crate::task::until;
use crate::time::{AtomicNs, Ns};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use arrayvec::ArrayString;
use cluster::decree::Owner;
use cluster::state::{ClusterState, Thing};
use core::sync::atomic::Ordering;

/// How long a target may take for an answer.
const ANSWER_NS: Ns = Ns::from_secs(12);
/// How often the target is asked again while the partition is being suspended.
const AGAIN_NS: Ns = Ns::from_secs(10);
/// For how long turns follow each other sooner after the hand-over.
const HURRY_NS: Ns = Ns::from_secs(30);
/// How long the target may take until it tells that the partition runs there.
const ARRIVAL_NS: Ns = Ns::from_secs(180);

/// A move that was checked here.
pub struct MovePlan {
    members: &'static Members,
    id: PartitionId,
    shared: Arc<SharedPartition>,
    space: u128,
    to: RollRow,
    number: u64,
    /// When the target said yes last.
    answered_ns: AtomicNs,
}

/// Ends the partition's mark when the move is over, however it ends.
pub(super) struct MoveEnd(pub Arc<SharedPartition>);

impl Drop for MoveEnd {
    fn drop(&mut self) {
        self.0.end_move();
    }
}

/// Checks a move as far as that needs no other member.
///
/// # Errors
/// [`MoveError`].
pub fn plan(node: &'static Node, name: &str, target: &str) -> Result<MovePlan, MoveError> {
    let members = node.members.ok_or(MoveError::NoCluster)?;
    let (id, shared) = define::find(node, name)?;
    if members.view().slot.is_none() {
        return Err(MoveError::NotMember);
    }
    let to = members.target(target).map_err(|error| MoveError::Target(target.into(), error))?;
    if to.is_own {
        return Err(MoveError::Here(name.into()));
    }
    let mail = members.check_mail(to.id.slot);
    mail.map_err(|error| MoveError::Mail(target.into(), error))?;
    plan_to(node, (id, shared), to)
}

/// Checks whether a partition may move to a member.
///
/// # Errors
/// [`MoveError`].
pub(super) fn plan_to(
    node: &'static Node,
    (id, shared): (PartitionId, Arc<SharedPartition>),
    to: RollRow,
) -> Result<MovePlan, MoveError> {
    let members = node.members.ok_or(MoveError::NoCluster)?;
    let name = String::from(shared.name());
    if shared.clone_of.is_some() {
        return Err(MoveError::IsClone(name));
    }
    if shared.known_definition().is_none() {
        return Err(MoveError::NotStored(name));
    }
    if shared.move_mark() != MoveMark::None {
        return Err(MoveError::Moves(name));
    }
    if shared.view() != LifecycleView::Running {
        return Err(MoveError::NotRunning(name, shared.view()));
    }
    let space = node.host.spaces.space_in_log(&name).ok_or(MoveError::Alone(name))?;
    let (number, answered_ns) = (node.moves.next_number(), AtomicNs::new(Ns::ZERO));
    Ok(MovePlan { members, id, shared, space, to, number, answered_ns })
}

/// Asks the target, and begins the move if it says yes; another task goes on with it.
///
/// # Errors
/// [`MoveError`]; nothing has changed then.
pub async fn begin(node: &'static Node, plan: MovePlan) -> Result<(), MoveError> {
    if !plan.shared.begin_move() {
        return Err(MoveError::Moves(plan.shared.name().into()));
    }
    let end = MoveEnd(plan.shared.clone());
    plan.ask(node).await?;
    plan.tell_begun(node);
    node.host.tasks.start(async move {
        let _ = plan.go(node).await;
        drop(end);
    });
    Ok(())
}

/// As [`begin`], and waits for the end of the move.
///
/// # Errors
/// [`MoveError`]; the partition is still here then, or comes back.
pub(super) async fn whole(node: &'static Node, plan: MovePlan) -> Result<(), MoveError> {
    if !plan.shared.begin_move() {
        return Err(MoveError::Moves(plan.shared.name().into()));
    }
    let _end = MoveEnd(plan.shared.clone());
    plan.ask(node).await?;
    plan.tell_begun(node);
    plan.go(node).await
}

impl MovePlan {
    fn target(&self) -> String {
        match self.to.name() {
            "" => format!("slot {}", self.to.id.slot),
            name => name.into(),
        }
    }

    fn tell_begun(&self, node: &Node) {
        let object = self.shared.object().and_then(|n| node.host.objects.by_number(n));
        report(&ConsoleEvent::MoveBegun {
            partition: self.shared.name(),
            incarnation: self.shared.incarnation(),
            node: &self.target(),
            slot: self.to.id.slot,
            resident: object.map_or(0, |object| object.counts().resident.into()),
        });
    }

    /// Asks the target whether it takes the partition, and waits for the answer.
    async fn ask(&self, node: &'static Node) -> Result<(), MoveError> {
        let question = MoveQuestion {
            number: self.number,
            name: ArrayString::from(self.shared.name()).unwrap_or_default(),
            memory_bytes: self.shared.config.memory_bytes,
            space: self.space,
            policy: self.shared.packed_policy(),
            promise: machine_here(node.host, self.shared.config.devices).promise(),
        };
        let end = time::now_ns().saturating_add(ANSWER_NS);
        self.members.desk.hurry(end);
        self.members
            .desk
            .send(self.to.id, LetterKind::MoveAsked, &question.encode())
            .map_err(|error| MoveError::Mail(self.target(), error))?;
        let answer = until(|| {
            let answer = node.moves.take_answer(self.number).map(Some);
            answer.or_else(|| (time::now_ns() >= end || !self.is_up()).then_some(None))
        });
        match answer.await {
            None => Err(MoveError::Silent(self.target())),
            Some(word) => match word.refused {
                Some(reason) => Err(MoveError::Refused(self.target(), Box::new(reason))),
                None => {
                    self.answered_ns.store(time::now_ns(), Ordering::Relaxed);
                    Ok(())
                }
            },
        }
    }

    /// Returns whether the log gives the partition to this node again.
    fn is_back(&self) -> bool {
        let thing = Thing::Partition(number_of(self.shared.name()));
        let is_own = |me, state: &ClusterState| state.row(thing).owner == Owner::Slot(me);
        self.members.log.with_state(is_own).unwrap_or(false)
    }

    fn is_up(&self) -> bool {
        let to = self.to.id;
        let is_it = |_, state: &ClusterState| {
            state.is_up(to.slot) && state.member(to.slot).is_some_and(|row| row.id == to)
        };
        self.members.log.with_state(is_it).unwrap_or(false)
    }

    /// Moves the partition after the target's yes, and tells how that has ended.
    async fn go(&self, node: &'static Node) -> Result<(), MoveError> {
        let moved = self.try_go(node).await;
        if let Err(error) = &moved {
            let (partition, reason) = (self.shared.name(), &*format!("{error}"));
            report(&ConsoleEvent::MoveFailed { partition, node: &self.target(), reason });
        }
        moved
    }

    async fn try_go(&self, node: &'static Node) -> Result<(), MoveError> {
        suspend::suspend(node, self.shared.name())?;
        let space = self.suspended(node).await?;
        let stopped_ns = time::now_ns();
        let to = Owner::Slot(self.to.id.slot);
        let given = match self.may_go(node).await {
            Ok(()) => {
                let given = node.host.spaces.give_away(space, to).await;
                given.map_err(|error| MoveError::NotGiven(self.shared.name().into(), error))
            }
            Err(error) => Err(error),
        };
        let epoch = match given {
            Ok(epoch) => epoch,
            Err(error) => {
                self.go_on_here(node);
                return Err(error);
            }
        };
        let decree_ns = time::now_ns().saturating_sub(stopped_ns).as_u64();
        self.handed_over(node, (epoch, decree_ns), stopped_ns).await
    }

    /// Waits until the partition is suspended. The target keeps its room meanwhile.
    async fn suspended(&self, node: &'static Node) -> Result<SpaceId, MoveError> {
        let incarnation = self.shared.incarnation();
        loop {
            let again = time::now_ns().saturating_add(AGAIN_NS);
            let found = until(|| {
                let found = suspension(node, &self.shared, incarnation).map(Some);
                found.or_else(|| (time::now_ns() >= again).then_some(None))
            });
            if let Some(found) = found.await {
                return found;
            }
            // A target that has no room any more is asked once more before the hand-over.
            let _ = self.ask(node).await;
        }
    }

    /// Makes sure that the target still has room.
    async fn may_go(&self, node: &'static Node) -> Result<(), MoveError> {
        if !self.is_up() {
            return Err(MoveError::Silent(self.target()));
        }
        let answered = self.answered_ns.load(Ordering::Relaxed);
        if is_fresh(answered, time::now_ns()) { Ok(()) } else { self.ask(node).await }
    }

    fn go_on_here(&self, node: &'static Node) {
        self.shared.end_move();
        if let Err(error) = suspend::go_on(node, self.shared.name()) {
            let message = &*format!("{error}");
            report(&ConsoleEvent::ResumeFailed { partition: self.shared.name(), message });
        }
    }

    /// The partition is the target's; waits for its word.
    async fn handed_over(
        &self,
        node: &'static Node,
        (epoch, decree_ns): (u64, u64),
        stopped_ns: Ns,
    ) -> Result<(), MoveError> {
        node.host.wake();
        node.host.poke(self.id);
        let end = time::now_ns().saturating_add(ARRIVAL_NS);
        self.members.desk.hurry(stopped_ns.saturating_add(HURRY_NS));
        let word = until(|| {
            let word = node.moves.take_end(self.number).map(Some);
            let is_over = || time::now_ns() >= end || !self.is_up() || self.is_back();
            word.or_else(|| is_over().then_some(None))
        })
        .await;
        if word.is_none() && self.is_back() {
            return Err(MoveError::GivenBack(self.target()));
        }
        if let Some(reason) = word.as_ref().and_then(|word| word.refused) {
            return Err(MoveError::Refused(self.target(), Box::new(reason)));
        }
        until(|| (self.shared.view() == LifecycleView::Stopped).then_some(())).await;
        report(&ConsoleEvent::Moved {
            partition: self.shared.name(),
            incarnation: self.shared.incarnation(),
            node: &self.target(),
            slot: self.to.id.slot,
            epoch,
            confirmed: word.is_some(),
            decree_ns,
            away_ns: time::now_ns().saturating_sub(stopped_ns).as_u64(),
        });
        forget(node, self.id).await;
        Ok(())
    }
}

/// Returns what has become of the suspension of a partition that moves; `None` while it goes on.
pub(super) fn suspension(
    node: &Node,
    shared: &SharedPartition,
    incarnation: u64,
) -> Option<Result<SpaceId, MoveError>> {
    let name = || String::from(shared.name());
    if shared.move_mark() != MoveMark::Leaves {
        return Some(Err(MoveError::NotSuspended(name())));
    }
    match (shared.view(), node.host.spaces.suspension_of(shared.name())) {
        (LifecycleView::Suspended, Suspension::One(space)) => Some(Ok(space)),
        (LifecycleView::Running | LifecycleView::Suspending, _)
            if shared.incarnation() == incarnation =>
        {
            None
        }
        _ => Some(Err(MoveError::Ended(name()))),
    }
}
