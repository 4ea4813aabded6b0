//! Writes the parts of a dump around its blocks. Each part is written after the data that it
//! declares durable.
//!
//! ```text
//!   crashed ──> begin ──────────────────────────────> progress ... ──> seal
//!   record      notes, header, checksums, bitmap,     checksums, flush, bitmap, record
//!   CRASHED     record DRAINING                       once a second
//! ```
//!
//! The bitmap on the disk was zeroed when the space was activated, so only sectors with set bits
//! are written. If an earlier owner did not stop cleanly, its late writes may lie anywhere in these
//! parts. Then everything is compared, and differences are written: before DRAINING, before the
//! seal, and from time to time after it.

use super::missing::{self, Unfinished};
use super::pages::ImagePages;
use super::{Described, DumpJob, MARK_BUDGET};
use crate::addr::PageIndex;
use crate::block::DiskError;
use crate::dump::describe::{BlockChecksums, CoreHeaders, CoreStream};
use crate::dump::window::BitmapWindow;
use crate::paging::PageFinal;
use crate::space::layout::{Extent, RECORD_SIZE};
use crate::space::record::SpaceContents;
use crate::space::{DrainRecord, MissingPages, OwnPages, PartialCause, SpaceLayout, SpaceState};
use crate::storage::describe::{self, ByteStream, PutMode, RecoveredPages, put};
use crate::task;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

/// Which part of the bitmap is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BitmapPart {
    /// The sectors with set bits: the others are zeros on the disk.
    WithBits,
    /// All sectors: some bits on the disk must be cleared.
    All,
}

/// A dump that is being written.
pub(super) struct DumpWriter<'j> {
    job: &'j DumpJob,
    contents: SpaceContents,
    window: BitmapWindow,
    missing: MissingPages,
    /// Limit of the progress: the record's list of missing pages has no room for this page.
    most: u32,
    first: Described,
    stage: DumpStage,
    /// Below this page, bitmap and checksums are on the medium.
    recorded: u32,
    /// Of a child: whether its own pages are all written.
    own: OwnPages,
    mode: PutMode,
    /// The contents that the seal was written with.
    sealed: Option<DumpSeal>,
}

/// Stage of the dump in the record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DumpStage {
    /// Nothing about the dump's pages.
    New,
    /// DRAINING.
    Draining,
    /// COMPLETE or PARTIAL.
    Sealed,
}

/// Result of a check of a sealed dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repaired {
    /// Everything was as written.
    Nothing,
    /// A late write of an earlier owner, which has been overwritten.
    Something,
}

/// The description of a sealed dump.
struct DumpSeal {
    notes: Vec<u8>,
    extent: SealExtent,
}

/// Whether a sealed dump has all of its pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SealExtent {
    Whole,
    Partial,
}

impl<'j> DumpWriter<'j> {
    /// Prepares to write the dump of `job` into a space with these contents.
    ///
    /// # Errors
    /// [`DiskError::NoMemory`].
    pub(super) fn new(job: &'j DumpJob, contents: SpaceContents) -> Result<Self, DiskError> {
        let window = BitmapWindow::new(&contents.layout)?;
        let spaces = job.host.spaces;
        let compares = spaces.succession(job.space).compares() || spaces.has_old_tables(job.space);
        Ok(Self {
            mode: if compares { PutMode::Repair } else { PutMode::Write },
            sealed: None,
            job,
            most: contents.layout.pages(),
            contents,
            window,
            missing: MissingPages::default(),
            first: Described::default(),
            stage: DumpStage::New,
            recorded: 0,
            own: OwnPages::Open,
        })
    }

    const fn layout(&self) -> SpaceLayout {
        self.contents.layout
    }

    /// Returns the page below which progress has been recorded.
    pub(super) const fn recorded(&self) -> u32 {
        self.recorded
    }

    /// Makes the crash durable before anything else: from here on a power cut leaves its record.
    pub(super) async fn crashed(&self) -> Result<(), DiskError> {
        let job = self.job;
        job.metadata_bytes.fetch_add(RECORD_SIZE, Ordering::Relaxed);
        let crash = job.crash_of_record();
        let change = |record: &mut crate::space::SpaceRecord| {
            record.state = SpaceState::Crashed;
            record.drain = DrainRecord::default();
            record.crash = Some(crash);
        };
        // The record claims nothing about the blocks, so no flush precedes it.
        job.host.spaces.change_now(job.space, change).await
    }

    /// Describes the pages that are final before the sweep writes anything, with a valid header,
    /// and sets DRAINING.
    pub(super) async fn begin(&mut self) -> Result<(), DiskError> {
        self.look_for_missing(Unfinished::OnItsWay).await;
        self.first = self.describe(&self.job.notes()?).await?;
        self.write_all_bits(0, self.part(BitmapPart::WithBits)).await?;
        self.record(SpaceState::Draining, 0, self.first, PartialCause::NONE).await?;
        self.stage = DumpStage::Draining;
        Ok(())
    }

    /// Brings bitmap and record up to `end`, below which every page is final. Each is written after
    /// the data it claims is durable.
    pub(super) async fn progress(&mut self, end: u32) -> Result<(), DiskError> {
        let end = end.min(self.most);
        self.write_bits(self.recorded..end, BitmapPart::WithBits).await?;
        self.record(SpaceState::Draining, end, self.first, PartialCause::NONE).await?;
        self.recorded = end;
        Ok(())
    }

    /// Says on the disk that a child's own pages are all written, with their bits: a start can copy
    /// all others from the base.
    pub(super) async fn own_written(&mut self) -> Result<(), DiskError> {
        self.look_for_missing(Unfinished::OnItsWay).await;
        self.write_all_bits(0, self.part(BitmapPart::WithBits)).await?;
        self.own = OwnPages::Written;
        self.record(SpaceState::Draining, 0, self.first, PartialCause::NONE).await
    }

    /// Seals a drain that has ended: complete, or partial with `cause` if a page is missing.
    pub(super) async fn seal(
        &mut self,
        cause: PartialCause,
    ) -> Result<(Described, MissingPages), DiskError> {
        let unfinished = match cause {
            PartialCause::NONE => Unfinished::OnItsWay,
            _ => Unfinished::Missing,
        };
        let before = self.missing.clone();
        self.look_for_missing(unfinished).await;
        let is_anew = before != self.missing || self.mode == PutMode::Repair;
        let (from, part) =
            if is_anew { (0, BitmapPart::All) } else { (self.recorded, BitmapPart::WithBits) };
        self.write_all_bits(from, part).await?;
        let is_whole = self.missing.is_empty() && self.most == self.layout().pages();
        let notes = self.job.notes_with_kernels_own(&self.layout()).await?;
        let extent = if is_whole { SealExtent::Whole } else { SealExtent::Partial };
        let seal = DumpSeal { notes, extent };
        let described = self.describe_sealed(&seal).await?;
        let (state, progress, cause) = match extent {
            SealExtent::Whole => (SpaceState::Complete, self.layout().pages(), PartialCause::NONE),
            SealExtent::Partial if cause == PartialCause::NONE => {
                (SpaceState::Partial, self.most, PartialCause::BAD_BLOCKS)
            }
            SealExtent::Partial => (SpaceState::Partial, self.most, cause),
        };
        self.record(state, progress, described, cause).await?;
        (self.sealed, self.stage) = (Some(seal), DumpStage::Sealed);
        Ok((described, self.missing.clone()))
    }

    async fn describe_sealed(&mut self, seal: &DumpSeal) -> Result<Described, DiskError> {
        match seal.extent {
            SealExtent::Whole => self.describe(&seal.notes).await,
            SealExtent::Partial => self.describe_partial(&seal.notes).await,
        }
    }

    /// Compares the parts around the blocks of a sealed dump with the disk, and writes the
    /// differences. The caller holds the record.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn repair(&mut self) -> Result<Repaired, DiskError> {
        let Some(seal) = self.sealed.take() else { return Ok(Repaired::Nothing) };
        let before = self.written();
        let result = self.repair_by(&seal).await;
        self.sealed = Some(seal);
        result?;
        if self.written() == before {
            return Ok(Repaired::Nothing);
        }
        self.job.host.spaces.flush(self.job.space).await?;
        Ok(Repaired::Something)
    }

    async fn repair_by(&mut self, seal: &DumpSeal) -> Result<(), DiskError> {
        self.write_all_bits(0, BitmapPart::All).await?;
        self.describe_sealed(seal).await.map(|_| ())
    }

    fn written(&self) -> u64 {
        self.job.metadata_bytes.load(Ordering::Relaxed)
    }

    /// Returns which part of the bitmap to write; `enough` suffices if no late write is possible.
    fn part(&self, enough: BitmapPart) -> BitmapPart {
        if self.mode == PutMode::Repair { BitmapPart::All } else { enough }
    }

    /// Describes the dump from the disk's contents, as a start does that finds an interrupted
    /// drain.
    async fn describe_partial(&mut self, notes: &[u8]) -> Result<Described, DiskError> {
        let job = self.job;
        self.put(self.layout().notes(), ByteStream::new(notes)).await?;
        if self.stage != DumpStage::Sealed {
            job.host.spaces.flush(job.space).await?;
        }
        let mut pages = RecoveredPages::new(
            job.host.spaces,
            job.space,
            &self.contents,
            self.most,
            &self.missing,
        )?;
        let (program_headers, bytes) =
            describe::headers(&mut pages, notes.len() as u32, self.mode).await?;
        job.metadata_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(Described { program_headers, notes_len: notes.len() as u32 })
    }

    async fn look_for_missing(&mut self, unfinished: Unfinished) {
        let found = missing::look(self.job, &self.layout(), unfinished).await;
        (self.missing, self.most) = (found.pages, found.most);
    }

    /// Writes checksums and bits from page `from` to the end; only final pages have any.
    async fn write_all_bits(&mut self, from: u32, part: BitmapPart) -> Result<(), DiskError> {
        self.write_bits(from..self.layout().pages(), part).await
    }

    /// Adds the final pages of `pages` to the bitmap, along with the final pages in the same
    /// sectors.
    async fn write_bits(&mut self, pages: Range<u32>, part: BitmapPart) -> Result<(), DiskError> {
        let layout = self.layout();
        for piece in BitmapWindow::pieces(pages, layout.pages()) {
            let before = self.written();
            self.mark(piece).await;
            self.put_checksums().await?;
            let needs_flush = match self.stage {
                // No bit counts yet: one flush before the record that says DRAINING covers all of
                // them.
                DumpStage::New => false,
                DumpStage::Draining => true,
                DumpStage::Sealed => self.written() != before,
            };
            if needs_flush {
                self.job.host.spaces.flush(self.job.space).await?;
            }
            self.put_window(part).await?;
        }
        Ok(())
    }

    async fn put_window(&self, part: BitmapPart) -> Result<(), DiskError> {
        let layout = self.layout();
        if part == BitmapPart::All {
            return self
                .put(self.window.extent(&layout), ByteStream::new(self.window.bytes()))
                .await;
        }
        let mut from = 0;
        while let Some((extent, bytes, end)) = self.window.bit_run(&layout, from) {
            self.put(extent, ByteStream::new(bytes)).await?;
            from = end;
        }
        Ok(())
    }

    /// Opens the window over `pages` and sets the bits of the final pages that have blocks.
    async fn mark(&mut self, pages: Range<u32>) {
        self.window.open(pages.clone());
        let (mut next, mut looks) = (pages.start, 0);
        while next < pages.end {
            let (kind, alike) = self.job.drain.final_run(&self.job.host.pager, PageIndex(next));
            if matches!(kind, Some(PageFinal::Block(_))) && !self.missing.holds(PageIndex(next)) {
                self.window.mark(PageIndex(next));
            }
            (next, looks) = (next.saturating_add(alike), looks + 1);
            if looks % MARK_BUDGET == 0 {
                task::yield_now().await;
            }
        }
        task::yield_now().await;
    }

    /// Writes the checksums of the window's blocks. The checksums of other pages have no meaning
    /// and are left as they are.
    async fn put_checksums(&self) -> Result<(), DiskError> {
        let mut from = self.window.pages().start;
        while let Some(run) = self.window.checksum_run(from) {
            let part = self.layout().checksums_of(run.clone());
            self.put(part, BlockChecksums::of(run.start, run.end)).await?;
            from = run.end;
        }
        Ok(())
    }

    /// Writes notes, ELF header and program headers for the pages that are final.
    async fn describe(&self, notes: &[u8]) -> Result<Described, DiskError> {
        let layout = self.layout();
        let program_headers = describe::count(&mut self.pages(&layout)).await?;
        self.put(layout.notes(), ByteStream::new(notes)).await?;
        self.put(layout.header(), CoreHeaders::new(&layout, program_headers, notes.len() as u64))
            .await?;
        Ok(Described { program_headers, notes_len: notes.len() as u32 })
    }

    fn pages<'a>(&'a self, layout: &'a SpaceLayout) -> ImagePages<'a> {
        ImagePages { host: self.job.host, drain: &self.job.drain, layout, missing: &self.missing }
    }

    /// Writes a stream about the image's pages to an extent of the space.
    async fn put(&self, extent: Extent, stream: impl CoreStream) -> Result<(), DiskError> {
        let (job, layout) = (self.job, self.layout());
        let place = (job.host.spaces, job.space);
        let bytes = put(place, self.mode, extent, stream, &mut self.pages(&layout)).await?;
        job.metadata_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    async fn record(
        &self,
        state: SpaceState,
        progress: u32,
        described: Described,
        cause: PartialCause,
    ) -> Result<(), DiskError> {
        let (crash, missing) = (self.job.crash_of_record(), self.missing.clone());
        let own = self.own;
        let Described { program_headers, notes_len } = described;
        self.job.metadata_bytes.fetch_add(RECORD_SIZE, Ordering::Relaxed);
        let change = |record: &mut crate::space::SpaceRecord| {
            record.state = state;
            record.drain = DrainRecord { progress, program_headers, notes_len };
            (record.missing, record.partial_cause) = (missing, cause);
            record.crash = Some(crash);
            // A sealed dump stands alone.
            record.base = record.base.filter(|_| state == SpaceState::Draining);
            record.base.iter_mut().for_each(|base| base.own = own);
        };
        self.job.host.spaces.change(self.job.space, change).await
    }
}
