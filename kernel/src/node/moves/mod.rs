//! Partitions that go from one member to another.
//!
//! ```text
//!   source                                        target
//!   leave: may it move? ─────── mail ───────────> answer: definition, room, CPU, disk
//!          suspended (pre-copy before)  <── yes ─
//!          decree: hand over ───────────────────> arrive: opened, checked, ACTIVE, runs
//!          forgotten  <──────── mail: it runs ───
//! ```
//!
//! Mail asks and tells; the decree decides. A partition that was handed over belongs to the target,
//! whether mail comes or not: the target finds it in the log.

mod answer;
mod arrive;
pub mod drain;
mod error;
mod leave;

pub use answer::receive;
pub use arrive::{look, resume_cold};
pub use error::MoveError;
pub use leave::{MovePlan, begin, plan};

use super::Node;
use crate::members::letters::MoveWord;
use crate::partition::shared::PartitionRequest;
use crate::partition_id::PartitionId;
use crate::sync::{RankedLock, rank};
use crate::task::until;
use crate::time::Ns;
use alloc::vec::Vec;
use arrayvec::{ArrayString, ArrayVec};
use cluster::id::MemberId;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How long a target keeps room for a partition.
const RESERVED_NS: Ns = Ns::from_secs(30);
/// Most partitions for which a target keeps room.
const MAX_RESERVED: usize = 8;

/// Room that is kept for a partition of another member.
#[derive(Clone, Copy, Debug)]
struct MoveReservation {
    /// The source, and its number of the move.
    from: MemberId,
    number: u64,
    name: ArrayString<64>,
    memory_bytes: u64,
    policy: u8,
    until_ns: Ns,
}

#[derive(Default)]
struct MoveWords {
    reserved: ArrayVec<MoveReservation, MAX_RESERVED>,
    /// Answers to this node's questions, and the ends of its moves.
    answers: Vec<MoveWord>,
    ends: Vec<MoveWord>,
    /// Spaces, as the log names them, of partitions that are arriving.
    arriving: Vec<u128>,
}

/// What this node knows about its moves.
#[derive(Default)]
pub struct MoveDesk {
    contents: RankedLock<MoveWords, { rank::EVENTS }>,
    /// No partition begins here any more: this node gives its partitions away.
    is_draining: AtomicBool,
    last: AtomicU64,
}

impl MoveDesk {
    /// Returns whether this node gives its partitions away.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    fn next_number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes the answer to a question of this node.
    fn take_answer(&self, number: u64) -> Option<MoveWord> {
        take(&mut self.contents.lock().answers, number)
    }

    fn take_end(&self, number: u64) -> Option<MoveWord> {
        take(&mut self.contents.lock().ends, number)
    }

    /// Keeps a word for the task that waits for it. Words of moves that are over are dropped.
    fn put(&self, words: fn(&mut MoveWords) -> &mut Vec<MoveWord>, word: MoveWord) {
        let mut desk = self.contents.lock();
        let list = words(&mut desk);
        list.retain(|old| old.number != word.number);
        if list.len() >= MAX_RESERVED {
            list.remove(0);
        }
        list.push(word);
    }

    /// Notes that a space's partition arrives; returns false if that is known.
    fn begin_arrival(&self, space: u128) -> bool {
        let mut desk = self.contents.lock();
        let is_new = !desk.arriving.contains(&space);
        if is_new {
            desk.arriving.push(space);
        }
        is_new
    }

    fn end_arrival(&self, space: u128) {
        self.contents.lock().arriving.retain(|other| *other != space);
    }

    fn reserve(&self, wanted: MoveReservation, now: Ns) -> bool {
        let mut desk = self.contents.lock();
        desk.reserved.retain(|one| one.until_ns > now && one.name != wanted.name);
        desk.reserved.try_push(wanted).is_ok()
    }

    /// Returns the room that is kept for others than the partition of this name.
    fn reserved_beside(&self, name: &str, now: Ns) -> Vec<MoveReservation> {
        let desk = self.contents.lock();
        let others = desk.reserved.iter().filter(|one| one.until_ns > now && &*one.name != name);
        others.copied().collect()
    }

    fn take_reservation(&self, name: &str) -> Option<MoveReservation> {
        let mut desk = self.contents.lock();
        let at = desk.reserved.iter().position(|one| &*one.name == name)?;
        Some(desk.reserved.remove(at))
    }
}

fn take(words: &mut Vec<MoveWord>, number: u64) -> Option<MoveWord> {
    let at = words.iter().position(|word| word.number == number)?;
    Some(words.remove(at))
}

/// Returns the words that answer questions.
fn answers(desk: &mut MoveWords) -> &mut Vec<MoveWord> {
    &mut desk.answers
}

/// Returns the words that end moves.
fn ends(desk: &mut MoveWords) -> &mut Vec<MoveWord> {
    &mut desk.ends
}

/// Empties the slot of a stopped partition that belongs to another member now.
async fn forget(node: &'static Node, id: PartitionId) {
    let Some(shared) = node.partition(id) else { return };
    super::define::leave_keys(node, id);
    shared.ask(PartitionRequest::Leave);
    node.host.poke(id);
    let is_gone = || {
        node.partition(id).is_none_or(|now| !alloc::sync::Arc::ptr_eq(&now, &shared)).then_some(())
    };
    until(is_gone).await;
}

/// Returns whether a yes that was given at this time still counts.
fn is_fresh(answered_ns: Ns, now: Ns) -> bool {
    now.saturating_sub(answered_ns) < Ns::from_secs(25)
}
