//! The ranks of all locks, in the order in which a CPU may take them, and the locks that each CPU
//! holds.
//!
//! A new lock gets a rank here, higher than the ranks of all locks held where it is taken. Two
//! locks of one rank are never held together. The exception is `try_lock`: it cannot wait, so it
//! takes any rank.

/// The operator's monitor and the services' state.
pub const CONSOLE: u8 = 1;
/// Lists of background work.
pub const SCHEDULER: u8 = 2;
/// A partition: state machine, devices, vCPUs that do not run.
pub const PARTITION: u8 = 3;
/// The pager's transfers and batches.
pub const PAGER: u8 = 4;
/// A memory object: its second-level table.
pub const OBJECT: u8 = 5;
/// A paging space's record and bitmaps.
pub const SPACE: u8 = 6;
/// The pool's accounts.
pub const POOL: u8 = 7;
/// Frame metadata and free lists.
pub const FRAMES: u8 = 8;
/// A disk's queue.
pub const DISK: u8 = 9;
/// PCI configuration space.
pub const PCI: u8 = 10;
/// The run queue: a vCPU may have to be woken while any lower lock is held.
pub const RUN_QUEUE: u8 = 11;
/// Lines of events that wait for COM2.
pub const EVENTS: u8 = 12;
/// A serial line: a message may be logged while any other lock is held.
pub const SERIAL: u8 = 13;

/// One more than the highest rank.
pub const COUNT: usize = 14;

/// The number of locks of each rank that a CPU holds.
pub(super) mod held {
    use super::COUNT;
    use core::cell::Cell;

    pub(super) type Counts = [Cell<u8>; COUNT];

    /// Checks that this CPU may wait for a lock of `rank`.
    pub fn check(rank: u8) {
        with(|counts| {
            let higher = (usize::from(rank)..COUNT).find(|&r| counts[r].get() > 0);
            assert!(higher.is_none(), "locks are taken in ascending rank: {rank} after {}", higher.unwrap_or(0));
        });
    }

    /// Notes that a lock of `rank` was taken.
    pub fn note(rank: u8) {
        with(|counts| counts[usize::from(rank)].update(|n| n + 1));
    }

    /// Notes that a lock of `rank` was released.
    pub fn forget(rank: u8) {
        with(|counts| counts[usize::from(rank)].update(|n| n - 1));
    }

    #[cfg(all(debug_assertions, target_os = "none"))]
    fn with(f: impl FnOnce(&Counts)) {
        use crate::arch::percpu::{CpuLocal, MAX_CPUS};
        static HELD: CpuLocal<Counts> = CpuLocal::new([const { [const { Cell::new(0) }; COUNT] }; MAX_CPUS]);
        HELD.with(|counts| f(counts));
    }

    #[cfg(all(debug_assertions, test))]
    fn with(f: impl FnOnce(&Counts)) {
        std::thread_local!(static HELD: Counts = const { [const { Cell::new(0) }; COUNT] });
        HELD.with(f);
    }

    /// Release builds do not check, nor does the library inside the host command, where threads are
    /// not CPUs.
    #[cfg(not(all(debug_assertions, any(target_os = "none", test))))]
    fn with(_: impl FnOnce(&Counts)) {}
}
