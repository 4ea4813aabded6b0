//! Dumps on their way: from a crashed incarnation's memory to a sealed space.
//!
//! ```text
//!   begin (O(1)) ─> describe what is final, record DRAINING ─> sweep ──────────> describe all ─> COMPLETE ─> memory gone
//!                                                          │  ^      │
//!                                                          │  └──────┘ every second: checksums, flush, bitmap, flush, progress
//!                                                          └ a write fails for good ─> describe what is final ─> PARTIAL
//! ```
//!
//! A bit of the bitmap counts from the moment it is on the medium, also beyond the progress: so its block and its checksum are
//! made durable before it, and it is written from a copy that no page joins meanwhile.
//!
//! Each dump is a task. Once the record says DRAINING, the sweep is stepped at every turn of it, also while progress is being
//! recorded, because the restart waits for frames and not for records.

use super::describe::{self, Fixed, Recovered, put};
use super::spaces::{Place, SpaceId};
use super::{Node, report, task};
use crate::addr::{Gfn, PAGE_SIZE, PageIndex};
use crate::arch::percpu;
use crate::arch::time;
use crate::block::DiskError;
use crate::console::event::Event;
use crate::dump::describe::{Checksums, CorePages, Headers, Stream};
use crate::dump::elf::Content;
use crate::dump::{notes, vmcoreinfo};
use crate::mm::object::MemoryObject;
use crate::paging::space::content::mark_block;
use crate::paging::space::layout::{Extent, RECORD_SIZE};
use crate::paging::space::record::Contents;
use crate::paging::space::{Crash, CrashReason, Drain as DrainRecord, Layout, SpaceState};
use crate::paging::{Drain, PageFinal, Progress};
use crate::partition::crash::{CrashRecord, Reason};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use core::future::Future;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Leaves that a turn of the sweep looks at.
const VISITS: u32 = 4096;
/// Pages that the bitmap takes in between two turns of the sweep.
const MARK_BUDGET: u32 = 4096;
/// Time between two records of progress. Each takes flushes, which on many disks cost as much as tens of MiB of writes, so this
/// bounds both: what a power cut loses, and what recording costs.
const PROGRESS_NS: u64 = 1_000_000_000;
/// Pages whose checksums fill a sector: progress is recorded in whole ones.
const PAGES_PER_SECTOR: u32 = 128;

/// How a drain stands, for the restart gate and the statistics.
#[derive(Debug, Default)]
pub struct JobStatus {
    freed: AtomicU64,
    remaining: AtomicU64,
    ended: AtomicBool,
}

impl JobStatus {
    /// Returns frames freed from the image, pages still to drain, and whether the drain has ended.
    pub fn read(&self) -> (u64, u64, bool) {
        (self.freed.load(Ordering::Acquire), self.remaining.load(Ordering::Acquire), self.ended.load(Ordering::Acquire))
    }
}

/// Begins the dump of a crashed incarnation, in O(1): its memory becomes an image, everything else happens in a task.
pub fn begin(
    node: &'static Node,
    partition: &str,
    crash: CrashRecord,
    object: Arc<MemoryObject>,
    space: SpaceId,
    note_page: Option<PageIndex>,
) -> Arc<JobStatus> {
    let counts = object.counts();
    object.become_image();
    let drain = Drain::new(&node.pager, object);
    let status = Arc::new(JobStatus::default());
    status.remaining.store(u64::from(counts.resident + counts.going_out + counts.coming_in), Ordering::Release);
    let job = Job {
        node,
        partition: ArrayString::from(partition).unwrap_or_default(),
        crash,
        space,
        drain,
        status: status.clone(),
        paged_before: u64::from(counts.paged),
        note_page,
        metadata_bytes: AtomicU64::new(0),
    };
    node.tasks.start(job.run());
    status
}

struct Job {
    node: &'static Node,
    partition: ArrayString<64>,
    crash: CrashRecord,
    space: SpaceId,
    drain: Drain,
    status: Arc<JobStatus>,
    paged_before: u64,
    note_page: Option<PageIndex>,
    /// Everything written beside blocks, records included.
    metadata_bytes: AtomicU64,
}

/// What the record says of what was written around the blocks.
#[derive(Clone, Copy, Default)]
struct Described {
    program_headers: u32,
    notes_len: u32,
}

impl Job {
    async fn run(self) {
        let result = match self.take_space().await {
            Ok(contents) => {
                let result = self.dump(&contents).await;
                // Whatever was written is a dump, or a part of one, from which a start can go on.
                self.node.spaces.keep(self.space);
                result
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            let message = alloc::format!("{error:?}");
            let (partition, incarnation) = (&*self.partition, self.crash.incarnation);
            let Place { disk, number, .. } = self.node.spaces.place(self.space);
            report(&Event::DumpFailed { partition, incarnation, disk: disk as u8, space: number, message: &message });
        }
        // Told first: a partition that starts because the drain has ended starts behind its outcome.
        self.status.ended.store(true, Ordering::Release);
        let _ = self.node.graves.bury(self.drain.image().clone());
    }

    /// Makes the space the dump's. An incarnation that did not wait for its space may have crashed before that was ready.
    async fn take_space(&self) -> Result<Contents, DiskError> {
        let (node, space) = (self.node, self.space);
        task::until(|| node.spaces.is_ready(space)).await?;
        let store = node.spaces.store(space).ok_or(DiskError::Dead)?;
        node.pager.give_store(self.drain.image().id(), store).map_err(|_| DiskError::Unsupported)?;
        node.spaces.begin_drain(space);
        node.spaces.contents(space).ok_or(DiskError::Dead)
    }

    async fn dump(&self, contents: &Contents) -> Result<(), DiskError> {
        let layout = &contents.layout;
        let mut bitmap = vec![0; layout.bitmap_bytes()];
        // Before the sweep: until the record says DRAINING, a power cut costs the dump, and on a slow disk the record would
        // wait behind the blocks.
        let first = self.begin(layout, &mut bitmap).await?;
        let started_ns = time::now_ns();
        let (mut recorded, mut recorded_ns, mut before) = (0, started_ns, None);
        let last = loop {
            let (progress, busy) = self.step();
            if progress.done || progress.failed.is_some() {
                break progress;
            }
            let whole = progress.cursor.0 / PAGES_PER_SECTOR * PAGES_PER_SECTOR;
            if whole > recorded && time::now_ns() >= recorded_ns + PROGRESS_NS {
                self.sweeping(self.write_progress(layout, &mut bitmap, recorded..whole, first)).await?;
                (recorded, recorded_ns) = (whole, time::now_ns());
            }
            // A sweep that got on, or has a batch that waits for no disk, gets on again at once; else the disk has to answer first.
            if busy || before.replace(progress) != Some(progress) {
                task::yield_now().await;
            } else {
                task::next_turn().await;
            }
        };
        let drain_ns = time::now_ns().saturating_sub(started_ns);
        if let Some(error) = last.failed {
            self.seal_partial(contents, &mut bitmap, last.cursor.0, first).await?;
            return Err(error);
        }
        let described = self.seal(layout, &mut bitmap).await?;
        self.announce(&last, described, drain_ns);
        Ok(())
    }

    /// Does a turn of the sweep and publishes how it stands; also returns whether it has more to do before any disk answers.
    fn step(&self) -> (Progress, bool) {
        let (progress, work) = self.drain.step(&self.node.pager, percpu::current(), VISITS);
        self.node.act_on(work);
        self.status.freed.store(progress.freed, Ordering::Release);
        self.status.remaining.store(u64::from(progress.remaining), Ordering::Release);
        (progress, work.busy)
    }

    /// Goes on sweeping at every turn of `future`.
    async fn sweeping<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = core::pin::pin!(future);
        core::future::poll_fn(|context| {
            if self.step().1 {
                context.waker().wake_by_ref();
            }
            future.as_mut().poll(context)
        })
        .await
    }

    /// Describes what is final before anything is written, by a valid header, and says DRAINING.
    async fn begin(&self, layout: &Layout, bitmap: &mut [u8]) -> Result<Described, DiskError> {
        let described = self.describe(layout, &self.notes()).await?;
        self.mark(0..layout.pages(), bitmap).await;
        self.put(layout.checksums(), Checksums::of(0, layout.pages()), layout).await?;
        self.put(layout.bitmap(), Fixed::new(bitmap), layout).await?;
        self.claim(SpaceState::Draining, 0, described).await?;
        Ok(described)
    }

    /// Brings bitmap and record up to the end of `pages`, below which all is final; each after what it claims is durable.
    async fn write_progress(
        &self,
        layout: &Layout,
        bitmap: &mut [u8],
        pages: Range<u32>,
        described: Described,
    ) -> Result<(), DiskError> {
        self.write_bits(layout, bitmap, pages.clone()).await?;
        self.claim(SpaceState::Draining, pages.end, described).await?;
        let (freed, remaining, _) = self.status.read();
        let (partition, incarnation) = (&*self.partition, self.crash.incarnation);
        report(&Event::Drain { partition, incarnation, done: u64::from(pages.end), remaining, freed });
        Ok(())
    }

    /// Adds what is final among `pages`, whose first is the first of a sector of checksums, to the bitmap.
    async fn write_bits(&self, layout: &Layout, bitmap: &mut [u8], pages: Range<u32>) -> Result<(), DiskError> {
        self.mark(pages.clone(), bitmap).await;
        let checksums = layout.checksums();
        let skipped = u64::from(pages.start) * 4;
        let window = Extent { start: checksums.start + skipped, len: checksums.len - skipped };
        self.put(window, Checksums::of(pages.start, pages.end), layout).await?;
        self.flush().await?;
        self.put(layout.bitmap(), Fixed::new(bitmap), layout).await?;
        Ok(())
    }

    /// Sets the bits of the final ones among `pages` that have blocks.
    async fn mark(&self, pages: Range<u32>, bitmap: &mut [u8]) {
        for first in pages.clone().step_by(MARK_BUDGET as usize) {
            for index in (first..pages.end.min(first + MARK_BUDGET)).map(PageIndex) {
                if let Some(PageFinal::Block(_)) = self.drain.final_kind(&self.node.pager, index) {
                    mark_block(bitmap, index);
                }
            }
            task::yield_now().await;
        }
    }

    /// Seals a drain that has reached its end.
    async fn seal(&self, layout: &Layout, bitmap: &mut [u8]) -> Result<Described, DiskError> {
        self.write_bits(layout, bitmap, 0..layout.pages()).await?;
        let described = self.describe(layout, &self.notes_with_kernels_own(layout).await?).await?;
        self.claim(SpaceState::Complete, layout.pages(), described).await?;
        Ok(described)
    }

    /// Seals a drain that cannot go on: what is final is described, the rest is missing.
    async fn seal_partial(
        &self,
        contents: &Contents,
        bitmap: &mut [u8],
        progress: u32,
        first: Described,
    ) -> Result<(), DiskError> {
        let layout = &contents.layout;
        self.write_bits(layout, bitmap, 0..layout.pages()).await?;
        let pages = Recovered { contents, bitmap, progress };
        let (program_headers, _) = describe::headers(self.node.spaces, self.space, &pages, first.notes_len).await?;
        self.claim(SpaceState::Partial, progress, Described { program_headers, ..first }).await
    }

    /// Writes notes, ELF header and program headers for what is final.
    async fn describe(&self, layout: &Layout, notes: &[u8]) -> Result<Described, DiskError> {
        let program_headers = describe::count(&self.pages(layout)).await;
        self.put(layout.notes(), Fixed::new(notes), layout).await?;
        self.put(layout.header(), Headers::new(layout, program_headers, notes.len() as u64), layout).await?;
        Ok(Described { program_headers, notes_len: notes.len() as u32 })
    }

    async fn claim(&self, state: SpaceState, progress: u32, described: Described) -> Result<(), DiskError> {
        let crash = self.crash_of_record();
        let Described { program_headers, notes_len } = described;
        self.metadata_bytes.fetch_add(RECORD_SIZE, Ordering::Relaxed);
        self.node
            .spaces
            .change(self.space, |record| {
                record.state = state;
                record.drain = DrainRecord { progress, program_headers, notes_len };
                record.crash = Some(crash);
            })
            .await
    }

    async fn flush(&self) -> Result<(), DiskError> {
        self.node.spaces.io().flush(self.node.spaces.disk(self.space)).await
    }

    fn crash_of_record(&self) -> Crash {
        let reason = match self.crash.reason {
            Reason::TripleFault => CrashReason::TRIPLE_FAULT,
            Reason::Panic => CrashReason::PVPANIC,
            Reason::PanicRecord => CrashReason::ERST,
            Reason::Operator => CrashReason::OPERATOR,
            Reason::PageLost(_) => CrashReason::LOST_PAGE,
            Reason::EntryFailed(_) => CrashReason::ENTRY_FAILED,
            _ => CrashReason(0),
        };
        let time_ns = self.node.unix_ns_at(self.crash.at_ns);
        let text = ArrayString::from(self.crash.reason.as_str()).unwrap_or_default();
        Crash { reason, detail: self.crash.reason.detail() as u32, time_ns, text }
    }

    /// Makes the vCPU's notes.
    fn notes(&self) -> Vec<u8> {
        let mut notes = vec![0; notes::VCPU_NOTES_SIZE];
        notes::write_vcpu(&mut notes, 0, &self.crash.regs, &self.crash.state);
        notes
    }

    /// Makes all notes; the kernel's own is read back from its page's block.
    async fn notes_with_kernels_own(&self, layout: &Layout) -> Result<Vec<u8>, DiskError> {
        let mut notes = self.notes();
        for index in self.note_page.into_iter().chain(self.node.pager.landmarks(self.drain.image().id())) {
            let mut page = vec![0; PAGE_SIZE as usize];
            let Some(sectors) = layout.block_sectors(index, 1) else { continue };
            self.node.spaces.read(self.space, sectors.first * 512, &mut page).await?;
            if let Some(len) = vmcoreinfo::text_len(&page) {
                let at = notes.len();
                notes.resize(at + notes::vmcoreinfo_note_size(len), 0);
                notes::write_vmcoreinfo(&mut notes[at..], &page[vmcoreinfo::TEXT_OFFSET..][..len]);
                break;
            }
        }
        Ok(notes)
    }

    /// Writes a stream about the image's pages to a part of the space.
    async fn put(&self, extent: Extent, stream: impl Stream, layout: &Layout) -> Result<(), DiskError> {
        let bytes = put(self.node.spaces, self.space, extent, stream, &self.pages(layout)).await?;
        self.metadata_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn pages<'a>(&'a self, layout: &'a Layout) -> Pages<'a> {
        Pages { node: self.node, drain: &self.drain, layout }
    }

    fn announce(&self, last: &Progress, described: Described, drain_ns: u64) {
        let Place { disk, number, .. } = self.node.spaces.place(self.space);
        report(&Event::DumpComplete {
            partition: &self.partition,
            incarnation: self.crash.incarnation,
            disk: disk as u8,
            space: number,
            pages_written: last.written,
            pages_clean: last.clean,
            pages_zero: last.zero,
            pages_paged_before: self.paged_before,
            bytes_written: last.written * PAGE_SIZE,
            metadata_bytes: self.metadata_bytes.load(Ordering::Relaxed),
            program_headers: described.program_headers,
            vmcoreinfo: described.notes_len as usize > notes::VCPU_NOTES_SIZE,
            drain_ns,
            since_crash_ns: time::now_ns().saturating_sub(self.crash.at_ns),
        });
    }
}

/// The image's pages as far as they are final.
struct Pages<'a> {
    node: &'static Node,
    drain: &'a Drain,
    layout: &'a Layout,
}

impl CorePages for Pages<'_> {
    fn pages(&self) -> u32 {
        self.layout.pages()
    }

    fn gfn(&self, index: PageIndex) -> Gfn {
        self.drain.image().layout().gfn_of(index).unwrap_or_default()
    }

    fn content(&self, index: PageIndex) -> (Content, u32) {
        match self.drain.final_kind(&self.node.pager, index) {
            Some(PageFinal::Block(crc)) => (Content::Block, crc.0),
            Some(PageFinal::Zero) => (Content::Zero, 0),
            None => (Content::Missing, 0),
        }
    }
}
