//! Counts late ends of the timer, on an emulator that can lose its interrupt
//! ([`super::quirks::requests_get_lost`]).
//!
//! ```text
//!  armed      deadline                                  repeat  seen
//!  ──┼───────────┼─────────────────────────────────────────┼──────┼──> time
//!    │<─ count ─>│ interrupt lost, or the CPU held up       │<────>│ since the last end
//!                │<────────────────── late ──────────────────────>│
//! ```
//!
//! If a CPU notices the end late by a whole count, there are two causes: the emulator's host paused
//! the CPU, or the interrupt was lost and a repeat replaced it. In the second case the CPU notices
//! right after a later end. In the first case it notices at any time within a count, so one in
//! `PART` of these is mistaken for the second.

use crate::time::Ticks;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Fraction of a count after its end within which a CPU notices a repeat.
const PART: u64 = 16;

static LATE: AtomicU64 = AtomicU64::new(0);
static REPEATED: AtomicU64 = AtomicU64::new(0);

/// How often ends were noticed late, on all CPUs since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RepeatCounts {
    /// Late by nearly a whole count, or more.
    pub late: u64,
    /// Those of them that were noticed right after a later end.
    pub repeated: u64,
}

/// Returns the counts.
pub fn counts() -> RepeatCounts {
    RepeatCounts { late: LATE.load(Relaxed), repeated: REPEATED.load(Relaxed) }
}

/// Records an end that was noticed `late`, of a timer that repeats `count` and last ended
/// `since_last` ago.
pub(super) fn note(count: Ticks, late: Ticks, since_last: Ticks) {
    let part = count / PART;
    if late < count - part {
        return;
    }
    LATE.fetch_add(1, Relaxed);
    if since_last < part {
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
            note(Ticks::new(count), Ticks::new(late), Ticks::new(since_last));
            (counts().late - before.late, counts().repeated - before.repeated)
        };
        assert_eq!(found(1_600, 300, 300), (0, 0), "the first end");
        assert_eq!(found(1_600, 1_620, 20), (1, 1), "the second end");
        assert_eq!(found(1_600, 1_590, 30), (1, 1), "the two clocks differ a little");
        assert_eq!(found(1_600, 2_400, 800), (1, 0), "held up");
        assert_eq!(found(0, 0, 0), (1, 0), "a count of nothing divides nothing");
    }
}
