//! Counters of a disk: requests and bytes by operation, errors, resets.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::request::{DiskOperation, DiskRequest, SECTOR_SIZE};

/// Counters of one disk at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskCounters {
    /// Requests accepted, by operation.
    pub requests: PerOperation,
    /// Bytes of those requests.
    pub bytes: PerOperation,
    /// Requests that ended in an error, including time-outs.
    pub errors: u64,
    /// Requests that timed out.
    pub timeouts: u64,
    /// Resets of the device after start-up.
    pub resets: u64,
    /// Notifications sent to the device.
    pub notifications: u64,
}

/// One number for each operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PerOperation {
    /// Of reads.
    pub read: u64,
    /// Of writes.
    pub write: u64,
    /// Of flushes.
    pub flush: u64,
    /// Of discards.
    pub discard: u64,
    /// Of write-zeroes.
    pub write_zeroes: u64,
}

/// Counters that any CPU may increment.
#[derive(Default, Debug)]
pub struct DiskStats {
    requests: [AtomicU64; 5],
    bytes: [AtomicU64; 5],
    errors: AtomicU64,
    timeouts: AtomicU64,
    resets: AtomicU64,
    notifications: AtomicU64,
}

impl DiskStats {
    /// Counts a request that was accepted.
    pub fn taken(&self, request: &DiskRequest<'_>) {
        let n = index(request.operation);
        self.requests[n].fetch_add(1, Relaxed);
        if request.operation != DiskOperation::Flush {
            self.bytes[n].fetch_add(request.sectors.count.saturating_mul(SECTOR_SIZE), Relaxed);
        }
    }

    /// Counts a request that ended in an error.
    pub fn failed(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// Counts a request that timed out.
    pub fn timed_out(&self) {
        self.timeouts.fetch_add(1, Relaxed);
    }

    /// Counts a reset of the device.
    pub fn reset(&self) {
        self.resets.fetch_add(1, Relaxed);
    }

    /// Counts a notification.
    pub fn notified(&self) {
        self.notifications.fetch_add(1, Relaxed);
    }

    /// Returns the counters. Each is exact; together they are consistent only while nothing is
    /// submitted.
    pub fn snapshot(&self) -> DiskCounters {
        DiskCounters {
            requests: per_operation(&self.requests),
            bytes: per_operation(&self.bytes),
            errors: self.errors.load(Relaxed),
            timeouts: self.timeouts.load(Relaxed),
            resets: self.resets.load(Relaxed),
            notifications: self.notifications.load(Relaxed),
        }
    }
}

const fn index(operation: DiskOperation) -> usize {
    match operation {
        DiskOperation::Read => 0,
        DiskOperation::Write => 1,
        DiskOperation::Flush => 2,
        DiskOperation::Discard => 3,
        DiskOperation::WriteZeroes => 4,
    }
}

fn per_operation(counters: &[AtomicU64; 5]) -> PerOperation {
    let of = |operation| counters[index(operation)].load(Relaxed);
    PerOperation {
        read: of(DiskOperation::Read),
        write: of(DiskOperation::Write),
        flush: of(DiskOperation::Flush),
        discard: of(DiskOperation::Discard),
        write_zeroes: of(DiskOperation::WriteZeroes),
    }
}
