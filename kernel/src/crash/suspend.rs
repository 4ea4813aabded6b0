//! Suspends a partition: its memory drains into its space as after a crash, and the space becomes a
//! whole dump with the state of the machine among its notes.
//!
//! ```text
//!   pre-copy: dirty pages are written while the guest runs
//!   begin ─> image ─> sweep ─> checksums, bitmap, notes, header ─> flush ─> SUSPENDED ─> flush ─> Suspended
//!              │        │        │                                            │
//!              │        └────────┴─ the disk refuses ─> ACTIVE once more ─> GoesOn
//!              └ frames come free all the time                            └ refused, too ─> Unknown
//! ```
//!
//! Until the record says SUSPENDED the space is that of a running partition. So whatever fails
//! before that, the partition goes on with its memory, of which a part is paged out. If the write
//! of that record fails, the record may be on the disk nevertheless: the partition goes on only
//! after ACTIVE was written over it.

pub mod precopy;
mod survey;
mod writer;

use super::dumps::note_of_history;
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::arch::{percpu, time};
use crate::block::DiskError;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::host::Host;
use crate::host::regions::read_all;
use crate::log::history::{self, HistoryKind};
use crate::mm::object::MemoryObject;
use crate::paging::{DrainProgress, ImageDrain};
use crate::partition_id::PartitionId;
use crate::space::CrashReason;
use crate::storage::spaces::{SpaceId, SpaceLocation, sleep};
use crate::task;
use crate::time::Ns;
use crate::virt::{CpuState, Regs};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use core::sync::atomic::{AtomicU8, Ordering};
use precopy::PrecopyProgress;
use writer::SuspensionWriter;

/// Leaves that the sweep visits in one turn.
const VISITS: u32 = 4096;
/// How often the sweep goes on after its disk has refused writes repeatedly.
const PAUSES: u32 = 3;
/// Pause before that.
const PAUSE_NS: Ns = Ns::from_secs(1);
/// Time between two events of progress.
const PROGRESS_NS: Ns = Ns::from_secs(1);

/// How a suspension has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SuspensionEnd {
    /// It has not.
    Pending,
    /// The record says SUSPENDED.
    Suspended,
    /// The disk refused: the partition goes on.
    GoesOn,
    /// The disk refused, and it is unknown which record it has: the partition cannot go on.
    Unknown,
}

/// A suspension in progress, for the runner.
#[derive(Debug)]
pub struct SuspensionProgress(AtomicU8);

impl SuspensionProgress {
    /// Returns its end.
    pub fn end(&self) -> SuspensionEnd {
        use SuspensionEnd::*;
        let end = self.0.load(Ordering::Acquire);
        [Suspended, GoesOn, Unknown].into_iter().find(|e| *e as u8 == end).unwrap_or(Pending)
    }
}

/// The partition's part of the order to suspend.
#[derive(Debug)]
pub struct SuspensionOrder {
    /// The partition.
    pub id: PartitionId,
    /// Its name.
    pub name: ArrayString<64>,
    /// The incarnation.
    pub incarnation: u64,
    /// When the vCPU stopped.
    pub at_ns: Ns,
    /// Suspended, or moved.
    pub reason: CrashReason,
    /// The vCPU's registers, for readers of the dump.
    pub regs: Regs,
    /// The rest of its state, likewise.
    pub state: CpuState,
    /// The notes of the machine.
    pub machine: Vec<u8>,
    /// The page that holds the VMCOREINFO note, according to the guest.
    pub note_page: Option<PageIndex>,
    /// What was written before the vCPU stopped.
    pub precopied: Option<Arc<PrecopyProgress>>,
}

/// Begins a suspension in O(1): the memory becomes an image; a task does all the rest. The runner
/// keeps the object, and takes it apart or goes on with it after the end.
pub fn begin(
    host: &'static Host,
    order: SuspensionOrder,
    object: Arc<MemoryObject>,
    space: SpaceId,
) -> Arc<SuspensionProgress> {
    let counts = object.counts();
    object.become_image();
    let drain = ImageDrain::new(&host.pager, object);
    let progress = Arc::new(SuspensionProgress(AtomicU8::new(SuspensionEnd::Pending as u8)));
    let history = note_of_history(order.id, order.at_ns).unwrap_or_default();
    let paged_before = u64::from(counts.paged);
    let job = SuspensionJob {
        host,
        order,
        space,
        drain,
        history,
        paged_before,
        progress: progress.clone(),
    };
    host.tasks.start(job.run());
    progress
}

struct SuspensionJob {
    host: &'static Host,
    order: SuspensionOrder,
    space: SpaceId,
    drain: ImageDrain,
    /// The note with the partition's history.
    history: Vec<u8>,
    paged_before: u64,
    progress: Arc<SuspensionProgress>,
}

/// Why a partition was not suspended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SuspensionError {
    /// The disk refused something before the record.
    Disk(DiskError),
    /// A page could not be read back.
    PageLost(PageIndex),
    /// The disk refused the record, which may be there nevertheless.
    Record(DiskError),
}

impl From<DiskError> for SuspensionError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl core::fmt::Display for SuspensionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Disk(error) | Self::Record(error) => write!(f, "{error}"),
            Self::PageLost(page) => write!(f, "page {} cannot be read back", page.0),
        }
    }
}

impl SuspensionJob {
    async fn run(self) {
        let end = match self.suspend().await {
            Ok((last, metadata_bytes)) => {
                self.host.spaces.keep_suspended(self.space);
                self.announce(&last, metadata_bytes);
                SuspensionEnd::Suspended
            }
            Err(error) => self.undo(error).await,
        };
        self.progress.0.store(end as u8, Ordering::Release);
    }

    async fn suspend(&self) -> Result<(DrainProgress, u64), SuspensionError> {
        read_all(self.drain.image()).await;
        if let Some(page) = self.drain.image().first_lost() {
            return Err(SuspensionError::PageLost(page));
        }
        let hot = self.survey().await;
        let last = self.sweep().await;
        if let Some(error) = last.failed {
            return Err(error.into());
        }
        let mut writer = SuspensionWriter::new(self, hot)?;
        writer.refuse_lost_pages().await?;
        let seal = writer.tables().await?;
        writer.seal(seal).await.map_err(SuspensionError::Record)?;
        Ok((last, writer.written()))
    }

    /// Drains the image until every page is final, or the disk refuses writes for good.
    async fn sweep(&self) -> DrainProgress {
        let (mut told_ns, mut before, mut pauses) = (time::now_ns(), None, 0);
        loop {
            let (progress, work) = self.drain.step(&self.host.pager, percpu::current(), VISITS);
            self.host.act_on(work);
            if progress.done {
                return progress;
            }
            if progress.failed.is_some() {
                if progress.failed == Some(DiskError::Dead) || pauses == PAUSES {
                    return progress;
                }
                pauses += 1;
                sleep(PAUSE_NS).await;
                self.drain.retry(&self.host.pager);
            }
            if time::now_ns() >= told_ns + PROGRESS_NS {
                told_ns = time::now_ns();
                self.announce_progress(progress.remaining.into());
            }
            if work.poll_again || before.replace(progress) != Some(progress) {
                task::yield_now().await;
            } else {
                task::next_turn().await;
            }
        }
    }

    /// Takes back what a suspension that failed has left on the disk.
    async fn undo(&self, error: SuspensionError) -> SuspensionEnd {
        let end = match error {
            SuspensionError::Record(_) if self.host.spaces.settle(self.space).await.is_err() => {
                SuspensionEnd::Unknown
            }
            _ => SuspensionEnd::GoesOn,
        };
        self.host.spaces.drop_tables(self.space).await;
        self.drain.retry(&self.host.pager);
        let message = format!("{error}");
        let (partition, incarnation) = (&*self.order.name, self.order.incarnation);
        history::record_partition(
            self.order.id,
            HistoryKind::SuspensionFailed,
            0,
            [incarnation, end as u64],
        );
        report(&ConsoleEvent::SuspendFailed { partition, incarnation, message: &message });
        end
    }

    fn announce_progress(&self, remaining: u64) {
        let (partition, incarnation) = (&*self.order.name, self.order.incarnation);
        report(&ConsoleEvent::Suspending {
            partition,
            incarnation,
            remaining,
            dirty: None,
            expected_pause_ns: None,
        });
    }

    fn announce(&self, last: &DrainProgress, metadata_bytes: u64) {
        let SpaceLocation { disk, number, .. } = self.host.spaces.place(self.space);
        let crash = self.host.spaces.record(self.space).and_then(|record| record.crash);
        let (partition, incarnation) = (&*self.order.name, self.order.incarnation);
        history::record_partition(
            self.order.id,
            HistoryKind::Suspended,
            0,
            [incarnation, last.written],
        );
        report(&ConsoleEvent::Suspended {
            partition,
            incarnation,
            dump: crash.map(|crash| crash.name).unwrap_or_default(),
            disk: disk as u8,
            space: number,
            pages_written: last.written,
            pages_clean: last.clean,
            pages_zero: last.zero,
            pages_paged_before: self.paged_before,
            pages_precopied: self.order.precopied.as_ref().map_or(0, |p| p.pages()),
            bytes: last.written * PAGE_SIZE + metadata_bytes,
            pause_ns: time::now_ns().saturating_sub(self.order.at_ns).as_u64(),
        });
    }
}
