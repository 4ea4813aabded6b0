//! Looking at the pages of a batch: which are zero, and what the others' checksums are.
//!
//! ```text
//!   with the pager's lock      claim ──────────────────────> file ── claim ─> ...
//!   without it                        └─ inspect ─┘
//! ```
//!
//! Checksums are most of what a write-out costs, so they are taken outside the lock, by every CPU that comes by: each claims a piece
//! of a batch that nobody looks at. The batch keeps its pages' tokens meanwhile, so their frames stay where they are, and
//! nothing else is done with a batch until what was seen in its piece is filed.

use super::batch::Phase;
use super::counters::bump;
use super::poll::Budget;
use super::slots::Slot;
use super::state::State;
use super::write_out::{abort, leaf_of};
use super::{LANDMARK_BYTES, Landmark, Pager};
use crate::addr::{Hfn, PageIndex};
use crate::block::Disk;
use crate::mm::crc::Crc32c;
use crate::mm::frames::Chain;
use crate::mm::page::{Ended, Ready};
use crate::mm::phys::FrameMemory;
use crate::pool::Policy;
use arrayvec::ArrayVec;

/// Pages that are looked at between two holds of the lock.
const PIECE: usize = 32;

/// Pages of a batch that one CPU looks at: lines from `first` on, and their frames.
pub(super) struct Piece {
    batch: usize,
    first: usize,
    frames: ArrayVec<Hfn, PIECE>,
}

/// What the pages of a piece turned out to be; bit `n` and checksum `n` are of the `n`-th.
#[derive(Default)]
struct Seen {
    /// Nothing but zeros.
    zero: u32,
    /// It may hold what the dump's notes take from the kernel.
    landmark: u32,
    /// Of those that are not zero.
    checksums: [Crc32c; PIECE],
}

const _: () = assert!(PIECE == 32, "one bit a page");

impl<M: FrameMemory, D: Disk, P: Policy> Pager<'_, M, D, P> {
    /// Looks at pages of batches until the budget is spent or nothing is left that this CPU could look at.
    ///
    /// The caller does not hold the pager's lock.
    pub(super) fn scan(&self, budget: &mut Budget, now: u64) {
        let mut next = self.claim(&mut self.state.lock(), None, budget);
        while let Some(piece) = next {
            let seen = self.inspect(&piece);
            let mut state = self.state.lock();
            self.file(&mut state, &piece, &seen, now);
            self.advance(&mut state, piece.batch, now);
            next = self.claim(&mut state, Some(piece.batch), budget);
        }
    }

    /// Claims a piece of a batch that waits to be looked at: of the `last` one, which was the oldest, until it is through.
    fn claim(&self, state: &mut State<P>, last: Option<usize>, budget: &mut Budget) -> Option<Piece> {
        if budget.scans == 0 {
            return None;
        }
        let goes_on = |number: &usize| state.batches.get(*number).phase == Phase::Scan;
        let number = last.filter(goes_on).or_else(|| state.batches.to_scan())?;
        let batch = state.batches.get(number);
        let first = batch.cursor;
        let count = budget.take_scans(PIECE.min(batch.lines.len() - first));
        batch.cursor = first + count;
        batch.phase = Phase::Inspected;
        Some(Piece { batch: number, first, frames: batch.lines.frames(first..first + count).collect() })
    }

    fn inspect(&self, piece: &Piece) -> Seen {
        let mut seen = Seen::default();
        let mut bit = 1_u32;
        for (&hfn, checksum) in piece.frames.iter().zip(&mut seen.checksums) {
            if self.ground.memory.is_zero(hfn) {
                seen.zero |= bit;
            } else {
                *checksum = self.ground.memory.checksum(hfn);
                seen.landmark |= if self.is_landmark(hfn) { bit } else { 0 };
            }
            bit = bit.wrapping_shl(1);
        }
        seen
    }

    /// Every page that has a block has passed here, so no page is ever read back only to be searched.
    fn is_landmark(&self, hfn: Hfn) -> bool {
        let Landmark { first_word, matches } = self.ground.landmark;
        let mut word = [0; 4];
        self.ground.memory.copy_out(hfn, 0, &mut word);
        if u32::from_le_bytes(word) != first_word {
            return false;
        }
        let mut bytes = [0; LANDMARK_BYTES];
        self.ground.memory.copy_out(hfn, 0, &mut bytes);
        matches(&bytes)
    }

    /// Frees zero pages, keeps the checksums of the others, and gives the batch back for its next piece, or for its writes.
    fn file(&self, state: &mut State<P>, piece: &Piece, seen: &Seen, now: u64) {
        let State { batches, slots, credits, freed, .. } = state;
        let batch = batches.get(piece.batch);
        let slot = slots.busy(batch.object.expect("a batch has an object until it is free"));
        let writable = slot.writable(now).is_some();
        batch.lines.keep_checksums(piece.first, &seen.checksums[..piece.frames.len()]);
        let all = u32::MAX.checked_shr((PIECE - piece.frames.len()) as u32).unwrap_or(0);
        let mut special = if writable { seen.zero | seen.landmark } else { all };
        while special != 0 {
            let n = special.trailing_zeros();
            special &= special - 1;
            let line = piece.first + n as usize;
            let index = batch.lines.index(line).expect("nobody else deals with a claimed page");
            if seen.landmark & 1 << n != 0 {
                slot.note_landmark(index);
            }
            if seen.zero & 1 << n != 0 {
                self.end_zero(slot, index, batch.lines.take(line), freed);
            } else if !writable {
                abort(leaf_of(&slot.object, index), batch.lines.take(line));
                slot.drain.pull_back(index);
            }
        }
        if batch.cursor < batch.lines.len() {
            batch.phase = Phase::Scan;
        } else {
            (batch.cursor, batch.phase) = (0, Phase::Write);
        }
        self.give_back(credits, slot, freed);
    }

    fn end_zero(&self, slot: &mut Slot, index: PageIndex, ready: Ready, freed: &mut Chain) {
        let page = leaf_of(&slot.object, index);
        match ready {
            Ready::Out(settled) => {
                if let Ended::Out(frame) = page.evict_zero(settled) {
                    self.ground.frames.link(freed, frame);
                    bump(&self.counters.zero_evictions, 1);
                    slot.drain.zero += 1;
                }
            }
            // A page that stays mapped gains nothing by a block of zeros: the clock evicts it for nothing.
            other => abort(page, other),
        }
    }
}
