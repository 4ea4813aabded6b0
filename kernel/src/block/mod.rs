//! Disks: requests with scatter-gather lists, completions by polling, time-outs for every wait.
//!
//! `block` names buffers by host physical address, never by guest page. The submitter of a request
//! owns its buffers and keeps them in place until the completion with the same [`Cookie`]. A
//! completion with [`DiskError::TimedOut`] does not end that: the disk is written off and still has
//! the buffers. A second completion, the late answer, gives them back.
//!
//! | module | contents |
//! |---|---|
//! | [`request`] | requests and completions |
//! | [`virtio`] | virtio-blk on PCI |
//! | [`memory`] | a disk in physical memory, for machines without virtio |
//! | `fault` | a wrapper that fails, delays and drops on command and counts (tests) |
//! | [`pace`] | how many bytes of writes may be in flight |
//! | [`gate`] | whether a disk that other nodes can see may get requests now |
//! | [`blocking`] | one request at a time with a time-out, for start-up |
//! | `any` | all kinds of disk of a running machine, as one type |
//! | `discover` | finding disks at start-up |
//! | [`gpt`] | partition tables: reading, checking and making |
//! | [`dma`] | drivers' access to physical memory |
//! | [`stats`] | counters by operation |

pub mod any;
pub mod blocking;
pub mod cookie;
#[cfg(target_os = "none")]
pub mod discover;
pub mod dma;
#[cfg(test)]
mod fault;
pub mod gate;
pub mod gpt;
pub mod memory;
pub mod pace;
pub mod patience;
pub mod request;
#[cfg(target_os = "none")]
pub mod selftest;
pub mod stats;
pub mod virtio;

use crate::time::Ns;
pub use request::{
    Completion, Cookie, DiskError, DiskIncident, DiskInfo, DiskOperation, DiskRequest, DmaSegment,
    QueueLane, SectorRange, SubmitError,
};
pub use stats::DiskCounters;

/// Most paging devices.
pub const MAX_DISKS: usize = 16;

/// A disk that accepts requests and answers later.
///
/// Implementations lock inside, briefly, and never across I/O: any CPU may call any method.
pub trait Disk: Sync {
    /// Returns the name, capacity and limits.
    fn info(&self) -> DiskInfo;

    /// Queues a request; the answer is a [`Completion`].
    ///
    /// # Errors
    /// [`SubmitError::Full`]: nothing was queued, poll and try again.
    /// [`SubmitError::Invalid`]: out of range or beyond the limits of [`Disk::info`] (our bug).
    /// [`SubmitError::Failed`]: the device is dead.
    fn submit(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError>;

    /// Collects finished requests, and those that have timed out at `now_ns`, as many as `out` has
    /// room for; returns how many.
    fn poll(&self, now_ns: Ns, out: &mut [Completion]) -> usize;

    /// Returns whether a poll would return completions at once that no interrupt announces. False
    /// for a device with interrupts.
    fn has_answers(&self) -> bool {
        false
    }

    /// Returns whether the disk accepts no request now: it is dead, or written off until its late
    /// answers have come.
    fn is_dead(&self) -> bool {
        false
    }

    /// Takes the oldest incident that has not been reported yet.
    fn take_incident(&self) -> Option<DiskIncident> {
        None
    }

    /// Shortens the time-out from now on: the machine ends.
    fn hurry(&self, _request_ns: Ns) {}

    /// Returns the most bytes that one write should have, so that no other request waits long
    /// behind it.
    fn write_room(&self) -> u64 {
        u64::MAX
    }

    /// Returns whether it is unknown now which node owns the disk. Its answers then prove nothing,
    /// and the request is made again later.
    fn is_suspended(&self) -> bool {
        false
    }

    /// Returns the counters of the disk.
    fn counters(&self) -> DiskCounters {
        DiskCounters::default()
    }
}

impl<D: Disk + ?Sized> Disk for &D {
    fn info(&self) -> DiskInfo {
        (**self).info()
    }
    fn submit(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        (**self).submit(request)
    }
    fn poll(&self, now_ns: Ns, out: &mut [Completion]) -> usize {
        (**self).poll(now_ns, out)
    }
    fn has_answers(&self) -> bool {
        (**self).has_answers()
    }
    fn is_dead(&self) -> bool {
        (**self).is_dead()
    }
    fn take_incident(&self) -> Option<DiskIncident> {
        (**self).take_incident()
    }
    fn hurry(&self, request_ns: Ns) {
        (**self).hurry(request_ns);
    }
    fn write_room(&self) -> u64 {
        (**self).write_room()
    }
    fn is_suspended(&self) -> bool {
        (**self).is_suspended()
    }
    fn counters(&self) -> DiskCounters {
        (**self).counters()
    }
}
