//! Disks: requests with scatter-gather lists, completions by polling, never a wait without a bound.
//!
//! `block` names buffers by host physical address, never guest pages. Whoever submits a request owns its
//! buffers and keeps them in place until the completion with the same [`Cookie`] comes back; after
//! a time-out the driver resets its device before it completes the request, so a frame can be reused then.

pub mod request;

pub use request::{Completion, Cookie, DiskError, DiskInfo, Operation, Request, SectorRange, Segment, SubmitError};

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
}
