//! Dumps on their way: from a crashed incarnation's memory to a sealed space.
//!
//! ```text
//!   begin (O(1)) ─> describe what is final, record DRAINING ─> sweep ──────────> describe all ─> COMPLETE ─> memory gone
//!                                                          │  ^      │
//!                                                          │  └──────┘ every second: bitmap, flush, progress
//!                                                          └ a write fails for good ─> PARTIAL
//! ```
//!
//! Each dump is a task. The sweep is stepped at every turn of it, also while the description is being written, because the
//! restart waits for frames and not for headers.

use super::spaces::{BUFFER, SpaceId};
use super::{Node, report, task};
use crate::addr::{Gfn, PAGE_SIZE, PageIndex};
use crate::arch::percpu;
use crate::arch::time;
use crate::block::DiskError;
use crate::console::event::Event;
use crate::dump::describe::{Bitmap, Checksums, CorePages, Count, Headers, Stream};
use crate::dump::elf::Content;
use crate::dump::{notes, vmcoreinfo};
use crate::mm::object::MemoryObject;
use crate::paging::space::layout::Extent;
use crate::paging::space::{Crash, CrashReason, Drain as DrainRecord, Layout, SpaceState};
use crate::paging::{Drain, PageFinal, Progress};
use crate::partition::crash::{CrashRecord, Reason};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use core::future::Future;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Leaves that a turn of the sweep looks at.
const VISITS: u32 = 4096;
/// Pages that the count of program headers looks at between two turns of the sweep.
const COUNT_BUDGET: u32 = 4096;
/// Time between two records of progress. Each takes two flushes, which on many disks cost as much as tens of MiB of writes, so this
/// bounds both: what a power cut loses, and what recording costs.
const PROGRESS_NS: u64 = 1_000_000_000;

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
        started_ns: 0,
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
    started_ns: u64,
}

/// What was written around the blocks.
#[derive(Clone, Copy, Default)]
struct Described {
    program_headers: u32,
    notes_len: u32,
    bytes: u64,
}

impl Job {
    async fn run(mut self) {
        self.started_ns = time::now_ns();
        let result = match self.take_space().await {
            Ok(layout) => {
                let result = self.dump(&layout).await;
                // Whatever was written is a dump, or a part of one, from which a start can go on.
                self.node.spaces.keep(self.space);
                result
            }
            Err(error) => Err(error),
        };
        self.status.ended.store(true, Ordering::Release);
        if let Err(error) = result {
            let message = alloc::format!("{error:?}");
            let (partition, incarnation) = (&*self.partition, self.crash.incarnation);
            report(&Event::DumpFailed { partition, incarnation, disk: self.space.0 as u8, message: &message });
        }
        let _ = self.node.graves.bury(self.drain.image().clone());
    }

    /// Makes the space the dump's. An incarnation that did not wait for its space may have crashed before that was ready.
    async fn take_space(&self) -> Result<Layout, DiskError> {
        let (node, space) = (self.node, self.space);
        super::task::until(|| node.spaces.is_ready(space)).await?;
        let store = node.spaces.store(space).ok_or(DiskError::Dead)?;
        node.pager.give_store(self.drain.image().id(), store).map_err(|_| DiskError::Unsupported)?;
        node.spaces.begin_drain(space);
        node.spaces.layout(space).ok_or(DiskError::Dead)
    }

    async fn dump(&self, layout: &Layout) -> Result<(), DiskError> {
        let first = self.sweeping(self.describe(layout, 0)).await?;
        self.sweeping(self.claim(SpaceState::Draining, 0, first)).await?;
        let (mut recorded_ns, mut before) = (time::now_ns(), None);
        let last = loop {
            let (progress, busy) = self.step();
            if progress.done || progress.failed.is_some() {
                break progress;
            }
            if time::now_ns() >= recorded_ns + PROGRESS_NS {
                self.sweeping(self.write_progress(layout, progress.cursor.0, first)).await?;
                recorded_ns = time::now_ns();
            }
            // A sweep that got on, or has a batch that waits for no disk, gets on again at once; else the disk has to answer first.
            if busy || before.replace(progress) != Some(progress) {
                task::yield_now().await;
            } else {
                task::next_turn().await;
            }
        };
        let drained_ns = time::now_ns();
        if let Some(error) = last.failed {
            self.write_progress(layout, last.cursor.0, first).await?;
            self.claim(SpaceState::Partial, last.cursor.0, first).await?;
            return Err(error);
        }
        let described = self.describe(layout, layout.pages()).await?;
        self.node.spaces.io().flush(self.node.spaces.disk(self.space)).await?;
        self.claim(SpaceState::Complete, layout.pages(), described).await?;
        self.announce(&last, first, described, drained_ns);
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

    /// Writes notes, headers, bitmap and checksums for what is final: all pages below `final_below`, and those that are by chance.
    async fn describe(&self, layout: &Layout, final_below: u32) -> Result<Described, DiskError> {
        let pages = Pages { node: self.node, drain: &self.drain, layout };
        let mut count = Count::default();
        let program_headers = loop {
            match count.step(&pages, COUNT_BUDGET) {
                Some(number) => break number,
                None => task::yield_now().await,
            }
        };
        let notes = self.notes(layout, final_below == layout.pages()).await?;
        let notes_len = notes.len() as u32;
        let mut bytes = self.put(layout.notes(), Fixed { bytes: &notes, at: 0 }, &pages).await?;
        bytes += self.put(layout.header(), Headers::new(layout, program_headers, u64::from(notes_len)), &pages).await?;
        bytes += self.put(layout.bitmap(), Bitmap::default(), &pages).await?;
        bytes += self.put(layout.checksums(), Checksums::default(), &pages).await?;
        Ok(Described { program_headers, notes_len, bytes })
    }

    /// Brings bitmap and record up to a progress, each after what it claims.
    async fn write_progress(&self, layout: &Layout, progress: u32, described: Described) -> Result<(), DiskError> {
        let pages = Pages { node: self.node, drain: &self.drain, layout };
        self.put(layout.bitmap(), Bitmap::default(), &pages).await?;
        self.node.spaces.io().flush(self.node.spaces.disk(self.space)).await?;
        self.claim(SpaceState::Draining, progress, described).await?;
        let (freed, remaining, _) = self.status.read();
        let (partition, incarnation) = (&*self.partition, self.crash.incarnation);
        report(&Event::Drain { partition, incarnation, done: u64::from(progress), remaining, freed });
        Ok(())
    }

    async fn claim(&self, state: SpaceState, progress: u32, described: Described) -> Result<(), DiskError> {
        let crash = self.crash_of_record();
        let Described { program_headers, notes_len, .. } = described;
        self.node
            .spaces
            .change(self.space, |record| {
                record.state = state;
                record.drain = DrainRecord { progress, program_headers, notes_len };
                record.crash = Some(crash);
            })
            .await
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

    /// Makes the notes; the kernel's own can be read once its page has its block.
    async fn notes(&self, layout: &Layout, all_final: bool) -> Result<Vec<u8>, DiskError> {
        let mut notes = vec![0; notes::VCPU_NOTES_SIZE];
        notes::write_vcpu(&mut notes, 0, &self.crash.regs, &self.crash.state);
        if !all_final {
            return Ok(notes);
        }
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

    /// Writes a stream to a part of the space, a buffer at a time; returns the bytes.
    async fn put(&self, extent: Extent, mut stream: impl Stream, pages: &Pages<'_>) -> Result<u64, DiskError> {
        let mut buffer = vec![0; BUFFER];
        let (mut at, mut held) = (0, 0);
        loop {
            let len = stream.fill(pages, &mut buffer[held..]);
            held += len;
            // Streams are cut anywhere; the disk wants whole sectors, and only the end is padded.
            let whole = if len == 0 { held.next_multiple_of(512) } else { held / 512 * 512 };
            buffer[held..whole.max(held)].fill(0);
            if whole > 0 {
                extent.sectors(at, whole as u64).ok_or(DiskError::Unsupported)?;
                self.node.spaces.write(self.space, extent.start + at, &buffer[..whole]).await?;
                at += whole as u64;
            }
            if len == 0 {
                return Ok(at);
            }
            buffer.copy_within(whole..held, 0);
            held -= whole;
        }
    }

    fn announce(&self, last: &Progress, first: Described, described: Described, drained_ns: u64) {
        report(&Event::DumpComplete {
            partition: &self.partition,
            incarnation: self.crash.incarnation,
            disk: self.space.0 as u8,
            pages_written: last.written,
            pages_clean: last.clean,
            pages_zero: last.zero,
            pages_paged_before: self.paged_before,
            bytes_written: last.written * PAGE_SIZE,
            metadata_bytes: first.bytes + described.bytes,
            program_headers: described.program_headers,
            vmcoreinfo: described.notes_len as usize > notes::VCPU_NOTES_SIZE,
            drain_ns: drained_ns.saturating_sub(self.started_ns),
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

/// Bytes that are there already, as a stream.
struct Fixed<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Stream for Fixed<'_> {
    fn fill(&mut self, _: &impl CorePages, out: &mut [u8]) -> usize {
        let rest = &self.bytes[self.at..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        len
    }
}
