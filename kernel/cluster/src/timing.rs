//! The times of a cluster. Every member takes them from the superblock.
//!
//! ```text
//!   member:   submits a beat ├──────────── lease L ───────────┤ submits nothing any more
//!   watcher:        sees the beat ├───────────── watch W ──────────────┤ may suspect
//! ```
//!
//! Both count by a clock of their own. Rates differ from the true one by at most `rho`. A lease of
//! `L` lasts at most `L / (1 - rho)` of true time, and a watch of `W` at least `W / (1 + rho)`. So
//! `W` has to be `L (1 + rho) / (1 - rho)` or more; `L (1 + 3 rho)` is, up to a third.

const MS: u64 = 1_000_000;
const MAX_DRIFT_PPM: u32 = 100_000;

/// Times that all members share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterTiming {
    /// Milliseconds from one beat to the next.
    pub beat_ms: u32,
    /// Milliseconds for which a member goes on after the submission of a beat.
    pub lease_ms: u32,
    /// Largest deviation of a clock's rate, in millionths.
    pub drift_ppm: u32,
}

impl ClusterTiming {
    /// A death is found in ten seconds, and a stall of seven freezes no member.
    pub const DEFAULT: Self = Self { beat_ms: 1000, lease_ms: 8000, drift_ppm: 1000 };

    /// Returns whether the times make sense.
    pub const fn is_possible(&self) -> bool {
        self.beat_ms > 0
            && self.lease_ms / 2 >= self.beat_ms
            && self.lease_ms <= 3_600_000
            && self.drift_ppm <= MAX_DRIFT_PPM
    }

    /// Returns the nanoseconds between beats.
    pub const fn beat_ns(&self) -> u64 {
        self.beat_ms as u64 * MS
    }

    /// Returns the nanoseconds of a lease.
    pub const fn lease_ns(&self) -> u64 {
        self.lease_ms as u64 * MS
    }

    /// Returns for how many nanoseconds a beat has to stay unchanged before its member is
    /// suspected.
    pub fn watch_ns(&self) -> u64 {
        if mutant!(ShortWatch) {
            return self.lease_ns() - self.beat_ns();
        }
        self.lease_ns() + self.lease_ns() / 1_000_000 * 3 * self.drift_ppm as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_any_size_are_judged() {
        let is_possible = |beat_ms, lease_ms, drift_ppm| {
            ClusterTiming { beat_ms, lease_ms, drift_ppm }.is_possible()
        };
        assert!(is_possible(1000, 2000, 0) && is_possible(1_800_000, 3_600_000, MAX_DRIFT_PPM));
        for beat_ms in [0, 1001, 1 << 31, u32::MAX] {
            assert!(!is_possible(beat_ms, 2001, 0), "{beat_ms}");
        }
        assert!(!is_possible(u32::MAX, u32::MAX, 0) && !is_possible(1000, 2000, u32::MAX));
    }

    #[test]
    fn a_watch_on_the_fastest_clock_outlasts_a_lease_on_the_slowest() {
        for drift_ppm in [0, 1, 1000, 20_000, MAX_DRIFT_PPM] {
            let timing = ClusterTiming { drift_ppm, ..ClusterTiming::DEFAULT };
            let rho = f64::from(drift_ppm) / 1e6;
            let lease = timing.lease_ns() as f64 / (1.0 - rho);
            let watch = timing.watch_ns() as f64 / (1.0 + rho);
            assert!(watch >= lease, "{drift_ppm}: {watch} after {lease}");
        }
    }
}
