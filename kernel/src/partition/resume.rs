//! Resumes a suspended partition: reads and checks everything, then makes its space active again.
//!
//! ```text
//!   begin ─> record, notes ─> fits this machine? ─> bitmap, checksums ─> object, all pages paged
//!              │                │                     │                    │
//!              └────────────────┴── refused: nothing has changed <─────────┤
//!                                                                          └─> ACTIVE on the disk ─> the runner goes on
//! ```
//!
//! The memory begins with every page in its block or zero, and no frame. The guest's first
//! instruction is a page-in like any other, verified by the checksum that was sealed.

use super::cpuid;
use super::devices::clock::TscRate;
use super::devices::state::ResumeMoment;
use super::saved::{ResumeHost, SavedMachine, SavedMachineError};
use crate::addr::PageIndex;
use crate::arch::heap::{self, HeapError};
use crate::arch::{fpu, instr, time};
use crate::block::DiskError;
use crate::dump::window::BitmapWindow;
use crate::host::Host;
use crate::mm::crc::{Crc32c, crc32c, crc32c_on};
use crate::mm::layout::RamLayout;
use crate::mm::object::MemoryObject;
use crate::pool::PoolTerms;
use crate::size::ReadableSize;
use crate::space::record::SpaceContents;
use crate::space::{SpaceRecord, SpaceState, SuspensionSeal};
use crate::storage::spaces::{BUFFER, SpaceId};
use crate::sync::{RankedLock, rank};
use crate::task::yield_now;
use crate::time::Ns;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use core::fmt;
use core::ops::Range;

/// Bytes of the heap for devices and their buffers.
pub(super) const DEVICES_HEAP: usize = 160 << 10;

/// Why a suspended partition is not resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResumeError {
    /// The space holds no suspended partition any more.
    Gone,
    /// The partition is defined with another size of memory: then and now, in bytes.
    Memory(u64, u64),
    /// The named part does not match its checksum in the record.
    Damaged(&'static str),
    /// The machine that was saved does not fit.
    Machine(SavedMachineError),
    /// The hypervisor's heap is too full.
    NoHeap,
    /// No second-level tables are left.
    NoTables,
    /// The disk's.
    Disk(DiskError),
}

impl fmt::Display for ResumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("its suspended state is gone"),
            Self::Memory(then, now) => write!(
                f,
                "it was suspended with {} of memory, and is defined with {}",
                ReadableSize(*then),
                ReadableSize(*now)
            ),
            Self::Damaged(part) => {
                write!(f, "its suspended state is damaged: the {part} do not match the record")
            }
            Self::Machine(error) => write!(f, "{error}"),
            Self::NoHeap => f.write_str("the hypervisor's heap is too full"),
            Self::NoTables => f.write_str(
                "no memory for its second-level tables: try again when others have stopped",
            ),
            Self::Disk(error) => write!(f, "{error}"),
        }
    }
}

impl From<DiskError> for ResumeError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<HeapError> for ResumeError {
    fn from(_: HeapError) -> Self {
        Self::NoHeap
    }
}

/// A partition that goes on: its record says ACTIVE.
pub(super) struct ResumedPartition {
    pub object: Arc<MemoryObject>,
    pub machine: SavedMachine,
    pub incarnation: u64,
    /// Pages in their blocks.
    pub paged: u64,
    /// Time of day at the suspension.
    pub suspended_unix_ns: u64,
}

/// A resume in progress, for the runner.
pub(super) struct ResumeProgress {
    pub space: SpaceId,
    pub since_ns: Ns,
    result: RankedLock<Option<Result<ResumedPartition, ResumeError>>, { rank::EVENTS }>,
}

impl ResumeProgress {
    /// Takes the result, once there is one.
    pub(super) fn take(&self) -> Option<Result<ResumedPartition, ResumeError>> {
        self.result.lock().take()
    }
}

/// Begins a resume from a space that was taken for it.
pub(super) fn begin(
    host: &'static Host,
    name: &str,
    layout: RamLayout,
    terms: PoolTerms,
    space: SpaceId,
) -> Arc<ResumeProgress> {
    let result = RankedLock::new(None);
    let progress = Arc::new(ResumeProgress { space, since_ns: time::now_ns(), result });
    let name = ArrayString::from(name).unwrap_or_default();
    let job = ResumeJob { host, name, layout, terms, space };
    let told = progress.clone();
    host.tasks.start(async move {
        let result = job.run().await;
        if result.is_err() {
            job.host.spaces.refuse_resume(job.space);
        }
        *told.result.lock() = Some(result);
    });
    progress
}

struct ResumeJob {
    host: &'static Host,
    name: ArrayString<64>,
    layout: RamLayout,
    terms: PoolTerms,
    space: SpaceId,
}

impl ResumeJob {
    async fn run(&self) -> Result<ResumedPartition, ResumeError> {
        let spaces = self.host.spaces;
        let record = spaces.record(self.space).ok_or(ResumeError::Gone)?;
        let (contents, seal) = self.check_record(&record)?;
        let notes = self.notes(&record, &contents, seal).await?;
        let machine = self.machine(&notes)?;
        let object = self.host.objects.create(self.layout).map_err(|_| ResumeError::NoTables)?;
        let made = self.make(&object, &contents, seal).await;
        let made = match made {
            Ok(()) => spaces.activate_suspended(self.space, &self.name).await.map_err(Into::into),
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            let _ = self.host.reaper.reap(object);
            return Err(error);
        }
        Ok(ResumedPartition {
            paged: object.counts().paged.into(),
            object,
            machine,
            incarnation: record.owner.map_or(1, |owner| owner.epoch),
            suspended_unix_ns: record.crash.map_or(0, |crash| crash.time_ns),
        })
    }

    fn check_record(
        &self,
        record: &SpaceRecord,
    ) -> Result<(SpaceContents, SuspensionSeal), ResumeError> {
        let (Some(contents), Some(seal), SpaceState::Suspended) =
            (record.contents.clone(), record.seal, record.state)
        else {
            return Err(ResumeError::Gone);
        };
        let bytes = |pages: u32| u64::from(pages) * crate::addr::PAGE_SIZE;
        if !contents.ranges.iter().copied().eq(self.layout.ranges()) {
            let (then, now) = (contents.layout.pages(), self.layout.pages());
            return Err(ResumeError::Memory(bytes(then), bytes(now)));
        }
        Ok((contents, seal))
    }

    async fn notes(
        &self,
        record: &SpaceRecord,
        contents: &SpaceContents,
        seal: SuspensionSeal,
    ) -> Result<Vec<u8>, ResumeError> {
        let len = record.drain.notes_len as usize;
        let mut notes = heap::zeroed(len.next_multiple_of(512))?;
        let mut at = contents.layout.notes().start;
        for piece in notes.chunks_mut(BUFFER / 512 * 512) {
            self.host.spaces.read(self.space, at, piece).await?;
            at += piece.len() as u64;
        }
        notes.truncate(len);
        if crc32c(&notes) != seal.notes {
            return Err(ResumeError::Damaged("notes"));
        }
        Ok(notes)
    }

    fn machine(&self, notes: &[u8]) -> Result<SavedMachine, ResumeError> {
        if !heap::has_piece(DEVICES_HEAP) {
            return Err(ResumeError::NoHeap);
        }
        let rate = TscRate::new(time::tsc_hz());
        let at = ResumeMoment { now: instr::rdtsc(), rate, unix_ns: self.host.unix_ns() };
        let host = ResumeHost {
            backend: self.host.backend,
            cpuid: &cpuid::host,
            xcr0: fpu::offered_xcr0(),
            at,
        };
        SavedMachine::read(notes, &self.layout, &host).map_err(ResumeError::Machine)
    }

    /// Makes every page of the object what bitmap and checksums say, and attaches it to the pager.
    async fn make(
        &self,
        object: &Arc<MemoryObject>,
        contents: &SpaceContents,
        seal: SuspensionSeal,
    ) -> Result<(), ResumeError> {
        let layout = contents.layout;
        let mut window = BitmapWindow::new(&layout)?;
        let mut checksums = heap::zeroed(BUFFER / 512 * 512)?;
        let (mut bits, mut sums) = (Crc32c::default(), Crc32c::default());
        for piece in BitmapWindow::pieces(0..layout.pages(), layout.pages()) {
            window.open(piece.clone());
            let start = window.extent(&layout).start;
            self.host.spaces.read(self.space, start, window.bytes_mut()).await?;
            bits = crc32c_on(bits, window.bytes());
            let step = checksums.len() / 4;
            for first in piece.clone().step_by(step) {
                let pages = first..piece.end.min(first + step as u32);
                let extent = layout.checksums_of(pages.clone());
                let bytes = &mut checksums[..(pages.len() * 4).next_multiple_of(512)];
                self.host.spaces.read(self.space, extent.start, bytes).await?;
                let used = &bytes[..pages.len() * 4];
                sums = crc32c_on(sums, used);
                adopt(object, &window, pages, used)?;
                yield_now().await;
            }
        }
        if bits != seal.bitmap {
            return Err(ResumeError::Damaged("bitmap"));
        }
        if sums != seal.checksums {
            return Err(ResumeError::Damaged("checksums"));
        }
        let store = self.host.spaces.store(self.space).ok_or(ResumeError::Gone)?;
        let attached = self.host.pager.attach_on(object.clone(), Some(store), self.terms);
        attached.map_err(|_| ResumeError::Disk(DiskError::Unsupported))
    }
}

/// Makes the pages that have blocks paged, with their checksums.
fn adopt(
    object: &MemoryObject,
    window: &BitmapWindow,
    pages: Range<u32>,
    checksums: &[u8],
) -> Result<(), ResumeError> {
    let (sums, _) = checksums.as_chunks::<4>();
    for (index, sum) in pages.map(PageIndex).zip(sums) {
        if !window.has_block(index) {
            continue;
        }
        let page = object.page(index).map_err(|_| ResumeError::NoTables)?;
        // The object is new, so each of its pages is untouched.
        let _ = page.adopt_block(Crc32c(u32::from_le_bytes(*sum)));
    }
    Ok(())
}
