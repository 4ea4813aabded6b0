//! Who owns what: requests to the cluster's log, with an answer.
//!
//! ```text
//!   own, take, ... ──> order ── wished again until the log has it ──> state as wanted: Ok(epoch)
//!                        └── another owner, no room, not a member any more ──> OwnError
//! ```
//!
//! A decree may be decided in another member's ballot, so the state says when an order is done, not
//! the ballot.

use crate::sync::{RankedLock, rank};
use crate::task::until;
use arrayvec::ArrayVec;
use cluster::decree::{Decree, Owner};
use cluster::node::ClusterEvent;
use cluster::standing::DecreeStanding;
use cluster::state::{ClusterState, VoidError};

/// Most orders that wait.
const MAX_ORDERS: usize = 32;

/// Why the log has not given something to a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnError {
    /// This node is no member, or not any more.
    NotMember,
    /// The decree has no effect.
    Void(VoidError),
}

impl core::fmt::Display for OwnError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotMember => "this node is no member of the cluster now",
            Self::Void(VoidError::OtherOwner) => "another member owns it",
            Self::Void(VoidError::Full) => "the state of the cluster has no room for it",
            Self::Void(VoidError::Quarantined) => "writes of its owner may still land",
            Self::Void(VoidError::Bound) => "it belongs to another partition",
            Self::Void(VoidError::OldRecord) => "its record is of another epoch",
            Self::Void(VoidError::NotUp | VoidError::NotFenced | VoidError::SlotUsed) => {
                "a member of it has come or gone"
            }
        })
    }
}

struct Order {
    ticket: u64,
    /// Made with the slot of the member that gives the order.
    decree: Decree,
    result: Option<Result<u64, OwnError>>,
}

/// What this node's tasks and partitions see of the log, and their orders to it. It may be
/// used under any other lock but a serial line's.
pub struct LogDesk(RankedLock<DeskState, { rank::EVENTS }>);

struct DeskState {
    /// The state that is known, and this member's slot; `None` unless this node is a member.
    me: Option<u16>,
    state: ClusterState,
    last: u64,
    orders: ArrayVec<Order, MAX_ORDERS>,
}

impl DeskState {
    fn open(&mut self) -> impl Iterator<Item = &mut Order> {
        self.orders.iter_mut().filter(|order| order.result.is_none())
    }
}

impl LogDesk {
    /// Makes the desk of a node that is no member yet; a state has at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let state = ClusterState::new(limit);
        Self(RankedLock::new(DeskState { me: None, state, last: 0, orders: ArrayVec::new() }))
    }

    /// Shows a new state; returns whether there is one. `me` is `None` if this node is no member:
    /// then all orders end.
    pub fn publish(&self, me: Option<u16>, state: &ClusterState) -> bool {
        let mut desk = self.0.lock();
        if me.is_none() {
            desk.open().for_each(|order| order.result = Some(Err(OwnError::NotMember)));
        }
        if (desk.me, desk.state.number()) == (me, state.number()) {
            return false;
        }
        desk.me = me;
        desk.state.copy_from(state);
        true
    }

    /// Notes a decree that was decided without effect.
    pub fn note(&self, event: &ClusterEvent) {
        if let ClusterEvent::Decided(_, decree, Err(error)) = event
            && let Some(order) = self.0.lock().open().find(|order| order.decree == *decree)
        {
            order.result = Some(Err(OwnError::Void(*error)));
        }
    }

    /// Judges the orders by the state, and returns the next decree to wish for.
    pub fn next_order(&self, state: &ClusterState) -> Option<Decree> {
        let mut desk = self.0.lock();
        for order in desk.open() {
            order.result = match state.standing(&order.decree) {
                DecreeStanding::Open => None,
                DecreeStanding::Done(epoch) => Some(Ok(epoch)),
                DecreeStanding::Void(error) => Some(Err(OwnError::Void(error))),
            };
        }
        desk.open().next().map(|order| order.decree)
    }

    /// Looks at the state after the last decree that is known here, with this member's slot; `None`
    /// unless this node is a member. `look` takes no lock.
    pub fn with_state<T>(&self, look: impl FnOnce(u16, &ClusterState) -> T) -> Option<T> {
        let desk = self.0.lock();
        desk.me.map(|me| look(me, &desk.state))
    }

    /// Takes an order; `None` while there is no room for it.
    fn order(&self, make: impl FnOnce(u16) -> Decree) -> Option<Result<u64, OwnError>> {
        let mut desk = self.0.lock();
        let Some(me) = desk.me else { return Some(Err(OwnError::NotMember)) };
        let ticket = desk.last + 1;
        desk.orders.try_push(Order { ticket, decree: make(me), result: None }).ok()?;
        desk.last = ticket;
        Some(Ok(ticket))
    }

    fn take_result(&self, ticket: u64) -> Option<Result<u64, OwnError>> {
        let mut desk = self.0.lock();
        let at = desk.orders.iter().position(|order| order.ticket == ticket)?;
        let is_over = desk.orders[at].result.is_some();
        is_over.then(|| desk.orders.remove(at).result).flatten()
    }

    /// Has a decree decided, made with this member's slot; returns the epoch of what it is about
    /// when the state is as the decree wants it.
    ///
    /// # Errors
    /// [`OwnError`]; then the decree has no effect, unless the membership has ended: others may
    /// have decided it.
    pub async fn decree(&self, make: impl Fn(u16) -> Decree) -> Result<u64, OwnError> {
        let ticket = until(|| self.order(&make)).await?;
        until(|| self.take_result(ticket)).await
    }

    /// Gives a partition without its space to another owner; `None` is this member.
    ///
    /// # Errors
    /// As [`Self::decree`].
    pub async fn own(
        &self,
        partition: u128,
        from: Option<Owner>,
        to: Option<Owner>,
    ) -> Result<u64, OwnError> {
        let owner = |who: Option<Owner>, me| who.unwrap_or(Owner::Slot(me));
        self.decree(|me| Decree::Own { partition, from: owner(from, me), to: owner(to, me) }).await
    }

    /// Takes a free space for a partition of this member.
    ///
    /// # Errors
    /// As [`Self::decree`].
    pub async fn take_space(&self, partition: u128, space: u128) -> Result<u64, OwnError> {
        self.decree(|by| Decree::Take { partition, space, by }).await
    }

    /// Gives a space of this member back.
    ///
    /// # Errors
    /// As [`Self::decree`].
    pub async fn release_space(&self, space: u128) -> Result<u64, OwnError> {
        self.decree(|me| Decree::Release { space, from: Owner::Slot(me) }).await
    }

    /// Takes a suspended partition without an owner, with its space.
    ///
    /// # Errors
    /// As [`Self::decree`].
    pub async fn resume_space(
        &self,
        (partition, space): (u128, u128),
        sealed: u64,
    ) -> Result<u64, OwnError> {
        let from = Owner::Unowned;
        let make = |me| Decree::HandOver { partition, space, from, to: Owner::Slot(me), sealed };
        self.decree(make).await
    }

    /// Gives a partition with its suspended space to another owner.
    ///
    /// # Errors
    /// As [`Self::decree`].
    pub async fn hand_over(
        &self,
        (partition, space): (u128, u128),
        (from, to): (Owner, Owner),
        sealed: u64,
    ) -> Result<u64, OwnError> {
        self.decree(|_| Decree::HandOver { partition, space, from, to, sealed }).await
    }
}
