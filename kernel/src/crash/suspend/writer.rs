//! Writes the parts around the blocks of a suspended partition, and the record.
//!
//! All parts are written whole: what lies there may be of an earlier dump.

use super::{SuspensionError, SuspensionJob};
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::arch::heap;
use crate::block::DiskError;
use crate::crash::dumps::pages::ImagePages;
use crate::crash::note_search::NoteSearch;
use crate::crash::record::{CrashCause, CrashRecord};
use crate::dump::describe::{BlockChecksums, CoreHeaders, CorePages, CoreStream};
use crate::dump::hot_list::HotList;
use crate::dump::notes;
use crate::dump::state_note::{StateNoteKind, StateWriter};
use crate::dump::table_sums::{DumpTable, PieceSummer, TableSums};
use crate::dump::window::BitmapWindow;
use crate::mm::crc::{Crc32c, crc32c, crc32c_on};
use crate::paging::PageFinal;
use crate::space::layout::{Extent, RECORD_SIZE};
use crate::space::record::SpaceContents;
use crate::space::{
    CrashReason, CrashText, DrainRecord, MissingPages, PartialCause, RecordedCrash, SpaceLayout,
    SpaceState, SuspensionSeal,
};
use crate::storage::describe::{self, ByteStream, PutMode, put};
use crate::task;
use alloc::vec::Vec;
use core::ops::Range;

/// Looks at pages between two turns of other work.
const BUDGET: u32 = 4096;

/// A suspension whose pages are all in their blocks.
pub(super) struct SuspensionWriter<'j> {
    job: &'j SuspensionJob,
    contents: SpaceContents,
    window: BitmapWindow,
    none_missing: MissingPages,
    program_headers: u32,
    notes_len: u32,
    written: u64,
    /// Pages that have a block.
    blocks: u64,
    hot: HotList,
}

/// A stream, and the checksums of the bytes that it has yielded.
struct SummedStream<'s, S> {
    inner: S,
    sum: &'s mut Crc32c,
    pieces: &'s mut PieceSummer,
}

impl<S: CoreStream> CoreStream for SummedStream<'_, S> {
    fn fill(&mut self, pages: &impl CorePages, out: &mut [u8]) -> usize {
        let len = self.inner.fill(pages, out);
        *self.sum = crc32c_on(*self.sum, &out[..len]);
        self.pieces.feed(&out[..len]);
        len
    }

    fn next(&self) -> Option<u32> {
        self.inner.next()
    }
}

impl<'j> SuspensionWriter<'j> {
    /// Prepares to write.
    ///
    /// # Errors
    /// [`DiskError::NoMemory`].
    pub(super) fn new(job: &'j SuspensionJob, hot: HotList) -> Result<Self, DiskError> {
        let contents = job.host.spaces.contents(job.space).ok_or(DiskError::Dead)?;
        Ok(Self {
            window: BitmapWindow::new(&contents.layout)?,
            job,
            contents,
            none_missing: MissingPages::default(),
            program_headers: 0,
            notes_len: 0,
            written: 0,
            blocks: 0,
            hot,
        })
    }

    /// Returns the bytes written outside the blocks.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    /// Reads the blocks again that were once unreadable or wrong: a partition that lacks a page is
    /// not suspended.
    ///
    /// # Errors
    /// [`SuspensionError::PageLost`].
    pub(super) async fn refuse_lost_pages(&self) -> Result<(), SuspensionError> {
        let (job, layout) = (self.job, self.contents.layout);
        let suspects = job.drain.suspects(&job.host.pager);
        let mut page = heap::zeroed(PAGE_SIZE as usize).map_err(DiskError::from)?;
        for index in suspects.ranges().flatten().map(PageIndex) {
            let Some(PageFinal::Block(crc)) = job.drain.final_kind(&job.host.pager, index) else {
                continue;
            };
            let Some(sectors) = layout.block_sectors(index, 1) else { continue };
            let read = job.host.spaces.read_once(job.space, sectors.first * 512, &mut page).await;
            if read.is_err() || crc32c(&page) != crc {
                return Err(SuspensionError::PageLost(index));
            }
        }
        Ok(())
    }

    /// Writes checksums, bitmap, notes and header; returns their checksums.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn tables(&mut self) -> Result<SuspensionSeal, DiskError> {
        let (layout, mut seal) = (self.contents.layout, SuspensionSeal::default());
        let summer = |table| PieceSummer::new(&layout, table);
        let (mut bitmap, mut checksums) =
            (summer(DumpTable::Bitmap)?, summer(DumpTable::Checksums)?);
        for piece in BitmapWindow::pieces(0..layout.pages(), layout.pages()) {
            self.mark(piece.clone()).await;
            let inner = BlockChecksums::of(piece.start, piece.end);
            let sum = &mut seal.checksums;
            let sums = SummedStream { inner, sum, pieces: &mut checksums };
            self.put(layout.checksums_of(piece), sums).await?;
            seal.bitmap = crc32c_on(seal.bitmap, self.window.bytes());
            bitmap.feed(self.window.bytes());
            let bytes = self.put_window().await?;
            self.written += bytes;
        }
        let sums = TableSums::of(&layout, self.blocks, bitmap, checksums)?;
        let notes = self.notes(&sums).await?;
        self.notes_len = notes.len() as u32;
        if u64::from(self.notes_len) > layout.notes().len {
            return Err(DiskError::NoMemory);
        }
        seal.notes = crc32c(&notes);
        self.put(layout.notes(), ByteStream::new(&notes)).await?;
        self.program_headers = describe::count(&mut self.pages(&layout)).await?;
        let headers = CoreHeaders::new(&layout, self.program_headers, notes.len() as u64);
        self.put(layout.header(), headers).await?;
        Ok(seal)
    }

    /// Says SUSPENDED on the disk, after everything else is durable.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn seal(&mut self, seal: SuspensionSeal) -> Result<(), DiskError> {
        let job = self.job;
        let crash = self.suspension_of_record();
        let drain = DrainRecord {
            progress: self.contents.layout.pages(),
            program_headers: self.program_headers,
            notes_len: self.notes_len,
        };
        self.written += RECORD_SIZE;
        let change = |record: &mut crate::space::SpaceRecord| {
            record.state = SpaceState::Suspended;
            (record.drain, record.missing) = (drain, MissingPages::default());
            record.partial_cause = PartialCause::NONE;
            (record.crash, record.seal) = (Some(crash), Some(seal));
        };
        job.host.spaces.change(job.space, change).await
    }

    fn suspension_of_record(&self) -> RecordedCrash {
        let (host, order) = (self.job.host, &self.job.order);
        let mut registers = [0; notes::VCPU_NOTES_SIZE];
        notes::write_vcpu(&mut registers, 0, &order.regs, &order.state);
        let time_ns = host.unix_ns_at(order.at_ns);
        RecordedCrash {
            name: host.spaces.name_dump(self.job.space, time_ns),
            reason: order.reason,
            // Outside a cluster's log there is no epoch.
            detail: host.spaces.own_epoch(self.job.space).unwrap_or(0),
            time_ns,
            text: CrashText::from(match order.reason {
                CrashReason::MOVED => "to another node",
                _ => "by the operator",
            })
            .unwrap_or_default(),
            registers: registers.into_iter().collect(),
        }
    }

    /// Makes all notes: the vCPU's for readers of dumps, the history, the machine, the kernel's.
    async fn notes(&mut self, sums: &TableSums) -> Result<Vec<u8>, DiskError> {
        let (job, order) = (self.job, &self.job.order);
        let kernels = self.kernels_note().await?;
        let memory = |hot: Option<&HotList>| {
            let mut memory = StateWriter::default();
            memory.note(StateNoteKind::Memory, 0, |note| {
                sums.save(note);
                if let Some(hot) = hot {
                    hot.save(note);
                }
            });
            memory.finish()
        };
        // The list gets the room that is left.
        let text = kernels.as_ref().map_or(0, |text| notes::vmcoreinfo_note_size(text.len()));
        let used = notes::VCPU_NOTES_SIZE + job.history.len() + order.machine.len() + text;
        let used = used + memory(None)?.len();
        self.hot.cut((self.contents.layout.notes().len as usize).saturating_sub(used));
        let memory = memory(Some(&self.hot))?;
        let parts = [&*job.history, &order.machine, &memory];
        let own = notes::VCPU_NOTES_SIZE + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut all = heap::zeroed(own)?;
        notes::write_vcpu(&mut all, 0, &order.regs, &order.state);
        let mut at = notes::VCPU_NOTES_SIZE;
        for part in parts {
            all[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        if let Some(text) = kernels {
            all.try_reserve(notes::vmcoreinfo_note_size(text.len()))
                .map_err(|_| DiskError::NoMemory)?;
            all.resize(own + notes::vmcoreinfo_note_size(text.len()), 0);
            notes::write_vmcoreinfo(&mut all[own..], &text);
        }
        Ok(all)
    }

    async fn kernels_note(&self) -> Result<Option<Vec<u8>>, DiskError> {
        let (job, order) = (self.job, &self.job.order);
        let crash = CrashRecord {
            reason: CrashCause::Operator,
            text: CrashText::new(),
            incarnation: order.incarnation,
            at_ns: order.at_ns,
            regs: order.regs,
            state: order.state,
        };
        let marked = job.host.pager.landmarks(job.drain.image().id());
        let search = NoteSearch {
            host: job.host,
            space: job.space,
            layout: &self.contents.layout,
            drain: &job.drain,
            crash: &crash,
        };
        search.text(order.note_page.into_iter().chain(marked)).await
    }

    /// Opens the window over `pages` and sets the bits of pages with blocks.
    async fn mark(&mut self, pages: Range<u32>) {
        self.window.open(pages.clone());
        let (mut next, mut looks) = (pages.start, 0);
        while next < pages.end {
            let index = PageIndex(next);
            let (kind, alike) = self.job.drain.final_run(&self.job.host.pager, index);
            if matches!(kind, Some(PageFinal::Block(_))) {
                self.window.mark(index);
                self.blocks += 1;
            }
            (next, looks) = (next.saturating_add(alike), looks + 1);
            if looks % BUDGET == 0 {
                task::yield_now().await;
            }
        }
    }

    async fn put_window(&self) -> Result<u64, DiskError> {
        let layout = self.contents.layout;
        let place = (self.job.host.spaces, self.job.space);
        let stream = ByteStream::new(self.window.bytes());
        put(place, PutMode::Write, self.window.extent(&layout), stream, &mut self.pages(&layout))
            .await
    }

    async fn put(&mut self, extent: Extent, stream: impl CoreStream) -> Result<(), DiskError> {
        let layout = self.contents.layout;
        let place = (self.job.host.spaces, self.job.space);
        let bytes = put(place, PutMode::Write, extent, stream, &mut self.pages(&layout)).await?;
        self.written += bytes;
        Ok(())
    }

    fn pages<'a>(&'a self, layout: &'a SpaceLayout) -> ImagePages<'a> {
        let (host, drain) = (self.job.host, &self.job.drain);
        ImagePages { host, drain, layout, missing: &self.none_missing }
    }
}
