//! Power cuts: the emulator is killed at any moment of a cycle of crashes, and the next start finds
//! the promised dumps.
//!
//! `TIDEPOOL_KILLS=200` sets the number of kills; `TIDEPOOL_SEED=N` sets the first seed.

use anyhow::{Context, Result};
use boot::bed::Bed;
use boot::events::{Event, Polled};
use std::time::{Duration, Instant};
use tests::Case;
use tests::cuts::{CrashCycle, CycleDisks, GuestTruth, LIMIT, NextStart, SLOW_DISKS, survey};
use tests::seeded_runs::SeededRuns;
use tests::seeds::Choices;

pub(crate) const CASES: &[Case] = &[Case {
    name: "a_kill_at_any_moment_loses_no_promised_dump",
    beds: &[Bed::Qemu],
    needs: &[],
    run: kills,
}];

/// Kills in a usual run.
const KILLS: u64 = 6;
/// Longest time from an event to the kill.
const SPREAD_MS: u64 = 400;
/// Events after which the power may be cut: name, and state where it is a space's.
const MOMENTS: [(&str, &str); 10] = [
    ("boot", ""),
    ("space", "active"),
    ("guest", ""),
    ("crash", ""),
    ("space", "crashed"),
    ("space", "draining"),
    ("start", ""),
    ("dump_complete", ""),
    ("space", "releasing"),
    ("released", ""),
];

/// The moment of the power cut: this time after the n-th event of a kind.
#[derive(Clone, Copy, Debug)]
struct Moment {
    event: (&'static str, &'static str),
    number: u64,
    behind: Duration,
}

impl Moment {
    fn choose(dice: &mut Choices) -> Self {
        let event = dice.one(&MOMENTS);
        let number = if event.0 == "boot" { 1 } else { 1 + dice.number(0..3) };
        Self { event, number, behind: dice.time(0..SPREAD_MS) }
    }

    fn is(&self, event: &Event) -> bool {
        let (name, state) = self.event;
        event.name() == name && (state.is_empty() || event.0["state"] == state)
    }
}

fn kills(_: Bed) -> Result<()> {
    SeededRuns::plan("TIDEPOOL_KILLS", KILLS).each(kill)
}

fn kill(seed: u64) -> Result<String> {
    let mut dice = Choices::new(seed);
    let truth = GuestTruth { key: 0x2000, seed, writes: 1200 };
    let disks = CycleDisks::new("kill")?;
    let moment = Moment::choose(&mut dice);
    let mut cycle = CrashCycle::new(disks.machine("kill", &truth, SLOW_DISKS)?.start()?, dice);
    let transcript = cycle.running.folder().display().to_string();
    let place = || format!("{moment:?}, transcript in {transcript}");
    go_on_until(&mut cycle, moment).with_context(place)?;
    let held =
        survey(&disks.images, &cycle.promises, &truth, cycle.first_page).with_context(place)?;
    let first = cycle.first_page;
    let word = format!("{} {}", moment.event.0, moment.event.1);
    NextStart::new(&disks, held)?.check("behind-a-kill", &truth, first).with_context(place)?;
    cycle.running.passed();
    Ok(word.trim().to_owned())
}

/// Runs the cycle until its moment, kills the emulator, and notes the events until then.
fn go_on_until(cycle: &mut CrashCycle, moment: Moment) -> Result<()> {
    let mut left = moment.number;
    while left > 0 {
        let event =
            cycle.running.events.next(Instant::now() + LIMIT)?.context("the machine stopped")?;
        cycle.play(&event)?;
        left -= u64::from(moment.is(&event));
    }
    let end = Instant::now() + moment.behind;
    while let Polled::Event(event) =
        cycle.running.events.poll(end.saturating_duration_since(Instant::now()))
    {
        cycle.play(&event)?;
    }
    cycle.running.cut_power();
    while let Some(event) = cycle.running.events.next(Instant::now() + LIMIT)? {
        cycle.note(&event)?;
    }
    Ok(())
}
