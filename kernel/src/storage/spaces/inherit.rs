//! Completes the dump of a child that a power cut has cut off after the child's own pages were
//! written: the rest is copied from the base's blocks.
//!
//! ```text
//!   DRAINING, own pages WRITTEN ── base found, tables right ──> copy, ascending ──> COMPLETE
//!                               └─ base gone or damaged ──────────────────────────> PARTIAL
//! ```
//!
//! A page without a bit, from the progress on, is the base's page: its block, or zero where the
//! base has no bit. The child's bits count only after their blocks and checksums are durable, as in
//! a drain.

use super::{BUFFER, SpaceId, SpacePhase, Spaces};
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::arch::heap;
use crate::block::DiskError;
use crate::dump::window::BitmapWindow;
use crate::mm::crc::{Crc32c, crc32c, crc32c_on};
use crate::space::record::SpaceContents;
use crate::space::{
    MissingPages, MissingRange, PartialCause, SpaceLayout, SpaceRecord, SpaceState,
};
use crate::storage::describe::{self, PutMode, RecoveredPages};
use crate::task::yield_now;
use alloc::format;
use alloc::vec::Vec;

/// Pages that are copied between two records of progress: 16 MiB.
const STEP: u32 = 4096;
/// Bytes of the checksums of a step.
const STEP_SUMS: usize = STEP as usize * 4;

const _: () = assert!(STEP_SUMS <= BUFFER);

/// What a step of the copy works on.
struct InheritStep {
    own_bits: BitmapWindow,
    base_bits: BitmapWindow,
    own_sums: Vec<u8>,
    base_sums: Vec<u8>,
    page: Vec<u8>,
    missing: MissingPages,
    /// Pages that the record has no room to list: the dump ends before the first.
    most: u32,
}

impl Spaces {
    /// Goes on with the copies that a power cut has interrupted.
    pub(super) fn resume_copies(&'static self) {
        for id in (0..self.spaces.len()).map(SpaceId) {
            if self.space(id).inner.lock().phase == SpacePhase::Inheriting {
                self.tasks.start(self.inherit(id));
            }
        }
    }

    pub(super) async fn inherit(&self, id: SpaceId) {
        match self.inherit_all(id).await {
            Ok(()) => self.space(id).inner.lock().phase = SpacePhase::Dump,
            Err(error) => {
                let message = format!("cannot be completed from its base: {error}");
                self.trouble(id, &format!("{message}; it is tried again later"));
                self.set_aside(id, error);
            }
        }
    }

    async fn inherit_all(&self, id: SpaceId) -> Result<(), DiskError> {
        let record = self.record(id).ok_or(DiskError::Dead)?;
        let (Some(own), Some(base)) = (record.contents.clone(), record.base) else {
            return Err(DiskError::Unsupported);
        };
        let base = self.find_base(&base);
        let base = base.and_then(|base| Some((base, self.record(base)?)));
        let source = match base {
            Some((base, of_base)) => self.sound_base(base, &of_base, &own).await?,
            None => None,
        };
        let Some((base, base_layout)) = source else {
            self.trouble(id, "its base is gone or damaged: the dump is partial");
            let partial = self.finish(id, record).await?;
            self.space(id).inner.lock().record = Some(partial);
            return Ok(());
        };
        self.copy_from(id, record, &own, (base, &base_layout)).await
    }

    /// Returns the base and its layout if its tables match its record, and its memory the child's.
    async fn sound_base(
        &self,
        base: SpaceId,
        record: &SpaceRecord,
        own: &SpaceContents,
    ) -> Result<Option<(SpaceId, SpaceLayout)>, DiskError> {
        let (Some(contents), Some(seal)) = (&record.contents, record.seal) else {
            return Ok(None);
        };
        if contents.ranges != own.ranges {
            return Ok(None);
        }
        let layout = contents.layout;
        let (mut bits, mut sums) = (Crc32c::default(), Crc32c::default());
        let mut window = BitmapWindow::new(&layout)?;
        let mut bytes = heap::zeroed(STEP_SUMS)?;
        for piece in BitmapWindow::pieces(0..layout.pages(), layout.pages()) {
            window.open(piece.clone());
            self.read(base, window.extent(&layout).start, window.bytes_mut()).await?;
            bits = crc32c_on(bits, window.bytes());
            for first in piece.clone().step_by(STEP as usize) {
                let pages = first..piece.end.min(first + STEP);
                let part = &mut bytes[..(pages.len() * 4).next_multiple_of(512)];
                self.read(base, layout.checksums_of(pages.clone()).start, part).await?;
                sums = crc32c_on(sums, &part[..pages.len() * 4]);
                yield_now().await;
            }
        }
        Ok((bits == seal.bitmap && sums == seal.checksums).then_some((base, layout)))
    }

    async fn copy_from(
        &self,
        id: SpaceId,
        record: SpaceRecord,
        own: &SpaceContents,
        (base, base_layout): (SpaceId, &SpaceLayout),
    ) -> Result<(), DiskError> {
        let all = own.layout.pages();
        let mut step = InheritStep {
            own_bits: BitmapWindow::new(&own.layout)?,
            base_bits: BitmapWindow::new(base_layout)?,
            own_sums: heap::zeroed(STEP_SUMS)?,
            base_sums: heap::zeroed(STEP_SUMS)?,
            page: heap::zeroed(PAGE_SIZE as usize)?,
            missing: record.missing.clone(),
            most: all,
        };
        let start = record.drain.progress / STEP * STEP;
        for first in (start..all).step_by(STEP as usize) {
            let pages = first..all.min(first + STEP);
            let from = (base, base_layout);
            self.copy_step(id, &own.layout, from, &mut step, pages.clone()).await?;
            let (missing, progress) = (step.missing.clone(), pages.end.min(step.most));
            self.change(id, |record| {
                (record.drain.progress, record.missing) = (progress, missing);
            })
            .await?;
        }
        self.complete(id, own, step.missing, step.most).await
    }

    /// Copies the inherited pages among `pages`, which begin with a sector of the bitmap.
    async fn copy_step(
        &self,
        id: SpaceId,
        own: &SpaceLayout,
        (base, of_base): (SpaceId, &SpaceLayout),
        step: &mut InheritStep,
        pages: core::ops::Range<u32>,
    ) -> Result<(), DiskError> {
        let len = (pages.len() * 4).next_multiple_of(512);
        step.own_bits.open(pages.clone());
        step.base_bits.open(pages.clone());
        let InheritStep { own_bits, base_bits, own_sums, base_sums, page, .. } = step;
        self.read(id, own_bits.extent(own).start, own_bits.bytes_mut()).await?;
        self.read(base, base_bits.extent(of_base).start, base_bits.bytes_mut()).await?;
        let own_at = own.checksums_of(pages.clone()).start;
        self.read(id, own_at, &mut own_sums[..len]).await?;
        let base_at = of_base.checksums_of(pages.clone()).start;
        self.read(base, base_at, &mut base_sums[..len]).await?;
        let mut copied = false;
        for index in pages.clone().map(PageIndex) {
            let is_known = own_bits.has_block(index) || step.missing.holds(index);
            if is_known || !base_bits.has_block(index) {
                continue;
            }
            let at = (index.0 - pages.start) as usize * 4;
            let sum = &base_sums[at..at + 4];
            let place =
                |layout: &SpaceLayout| layout.block_sectors(index, 1).map(|s| s.first * 512);
            let (Some(from), Some(to)) = (place(of_base), place(own)) else {
                return Err(DiskError::Unsupported);
            };
            let is_read = self.read(base, from, page).await.is_ok();
            if !is_read || crc32c(page).0.to_le_bytes() != *sum {
                match with(&step.missing, index) {
                    Some(missing) => step.missing = missing,
                    None => step.most = step.most.min(index.0),
                }
                continue;
            }
            self.write(id, to, page).await?;
            own_sums[at..at + 4].copy_from_slice(sum);
            own_bits.mark(index);
            copied = true;
        }
        if copied {
            self.write(id, own_at, &own_sums[..len]).await?;
            self.flush(id).await?;
            self.write(id, own_bits.extent(own).start, own_bits.bytes()).await?;
        }
        Ok(())
    }

    async fn complete(
        &self,
        id: SpaceId,
        own: &SpaceContents,
        missing: MissingPages,
        most: u32,
    ) -> Result<(), DiskError> {
        let record = self.record(id).ok_or(DiskError::Dead)?;
        let is_whole = missing.is_empty() && most == own.layout.pages();
        let mut pages = RecoveredPages::new(self, id, own, most, &missing)?;
        let headers =
            describe::headers(&mut pages, record.drain.notes_len, PutMode::Write).await?.0;
        self.change(id, |record| {
            record.drain.program_headers = headers;
            record.base = None;
            (record.state, record.partial_cause) = if is_whole {
                (SpaceState::Complete, PartialCause::NONE)
            } else {
                (SpaceState::Partial, PartialCause::BAD_BLOCKS)
            };
        })
        .await
    }
}

/// Adds a page to a list of missing pages; `None` if it has no room.
fn with(missing: &MissingPages, index: PageIndex) -> Option<MissingPages> {
    let one = MissingRange { first: index.0, count: 1 };
    let (before, after): (Vec<_>, Vec<_>) =
        missing.ranges().iter().copied().partition(|range| range.first < index.0);
    let mut all = MissingPages::default();
    let ranges = before.into_iter().chain([one]).chain(after);
    ranges.into_iter().try_for_each(|range| all.push(range)).ok()?;
    Some(all)
}
