//! The trouble that a seed selects for nodes that share a disk. Node `a` is in trouble; `b`, and
//! sometimes `c`, are not, unless the disk is.

use crate::seeds::Choices;
use std::time::Duration;

/// Which requests of the disk stand still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StallPlace {
    /// Those of the area.
    Area,
    /// Those of the spaces.
    Spaces,
    /// All.
    Both,
}

/// The trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The process of `a` stands still.
    Stop(Duration),
    /// `a` is killed.
    Kill,
    /// Requests stand still: those of this node, or of all.
    Stall(StallPlace, Option<&'static str>, Duration),
    /// Page writes of `a` are held back while its process stands still, and land this much after
    /// it.
    LateWrites(Duration, Duration),
    /// The process of `a` stands still, and an operator says that it is off: this much before or
    /// after it goes on, in milliseconds.
    Confirm(Duration, i64),
}

/// A trial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrialPlan {
    /// Its seed.
    pub seed: u64,
    /// The trouble.
    pub trouble: Trouble,
    /// Time from the first pass of all guests to the trouble.
    pub after: Duration,
    /// Whether there is a third node.
    pub has_third: bool,
}

impl TrialPlan {
    /// Makes the plan of a seed; nothing lasts longer than `longest`.
    pub fn new(seed: u64, longest: Duration) -> Self {
        let mut choices = Choices::new(seed);
        let longest = longest.as_millis() as u64;
        let mut time = |most: u64| {
            let most = most.min(longest).max(1001);
            choices.time(1000..most)
        };
        let (stop, long_stop, stall, late) =
            (time(60_000), time(60_000).max(Duration::from_secs(11)), time(20_000), time(20_000));
        let place = choices.one(&[StallPlace::Area, StallPlace::Spaces, StallPlace::Both]);
        let who = choices.one(&[Some("a"), None]);
        let confirm = choices.number(0..5000) as i64 - 2500;
        let trouble = match choices.number(0..8) {
            0 | 1 => Trouble::Stop(stop),
            2 => Trouble::Kill,
            3 | 4 => Trouble::Stall(place, who, stall),
            5 | 6 => Trouble::LateWrites(long_stop, late),
            _ => Trouble::Confirm(long_stop.max(Duration::from_secs(15)), confirm),
        };
        let (after, has_third) = (choices.time(0..5000), choices.one_in(4));
        Self { seed, trouble, after, has_third }
    }
}
