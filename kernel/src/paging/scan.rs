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

use super::batch::{Entry, Phase};
use super::counters::bump;
use super::poll::Budget;
use super::slots::Slot;
use super::state::State;
use super::write_out::{abort, leaf_of};
use super::{LANDMARK_BYTES, Landmark, Pager};
use crate::addr::{Hfn, PageIndex};
use crate::block::Disk;
use crate::mm::crc::Crc32c;
use crate::mm::frames::Frame;
use crate::mm::page::Ended;
use crate::mm::phys::FrameMemory;
use crate::pool::Policy;
use alloc::vec::Vec;
use arrayvec::ArrayVec;

/// Pages that are looked at between two holds of the lock.
const PIECE: usize = 32;

/// What one page turned out to be.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Zero,
    Data(Crc32c),
    /// As `Data`, and it may hold what the dump's notes take from the kernel.
    Landmark(Crc32c),
}

/// Pages of a batch that one CPU looks at: their lines, and their frames.
pub(super) struct Piece {
    batch: usize,
    pages: ArrayVec<(u32, Hfn), PIECE>,
}

impl<M: FrameMemory, D: Disk, P: Policy> Pager<'_, M, D, P> {
    /// Looks at pages of batches until the budget is spent or nothing is left that this CPU could look at.
    ///
    /// The caller does not hold the pager's lock.
    pub(super) fn scan(&self, budget: &mut Budget, now: u64) {
        let mut next = self.claim(&mut self.state.lock(), budget);
        while let Some(piece) = next {
            let seen = self.inspect(&piece);
            let mut state = self.state.lock();
            self.file(&mut state, &piece, &seen, now);
            self.advance(&mut state, piece.batch, now);
            next = self.claim(&mut state, budget);
        }
    }

    /// Claims a piece of a batch that waits to be looked at.
    fn claim(&self, state: &mut State<P>, budget: &mut Budget) -> Option<Piece> {
        let number = if budget.scans > 0 { state.batches.to_scan()? } else { return None };
        let batch = state.batches.get(number);
        let passed = batch.passed.expect("a batch is scanned after its flush");
        let mut pages = ArrayVec::new();
        while batch.cursor < batch.lines.len() && !pages.is_full() && budget.take_scan() {
            if let Some((_, hfn)) = batch.settle(batch.cursor, &passed) {
                pages.push((batch.cursor as u32, hfn));
            }
            batch.cursor += 1;
        }
        batch.phase = Phase::Inspected;
        Some(Piece { batch: number, pages })
    }

    fn inspect(&self, piece: &Piece) -> ArrayVec<Seen, PIECE> {
        piece.pages.iter().map(|&(_, hfn)| self.look_at(hfn)).collect()
    }

    fn look_at(&self, hfn: Hfn) -> Seen {
        if self.ground.memory.is_zero(hfn) {
            return Seen::Zero;
        }
        let crc = self.ground.memory.checksum(hfn);
        if self.is_landmark(hfn) { Seen::Landmark(crc) } else { Seen::Data(crc) }
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
    fn file(&self, state: &mut State<P>, piece: &Piece, seen: &[Seen], now: u64) {
        let State { batches, slots, credits, freed, .. } = state;
        let batch = batches.get(piece.batch);
        let slot = slots.busy(batch.object.expect("a batch has an object until it is free"));
        let writable = slot.writable(now).is_some();
        for (&(line, _), &seen) in piece.pages.iter().zip(seen) {
            let line = line as usize;
            let (index, _) = batch.lines[line].ready().expect("nobody else deals with a claimed page");
            if let Seen::Landmark(_) = seen {
                slot.note_landmark(index);
            }
            match seen {
                Seen::Zero => self.end_zero(slot, index, batch.take(line), freed),
                Seen::Data(crc) | Seen::Landmark(crc) if writable => batch.lines[line].crc = crc,
                _ => {
                    abort(leaf_of(&slot.object, index), batch.take(line));
                    slot.drain.pull_back(index);
                }
            }
        }
        if batch.cursor < batch.lines.len() {
            batch.phase = Phase::Scan;
        } else {
            (batch.cursor, batch.phase) = (0, Phase::Write);
        }
        self.give_back(credits, slot, freed);
    }

    fn end_zero(&self, slot: &mut Slot, index: PageIndex, entry: Entry, freed: &mut Vec<Frame>) {
        let page = leaf_of(&slot.object, index);
        match entry {
            Entry::Ready(settled) => {
                if let Ended::Out(frame) = page.evict_zero(settled) {
                    freed.push(frame);
                    bump(&self.counters.zero_evictions, 1);
                    slot.drain.zero += 1;
                }
            }
            // A page that stays mapped gains nothing by a block of zeros: the clock evicts it for nothing.
            other => abort(page, other),
        }
    }
}
