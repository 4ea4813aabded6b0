//! Counts of the timer whose first interrupt was not seen, where an emulator can lose one ([`super::quirks::requests_get_lost`]).
//!
//! ```text
//!  armed      deadline                                  repeat  seen
//!  ──┼───────────┼─────────────────────────────────────────┼──────┼──> time
//!    │<─ count ─>│ interrupt lost, or the CPU held up       │<────>│ since the last end
//!                │<────────────────── late ──────────────────────>│
//! ```
//!
//! A CPU that sees the end later by a whole count was held up by the emulator's host, or the interrupt was lost and a
//! repeat told of it. In the second case the CPU is there right behind an end; in the first one it comes at any time of a
//! count, so that one in [`PART`] of these is taken for the second.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The part of a count behind its end in which a CPU is there that a repeat has told.
const PART: u64 = 16;

static LATE: AtomicU64 = AtomicU64::new(0);
static REPEATED: AtomicU64 = AtomicU64::new(0);

/// How often ends were seen late, on all CPUs since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RepeatCounts {
    /// Later by a whole count and more.
    pub late: u64,
    /// Those of them that were seen right behind a later end.
    pub repeated: u64,
}

/// Returns the counts.
pub fn counts() -> RepeatCounts {
    RepeatCounts { late: LATE.load(Relaxed), repeated: REPEATED.load(Relaxed) }
}

/// Notes an end that was seen `late`, of a timer that counts `count` again and again and ended last `since_last` before; all in
/// ticks of one clock.
pub(super) fn note(count: u64, late: u64, since_last: u64) {
    if late < count - count / PART {
        return;
    }
    LATE.fetch_add(1, Relaxed);
    if since_last < count / PART {
        REPEATED.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_counts_that_was_missed_for_a_whole_count() {
        let found = |count, late, since_last| {
            let before = counts();
            note(count, late, since_last);
            (counts().late - before.late, counts().repeated - before.repeated)
        };
        assert_eq!(found(1_600, 300, 300), (0, 0), "the first end");
        assert_eq!(found(1_600, 1_620, 20), (1, 1), "the second end");
        assert_eq!(found(1_600, 1_590, 30), (1, 1), "the two clocks differ a little");
        assert_eq!(found(1_600, 2_400, 800), (1, 0), "held up");
        assert_eq!(found(0, 0, 0), (1, 0), "a count of nothing divides nothing");
    }
}
