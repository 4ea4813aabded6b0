//! The ranks of all locks, in the order in which a CPU may take them, and the locks that each CPU
//! holds.
//!
//! A new lock gets a rank here, higher than the ranks of all locks held where it is taken. Two
//! locks of one rank are never held together. The exception is `try_lock`: it cannot wait, so it
//! takes any rank.

/// The reader of the operator's commands.
pub const CONSOLE: u8 = 1;
/// Tasks, and objects that are being taken apart: background work, which runs under this lock.
pub const SCHEDULER: u8 = 2;
/// The partition in a slot of the node: held to read or to change which one it is.
pub const REGISTRY: u8 = 3;
/// A vCPU and its partition's devices: held by the CPU that runs the vCPU, never contended.
pub const PARTITION: u8 = 4;
/// A device on a partition's bus: held by its exits, and by whatever CPU serves the device.
pub const DEVICE: u8 = 5;
/// The pager's transfers and batches.
pub const PAGER: u8 = 6;
/// The table of all memory objects, by number, and the choice of a free paging space. A memory
/// object itself needs no lock.
pub const OBJECT: u8 = 7;
/// A paging space's record and bitmaps, a paging device's buffers, tasks' requests on a disk.
pub const SPACE: u8 = 8;
/// The free list of frames, control frames, tags of cached translations.
pub const FRAMES: u8 = 9;
/// A disk's queue, and its writes in flight.
pub const DISK: u8 = 10;
/// PCI configuration space.
pub const PCI: u8 = 11;
/// The run queue: a vCPU may have to be woken while any lower lock is held.
pub const RUN_QUEUE: u8 = 12;
/// What may be added to under almost any lock: events for COM2, keys for a guest, inboxes of tasks.
pub const EVENTS: u8 = 13;
/// A serial line: a message may be logged while any other lock is held.
pub const SERIAL: u8 = 14;

/// One more than the highest rank.
pub const COUNT: usize = 15;

/// The number of locks of each rank that a CPU holds.
pub(super) mod held {
    use super::COUNT;
    use core::cell::Cell;

    pub(super) type RankCounts = [Cell<u8>; COUNT];

    /// Checks that this CPU may wait for a lock of `rank`.
    pub(crate) fn check(rank: u8) {
        with(|counts| {
            let higher = (usize::from(rank)..COUNT).find(|&r| counts[r].get() > 0);
            assert!(
                higher.is_none(),
                "locks are taken in ascending rank: {rank} after {}",
                higher.unwrap_or(0)
            );
        });
    }

    /// Notes that a lock of `rank` was taken.
    pub(crate) fn note(rank: u8) {
        with(|counts| counts[usize::from(rank)].update(|n| n + 1));
    }

    /// Notes that a lock of `rank` was released.
    pub(crate) fn forget(rank: u8) {
        with(|counts| counts[usize::from(rank)].update(|n| n - 1));
    }

    #[cfg(all(debug_assertions, target_os = "none"))]
    fn with(f: impl FnOnce(&RankCounts)) {
        use crate::arch::percpu::{CpuLocal, MAX_CPUS};
        static HELD: CpuLocal<RankCounts> =
            CpuLocal::new([const { [const { Cell::new(0) }; COUNT] }; MAX_CPUS]);
        HELD.with(|counts| f(counts));
    }

    #[cfg(all(debug_assertions, test))]
    fn with(f: impl FnOnce(&RankCounts)) {
        std::thread_local!(static HELD: RankCounts = const { [const { Cell::new(0) }; COUNT] });
        HELD.with(f);
    }

    /// Release builds do not check, nor does the library inside the host command, where threads are
    /// not CPUs.
    #[cfg(not(all(debug_assertions, any(target_os = "none", test))))]
    fn with(_: impl FnOnce(&RankCounts)) {}
}
