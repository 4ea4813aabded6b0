//! The log: each number is decided by Disk Paxos (Gafni, Lamport, 2003). Nothing of it depends on
//! time.
//!
//! ```text
//!   first phase:  begun := my next ballot; write; read all ── higher ballot ──> again later
//!   second phase: accepted := (ballot, value of the highest accepted, else mine); write; read all
//!                 ── higher ballot ──> again later          ── none ──> decided
//!   any read:     a block of a later number ──> this number was decided: learn it
//! ```
//!
//! There is no shared "leader" sector, which a late write could bury: what was decided lies in the
//! blocks and states of those that know it.

use crate::block::LogBlock;
use crate::decree::Decree;
use crate::id::MemberId;
use crate::sector::SECTOR;

/// What the blocks of the others say about a phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PhaseVerdict {
    /// No higher ballot.
    Clear,
    /// Another member has begun a higher ballot.
    Conflict,
    /// The member in this slot works on a later number.
    Behind(u16),
}

/// A member's own part in the log.
#[derive(Clone, Copy, Debug)]
pub struct Proposer {
    /// The block that was written last. A slot has one incarnation, so memory and disk agree.
    block: LogBlock,
    slots: u64,
    highest: u64,
    /// Value of the highest ballot that was read in the first phase.
    found: Option<(u64, Decree)>,
}

impl Proposer {
    /// Returns a member's part before its first proposal, in an area of `slots`.
    pub const fn new(member: MemberId, slots: u16) -> Self {
        let block = LogBlock { member, sequence: 0, number: 0, begun: 0, accepted: None };
        Self { block, slots: slots as u64, highest: 0, found: None }
    }

    /// Begins the first phase for a number and returns the block to write.
    pub fn first(&mut self, number: u64) -> LogBlock {
        if self.block.number != number {
            (self.block.accepted, self.highest) = (None, 0);
        }
        let round = self.highest.max(self.block.begun) / self.slots + 1;
        self.block.number = number;
        self.block.begun = round * self.slots + u64::from(self.block.member.slot);
        self.found = self.block.accepted;
        self.next()
    }

    /// Begins the second phase with `value`, unless another one may have been decided; returns the
    /// block to write.
    pub fn second(&mut self, value: Decree) -> LogBlock {
        let kept = self.found.filter(|_| !mutant!(OwnValue));
        let value = kept.map_or(value, |(_, value)| value);
        self.block.accepted = Some((self.block.begun, value));
        self.next()
    }

    fn next(&mut self) -> LogBlock {
        self.block.sequence += 1;
        self.block
    }

    /// Returns the value of the second phase.
    pub fn value(&self) -> Option<Decree> {
        self.block.accepted.map(|(_, value)| value)
    }

    /// Judges the reads of all blocks after a phase's write.
    pub fn judge(&mut self, reads: &[&[u8]], is_second: bool) -> PhaseVerdict {
        let mut verdict = PhaseVerdict::Clear;
        for (slot, both) in reads.iter().flat_map(|read| read.chunks(2 * SECTOR).enumerate()) {
            // A torn pair belongs to a writer whose phase has not completed.
            let Ok(other) = LogBlock::newer(both) else { continue };
            if slot == usize::from(self.block.member.slot) {
                continue;
            }
            if other.number > self.block.number {
                return PhaseVerdict::Behind(slot as u16);
            }
            if other.number < self.block.number {
                continue;
            }
            self.highest = self.highest.max(other.begun);
            if other.begun > self.block.begun {
                verdict = PhaseVerdict::Conflict;
            }
            let best = self.found.map_or(0, |(ballot, _)| ballot);
            self.found = other.accepted.filter(|(ballot, _)| *ballot > best).or(self.found);
        }
        if is_second && mutant!(BlindSecondPhase) {
            return PhaseVerdict::Clear;
        }
        verdict
    }
}
