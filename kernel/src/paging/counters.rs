//! The pager's counters: the equivalents of the values that PowerVM's tools show for shared memory,
//! and one counter per outcome of a fault.
//!
//! | PowerVM | here |
//! |---|---|
//! | `hpi`, `cmo_faults` | [`PagerSnapshot::page_ins`] |
//! | `hpit`, `cmo_fault_time_usec` | [`PagerSnapshot::page_in_ns`], [`PagerSnapshot::latency`] |
//! | `pmem`, `backing_memory` | the object's resident pages |
//! | `iomf`, `iomaf` | pins; [`PagerSnapshot::frame_waits`] |
//!
//! PagerCounters are relaxed atomics. Each value is exact, but a snapshot is not taken at a single
//! instant. The counters of one object and the pager's sum have the same type.

use crate::time::Ns;
use crate::time::Ticks;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets of the latency histogram: bucket `n` counts page-ins of `2^n ..= 2^(n+1) - 1` ns, the
/// last one all longer.
pub const LATENCY_BUCKETS: usize = 36;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The live counters.
        #[derive(Debug)]
        pub struct PagerCounters {
            $($(#[$doc])* pub $name: AtomicU64,)*
            latency: [AtomicU64; LATENCY_BUCKETS],
        }

        /// The counters' values.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct PagerSnapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// Page-ins by latency, see [`LATENCY_BUCKETS`].
            pub latency: [u64; LATENCY_BUCKETS],
        }

        impl PagerCounters {
            /// All zero.
            pub const fn new() -> Self {
                Self {
                    $($name: AtomicU64::new(0),)*
                    latency: [const { AtomicU64::new(0) }; LATENCY_BUCKETS],
                }
            }

            /// Reads all counters.
            pub fn snapshot(&self) -> PagerSnapshot {
                PagerSnapshot {
                    $($name: self.$name.load(Relaxed),)*
                    latency: core::array::from_fn(|n| self.latency[n].load(Relaxed)),
                }
            }
        }

        impl PagerSnapshot {
            /// Names and values, for statistics and events (without the histogram).
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Pages read from the paging space on demand.
    page_ins,
    /// Pages written to the paging space and then freed.
    page_outs,
    /// Pages written while they stayed mapped.
    cleaned,
    /// Neighbours read along with a page-in.
    read_around,
    /// Neighbours that were touched before they were evicted again.
    read_around_used,
    /// Clean pages freed without a write.
    clean_evictions,
    /// Zero pages freed without a write.
    zero_evictions,
    /// Frames freed from live memory, in any way.
    freed_from_live,
    /// Pages that were touched again while they were going out.
    rescues,
    /// Pages that got a zeroed frame at their first access.
    demand_zero,
    /// Pages without a frame that were read and now map the shared zeros.
    zeros_shown,
    /// Pages of children that were read and now show the base's frame.
    base_shown,
    /// Pages of children that got a copy of the base's page.
    base_copied,
    /// Faults on a resident page: the access has to be noted (CPUs without A and D bits), or
    /// another CPU has resolved the fault first.
    resident_faults,
    /// Faults on a page whose transfer was in flight.
    joined_waits,
    /// Faults that found no free frame, or no free transfer.
    frame_waits,
    /// Pages the clock hand has aged.
    aged,
    /// Write requests that failed; their pages are dirty again.
    write_errors,
    /// Read requests that failed, retried ones included.
    read_errors,
    /// Blocks whose checksum did not match, retried ones included.
    checksum_errors,
    /// Pages that could not be read back.
    lost_pages,
    /// Bytes read from the paging space.
    bytes_read,
    /// Bytes written to the paging space.
    bytes_written,
    /// Write requests to the paging space.
    write_requests,
    /// Read requests to the paging space.
    read_requests,
    /// Polls skipped because another CPU was polling.
    polls_left_to_others,
    /// Nanoseconds from the fault to the installed page, summed over page-ins.
    page_in_ns,
}

impl Default for PagerCounters {
    fn default() -> Self {
        Self::new()
    }
}

impl PagerCounters {
    /// Counts a page-in that took `ns`.
    pub fn note_page_in(&self, ns: Ns) {
        bump(&self.page_ins, 1);
        bump(&self.page_in_ns, ns.as_u64());
        bump(&self.latency[bucket(ns)], 1);
    }
}

/// Adds to a counter.
#[inline]
pub fn bump(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}

/// Returns the histogram's bucket of a latency.
fn bucket(ns: Ns) -> usize {
    (ns.as_u64().max(1).ilog2() as usize).min(LATENCY_BUCKETS - 1)
}

/// How the pager's lock and its turns were used since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LockUse {
    /// Times that the lock was taken.
    pub taken: u64,
    /// Times that a CPU found it taken and waited.
    pub waits: u64,
    /// The longest hold in a turn, in ticks of the time-stamp counter; 0 on a machine of one CPU.
    pub longest_ticks: Ticks,
    /// Turns of the pager: polls that were not left to another CPU.
    pub turns: u64,
    /// Turns without work: no completion, no page to move.
    pub turns_without_work: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_their_power_of_two() {
        assert_eq!(
            (
                bucket(Ns::ZERO),
                bucket(Ns::new(1)),
                bucket(Ns::new(2)),
                bucket(Ns::new(3)),
                bucket(Ns::new(4))
            ),
            (0, 0, 1, 1, 2)
        );
        assert_eq!(bucket(Ns::MAX), LATENCY_BUCKETS - 1);
    }

    #[test]
    fn a_snapshot_has_every_counter_by_name() {
        let counters = PagerCounters::new();
        counters.note_page_in(Ns::new(5));
        bump(&counters.rescues, 7);
        let snapshot = counters.snapshot();
        assert_eq!((snapshot.page_ins, snapshot.page_in_ns, snapshot.latency[2]), (1, 5, 1));
        assert!(snapshot.fields().any(|field| field == ("rescues", 7)));
    }
}
