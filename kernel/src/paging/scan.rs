//! Scans the pages of a batch: finds the zero pages, and computes the checksums of the others.
//!
//! ```text
//!   with the pager's lock      claim ──────────────────────> file ── claim ─> ...
//!   without it                        └─ inspect ─┘
//! ```
//!
//! Checksums are most of the cost of a write-out, so they are computed outside the lock, by every
//! CPU that polls. Each CPU claims a piece of a batch that no other CPU inspects. The batch keeps
//! its pages' tokens meanwhile, so their frames stay in place. No other step touches the batch
//! until the result of its piece is filed.

use super::batch::{Batch, BatchPhase};
use super::counters::bump;
use super::slots::PagedObject;
use super::state::PagerState;
use super::work::PollBudget;
use super::write_out::abort;
use super::{LANDMARK_BYTES, Landmark, Pager};
use crate::addr::Hfn;
use crate::block::Disk;
use crate::mm::crc::Crc32c;
use crate::mm::frames::FrameChain;
use crate::mm::object::PageFinder;
use crate::mm::page::{Page, SettledPage, WriteOutEnd};
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;

/// Most pages inspected between two holds of the lock.
const PIECE: usize = 32;

/// Pages of a batch that one CPU inspects: `count` lines from `first`, and their frames.
pub(super) struct ScanPiece {
    batch: usize,
    first: usize,
    count: usize,
    frames: [u32; PIECE],
}

impl ScanPiece {
    fn frames(&self) -> impl Iterator<Item = Hfn> {
        self.frames[..self.count].iter().map(|frame| Hfn::new(u64::from(*frame)))
    }
}

/// Result of inspecting a piece; bit `n` and checksum `n` belong to its `n`-th page.
#[derive(Default)]
struct ScanResult {
    /// The page is all zeros.
    zero: u32,
    /// The page may hold data that a dump's notes take from the guest's kernel.
    landmark: u32,
    /// Checksums of the pages that are not zero.
    checksums: [Crc32c; PIECE],
}

const _: () = assert!(PIECE == 32, "one bit a page");

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Inspects pages of batches until the budget is spent or no piece is left to claim.
    ///
    /// The caller must not hold the pager's lock.
    pub(super) fn scan(&self, budget: &mut PollBudget, now: Ns) {
        let mut next = self.claim(&mut self.locked(), None, budget);
        while let Some(piece) = next {
            let seen = self.inspect(&piece);
            let mut state = self.locked();
            self.file(&mut state, &piece, &seen, now);
            self.advance(&mut state, piece.batch, now);
            next = self.claim(&mut state, Some(piece.batch), budget);
        }
    }

    /// Claims a piece of a batch in scan. Prefers the `last` one, which was the oldest, until it is
    /// through.
    fn claim(
        &self,
        state: &mut PagerState<P>,
        last: Option<usize>,
        budget: &mut PollBudget,
    ) -> Option<ScanPiece> {
        if budget.scans == 0 {
            return None;
        }
        let goes_on = |number: &usize| state.batches.get(*number).phase == BatchPhase::Scan;
        let number = last.filter(goes_on).or_else(|| state.batches.to_scan())?;
        let batch = state.batches.get(number);
        let first = batch.cursor;
        let count = budget.take_scans(PIECE.min(batch.lines.len() - first));
        batch.cursor = first + count;
        batch.phase = BatchPhase::Inspected;
        let mut frames = [0; PIECE];
        batch.lines.tell_frames(first, &mut frames[..count]);
        Some(ScanPiece { batch: number, first, count, frames })
    }

    fn inspect(&self, piece: &ScanPiece) -> ScanResult {
        let mut seen = ScanResult::default();
        let mut bit = 1_u32;
        for (hfn, checksum) in piece.frames().zip(&mut seen.checksums) {
            if self.env.memory.is_zero(hfn) {
                seen.zero |= bit;
            } else {
                *checksum = self.env.memory.checksum(hfn);
                seen.landmark |= if self.is_landmark(hfn) { bit } else { 0 };
            }
            bit = bit.wrapping_shl(1);
        }
        seen
    }

    /// Returns whether the page matches the landmark. Every page that has a block has passed here,
    /// so no page is read back only to be searched.
    fn is_landmark(&self, hfn: Hfn) -> bool {
        let Landmark { first_word, matches } = self.env.landmark;
        let mut word = [0; 4];
        self.env.memory.copy_out(hfn, 0, &mut word);
        if u32::from_le_bytes(word) != first_word {
            return false;
        }
        let mut bytes = [0; LANDMARK_BYTES];
        self.env.memory.copy_out(hfn, 0, &mut bytes);
        matches(&bytes)
    }

    /// Frees zero pages, keeps the checksums of the others, and releases the batch for its next
    /// piece or for its writes.
    fn file(&self, state: &mut PagerState<P>, piece: &ScanPiece, seen: &ScanResult, now: Ns) {
        let PagerState { batches, slots, credits, freed, .. } = state;
        let batch = batches.get(piece.batch);
        let slot = slots.busy(batch.object.expect("a batch has an object until it is free"));
        let writable = slot.writable(now).is_some();
        batch.lines.keep_checksums(piece.first, &seen.checksums[..piece.count]);
        let all = u32::MAX.checked_shr((PIECE - piece.count) as u32).unwrap_or(0);
        let back = if writable { 0 } else { all & !seen.zero };
        if seen.zero | seen.landmark | back != 0 {
            self.file_special((slot, batch, freed), piece, seen, back);
        }
        if batch.cursor < batch.lines.len() {
            batch.phase = BatchPhase::Scan;
        } else {
            (batch.cursor, batch.phase) = (0, BatchPhase::Write);
        }
        self.give_back(credits, slot, freed);
    }

    /// Frees zero pages, notes landmarks, and maps the pages of the bits in `back` again.
    #[inline(never)]
    fn file_special(
        &self,
        (slot, batch, freed): (&mut PagedObject, &mut Batch, &mut FrameChain),
        piece: &ScanPiece,
        seen: &ScanResult,
        back: u32,
    ) {
        let mut special = seen.zero | seen.landmark | back;
        let object = slot.object.clone();
        let mut pages = PageFinder::new(&object);
        let before = freed.len();
        while special != 0 {
            let bit = special & special.wrapping_neg();
            let line = piece.first + special.trailing_zeros() as usize;
            special ^= bit;
            if seen.landmark & bit != 0 {
                slot.note_landmark(
                    batch.lines.index(line).expect("nobody else deals with a claimed page"),
                );
            }
            if (seen.zero | back) & bit == 0 {
                continue;
            }
            let ready = batch.lines.take(line);
            let index = ready.index();
            let page = pages.find(index).expect("a page that is under way has a table");
            if seen.zero & bit != 0 {
                self.end_zero(page, ready, freed);
            } else {
                abort(page, ready);
                slot.drain.pull_back(index);
            }
        }
        let zero = u64::from(freed.len() - before);
        bump(&self.counters.zero_evictions, zero);
        slot.drain.zero += zero;
    }

    #[inline(always)]
    fn end_zero(&self, page: Page<'_>, ready: SettledPage, freed: &mut FrameChain) {
        match ready {
            SettledPage::Out(settled) => {
                if let WriteOutEnd::Out(frame) = page.evict_zero(settled) {
                    self.env.frames.link(freed, frame);
                }
            }
            // A block of zeros is useless for a page that stays mapped: the clock evicts a zero
            // page without a write.
            other => abort(page, other),
        }
    }
}
