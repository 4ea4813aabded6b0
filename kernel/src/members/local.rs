//! This node's local copy: what it knew last of its cluster, on a disk of its own.
//!
//! ```text
//!   start    both copies ── whole ──> the answer to `nodes` while there is no area,
//!                        │            and the decree that the area has to know
//!                        └─ torn, blank ──> told; the first write makes one
//!   member   a decree that a beat has announced, or 10 s ──> the other copy: write, flush
//! ```
//!
//! * A disk of a newer version or with unknown features, and one with a copy of another cluster, is
//!   left alone.
//! * One write is in flight at a time, in a list of its own: the machine may end beside it.
//! * A write that fails is told once, and the next one is due as usual.

use super::find::trouble_of;
use super::roll::{RollRow, RollStatus};
use super::tell;
use crate::arch::heap;
use crate::block::dma::DmaRegion;
use crate::block::{Disk, DiskError, DiskOperation, DmaSegment, SectorRange};
use crate::space::SpaceArea;
use crate::storage::NodeDisk;
use crate::storage::spaces::LocalPlace;
use crate::sync::{RankedLock, rank};
use crate::task::Tasks;
use crate::task::io::AsyncIo;
use crate::time::Ns;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use cluster::layout::{Half, MAX_STATE};
use cluster::local::{
    COPY, LOCAL_BYTES, LocalBeat, LocalCopy, LocalFound, LocalRow, LocalStatus, check_header,
    found, place,
};
use cluster::sector::SECTOR;
use cluster::state::ClusterState;

/// Longest time between two copies, so that the ages in them mean something.
const REFRESH_NS: Ns = Ns::from_secs(10);
/// Most segments of a request.
const MAX_SEGMENTS: usize = 16;

/// The disk with the local copy.
pub struct LocalDevice {
    disk: &'static NodeDisk,
    io: &'static AsyncIo,
    tasks: Tasks,
    inner: RankedLock<LocalInner, { rank::PARTITION }>,
    /// How the write in flight has ended.
    ended: RankedLock<Option<Result<(), DiskError>>, { rank::EVENTS }>,
}

/// The last copy, and the next write.
struct LocalInner {
    /// The last copy that was read or begun.
    last: Option<LocalCopy>,
    /// Its bytes.
    bytes: Vec<u8>,
    /// What the disk reads.
    buffer: DmaRegion,
    /// Room for the state.
    state: Vec<u8>,
    due_ns: Ns,
    is_writing: bool,
    /// No copy was whole at the start: the first write is told.
    is_missing: bool,
    has_failed: bool,
}

impl LocalDevice {
    /// Judges the disks for local copies, and takes the first usable disk.
    /// `buffer` takes memory for good.
    ///
    /// # Errors
    /// That of `buffer`.
    pub fn open<E>(
        places: &[LocalPlace],
        io: &'static AsyncIo,
        buffer: impl FnOnce(usize) -> Result<DmaRegion, E>,
    ) -> Result<Option<&'static Self>, E> {
        let mut usable = places.iter().filter_map(|place| Some((place, judge(place)?)));
        let Some((at, found)) = usable.next() else { return Ok(None) };
        usable.for_each(|(other, _)| {
            trouble_of(other.number, "is a second disk for the local copy: it is left alone");
        });
        let room = (heap::zeroed(COPY), heap::zeroed(MAX_STATE as usize));
        let (Ok(mut bytes), Ok(state)) = room else {
            trouble_of(at.number, "the heap has no room for its local copy");
            return Ok(None);
        };
        let mut last = None;
        if let LocalFound::Copy { copy, half, is_mended } = found {
            bytes.copy_from_slice(part(&at.bytes, half));
            tell::local(if is_mended { "mended" } else { "read" }, copy.decree);
            last = Some(copy);
        } else {
            tell::local(if found == LocalFound::Torn { "torn" } else { "blank" }, 0);
        }
        let (is_missing, buffer) = (last.is_none(), buffer(COPY)?);
        let (due_ns, is_writing, has_failed) = (Ns::ZERO, false, false);
        let inner =
            LocalInner { last, bytes, buffer, state, due_ns, is_writing, is_missing, has_failed };
        Ok(Some(Box::leak(Box::new(Self {
            disk: at.disk,
            io,
            tasks: Tasks::new(),
            inner: RankedLock::new(inner),
            ended: RankedLock::new(None),
        }))))
    }

    /// Returns the last decree that this node knew of a cluster, 0 if it knew none; `None`, and an
    /// event, if the copy is of another cluster.
    pub(super) fn decree_of(&self, cluster: u128) -> Option<u64> {
        let inner = self.inner.lock();
        match inner.last {
            Some(copy) if copy.cluster != cluster => {
                tell::local("foreign", copy.decree);
                None
            }
            last => Some(last.map_or(0, |copy| copy.decree)),
        }
    }

    /// Calls `show` with the last copy and its members, if there is one.
    pub fn show(&self, show: impl FnOnce(&LocalCopy, &mut dyn Iterator<Item = LocalRow>)) {
        let inner = self.inner.lock();
        if let Some(copy) = &inner.last {
            show(copy, &mut LocalCopy::rows(&inner.bytes));
        }
    }

    /// Goes on with the write in flight.
    pub(super) fn poll(&self) {
        self.tasks.poll();
        let Some(result) = self.ended.lock().take() else { return };
        let mut inner = self.inner.lock();
        inner.is_writing = false;
        let decree = inner.last.map_or(0, |copy| copy.decree);
        match result {
            Ok(()) if core::mem::take(&mut inner.is_missing) => tell::local("rebuilt", decree),
            Ok(()) => inner.has_failed = false,
            Err(_) if !core::mem::replace(&mut inner.has_failed, true) => {
                tell::local("failed", decree)
            }
            Err(_) => {}
        }
    }

    /// Begins to write a copy, if one is due: `copy` says everything but its sequence number.
    pub(super) fn write(
        &'static self,
        now_ns: Ns,
        copy: LocalCopy,
        rows: &[RollRow],
        state: &ClusterState,
    ) {
        let mut inner = self.inner.lock();
        let is_new = inner.last.is_none_or(|last| last.decree != copy.decree);
        let is_due = is_new || now_ns >= inner.due_ns;
        if inner.is_writing || !is_due || self.disk.is_dead() {
            return;
        }
        let sequence = inner.last.map_or(1, |last| last.sequence + 1);
        let copy = LocalCopy { sequence, ..copy };
        let LocalInner { last, bytes, buffer, state: room, due_ns, is_writing, .. } = &mut *inner;
        let room = &mut room[..state.limit().min(MAX_STATE as usize)];
        state.encode(copy.member, sequence, room);
        copy.encode(rows.iter().map(|row| of_row(row, now_ns)), room, bytes);
        (*last, *is_writing, *due_ns) = (Some(copy), true, now_ns + REFRESH_NS);
        buffer.window().copy_in(0, bytes);
        let most = self.disk.info().max_segment_len as usize;
        let piece = |at| DmaSegment { base: buffer.hpa(at), len: (COPY - at).min(most) as u32 };
        let pieces = (0..COPY).step_by(most).take(MAX_SEGMENTS).map(piece).collect();
        self.begin(Half::of(sequence), pieces);
    }

    fn begin(&'static self, half: Half, pieces: ArrayVec<DmaSegment, MAX_SEGMENTS>) {
        let area = SpaceArea::whole(self.disk.info().capacity);
        let part = place(half);
        let Some(sectors) = area.locate(part.at, part.len as u64) else { return };
        self.tasks.start(async move {
            let write = DiskOperation::Write;
            let mut result = self.io.run_to_the_end(self.disk, write, sectors, &pieces).await;
            if result.is_ok() {
                let none = SectorRange { first: 0, count: 0 };
                result = self.io.run_to_the_end(self.disk, DiskOperation::Flush, none, &[]).await;
            }
            *self.ended.lock() = Some(result);
        });
    }
}

/// Returns what a disk's copies say; `None` if the disk is left alone, which is told.
fn judge(at: &LocalPlace) -> Option<LocalFound> {
    let info = at.disk.info();
    let pieces = COPY.div_ceil((info.max_segment_len as usize).max(SECTOR));
    if at.bytes.len() < LOCAL_BYTES as usize || pieces > info.max_segments.min(MAX_SEGMENTS) {
        trouble_of(at.number, "is too small for a local copy, or cannot be read: left alone");
        return None;
    }
    if let Err(error) = check_header(&at.bytes) {
        trouble_of(at.number, &format!("its local copy is left alone: {error}"));
        return None;
    }
    match found([part(&at.bytes, Half::A), part(&at.bytes, Half::B)]) {
        LocalFound::Newer(version) => {
            let message = format!("its local copy has version {version}: it is left alone");
            trouble_of(at.number, &message);
            None
        }
        found => Some(found),
    }
}

fn part(bytes: &[u8], half: Half) -> &[u8] {
    let part = place(half);
    bytes.get(part.at as usize..).and_then(|rest| rest.get(..part.len)).unwrap_or(&[])
}

fn of_row(row: &RollRow, now_ns: Ns) -> LocalRow {
    let told = row.report(None, now_ns);
    let beat = row.beat.map(|beat| LocalBeat {
        age_ms: told.age_ms.unwrap_or(0),
        decree: beat.known,
        free_mib: told.free_mib,
        free_spaces: told.free_spaces,
    });
    let status = match row.status {
        RollStatus::Up => LocalStatus::Up,
        RollStatus::Leaving => LocalStatus::Leaving,
        RollStatus::Fenced => LocalStatus::Fenced,
        RollStatus::Quiet => LocalStatus::Quiet,
    };
    let name = row.beat.map_or([0; 32], |beat| beat.details.name);
    LocalRow { id: row.id, status, is_own: row.is_own, name, beat }
}
