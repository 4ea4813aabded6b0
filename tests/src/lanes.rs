//! How many cases run at a time, and how long each took.
//!
//! All cases in bed C share one Linux, so one of them runs at a time: they have a lane of their
//! own. They begin first, because together they take long and one emulated CPU does all their
//! work. The other places belong to the other cases meanwhile.
//!
//! ```text
//!   places   case in bed C | case in bed C | ...            | other case | ...
//!            other case | other case | other case | ...     | other case | ...
//! ```

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest cases that the summary names.
const NAMED: usize = 12;

/// The places of one run.
#[derive(Debug)]
pub(crate) struct CaseLanes {
    places: Mutex<LanePlaces>,
    changed: Condvar,
    took: Mutex<Vec<(Duration, String)>>,
}

#[derive(Debug)]
struct LanePlaces {
    free: usize,
    is_shared_linux_free: bool,
}

/// A place that a case holds; it is free again at the end of this value.
#[derive(Debug)]
struct LanePlace<'l> {
    lanes: &'l CaseLanes,
    holds_shared_linux: bool,
}

impl CaseLanes {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places: Mutex::new(LanePlaces { free: places.max(1), is_shared_linux_free: true }),
            changed: Condvar::new(),
            took: Mutex::new(Vec::new()),
        }
    }

    /// Returns the threads that keep all places busy: cases in bed C come first, and each of them
    /// may hold a thread while it waits for the Linux.
    pub(crate) const fn threads(places: usize, sharing: usize) -> usize {
        places + sharing
    }

    /// Runs a case in its place, and notes its time.
    pub(crate) fn run<T>(&self, name: &str, shares_linux: bool, case: impl FnOnce() -> T) -> T {
        let place = self.take(shares_linux);
        let begin = Instant::now();
        let outcome = case();
        lock(&self.took).push((begin.elapsed(), name.to_owned()));
        drop(place);
        outcome
    }

    fn take(&self, shares_linux: bool) -> LanePlace<'_> {
        let must_wait =
            |p: &mut LanePlaces| p.free == 0 || (shares_linux && !p.is_shared_linux_free);
        let places = self.changed.wait_while(lock(&self.places), must_wait);
        let mut places = places.unwrap_or_else(PoisonError::into_inner);
        places.free -= 1;
        places.is_shared_linux_free &= !shares_linux;
        LanePlace { lanes: self, holds_shared_linux: shares_linux }
    }

    /// Names the cases that took longest, and the time of all together; empty after one case.
    pub(crate) fn summary(&self) -> String {
        let mut took = lock(&self.took).clone();
        if took.len() < 2 {
            return String::new();
        }
        took.sort_by(|a, b| b.cmp(a));
        let all: Duration = took.iter().map(|(time, _)| *time).sum();
        let line =
            |(time, name): &(Duration, String)| format!("  {:6.1} s  {name}\n", time.as_secs_f64());
        let longest: String = took.iter().take(NAMED).map(line).collect();
        format!(
            "{} cases took {:.0} s together; the longest:\n{longest}",
            took.len(),
            all.as_secs_f64()
        )
    }
}

impl Drop for LanePlace<'_> {
    fn drop(&mut self) {
        let mut places = lock(&self.lanes.places);
        places.free += 1;
        places.is_shared_linux_free |= self.holds_shared_linux;
        self.lanes.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn no_more_cases_run_than_there_are_places_and_one_of_bed_c() {
        let (lanes, all, nested) = (CaseLanes::new(2), AtomicUsize::new(0), AtomicUsize::new(0));
        let order = Mutex::new((0..60).map(|n| n < 20).collect::<Vec<_>>().into_iter());
        let case = |shares: bool| {
            assert!(all.fetch_add(1, SeqCst) < 2, "more cases than places");
            let of_c = nested.fetch_add(usize::from(shares), SeqCst);
            assert!(!shares || of_c == 0, "two cases of bed C");
            std::thread::yield_now();
            nested.fetch_sub(usize::from(shares), SeqCst);
            all.fetch_sub(1, SeqCst);
        };
        std::thread::scope(|scope| {
            for _ in 0..CaseLanes::threads(2, 20) {
                scope.spawn(|| {
                    while let Some(shares) = { lock(&order).next() } {
                        lanes.run("case", shares, || case(shares));
                    }
                });
            }
        });
        assert!(lanes.summary().starts_with("60 cases took "), "{}", lanes.summary());
        assert!(lanes.take(true).holds_shared_linux && lock(&lanes.places).free == 2);
    }

    #[test]
    fn another_case_runs_beside_one_of_bed_c_while_a_second_one_waits() {
        let (lanes, meet) = (CaseLanes::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| lanes.run("first", true, || meet.wait()));
            scope.spawn(|| lanes.run("second", true, || meet.wait()));
            // Each of the two needs another case beside it to end.
            lanes.run("other", false, || meet.wait());
            lanes.run("other", false, || meet.wait());
        });
    }

    #[test]
    fn a_case_that_panics_leaves_its_place() {
        let lanes = CaseLanes::new(1);
        let run = || lanes.run("case", true, || panic!("as asked"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        assert_eq!(lanes.run("case", true, || 7), 7);
        assert_eq!(lanes.summary(), "");
    }
}
