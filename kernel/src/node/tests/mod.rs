//! The node's own code over simulated disks: power cuts and faults at every request, in seconds.
//!
//! ```text
//!   SimGuest, SimGuest      write, read and check pages, crash, start again
//!   Life                    instead of them: the partitions' own runners, and vCPUs that execute scripts
//!        │
//!   SimMachine              pager, spaces, dumps, tasks, reaper: as on the bare machine; a clock set by tests
//!        │
//!   SimDisk, SimDisk …      answers late and out of order, fails on command, keeps a log of writes and flushes
//! ```
//!
//! `power_cuts` replays the log of a full cycle up to every point, with all flushed writes and any
//! part of the others, and runs `Spaces::open` on the result. `faults` breaks one disk at each of
//! its requests. `late_writes` lets a write of one node land in the middle of the next node's
//! cycle. Each prints its seed. The short forms run with the unit tests; `TIDEPOOL_SIMULATION=long`
//! selects the long ones (`docs/testing.md`).

mod area_disk;
mod beats;
mod bounds;
mod closed;
mod cluster;
mod cycle;
mod disk;
mod faults;
mod guest;
mod image;
mod late_writes;
mod life;
mod local_copy;
mod machine;
mod owners;
mod power_cuts;
mod remains;
mod windows;

/// Returns whether the long forms are selected.
fn is_long() -> bool {
    std::env::var_os("TIDEPOOL_SIMULATION").is_some_and(|value| value == "long")
}

/// Returns the seed of a run: from the environment, or a fixed one.
fn seed() -> u64 {
    let seed = std::env::var("TIDEPOOL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("TIDEPOOL_SEED={seed}");
    seed
}

/// A small generator of random numbers (xorshift64*), so that a seed repeats a run.
#[derive(Clone, Copy)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}
