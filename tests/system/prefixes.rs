//! Power cuts by prefix: all requests of a cycle of crashes are recorded. The next start then runs
//! on the disks of any moment, with any part of the writes that no flush had covered.
//!
//! `TIDEPOOL_PREFIXES=200` sets their number; `TIDEPOOL_SEED=N` sets the first seed.

use anyhow::{Context, Result};
use boot::bed::Bed;
use kernel::space::claim::PAGE_LEN;
use kernel::space::copies::TAIL_LEN;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tests::cuts::{
    CrashCycle, CycleDisks, DumpPromises, GuestTruth, LIMIT, NextStart, RecordedDisk, SLOW_DISKS,
    UnflushedFate, survey,
};
use tests::nbd::{NbdDisk, Recording, RequestKind, RequestLogEntry};
use tests::seeded_runs::SeededRuns;
use tests::seeds::Choices;
use tests::{Case, expect_success};

pub(crate) const CASES: &[Case] = &[Case {
    name: "a_prefix_of_all_writes_loses_no_promised_dump",
    beds: &[Bed::Qemu],
    needs: &[],
    run: prefixes,
}];

/// Prefixes in a usual run.
const PREFIXES: u64 = 6;
/// Prefixes of one recording.
const EACH: u64 = 50;
/// Dumps released in a recorded cycle.
const RELEASES: u64 = 4;
/// Both records and the claims, at a disk's end.
const TAIL: u64 = (PAGE_LEN + TAIL_LEN) as u64;

/// A cycle as recorded by its disks.
struct Recorded {
    truth: GuestTruth,
    disks: Vec<RecordedDisk>,
    /// The promises, each with the time from which it holds.
    promises: Vec<(Duration, DumpPromises)>,
    first_page: u64,
}

fn prefixes(_: Bed) -> Result<()> {
    let plan = SeededRuns::plan("TIDEPOOL_PREFIXES", PREFIXES);
    let mut at = 0;
    while at < plan.count {
        let part = SeededRuns {
            seed: plan.seed.wrapping_add(at),
            count: EACH.min(plan.count - at),
            ..plan
        };
        let recorded = record(part.seed)
            .with_context(|| format!("TIDEPOOL_SEED={}: the recording", part.seed))?;
        part.each(|seed| recorded.cut(seed))?;
        at += part.count;
    }
    Ok(())
}

/// Serves the disks of a cycle, and runs it until enough dumps are released and the machine is
/// switched off.
fn record(seed: u64) -> Result<Recorded> {
    let truth = GuestTruth { key: 0x3000, seed, writes: 1200 };
    let disks = CycleDisks::new("record")?;
    let mut machine = disks.machine("record", &truth, SLOW_DISKS)?;
    let base = disks.images.iter().map(std::fs::read).collect::<std::io::Result<Vec<_>>>()?;
    let served = disks
        .images
        .iter()
        .map(|image| NbdDisk::new(image, Recording::Bytes))
        .collect::<Result<Vec<_>>>()?;
    machine.disks =
        served.iter().map(|disk| disk.serve("node")).collect::<Result<Vec<PathBuf>>>()?;
    // Every log has its own clock; all times here are those of the first.
    let behind: Vec<_> =
        served.iter().map(|disk| served[0].now().saturating_sub(disk.now())).collect();
    let mut cycle = CrashCycle::new(machine.start()?, Choices::new(seed));
    let place = format!("transcript in {}", cycle.running.folder().display());
    let promises = play(&mut cycle, &served[0]).with_context(|| place)?;
    let first_page = cycle.first_page.context("the guest said where its pages begin")?;
    expect_success(cycle.running, LIMIT)?;
    let disks = base.into_iter().zip(&served).zip(behind);
    let disks = disks
        .map(|((base, disk), behind)| RecordedDisk { base, log: by_one_clock(disk.log(), behind) })
        .collect();
    Ok(Recorded { truth, disks, promises, first_page })
}

fn by_one_clock(mut log: Vec<RequestLogEntry>, behind: Duration) -> Vec<RequestLogEntry> {
    for entry in &mut log {
        entry.arrived += behind;
        entry.answered = entry.answered.map(|answered| answered + behind);
    }
    log
}

fn play(cycle: &mut CrashCycle, clock: &NbdDisk) -> Result<Vec<(Duration, DumpPromises)>> {
    let (mut promises, mut released) = (vec![(Duration::ZERO, DumpPromises::default())], 0);
    while released < RELEASES {
        let event =
            cycle.running.events.next(Instant::now() + LIMIT)?.context("the machine stopped")?;
        // `play` may request a release: that promise ends before the request. All other promises
        // begin with their event.
        let before = clock.now();
        cycle.play(&event)?;
        promises.push((before, cycle.promises.clone()));
        released += u64::from(event.name() == "released");
    }
    cycle.running.events.send(json!({"command": "poweroff"}))?;
    Ok(promises)
}

impl Recorded {
    /// Creates the disks of a moment, and checks the next start on them.
    fn cut(&self, seed: u64) -> Result<String> {
        let mut dice = Choices::new(seed);
        let (moment, fate) =
            (self.moment(&mut dice), UnflushedFate::ALL[dice.number(0..6) as usize]);
        let disks = CycleDisks::new("prefix")?;
        for (disk, image) in self.disks.iter().zip(&disks.images) {
            std::fs::write(image, disk.at(moment, fate, &mut dice))?;
        }
        let place = || format!("power cut {moment:?} behind the start, {fate:?}");
        let promised = self
            .promises
            .iter()
            .rev()
            .find(|(from, _)| *from <= moment)
            .context("a first promise")?;
        let first = Some(self.first_page);
        let held = survey(&disks.images, &promised.1, &self.truth, first).with_context(place)?;
        let word = held
            .iter()
            .map(|held| held.as_ref().map_or("-", |dump| dump.state.name()))
            .collect::<Vec<_>>()
            .join("+");
        NextStart::new(&disks, held)?
            .check("behind-a-prefix", &self.truth, first)
            .with_context(place)?;
        Ok(word)
    }

    /// Chooses a moment: right before or after the arrival or the answer of a request. Mostly of a
    /// flush or a request to the disk's end.
    fn moment(&self, dice: &mut Choices) -> Duration {
        let disk = &self.disks[dice.number(0..self.disks.len() as u64) as usize];
        let around = |entry: &&RequestLogEntry| {
            entry.kind == RequestKind::Flush || entry.bytes.end > disk.base.len() as u64 - TAIL
        };
        let few: Vec<_> = if dice.one_in(3) {
            disk.log.iter().collect()
        } else {
            disk.log.iter().filter(around).collect()
        };
        let entry = few[dice.number(0..few.len() as u64) as usize];
        let time =
            if dice.one_in(2) { entry.arrived } else { entry.answered.unwrap_or(entry.arrived) };
        if dice.one_in(2) { time } else { time.saturating_sub(Duration::from_nanos(1)) }
    }
}
