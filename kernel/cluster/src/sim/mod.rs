//! Drives the rules with simulated disks, clocks and nodes. A seed decides every event, so a run
//! that fails can be seen again: `TIDEPOOL_SEED=n TIDEPOOL_RUNS=1`.
//!
//! Properties, checked at every event (`truth`, `app`):
//! * a slot has one winner, and a failed registration never becomes a member;
//! * all nodes know the same decrees in the same order, and the same state after each;
//! * a fence is proposed and decided only when the suspect has no lease, and the suspect gets none
//!   while the fence may be decided, nor afterwards;
//! * a write lands only in a space that the log gives to its writer in the write's epoch, and no
//!   write of a member lands after it was called quiet;
//! * a message is read once, by the member to whom it was sent, and only what was read is
//!   acknowledged;
//! * a partition runs on one node, and finds every page as it was written, or as it was suspended.

mod app;
mod area;
mod careless;
mod growth;
mod mail;
pub(crate) mod mutants;
mod random;
mod truth;
mod world;

use crate::decree::Decree;
use std::collections::BTreeMap;
use world::World;

fn name(decree: &Decree) -> &'static str {
    match decree {
        Decree::Nothing => "decree nothing",
        Decree::Member(_) => "decree member",
        Decree::Fence { .. } => "decree fence",
        Decree::Quiet { .. } => "decree quiet",
        Decree::Own { .. } => "decree own",
        Decree::Take { .. } => "decree take",
        Decree::HandOver { .. } => "decree hand over",
        Decree::Release { .. } => "decree release",
    }
}

/// What must happen in every long enough run.
const FIRES: [&str; 48] = [
    "asked to leave",
    "ballot lost",
    "begun anew",
    "death",
    "decree fence",
    "decree hand over",
    "decree member",
    "decree nothing",
    "decree own",
    "decree quiet",
    "decree release",
    "decree take",
    "failed request",
    "fence proposed",
    "found itself fenced",
    "found itself suspected",
    "joined",
    "lease extended",
    "mail acknowledged",
    "mail full",
    "mail lost",
    "mail read",
    "mail sent",
    "may inherit",
    "name given back",
    "pause",
    "quarantine",
    "refused and handed on",
    "registration failed",
    "request abandoned",
    "request given up",
    "resend",
    "resumed from a space",
    "slot lost to another start",
    "stalled area",
    "state learned",
    "stopped",
    "suspicion",
    "suspicion withdrawn",
    "taken back by decree",
    "thawed",
    "unflushed sectors lost",
    "void: hand over",
    "void: own without the space",
    "void: own, another owner",
    "void: own, to one that is down",
    "void: release in quarantine",
    "void: take",
];

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

type Tally = BTreeMap<&'static str, u64>;

/// Runs seeds and returns how often each rule fired.
fn run(seeds: std::ops::Range<u64>) -> Tally {
    let mut all = Tally::new();
    for seed in seeds {
        let counts = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run();
            world.counts
        });
        let counts = counts
            .unwrap_or_else(|_| panic!("TIDEPOOL_SEED={seed} TIDEPOOL_RUNS=1 shows it again"));
        counts.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
    }
    all
}

#[test]
fn no_rule_is_broken_whatever_is_slow_torn_lost_or_dead() {
    let (first, runs) = (number("TIDEPOOL_SEED", 1), number("TIDEPOOL_RUNS", 100));
    let half = first + runs / 2;
    let other = std::thread::spawn(move || run(half..first + runs));
    let mut all = run(first..half);
    let rest = other.join().expect("the message is above");
    rest.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
    for (what, count) in &all {
        println!("{count:12} {what}");
    }
    let never: Vec<_> = FIRES.iter().filter(|what| !all.contains_key(**what)).collect();
    assert!(runs < 100 || never.is_empty(), "the simulation has no such case: {never:?}");
}
