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
    (Mutant::ReuseSlot, 2),
    (Mutant::BlindSecondPhase, 8),
    (Mutant::OwnValue, 1),
    (Mutant::NoSecondRead, 5),
    (Mutant::SuspectBlind, 2),
    (Mutant::LeaseFromCompletion, 2),
    (Mutant::ShortWatch, 5),
    (Mutant::WatchFromSubmission, 19),
    (Mutant::WithdrawOpen, 1537),
    (Mutant::ExtendBehind, 5),
    (Mutant::InPlace, 17),
    (Mutant::QuietByAge, 25),
    (Mutant::AbandonedRequest, 15),
    (Mutant::TakeBackByRecord, 5),
    (Mutant::EarlySuspended, 8),
    (Mutant::Gift, 4),
    (Mutant::OldRecord, 5),
    (Mutant::KeepMemory, 376),
    (Mutant::JoinerRecovers, 5),
    (Mutant::LateRecord, 5),
    (Mutant::StaleOwner, 21),
    (Mutant::GiveToDown, 27),
    (Mutant::OwnWithoutSpace, 59),
    (Mutant::TakeBound, 702),
    (Mutant::HandOverUnbound, 31),
    (Mutant::ReleaseEarly, 224),
    (Mutant::KeepUnowned, 5),
    (Mutant::CountsDecided, 3750),
    (Mutant::DeliverTwice, 2),
    (Mutant::AckUnread, 2),
    (Mutant::OldBlock, 204),
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
