//! Copies of a base's pages for children that write: each waits for a flush of its child.
//!
//! ```text
//!   first write ──> a frame, filled ──> leaf: coming in ──> ticket ── passed at once ──> installed
//!                                                             └─ line of the table ── poll ──^
//! ```
//!
//! A child has one vCPU, which waits for its copy. So a few lines are enough, and a child that
//! finds none tries again.

use crate::addr::PageIndex;
use crate::mm::flush::{FlushTicket, Kicks, QuiescentStates};
use crate::mm::frames::Frame;
use crate::mm::object::ObjectId;
use alloc::vec::Vec;

/// Most copies that wait at a time.
const LINES: usize = 64;

/// A copy whose flush has not passed.
#[derive(Debug)]
pub(super) struct PendingCopy {
    pub object: ObjectId,
    pub index: PageIndex,
    pub frame: Frame,
    pub ticket: FlushTicket,
}

/// The copies that wait.
#[derive(Debug)]
pub(super) struct PendingCopies {
    lines: Vec<PendingCopy>,
    /// CPUs that the next poll makes leave the guest.
    kicks: Kicks,
}

impl PendingCopies {
    pub(super) fn new() -> Self {
        Self { lines: Vec::with_capacity(LINES), kicks: Kicks::default() }
    }

    /// Returns whether any copy waits.
    #[inline]
    pub(super) fn any(&self) -> bool {
        !self.lines.is_empty()
    }

    pub(super) fn is_any_of(&self, object: ObjectId) -> bool {
        self.lines.iter().any(|copy| copy.object == object)
    }

    /// Adds a copy, or returns it if no line is free.
    pub(super) fn add(&mut self, copy: PendingCopy, kicks: Kicks) -> Result<(), PendingCopy> {
        self.kicks.0 |= kicks.0;
        if self.lines.len() == LINES {
            return Err(copy);
        }
        self.lines.push(copy);
        Ok(())
    }

    /// Takes the CPUs that have to be kicked.
    pub(super) fn take_kicks(&mut self) -> Kicks {
        core::mem::take(&mut self.kicks)
    }

    /// Takes a copy whose flush has passed.
    pub(super) fn take_passed(&mut self, words: &QuiescentStates) -> Option<PendingCopy> {
        let at = self.lines.iter_mut().position(|copy| copy.ticket.poll(words).is_some())?;
        Some(self.lines.swap_remove(at))
    }
}
