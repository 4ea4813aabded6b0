//! The disk below a store. Blocks count from the store's first byte, and a read or a write is a
//! whole number of blocks.
//!
//! The operations are futures, so the kernel's tasks await them (`task::io`); where I/O blocks, as
//! in the host command, each is ready at once and [`run`] drives the whole.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

/// A store's blocks, to read.
pub trait StoreRead {
    /// The disk's errors.
    type Error;

    /// Returns the number of blocks of the disk or partition.
    fn blocks(&self) -> u64;

    /// Reads blocks from `first` on, as many as fill `into`.
    ///
    /// # Errors
    /// The disk's error.
    fn read(
        &mut self,
        first: u64,
        into: &mut [u8],
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// Waits for at least `ns` nanoseconds.
    fn pause(&mut self, ns: u64) -> impl Future<Output = ()>;
}

/// A store's blocks, to read and write.
pub trait StoreWrite: StoreRead {
    /// Writes `bytes` to the blocks from `first` on. The write is durable after a flush.
    ///
    /// # Errors
    /// The disk's error.
    fn write(&mut self, first: u64, bytes: &[u8]) -> impl Future<Output = Result<(), Self::Error>>;

    /// Makes all writes completed before durable.
    ///
    /// # Errors
    /// The disk's error.
    fn flush(&mut self) -> impl Future<Output = Result<(), Self::Error>>;

    /// Returns a time in nanoseconds that never goes backwards.
    fn now_ns(&self) -> u64;
}

/// Runs a future of a disk whose operations are ready at once; `None` if one was not.
pub fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
