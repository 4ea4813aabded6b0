//! Disks: requests with scatter-gather lists, completions by polling, never a wait without a bound.
//!
//! `block` names buffers by host physical address, never guest pages. Whoever submits a request owns its
//! buffers and keeps them in place until the completion with the same [`Cookie`] comes back; after
//! a time-out the driver resets its device before it completes the request, so a frame can be reused then.
//!
//! | module | what |
//! |---|---|
//! | [`request`] | what is asked and answered |
//! | [`virtio`] | virtio-blk on PCI |
//! | [`memory`] | a disk in physical memory, for machines without virtio |
//! | [`fault`] | a wrapper that fails, delays and drops on command and counts (tests) |
//! | [`blocking`] | one request at a time with a bound, for start-up |
//! | `any` | the kinds of disk of a running machine, behind one type |
//! | `discover` | finding disks at start-up |
//! | [`gpt`] | partition tables: reading and judging one, making one |
//! | [`dma`] | how drivers reach physical memory |
//! | [`stats`] | counters by operation |

#[cfg(target_os = "none")]
pub mod any;
pub mod blocking;
#[cfg(target_os = "none")]
pub mod discover;
pub mod dma;
pub mod fault;
pub mod gpt;
pub mod memory;
pub mod request;
#[cfg(target_os = "none")]
pub mod selftest;
pub mod stats;
pub mod virtio;

pub use request::{Completion, Cookie, DiskError, DiskInfo, Operation, Request, SectorRange, Segment, SubmitError};
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

    /// Returns whether the disk will take no request any more: what is on it cannot be read again.
    fn is_dead(&self) -> bool {
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
    fn is_dead(&self) -> bool {
        (**self).is_dead()
    }
    fn counters(&self) -> DiskCounters {
        (**self).counters()
    }
}
