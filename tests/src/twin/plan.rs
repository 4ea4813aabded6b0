//! The disturbance that a seed selects for two nodes, `a` and `b`, that share one disk.
//!
//! ```text
//!              start of b (0 to 5 s)
//!   a  ──────────┬──── stopped (1 to 20 s) ──────────┬──────────>   Pause
//!   a  ──────────┬──── its requests are late ────────┬──────────>   SlowPath
//!   a  ──── writes ── stopped, they land meanwhile ────────────>   LateWritesAndPause
//!   a, b  start together, claims of one are late ───────────────>   Starters
//! ```

use crate::seeds::Choices;
use std::time::Duration;

/// The disturbance of node `a` while `b` starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disturbance {
    /// Both start; the first claims of one are held.
    Starters {
        /// The node whose claims are held.
        late: &'static str,
    },
    /// The process of `a` is stopped for this time.
    Pause(Duration),
    /// All requests of `a` are held for this time.
    SlowPath(Duration),
    /// The process of `a` is stopped, and the writes that it sends afterwards are held.
    PauseAndSlowWrites(Duration),
    /// Writes of `a` are held so that they may land after `b` has taken the space; meanwhile the
    /// process of `a` is stopped.
    LateWritesAndPause(Duration),
}

/// A run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TwinPlan {
    /// The seed of the plan.
    pub seed: u64,
    /// The disturbance of `a`.
    pub disturbance: Disturbance,
    /// Time from the start of `a`, or from the beginning of the disturbance, to the start of `b`.
    pub start_of_b: Duration,
    /// Time for which each late request is held.
    pub hold: Duration,
    /// Number of claims that are held, where both nodes start.
    pub held_claims: u64,
}

impl TwinPlan {
    /// Makes the plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut choices = Choices::new(seed);
        let disturbance = match choices.number(0..5) {
            0 => Disturbance::Starters { late: choices.one(&["a", "b"]) },
            1 => Disturbance::Pause(choices.time(1000..20_000)),
            2 => Disturbance::SlowPath(choices.time(1000..10_000)),
            3 => Disturbance::PauseAndSlowWrites(choices.time(1000..20_000)),
            _ => Disturbance::LateWritesAndPause(choices.time(8000..20_000)),
        };
        let longest_hold =
            if matches!(disturbance, Disturbance::LateWritesAndPause(_)) { 12_000 } else { 5000 };
        let (start_of_b, hold) = (choices.time(0..5000), choices.time(0..longest_hold));
        Self { seed, disturbance, start_of_b, hold, held_claims: choices.number(1..4) }
    }
}
