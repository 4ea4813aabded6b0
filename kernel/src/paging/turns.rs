//! Whose turn it is to poll: one CPU's at a time, and no arrival is overlooked.
//!
//! ```text
//!  begin: polling was clear ─────────────> this CPU polls ── end ──> came? None | Another: poll again
//!         polling was set ─> came = set ─> polling clear by now? ─> this CPU polls
//!                                          else: leave; the polling CPU sees `came` at its end
//! ```
//!
//! Invariant: a CPU that leaves has set `came` while another CPU's turn lasted, and that turn's end looks at `came` after it has cleared
//! `polling`. All four accesses are sequentially consistent, so one of the two CPUs sees the other's.

use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Whether another CPU has come while this one had its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Came {
    None,
    Another,
}

/// The turn.
#[derive(Debug)]
pub(super) struct PollTurns {
    /// There is no other CPU, so a turn costs nothing.
    is_alone: bool,
    polling: AtomicBool,
    came: AtomicBool,
}

impl PollTurns {
    /// No CPU of `cpus` has the turn.
    pub fn new(cpus: usize) -> Self {
        Self { is_alone: cpus == 1, polling: AtomicBool::new(false), came: AtomicBool::new(false) }
    }

    /// Returns whether there is no other CPU that could wait for a lock.
    #[inline]
    pub fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Takes the turn, or leaves word for the CPU that has it; returns whether it was taken.
    #[inline]
    pub fn begin(&self) -> bool {
        if self.is_alone || !self.polling.swap(true, SeqCst) {
            return true;
        }
        self.came.store(true, SeqCst);
        !self.polling.swap(true, SeqCst)
    }

    /// Gives the turn back; returns whether another CPU has come since the last end.
    #[inline]
    pub fn end(&self) -> Came {
        if self.is_alone {
            return Came::None;
        }
        self.polling.store(false, SeqCst);
        if self.came.load(SeqCst) && self.came.swap(false, SeqCst) { Came::Another } else { Came::None }
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
        assert_eq!(turns.end(), Came::Another);
        assert!(turns.begin());
        assert_eq!(turns.end(), Came::None);
    }

    /// Each thread does something and then has a turn or leaves word. After the last one's end nothing is left undone.
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
                                if turns.end() == Came::None {
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
