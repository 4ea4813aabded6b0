//! Each rule is switched off in turn, and the simulation must notice it.

use super::{number, world::World};
use crate::mutant::{Mutant, active, fired, set};
use std::ops::Range;
use std::sync::Once;

/// The mutants, and the first seed that notices each.
const ALL: [(Mutant, u64); 35] = [
    (Mutant::SkipY, 6),
    (Mutant::SkipX, 2),
    (Mutant::FirstCopyCounts, 9),
    (Mutant::GiveUpLate, 1),
    (Mutant::ReuseSlot, 1),
    (Mutant::BlindSecondPhase, 9),
    (Mutant::OwnValue, 1),
    (Mutant::NoSecondRead, 2),
    (Mutant::SuspectBlind, 9),
    (Mutant::LeaseFromCompletion, 16),
    (Mutant::ShortWatch, 194),
    (Mutant::WatchFromSubmission, 25),
    (Mutant::WithdrawOpen, 255),
    (Mutant::ExtendBehind, 1),
    (Mutant::InPlace, 112),
    (Mutant::QuietByAge, 48),
    (Mutant::AbandonedRequest, 12),
    (Mutant::TakeBackByRecord, 18),
    (Mutant::EarlySuspended, 18),
    (Mutant::Gift, 4),
    (Mutant::OldRecord, 75),
    (Mutant::KeepMemory, 8088),
    (Mutant::JoinerRecovers, 5),
    (Mutant::LateRecord, 4),
    (Mutant::StaleOwner, 31),
    (Mutant::GiveToDown, 22),
    (Mutant::OwnWithoutSpace, 20),
    (Mutant::TakeBound, 1703),
    (Mutant::HandOverUnbound, 4),
    (Mutant::ReleaseEarly, 633),
    (Mutant::KeepUnowned, 8),
    (Mutant::CountsDecided, 5692),
    (Mutant::DeliverTwice, 5),
    (Mutant::AckUnread, 8),
    (Mutant::OldBlock, 1342),
];

/// Keeps the expected panics of threads with a mutant silent.
pub(crate) fn be_silent() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if active().is_none() {
                usual(info);
            }
        }));
    });
}

/// Returns the first seed that fails, and why.
fn caught(mutant: Mutant, mut seeds: Range<u64>) -> Option<(u64, String)> {
    be_silent();
    set(Some(mutant));
    let found = seeds.find_map(|seed| {
        let why = std::panic::catch_unwind(|| World::new(seed).run()).err()?;
        let text = why.downcast_ref::<String>().cloned();
        let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Some((seed, text.unwrap_or_default().replace('\n', " ")))
    });
    set(None);
    found
}

#[test]
fn a_seed_notices_each_rule_that_is_switched_off() {
    let missed: Vec<_> = ALL
        .into_iter()
        .filter(|(mutant, seed)| caught(*mutant, *seed..seed + 1).is_none())
        .collect();
    assert!(missed.is_empty(), "the simulation has changed, run the long form: {missed:?}");
}

#[test]
#[ignore = "a minute in release; docs/testing.md has the command"]
fn every_rule_that_is_switched_off_is_missed() {
    let seeds = number("TIDEPOOL_RUNS", 20_000);
    let only = std::env::var("TIDEPOOL_MUTANT").ok();
    let is_chosen = |name: String| only.as_ref().is_none_or(|only| *only == name);
    let mut missed = Vec::new();
    for (mutant, _) in ALL.into_iter().filter(|(mutant, _)| is_chosen(format!("{mutant:?}"))) {
        match caught(mutant, 1..seeds + 1) {
            Some((seed, why)) => {
                println!("{mutant:?}: seed {seed}, asked {} times: {why}", fired(mutant));
            }
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not noticed within {seeds} seeds: {missed:?}");
}
