//! Disks: requests with scatter-gather lists, completions by polling, never a wait without a bound.
//!
//! `block` names buffers by host physical address, never guest pages. Whoever submits a request owns its
//! buffers and keeps them in place until the completion with the same [`Cookie`] comes back. A completion with
//! [`DiskError::TimedOut`] does not end that: the disk is written off, still has the buffers, and a second completion, the late
//! answer, gives them back.
//!
//! | module | what |
//! |---|---|
//! | [`request`] | what is asked and answered |
//! | [`virtio`] | virtio-blk on PCI |
//! | [`memory`] | a disk in physical memory, for machines without virtio |
//! | [`fault`] | a wrapper that fails, delays and drops on command and counts (tests) |
//! | [`pace`] | how many bytes of writes may be in flight |
//! | [`gate`] | whether a disk that other nodes see takes requests now |
//! | [`blocking`] | one request at a time with a bound, for start-up |
//! | `any` | the kinds of disk of a running machine, behind one type |
//! | `discover` | finding disks at start-up |
//! | [`gpt`] | partition tables: reading and judging one, making one |
//! | [`dma`] | how drivers reach physical memory |
//! | [`stats`] | counters by operation |

pub mod any;
pub mod blocking;
#[cfg(target_os = "none")]
pub mod discover;
pub mod dma;
pub mod fault;
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

pub use request::{
    Completion, Cookie, DiskError, DiskInfo, Incident, Lane, Operation, Request, SectorRange, Segment, SubmitError,
};
pub use stats::DiskCounters;

/// A disk that takes requests and answers later.
///
/// Implementations lock inside, briefly, and never across I/O: any CPU may call any method.
pub trait Disk: Sync {
    /// Returns the name, capacity and limits.
    fn info(&self) -> DiskInfo;

    /// Queues a request; the answer is a [`Completion`].
    ///
    /// # Errors
    /// [`SubmitError::Full`]: nothing was queued, poll and try again.
    /// [`SubmitError::Invalid`]: out of range or beyond the limits of [`Disk::info`] (our bug, but surfaced).
    /// [`SubmitError::Failed`]: the device is dead.
    fn submit(&self, request: &Request<'_>) -> Result<(), SubmitError>;

    /// Collects what is finished (and what has timed out at `now_ns`), at most `out`'s room; returns how many.
    fn poll(&self, now_ns: u64, out: &mut [Completion]) -> usize;

    /// Returns whether a poll would bring answers at once although no interrupt will tell so. A device that interrupts says no.
    fn has_answers(&self) -> bool {
        false
    }

    /// Returns whether the disk takes no request now: it is dead, or written off until its late answers have come.
    fn is_dead(&self) -> bool {
        false
    }

    /// Takes the oldest thing that happened to the disk and was not told yet.
    fn take_incident(&self) -> Option<Incident> {
        None
    }

    /// Waits no longer than this for an answer from now on: the machine ends.
    fn hurry(&self, _request_ns: u64) {}

    /// Returns the bytes that one write should have at most, so that no other request waits long behind it.
    fn write_room(&self) -> u64 {
        u64::MAX
    }

    /// Returns whether it is not known now whose the disk is: what it answers meanwhile proves nothing, and is asked again later.
    fn is_suspended(&self) -> bool {
        false
    }

    /// Returns what the disk has done so far.
    fn counters(&self) -> DiskCounters {
        DiskCounters::default()
    }
}

impl<D: Disk + ?Sized> Disk for &D {
    fn info(&self) -> DiskInfo {
        (**self).info()
    }
    fn submit(&self, request: &Request<'_>) -> Result<(), SubmitError> {
        (**self).submit(request)
    }
    fn poll(&self, now_ns: u64, out: &mut [Completion]) -> usize {
        (**self).poll(now_ns, out)
    }
    fn has_answers(&self) -> bool {
        (**self).has_answers()
    }
    fn is_dead(&self) -> bool {
        (**self).is_dead()
    }
    fn take_incident(&self) -> Option<Incident> {
        (**self).take_incident()
    }
    fn hurry(&self, request_ns: u64) {
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
