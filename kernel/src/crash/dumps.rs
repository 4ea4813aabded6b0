//! Writes dumps: from a crashed incarnation's memory to a sealed space.
//!
//! ```text
//!   begin (O(1)) ─> CRASHED ─> describe final pages, DRAINING ───> sweep ──────────> describe all ─> COMPLETE ─> memory gone
//!                                                              │  ^      │
//!                                                              │  └──────┘ every second: checksums, flush, bitmap, flush, progress
//!                                                              └ a write fails for good ─> describe final pages ─> PARTIAL
//! ```
//!
//! A bit of the bitmap counts from the moment it is on the medium, even above the recorded
//! progress. So a page's block and checksum are made durable before its bit. The bitmap is written
//! from a copy, to which no page is added meanwhile. The copy is a window of bounded size: a large
//! bitmap is written in pieces, each after its checksums.
//!
//! If an earlier owner of the space did not stop cleanly, the task stays for some time after the
//! seal and overwrites that owner's late writes.
//!
//! A refused write is tried again. Pages whose writes fail for good are missing from the dump,
//! which is then sealed as partial.
//!
//! A child of a base writes its own pages like any other. Then its partition may run again, and the
//! pages that the child has inherited are copied from the base's blocks (`inherit`).
//!
//! Each dump is a task. Once the record says DRAINING, every turn of the task steps the sweep, also
//! while progress is being recorded: the restart waits for frames, not for records.

mod inherit;
mod late;
mod missing;
pub(super) mod pages;
mod writer;

use super::note_search::NoteSearch;
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::arch::heap::{self, HeapError};
use crate::arch::{percpu, time};
use crate::block::DiskError;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::crash::record::CrashRecord;
use crate::dump::{history_note, notes};
use crate::host::Host;
use crate::host::regions::read_all;
use crate::log::history::{self, HistoryKind};
use crate::mm::object::MemoryObject;
use crate::paging::{DrainProgress, ImageDrain};
use crate::partition_id::PartitionId;
use crate::space::record::SpaceContents;
use crate::space::{PartialCause, RecordedCrash, SpaceLayout, Uuid};
use crate::storage::spaces::{SpaceId, SpaceLocation};
use crate::task;
use crate::time::Ns;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use core::future::Future;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use writer::DumpWriter;

/// How often a drain is resumed after its disk has refused writes repeatedly.
const PAUSES: u32 = 3;
/// Pause before a drain is resumed.
const PAUSE_NS: Ns = Ns::from_secs(1);
/// Leaves that the sweep visits in one turn.
const VISITS: u32 = 4096;
/// Looks at pages that marking the bitmap makes between two turns of the sweep.
const MARK_BUDGET: u32 = 4096;
/// Time between two records of progress. Each record takes flushes, which on many disks cost as
/// much as tens of MiB of writes. So this interval limits both the loss at a power cut and the cost
/// of recording.
const PROGRESS_NS: Ns = Ns::from_secs(1);
/// Pages whose checksums fill a sector: progress is recorded in multiples of it.
const PAGES_PER_SECTOR: u32 = 128;

/// The state of a drain at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrainStatus {
    /// Frames freed from the image.
    pub freed: u64,
    /// Pages left to drain.
    pub remaining: u64,
    /// Whether every frame of the image is free, so that a restart need not wait longer.
    pub is_swept: bool,
    /// Whether the drain has ended.
    pub has_ended: bool,
}

/// State of a drain, for the restart gate and the statistics.
#[derive(Debug, Default)]
pub struct DumpProgress {
    freed: AtomicU64,
    remaining: AtomicU64,
    swept: AtomicBool,
    ended: AtomicBool,
}

impl DumpProgress {
    /// Returns its state.
    pub fn read(&self) -> DrainStatus {
        DrainStatus {
            freed: self.freed.load(Ordering::Acquire),
            remaining: self.remaining.load(Ordering::Acquire),
            is_swept: self.swept.load(Ordering::Acquire),
            has_ended: self.ended.load(Ordering::Acquire),
        }
    }
}

/// The partition's part of the order to dump.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpOrder {
    /// The partition.
    pub id: PartitionId,
    /// The page that holds the VMCOREINFO note, according to the guest.
    pub note_page: Option<PageIndex>,
    /// How many dumps the partition may have. When this dump is promised, the oldest beyond this
    /// number are dropped; `None`: no dump is dropped.
    pub drop_beyond: Option<u32>,
}

/// Begins the dump of a crashed incarnation, in O(1): its memory becomes an image; a task does all
/// the rest.
pub fn begin(
    host: &'static Host,
    partition: &str,
    crash: CrashRecord,
    object: Arc<MemoryObject>,
    space: SpaceId,
    order: DumpOrder,
) -> Arc<DumpProgress> {
    let counts = object.counts();
    object.become_image();
    let drain = ImageDrain::new(&host.pager, object);
    let resident = u64::from(counts.resident + counts.going_out + counts.coming_in);
    history::record_partition(order.id, HistoryKind::DrainBegun, 0, [crash.incarnation, resident]);
    let status = Arc::new(DumpProgress::default());
    status.remaining.store(resident, Ordering::Release);
    let job = DumpJob {
        host,
        partition: ArrayString::from(partition).unwrap_or_default(),
        crash,
        space,
        drain,
        status: status.clone(),
        paged_before: u64::from(counts.paged),
        order,
        name: host.spaces.name_dump(space, host.unix_ns_at(crash.at_ns)),
        // Without heap memory the dump goes without it.
        history: note_of_history(order.id, crash.at_ns).unwrap_or_default(),
        metadata_bytes: AtomicU64::new(0),
    };
    host.tasks.start(job.run());
    status
}

struct DumpJob {
    host: &'static Host,
    partition: ArrayString<64>,
    crash: CrashRecord,
    space: SpaceId,
    drain: ImageDrain,
    status: Arc<DumpProgress>,
    paged_before: u64,
    order: DumpOrder,
    /// Name of the dump.
    name: Uuid,
    /// The note with the partition's history up to the crash.
    history: Vec<u8>,
    /// Bytes written outside the blocks, records included.
    metadata_bytes: AtomicU64,
}

/// The record's description of the parts around the blocks.
#[derive(Clone, Copy, Default)]
struct Described {
    program_headers: u32,
    notes_len: u32,
}

/// Makes the note with the last entries of a partition that crashed at `crash_ns`.
pub(super) fn note_of_history(id: PartitionId, crash_ns: Ns) -> Result<Vec<u8>, HeapError> {
    let entries = history::of_partition(id);
    let mut note = heap::zeroed(history_note::note_size(entries.iter().len()))?;
    history_note::write(&mut note, crash_ns.as_u64(), &entries);
    Ok(note)
}

/// Milestones of a dump, in nanoseconds since the start; the last is a duration.
#[derive(Clone, Copy)]
struct DumpTimes {
    /// When the record said CRASHED.
    crashed_ns: Ns,
    /// When the record said DRAINING.
    started_ns: Ns,
    /// How long the sweep took.
    drain_ns: Ns,
}

/// Why a dump is not complete.
enum IncompleteDumpError {
    /// It is sealed as partial: the error, the number of missing pages, and the first missing page.
    Sealed(DiskError, u32, u32),
    /// It could not be sealed.
    Unsealed(DiskError),
}

impl From<DiskError> for IncompleteDumpError {
    fn from(error: DiskError) -> Self {
        Self::Unsealed(error)
    }
}

impl core::fmt::Display for IncompleteDumpError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Sealed(error, count, first) => {
                write!(
                    f,
                    "{error}: the dump is partial, {count} pages are missing, the first is page \
                     {first}"
                )
            }
            Self::Unsealed(error) => {
                write!(f, "{error}: the dump is not sealed; it is tried again later")
            }
        }
    }
}

impl DumpJob {
    async fn run(self) {
        let mut writer = None;
        let result = match self.take_space().await {
            Ok(contents) => {
                let result = self.dump(contents, &mut writer).await;
                match &result {
                    // A part of the dump is on the disk. It is sealed when the disk is tried again.
                    Err(IncompleteDumpError::Unsealed(error)) => {
                        let numbers = [self.crash.incarnation, 0];
                        self.record(HistoryKind::DumpUnsealed, *error as u32, numbers);
                        self.host.spaces.set_aside(self.space, *error)
                    }
                    Ok(()) | Err(IncompleteDumpError::Sealed(..)) => {
                        self.host.spaces.keep(self.space)
                    }
                }
                result
            }
            Err(error) => Err(IncompleteDumpError::Unsealed(error)),
        };
        if let Err(trouble) = result {
            self.announce_trouble(&trouble);
        }
        // Announced before `ended` is set: a partition that starts because the drain has ended
        // starts after the announcement.
        self.status.ended.store(true, Ordering::Release);
        if let Some(writer) = &mut writer {
            self.look_for_late_writes(writer).await;
        }
        let _ = self.host.reaper.reap(self.drain.image().clone());
    }

    /// Gives the space to the dump. If the incarnation ran without waiting for its space, the crash
    /// may have come before the space was ready.
    async fn take_space(&self) -> Result<SpaceContents, DiskError> {
        let (host, space) = (self.host, self.space);
        task::until(|| host.spaces.is_ready(space)).await?;
        let store = host.spaces.store(space).ok_or(DiskError::Dead)?;
        host.pager
            .give_store(self.drain.image().id(), store)
            .map_err(|_| DiskError::Unsupported)?;
        host.spaces.begin_drain(space);
        host.spaces.contents(space).ok_or(DiskError::Dead)
    }

    async fn dump<'j>(
        &'j self,
        contents: SpaceContents,
        kept: &mut Option<DumpWriter<'j>>,
    ) -> Result<(), IncompleteDumpError> {
        let writer = kept.insert(DumpWriter::new(self, contents)?);
        // The records come first. Until the record says CRASHED, a power cut loses every trace of
        // the crash; until it says DRAINING, a power cut loses the dump. On a slow disk the records
        // would wait behind the blocks, so they precede the sweep.
        let describing = self.host.spaces.disk(self.space).describe_crash();
        writer.crashed().await?;
        let crashed_ns = time::now_ns();
        // The tables that a resume reads are about to be written.
        read_all(self.drain.image()).await;
        writer.begin().await?;
        drop(describing);
        let started_ns = time::now_ns();
        self.record(HistoryKind::DumpPromised, 0, [self.crash.incarnation, 0]);
        if let Some(most) = self.order.drop_beyond {
            // Runs beside the sweep, which waits for no other space.
            self.host.tasks.start(self.host.spaces.drop_oldest(self.partition, self.name, most));
        }
        let last = self.sweep(writer).await?;
        self.record(HistoryKind::DrainEnded, 0, [last.written, last.remaining.into()]);
        let drain_ns = time::now_ns().saturating_sub(started_ns);
        // What a child has inherited holds no frame of its own: its restart waits for no copy.
        let is_child = self.drain.image().base().is_some();
        self.status.swept.store(is_child, Ordering::Release);
        let cause = match last.failed {
            Some(_) => PartialCause::WRITE_FAILED,
            None => self.inherit(writer).await?,
        };
        let (described, missing) = writer.seal(cause).await?;
        let times = DumpTimes { crashed_ns, started_ns, drain_ns };
        let is_partial = last.failed.is_some() || !missing.is_empty();
        self.record(
            HistoryKind::DumpSealed,
            is_partial.into(),
            [self.crash.incarnation, missing.count().into()],
        );
        let first = missing.ranges().first().map_or(0, |range| range.first);
        if is_partial {
            return Err(IncompleteDumpError::Sealed(
                last.failed.unwrap_or(DiskError::Io),
                missing.count(),
                first,
            ));
        }
        self.announce(&last, described, times);
        Ok(())
    }

    /// Drains the image and records progress, until everything is final or the disk refuses writes
    /// for good.
    async fn sweep(&self, writer: &mut DumpWriter<'_>) -> Result<DrainProgress, DiskError> {
        let (mut recorded_ns, mut before, mut pauses) = (time::now_ns(), None, 0);
        loop {
            let (progress, busy) = self.step();
            if progress.done {
                return Ok(progress);
            }
            if progress.failed.is_some() {
                if progress.failed == Some(DiskError::Dead) || pauses == PAUSES {
                    return Ok(progress);
                }
                // The fault may be transient: the disk gets another chance after a pause.
                pauses += 1;
                crate::storage::spaces::sleep(PAUSE_NS).await;
                self.drain.retry(&self.host.pager);
            }
            let whole = progress.cursor.0 / PAGES_PER_SECTOR * PAGES_PER_SECTOR;
            // Below the cursor of a child are inherited pages, which are not final.
            if self.drain.image().base().is_none()
                && whole > writer.recorded()
                && time::now_ns() >= recorded_ns + PROGRESS_NS
            {
                self.sweeping(writer.progress(whole)).await?;
                self.announce_progress(whole);
                recorded_ns = time::now_ns();
            }
            // If the sweep made progress, or has a batch that waits for no disk, it continues at
            // once. Otherwise the disk has to answer first.
            if busy || before.replace(progress) != Some(progress) {
                task::yield_now().await;
            } else {
                task::next_turn().await;
            }
        }
    }

    /// Runs one turn of the sweep and publishes its state. Also returns whether more can be done
    /// before a disk answers.
    fn step(&self) -> (DrainProgress, bool) {
        let (progress, work) = self.drain.step(&self.host.pager, percpu::current(), VISITS);
        self.host.act_on(work);
        self.status.freed.store(progress.freed, Ordering::Release);
        self.status.remaining.store(u64::from(progress.remaining), Ordering::Release);
        (progress, work.poll_again)
    }

    /// Steps the sweep at every turn of `future`.
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

    fn crash_of_record(&self) -> RecordedCrash {
        let reason = self.crash.reason;
        let mut registers = [0; notes::VCPU_NOTES_SIZE];
        notes::write_vcpu(&mut registers, 0, &self.crash.regs, &self.crash.state);
        RecordedCrash {
            name: self.name,
            reason: reason.recorded(),
            detail: reason.detail(),
            time_ns: self.host.unix_ns_at(self.crash.at_ns),
            text: self.crash.text,
            registers: registers.into_iter().collect(),
        }
    }

    /// Makes the notes of the vCPU and of the history.
    fn notes(&self) -> Result<Vec<u8>, DiskError> {
        let mut notes = heap::zeroed(self.own_notes_len())?;
        notes::write_vcpu(&mut notes, 0, &self.crash.regs, &self.crash.state);
        notes[notes::VCPU_NOTES_SIZE..].copy_from_slice(&self.history);
        Ok(notes)
    }

    /// Returns the length of the notes without the kernel's own.
    fn own_notes_len(&self) -> usize {
        notes::VCPU_NOTES_SIZE + self.history.len()
    }

    fn record(&self, kind: HistoryKind, code: u32, numbers: [u64; 2]) {
        history::record_partition(self.order.id, kind, code, numbers);
    }

    /// Makes all notes. The kernel's own note is searched for in the blocks.
    async fn notes_with_kernels_own(&self, layout: &SpaceLayout) -> Result<Vec<u8>, DiskError> {
        let (host, space, drain, crash) = (self.host, self.space, &self.drain, &self.crash);
        let candidates =
            self.order.note_page.into_iter().chain(host.pager.landmarks(drain.image().id()));
        let mut notes = self.notes()?;
        if let Some(text) =
            (NoteSearch { host, space, layout, drain, crash }).text(candidates).await?
        {
            let at = notes.len();
            notes.resize(at + notes::vmcoreinfo_note_size(text.len()), 0);
            notes::write_vmcoreinfo(&mut notes[at..], &text);
        }
        Ok(notes)
    }

    fn announce_progress(&self, done: u32) {
        let DrainStatus { freed, remaining, .. } = self.status.read();
        let (partition, incarnation) = (&*self.partition, self.crash.incarnation);
        report(&ConsoleEvent::Drain {
            partition,
            incarnation,
            done: u64::from(done),
            remaining,
            freed,
        });
    }

    fn announce_trouble(&self, trouble: &IncompleteDumpError) {
        let message = alloc::format!("{trouble}");
        let (partition, incarnation) = (&*self.partition, self.crash.incarnation);
        let SpaceLocation { disk, number, .. } = self.host.spaces.place(self.space);
        let (dump, disk, space) = (self.name, disk as u8, number);
        report(&ConsoleEvent::DumpFailed {
            partition,
            incarnation,
            dump,
            disk,
            space,
            message: &message,
        });
    }

    fn announce(&self, last: &DrainProgress, described: Described, times: DumpTimes) {
        let SpaceLocation { disk, number, .. } = self.host.spaces.place(self.space);
        report(&ConsoleEvent::DumpComplete {
            partition: &self.partition,
            incarnation: self.crash.incarnation,
            dump: self.name,
            disk: disk as u8,
            space: number,
            pages_written: last.written,
            pages_clean: last.clean,
            pages_zero: last.zero,
            pages_paged_before: self.paged_before,
            bytes_written: last.written * PAGE_SIZE,
            metadata_bytes: self.metadata_bytes.load(Ordering::Relaxed),
            program_headers: described.program_headers,
            vmcoreinfo: described.notes_len as usize > self.own_notes_len(),
            drain_ns: times.drain_ns.as_u64(),
            crashed_ns: times.crashed_ns.saturating_sub(self.crash.at_ns).as_u64(),
            described_ns: times.started_ns.saturating_sub(times.crashed_ns).as_u64(),
            since_crash_ns: time::now_ns().saturating_sub(self.crash.at_ns).as_u64(),
        });
    }
}
