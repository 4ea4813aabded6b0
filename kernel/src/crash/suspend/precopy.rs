//! Writes the dirty pages of a partition while it still runs, before it is suspended.
//!
//! A pass over all pages follows another until little is left, or a pass finds no fewer dirty pages
//! than the ones before: the guest dirties pages as fast as the disk takes them. It is suspended
//! all the same, with the longer pause.

use crate::addr::PAGE_SIZE;
use crate::arch::{percpu, time};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::host::Host;
use crate::mm::object::MemoryObject;
use crate::paging::{PrecopyPass, PrecopyState};
use crate::task;
use crate::time::Ns;
use alloc::sync::Arc;
use arrayvec::ArrayString;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Dirty pages that are few enough to stop the guest: 4 MiB.
pub const FEW_PAGES: u32 = 1024;
/// Leaves that are visited in one turn.
const VISITS: u32 = 4096;
/// Passes without fewer dirty pages after which the guest is stopped.
const FRUITLESS: u32 = 2;
/// Longest time of all passes.
const MOST_NS: Ns = Ns::from_secs(120);
/// Written pages from which the disk's speed is known.
const SPEED_PAGES: u32 = 256;

/// A pre-copy in progress, for the runner.
#[derive(Debug, Default)]
pub struct PrecopyProgress {
    is_over: AtomicBool,
    /// Pages written.
    pages: AtomicU64,
    /// The disk's bytes a second; 0 if it is not known.
    speed: AtomicU64,
}

impl PrecopyProgress {
    /// Returns whether the guest is to be stopped now.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Returns the pages that were written while the guest ran.
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Returns how long the disk takes for `pages` pages, if its speed is known.
    pub fn expected_ns(&self, pages: u64) -> Option<u64> {
        let bytes = u128::from(pages) * u128::from(PAGE_SIZE) * 1_000_000_000;
        let ns = bytes.checked_div(self.speed.load(Ordering::Relaxed).into())?;
        Some(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

/// Begins to write the dirty pages of a running partition.
pub fn begin(
    host: &'static Host,
    name: &str,
    incarnation: u64,
    object: Arc<MemoryObject>,
) -> Arc<PrecopyProgress> {
    let progress = Arc::new(PrecopyProgress::default());
    let name = ArrayString::from(name).unwrap_or_default();
    let job = PrecopyJob { host, name, incarnation, object, progress: progress.clone() };
    host.tasks.start(job.run());
    progress
}

struct PrecopyJob {
    host: &'static Host,
    name: ArrayString<64>,
    incarnation: u64,
    object: Arc<MemoryObject>,
    progress: Arc<PrecopyProgress>,
}

impl PrecopyJob {
    async fn run(self) {
        let begun = time::now_ns();
        let mut passes = PrecopyPasses::default();
        loop {
            let since = time::now_ns();
            let Some(found) = self.pass(begun).await else { break };
            let took = time::now_ns().saturating_sub(since);
            self.note(found, took);
            if !passes.go_on_after(found) {
                break;
            }
        }
        self.progress.is_over.store(true, Ordering::Release);
    }

    /// Makes one pass; returns the dirty pages that it has written. `None`: there is no sense in
    /// going on.
    async fn pass(&self, begun: Ns) -> Option<u32> {
        let mut pass = PrecopyPass::default();
        loop {
            let (state, work) =
                self.host.pager.precopy(&self.object, &mut pass, percpu::current(), VISITS);
            self.host.act_on(work);
            match state {
                PrecopyState::PassOver => return Some(pass.found),
                PrecopyState::Refused => return None,
                // The runner has given up, or the time is over.
                PrecopyState::Busy if Arc::strong_count(&self.progress) == 1 => return None,
                PrecopyState::Busy if time::now_ns() >= begun + MOST_NS => return None,
                PrecopyState::Busy if work.poll_again => task::yield_now().await,
                PrecopyState::Busy => task::next_turn().await,
            }
        }
    }

    fn note(&self, found: u32, took: Ns) {
        self.progress.pages.fetch_add(found.into(), Ordering::Relaxed);
        if found >= SPEED_PAGES {
            let bytes = u128::from(found) * u128::from(PAGE_SIZE) * 1_000_000_000;
            let speed = bytes / u128::from(took.as_u64().max(1));
            self.progress.speed.store(speed as u64, Ordering::Relaxed);
        }
        report(&ConsoleEvent::Precopy {
            partition: &self.name,
            incarnation: self.incarnation,
            pages: found.into(),
            pass_ns: took.as_u64(),
            expected_pause_ns: self.progress.expected_ns(found.into()),
        });
    }
}

/// Decides whether another pass is worth it.
#[derive(Clone, Copy, Debug, Default)]
struct PrecopyPasses {
    /// Fewest dirty pages that a pass has found.
    fewest: Option<u32>,
    /// Passes in a row that have found no fewer.
    fruitless: u32,
}

impl PrecopyPasses {
    fn go_on_after(&mut self, found: u32) -> bool {
        if found <= FEW_PAGES {
            return false;
        }
        match self.fewest {
            // A 32nd fewer counts as progress.
            Some(fewest) if found > fewest - fewest / 32 => self.fruitless += 1,
            _ => self.fruitless = 0,
        }
        self.fewest = Some(self.fewest.map_or(found, |fewest| fewest.min(found)));
        self.fruitless < FRUITLESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the dirty pages at the stop, and the number of passes, for a guest that dirties
    /// `share` parts of a thousand of what the disk takes, of `set` different pages at most.
    fn play(dirty: u32, share: u32, set: u32) -> (u32, u32) {
        let (mut passes, mut left, mut count) = (PrecopyPasses::default(), dirty, 0);
        loop {
            count += 1;
            let found = left;
            left = (u64::from(found) * u64::from(share) / 1000).min(set.into()) as u32;
            if !passes.go_on_after(found) {
                return (left, count);
            }
        }
    }

    #[test]
    fn a_guest_below_the_disks_speed_has_little_left_at_the_stop() {
        for dirty in [2_000, 65_536, 1 << 22] {
            for share in [0, 100, 500, 900, 950] {
                let (left, passes) = play(dirty, share, u32::MAX);
                assert!(left <= (20 << 8).max(dirty / 10), "{dirty} {share}: {left}");
                assert!(passes < 200, "{dirty} {share}: {passes}");
            }
        }
        // A set that fits is written once, and not again and again.
        assert_eq!(play(65_536, 5_000, 1_000), (1_000, 2));
    }

    #[test]
    fn a_guest_that_is_as_fast_as_the_disk_is_stopped_after_few_passes() {
        for share in [990, 1_000, 3_000] {
            let (_, passes) = play(65_536, share, 1 << 20);
            assert!(passes <= 5, "{share}: {passes}");
        }
    }

    #[test]
    fn the_pause_is_told_from_the_disks_speed() {
        let progress = PrecopyProgress::default();
        assert_eq!(progress.expected_ns(10), None);
        progress.speed.store(4096 * 1000, Ordering::Relaxed);
        assert_eq!(progress.expected_ns(500), Some(500_000_000));
    }
}
