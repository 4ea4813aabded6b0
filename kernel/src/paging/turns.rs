//! Poll turns: one CPU polls at a time, and no arrival is overlooked.
//!
//! ```text
//!  begin: polling was clear ─────────────> this CPU polls ── end ──> came? None | Another: poll again
//!         polling was set ─> came = set ─> polling clear by now? ─> this CPU polls
//!                                          else: leave; the polling CPU sees `came` at its end
//! ```
//!
//! Invariant: a CPU that leaves has set `came` during another CPU's turn. That turn's end reads
//! `came` after it has cleared `polling`. All four accesses are sequentially consistent, so at
//! least one of the two CPUs sees the other's store.

use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Whether another CPU came during this CPU's turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TurnVisitor {
    None,
    Another,
}

/// The state of the turn.
#[derive(Debug)]
pub(super) struct PollTurns {
    /// There is no other CPU, so turns need no atomics.
    is_alone: bool,
    polling: AtomicBool,
    came: AtomicBool,
}

impl PollTurns {
    /// Makes the state for `cpus` CPUs; no turn is taken.
    pub(super) fn new(cpus: usize) -> Self {
        Self { is_alone: cpus == 1, polling: AtomicBool::new(false), came: AtomicBool::new(false) }
    }

    /// Returns whether this is the only CPU, so that no lock is contended.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Takes the turn, or leaves a note for the CPU that has it. Returns whether it was taken.
    #[inline]
    pub(super) fn begin(&self) -> bool {
        if self.is_alone || !self.polling.swap(true, SeqCst) {
            return true;
        }
        self.came.store(true, SeqCst);
        !self.polling.swap(true, SeqCst)
    }

    /// Ends the turn. Returns whether another CPU has come since the last end.
    #[inline]
    pub(super) fn end(&self) -> TurnVisitor {
        if self.is_alone {
            return TurnVisitor::None;
        }
        self.polling.store(false, SeqCst);
        if self.came.load(SeqCst) && self.came.swap(false, SeqCst) {
            TurnVisitor::Another
        } else {
            TurnVisitor::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU64;
    use std::sync::Arc;

    #[test]
    fn a_cpu_that_comes_meanwhile_leaves_word() {
        let turns = PollTurns::new(2);
        assert!(turns.begin() && !turns.begin());
        assert_eq!(turns.end(), TurnVisitor::Another);
        assert!(turns.begin());
        assert_eq!(turns.end(), TurnVisitor::None);
    }

    /// Each thread does a piece of work and then takes a turn or leaves a note. After the last
    /// turn's end no work is left unseen.
    #[test]
    fn nothing_done_before_a_refused_turn_is_overlooked() {
        for _ in 0..200 {
            let shared = Arc::new((PollTurns::new(4), AtomicU64::new(0), AtomicU64::new(0)));
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let shared = shared.clone();
                    std::thread::spawn(move || {
                        let (turns, done, seen) = &*shared;
                        for _ in 0..50 {
                            done.fetch_add(1, SeqCst);
                            while turns.begin() {
                                seen.store(done.load(SeqCst), SeqCst);
                                if turns.end() == TurnVisitor::None {
                                    break;
                                }
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(shared.2.load(SeqCst), 200);
        }
    }
}
