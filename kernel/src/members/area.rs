//! One cluster area: its place on a disk, its two buffers, and its requests.
//!
//! ```text
//!   submit ──> a task of the node's own list ──> AsyncIo (slots of the member) ──> disk
//!                                                       │ the disk's last word
//!   driver <── AreaAnswer ── mailbox <──────────────────┘
//! ```
//!
//! * A request ends with the disk's last word. A time-out is none: the request may still land.
//! * The memory of both buffers is never freed. The driver gives a buffer to a step only when all
//!   earlier requests on it have ended.

use crate::block::dma::DmaRegion;
use crate::block::{Disk, DiskError, DiskOperation, DmaSegment, SectorRange};
use crate::storage::NodeDisk;
use crate::storage::spaces::SpaceLocation;
use crate::sync::{RankedLock, rank};
use crate::task::Tasks;
use crate::task::io::AsyncIo;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use cluster::layout::{AreaLayout, Extent};
use cluster::round::RoundStep;

/// Most segments of a request.
const MAX_SEGMENTS: usize = 32;

/// The end of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct AreaAnswer {
    /// Number of the area.
    pub area: u8,
    /// The step that it belongs to.
    pub round: u32,
    /// The request.
    pub step: RoundStep,
    /// The disk's last word.
    pub result: Result<(), DiskError>,
}

/// What the requests of all areas share.
pub(super) struct AreaIo {
    io: &'static AsyncIo,
    /// Requests in flight. They are no work of the machine: it may end beside them.
    pub tasks: Tasks,
    answers: RankedLock<Vec<AreaAnswer>, { rank::EVENTS }>,
}

impl AreaIo {
    pub(super) fn new(io: &'static AsyncIo) -> Self {
        Self { io, tasks: Tasks::new(), answers: RankedLock::new(Vec::with_capacity(64)) }
    }

    /// Takes the oldest answer.
    pub(super) fn take(&self) -> Option<AreaAnswer> {
        let mut answers = self.answers.lock();
        if answers.is_empty() { None } else { Some(answers.remove(0)) }
    }
}

/// An area.
pub(super) struct ClusterArea {
    /// Its number in the cluster.
    pub number: u8,
    /// Its place.
    pub place: SpaceLocation,
    /// Its disk.
    pub disk: &'static NodeDisk,
    write: DmaRegion,
    read: DmaRegion,
}

/// Returns the bytes of the buffers for writes and for reads.
pub(super) fn buffer_sizes(layout: &AreaLayout) -> [usize; 2] {
    let mail = layout.mail(0).map_or(0, |part| part.len);
    let reads =
        [layout.joins(), layout.beats(), layout.logs(), layout.both_states(0)].map(|part| part.len);
    let read = reads.into_iter().chain([mail]).max().unwrap_or(0);
    [layout.longest_write(), read].map(|len| len.next_multiple_of(4096))
}

impl ClusterArea {
    pub(super) const fn new(
        number: u8,
        place: SpaceLocation,
        disk: &'static NodeDisk,
        [write, read]: [DmaRegion; 2],
    ) -> Self {
        Self { number, place, disk, write, read }
    }

    /// Puts bytes into the buffer for writes.
    pub(super) fn fill(&self, bytes: &[u8]) {
        self.write.window().copy_in(0, bytes);
    }

    /// Copies what the last read has brought.
    pub(super) fn fetch(&self, into: &mut [u8]) {
        self.read.window().copy_out(0, into);
    }

    /// Submits a request on the first bytes of its buffer.
    pub(super) fn submit(&self, io: &'static AreaIo, round: u32, step: RoundStep, part: Extent) {
        let nothing = (DiskOperation::Flush, SectorRange { first: 0, count: 0 }, ArrayVec::new());
        let sectors = self.place.area.locate(part.at, part.len as u64);
        let (operation, sectors, segments) = match (step, sectors) {
            (RoundStep::Write, Some(at)) => {
                (DiskOperation::Write, at, self.pieces(&self.write, part.len))
            }
            (RoundStep::Read, Some(at)) => {
                (DiskOperation::Read, at, self.pieces(&self.read, part.len))
            }
            _ => nothing,
        };
        let (area, disk) = (self.number, self.disk);
        io.tasks.start(async move {
            let result = io.io.run_to_the_end(disk, operation, sectors, &segments).await;
            io.answers.lock().push(AreaAnswer { area, round, step, result });
        });
    }

    fn pieces(&self, region: &DmaRegion, len: usize) -> ArrayVec<DmaSegment, MAX_SEGMENTS> {
        let most = self.disk.info().max_segment_len as usize;
        let piece = |at| DmaSegment { base: region.hpa(at), len: (len - at).min(most) as u32 };
        (0..len).step_by(most).take(MAX_SEGMENTS).map(piece).collect()
    }

    /// Returns whether the disk takes requests of `len` bytes.
    pub(super) fn takes(disk: &NodeDisk, len: usize) -> bool {
        let info = disk.info();
        len.div_ceil(info.max_segment_len as usize) <= info.max_segments.min(MAX_SEGMENTS)
    }
}
