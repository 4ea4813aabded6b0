//! Resumes a suspended partition: reads and checks everything, then makes its space active again.
//!
//! ```text
//!   begin ─> record, notes ─> fits this machine? ─> empty object
//!              │                │                     │
//!              └────────────────┴─ refused: nothing   ├─> ACTIVE on the disk ─> the runner goes on
//!                                  has changed <──────┘                            │
//!                                         bitmap and checksums, a region at a time <
//! ```
//!
//! The memory begins with no table and no frame, so the time to the guest's first instruction does
//! not depend on its size. The guest's first access to a region has the state of its pages read
//! (`host::regions`). Then its first instruction is a page-in like any other, verified by the
//! checksum that was sealed.

use super::cpuid;
use super::devices::clock::TscRate;
use super::devices::state::ResumeMoment;
use super::saved::{ResumeHost, SavedMachine, SavedMachineError};
use crate::arch::heap::{self, HeapError};
use crate::arch::{fpu, instr, time};
use crate::block::DiskError;
use crate::config::GuestDevices;
use crate::dump::hot_list::HotList;
use crate::dump::state_note::{StateError, StateNote, StateNoteKind, StatePart};
use crate::dump::table_sums::TableSums;
use crate::host::Host;
use crate::host::prefetch;
use crate::host::regions::RegionReader;
use crate::mm::crc::{Crc32c, crc32c};
use crate::mm::layout::RamLayout;
use crate::mm::object::MemoryObject;
use crate::mm::table::TableReserve;
use crate::pool::PoolTerms;
use crate::size::ReadableSize;
use crate::space::record::SpaceContents;
use crate::space::{SpaceLayout, SpaceRecord, SpaceState, SuspensionSeal};
use crate::storage::log_desk::OwnError;
use crate::storage::spaces::{BUFFER, SpaceId};
use crate::sync::{RankedLock, rank};
use crate::time::Ns;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use core::fmt;

/// Bytes of the heap for devices and their buffers.
const DEVICES_HEAP: usize = 160 << 10;

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
    /// The cluster's log does not give it to this node.
    Owner(OwnError),
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
            Self::Owner(error) => {
                write!(f, "the cluster's log does not give it to this node: {error}")
            }
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
    (layout, devices): (RamLayout, GuestDevices),
    terms: PoolTerms,
    space: SpaceId,
) -> Arc<ResumeProgress> {
    let result = RankedLock::new(None);
    let progress = Arc::new(ResumeProgress { space, since_ns: time::now_ns(), result });
    let name = ArrayString::from(name).unwrap_or_default();
    let job = ResumeJob { host, name, layout, devices, terms, space };
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
    devices: GuestDevices,
    terms: PoolTerms,
    space: SpaceId,
}

impl ResumeJob {
    async fn run(&self) -> Result<ResumedPartition, ResumeError> {
        let spaces = self.host.spaces;
        let record = spaces.record(self.space).ok_or(ResumeError::Gone)?;
        let (contents, seal) = self.check_record(&record)?;
        let sealed = (record.drain.notes_len, seal.notes);
        let notes = read_notes(self.host, self.space, &contents.layout, sealed).await?;
        let machine = saved_machine(self.host, &notes, (&self.layout, self.devices))?;
        let (sums, hot) = memory_note(&notes, &contents.layout)?;
        let paged = sums.blocks();
        // The tables themselves are made as the guest needs them.
        let tables = self.host.tables.total() - self.host.tables.used_count();
        if u64::from(tables) < TableReserve::pages_for(self.layout.pages().into()) {
            return Err(ResumeError::NoTables);
        }
        let object = self.host.objects.create(self.layout).map_err(|_| ResumeError::NoTables)?;
        let made = match self.make(&object, &contents, sums) {
            Ok(reader) => {
                let active = self.activate().await;
                active.map(|()| reader)
            }
            Err(error) => Err(error),
        };
        match made {
            Ok(reader) => {
                self.host.tasks.start(reader.run());
                self.host.tasks.start(prefetch::run(self.host, object.clone(), hot));
            }
            Err(error) => {
                let _ = self.host.reaper.reap(object);
                return Err(error);
            }
        }
        Ok(ResumedPartition {
            paged,
            object,
            machine,
            incarnation: record.owner.map_or(1, |owner| owner.epoch),
            suspended_unix_ns: record.crash.map_or(0, |crash| crash.time_ns),
        })
    }

    /// Says on the disk that the partition runs again; in a cluster the log says so before, so that
    /// no heir goes on from the suspended state from then on.
    async fn activate(&self) -> Result<(), ResumeError> {
        let spaces = self.host.spaces;
        spaces.own_again(self.space).await.map_err(ResumeError::Owner)?;
        Ok(spaces.activate_suspended(self.space, &self.name).await?)
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

    /// Attaches the empty memory to the pager, and makes the reader of its tables.
    fn make(
        &self,
        object: &Arc<MemoryObject>,
        contents: &SpaceContents,
        sums: TableSums,
    ) -> Result<RegionReader, ResumeError> {
        let place = (self.space, contents.layout);
        let reader = RegionReader::new(self.host, object.clone(), place, sums)?;
        let store = self.host.spaces.store(self.space).ok_or(ResumeError::Gone)?;
        let attached = self.host.pager.attach_on(object.clone(), Some(store), self.terms);
        attached.map_err(|_| ResumeError::Disk(DiskError::Unsupported))?;
        Ok(reader)
    }
}

/// Reads the notes of a suspended or sealed partition, `len` bytes with this checksum.
///
/// # Errors
/// [`ResumeError`]: they are damaged or cannot be read, or there is no memory for them.
pub(super) async fn read_notes(
    host: &Host,
    space: SpaceId,
    layout: &SpaceLayout,
    (len, sum): (u32, Crc32c),
) -> Result<Vec<u8>, ResumeError> {
    let mut notes = heap::zeroed((len as usize).next_multiple_of(512))?;
    let mut at = layout.notes().start;
    for piece in notes.chunks_mut(BUFFER / 512 * 512) {
        host.spaces.read(space, at, piece).await?;
        at += piece.len() as u64;
    }
    notes.truncate(len as usize);
    if crc32c(&notes) == sum { Ok(notes) } else { Err(ResumeError::Damaged("notes")) }
}

/// Makes the machine in the notes fit this one, as of now.
///
/// # Errors
/// [`ResumeError`]: it does not fit, or there is no heap for its devices.
pub(super) fn saved_machine(
    host: &Host,
    notes: &[u8],
    (layout, devices): (&RamLayout, GuestDevices),
) -> Result<SavedMachine, ResumeError> {
    if !heap::has_piece(DEVICES_HEAP) {
        return Err(ResumeError::NoHeap);
    }
    SavedMachine::read(notes, layout, &machine_here(host, devices)).map_err(ResumeError::Machine)
}

/// Describes this machine for guests with these devices that are to go on here.
pub fn machine_here(host: &Host, devices: GuestDevices) -> ResumeHost<'static> {
    let rate = TscRate::new(time::tsc_hz());
    let at = ResumeMoment { now: instr::rdtsc(), rate, unix_ns: host.unix_ns() };
    let (backend, xcr0) = (host.backend, fpu::offered_xcr0());
    ResumeHost { backend, cpuid: &cpuid::host, xcr0, devices, at }
}

/// Reads the checksums of the tables, and the list of the pages that were used last.
fn memory_note(notes: &[u8], layout: &SpaceLayout) -> Result<(TableSums, HotList), ResumeError> {
    let read = || {
        let note = StateNote::all(notes, StateNoteKind::Memory).next();
        let note = StateNote::read(note.ok_or(StateError::Missing(StatePart::TableSums.name()))?)?;
        Ok((TableSums::read(&note, layout)?, HotList::read(&note)?))
    };
    let (sums, hot) = read().map_err(|error: StateError| ResumeError::Machine(error.into()))?;
    Ok((sums.ok_or(ResumeError::NoHeap)?, hot))
}
