//! Nodes of a cluster that stand still, die, or wait for their disk, at seeded moments: no page is
//! wrong, no write goes into a space of another owner, and partitions restart by decree only.
//!
//! `TIDEPOOL_TRIALS=100` sets the number of trials, with troubles of full length; `TIDEPOOL_SEED`
//! sets the first seed, the others follow it.

use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use kernel::storage::spaces::number_of;
use serde_json::json;
use std::time::Duration;
use tests::Case;
use tests::nbd::{Action, RequestKind, Rule};
use tests::seeded_runs::SeededRuns;
use tests::seeds;
use tests::trials::judge::{FalseWord, judge_writes, quiet_stays_quiet};
use tests::trials::party::{TrialParty, TrialRecord};
use tests::trials::plan::{StallPlace, TrialPlan, Trouble};

pub(crate) const CASES: &[Case] = &[Case {
    name: "node_in_trouble_spoils_no_page_of_another",
    beds: &[Bed::Qemu],
    needs: &[],
    run: trials,
}];

/// Number of trials by default, and their longest trouble.
const FEW: u64 = 3;
const SHORT: Duration = Duration::from_secs(14);
const LONG: Duration = Duration::from_secs(60);
/// Spaces of the shared disk: one a partition, one in quarantine, and some to restart in.
const SPACES: usize = 6;
/// A death is found in 12 s and the partition runs in 15 s; a busy machine adds to it.
const FOUND: Duration = Duration::from_secs(12 + 10);
const RESTARTED: Duration = Duration::from_secs(15 + 15);
/// Most page writes that are held back.
const HELD: u64 = 8;

fn trials(bed: Bed) -> Result<()> {
    let is_long = seeds::number_from("TIDEPOOL_TRIALS").is_some();
    let runs = SeededRuns { at_a_time: 2, ..SeededRuns::plan("TIDEPOOL_TRIALS", FEW) };
    let longest = if is_long { LONG } else { SHORT };
    runs.each(|seed| {
        let plan = TrialPlan::new(seed, longest);
        let said = run(bed, plan).with_context(|| format!("{plan:?}"))?;
        println!("{plan:?}: {said}");
        Ok(format!("{:?}", std::mem::discriminant(&plan.trouble)))
    })
}

fn run(bed: Bed, plan: TrialPlan) -> Result<String> {
    let party = TrialParty::new(bed, &format!("trial-{}", plan.seed), SPACES)?;
    let mut trial = Trial { plan, party, word: None, killed: None, moments: Vec::new() };
    match trial.play().and_then(|()| trial.judge()) {
        Ok(said) => {
            trial.party.passed();
            Ok(said)
        }
        Err(error) => {
            trial.party.keep_log()?;
            Err(error.context(format!("{}; {:?}", trial.party.describe(), trial.moments)))
        }
    }
}

struct Trial {
    plan: TrialPlan,
    party: TrialParty,
    word: Option<FalseWord>,
    killed: Option<Duration>,
    /// What was done when, by the server's clock.
    moments: Vec<(&'static str, Duration)>,
}

impl Trial {
    fn names(&self) -> &'static [&'static str] {
        if self.plan.has_third { &["a", "b", "c"] } else { &["a", "b"] }
    }

    fn note(&mut self, what: &'static str) {
        self.moments.push((what, self.party.disk.now()));
    }

    fn play(&mut self) -> Result<()> {
        let names = self.names();
        names.iter().try_for_each(|name| self.party.start(name))?;
        self.party.until_members()?;
        names.iter().try_for_each(|name| self.party.run(name, &format!("on-{name}")))?;
        self.until_all_pass(Duration::ZERO, 1)?;
        self.party.pass(self.plan.after)?;
        self.note("trouble");
        self.trouble()?;
        self.note("peace");
        let since = self.party.disk.now();
        self.party.until_members()?;
        self.until_all_pass(since, 2)
    }

    fn until_all_pass(&mut self, since: Duration, count: usize) -> Result<()> {
        let names = self.names();
        self.party.until(&format!("{count} passes of every guest"), |party| {
            names.iter().all(|name| party.passes(&format!("on-{name}"), since) >= count)
        })
    }

    fn trouble(&mut self) -> Result<()> {
        match self.plan.trouble {
            Trouble::Stop(time) => {
                self.party.node("a")?.running.freeze()?;
                self.party.pass(time)?;
                self.party.node("a")?.running.thaw()
            }
            Trouble::Kill => self.kill(),
            Trouble::Stall(place, who, time) => {
                self.stall(place, who);
                self.party.pass(time)?;
                self.party.disk.let_go();
                Ok(())
            }
            Trouble::LateWrites(stop, late) => self.late_writes(stop, late),
            Trouble::Confirm(stop, offset) => self.confirm(stop, offset),
        }
    }

    fn kill(&mut self) -> Result<()> {
        let node = self.party.node("a")?;
        node.running.cut_power();
        node.is_dead = true;
        self.killed = Some(self.party.disk.now());
        Ok(())
    }

    fn stall(&self, place: StallPlace, node: Option<&'static str>) {
        let area = self.party.places.area.bytes.clone();
        let beside = [0..area.start, area.end..u64::MAX];
        let ranges: Vec<_> = match place {
            StallPlace::Area => [area].into(),
            StallPlace::Spaces => beside.into(),
            StallPlace::Both => [area].into_iter().chain(beside).collect(),
        };
        const KINDS: &[RequestKind] = &[RequestKind::Read, RequestKind::Write];
        for bytes in ranges {
            let rule = Rule { node, kinds: KINDS, bytes, ..Rule::all(Action::Keep) };
            self.party.disk.rule(rule);
        }
    }

    /// Keeps writes into the spaces from now on, stops the process, and lets both go.
    fn late_writes(&mut self, stop: Duration, late: Duration) -> Result<()> {
        let area = self.party.places.area.bytes.clone();
        for bytes in [0..area.start, area.end..u64::MAX] {
            self.party.disk.rule(Rule {
                node: Some("a"),
                kinds: &[RequestKind::Write],
                bytes,
                times: HELD,
                ..Rule::all(Action::Keep)
            });
        }
        self.party.until("a write that is held", |party| party.disk.first_met().is_some())?;
        self.party.node("a")?.running.freeze()?;
        self.party.pass(stop)?;
        self.party.node("a")?.running.thaw()?;
        self.note("awake");
        self.party.pass(late)?;
        self.party.disk.let_go();
        Ok(())
    }

    fn confirm(&mut self, stop: Duration, offset: i64) -> Result<()> {
        self.party.node("a")?.running.freeze()?;
        let (before, after) = match u64::try_from(offset) {
            Ok(after) => (stop, Duration::from_millis(after)),
            Err(_) => {
                (stop.saturating_sub(Duration::from_millis(offset.unsigned_abs())), Duration::ZERO)
            }
        };
        self.party.pass(before)?;
        if offset >= 0 {
            self.wake()?;
            self.party.pass(after)?;
        }
        let said = self.party.ask("b", json!({"command": "fence confirm", "node": "a"}))?;
        self.note(if said.is_none() { "confirmed" } else { "confirmation refused" });
        if offset < 0 {
            self.party.pass(Duration::from_millis(offset.unsigned_abs()))?;
            self.wake()?;
        }
        Ok(())
    }

    fn wake(&mut self) -> Result<()> {
        self.party.node("a")?.running.thaw()?;
        self.word = Some(FalseWord { node: "a", woke: self.party.disk.now() });
        self.note("awake");
        Ok(())
    }

    fn judge(&mut self) -> Result<String> {
        let record = self.party.end()?;
        let TrialRecord { log, area, ledger } = &record;
        let judged = judge_writes(&self.party.places, area, ledger, log, self.word)?;
        quiet_stays_quiet(area, ledger, self.word)?;
        let starts = self.starts_follow_decrees(&record)?;
        let replayed = self.party.replay(log)?;
        let replayed =
            replayed.map_or("no replay: lines were lost".to_owned(), |it| format!("{it:?}"));
        let times = self.killed.map(|at| self.found(&record, at)).transpose()?;
        let fenced = ledger.fenced.len();
        Ok(format!(
            "{judged:?}, {} decrees ({} void), {fenced} fenced, {starts} starts, {replayed} {}",
            area.decrees.len(),
            ledger.void,
            times.unwrap_or_default()
        ))
    }

    /// Checks that each entry into a guest, and each line of one, came while its node owned the
    /// partition; returns the number of entries.
    fn starts_follow_decrees(&self, record: &TrialRecord) -> Result<usize> {
        /// What the clocks of a node and of the server may differ by.
        const CLOCKS: Duration = Duration::from_millis(300);
        let mut starts = 0;
        for node in &self.party.nodes {
            for heard in &node.heard {
                let is_start = heard.event.name() == "entered";
                let (Some(name), true) = (
                    heard.event.0["partition"].as_str(),
                    is_start || heard.event.name() == "guest",
                ) else {
                    continue;
                };
                let at = node.said_at(heard)?;
                let owners = [at + CLOCKS, at.saturating_sub(CLOCKS)]
                    .map(|at| record.ledger.of_partition(number_of(name), at));
                let is_owner = |owner: Option<u16>| {
                    owner.and_then(|slot| record.area.node(slot)) == Some(node.name)
                };
                ensure!(
                    owners.into_iter().any(is_owner),
                    "{} at {at:?} on {}: the partition is {owners:?}'s",
                    heard.event.0,
                    node.name
                );
                starts += usize::from(is_start);
            }
        }
        Ok(starts)
    }

    /// Returns how long death and restart took.
    fn found(&self, record: &TrialRecord, killed: Duration) -> Result<String> {
        let is_a = |slot: &u16| record.area.node(*slot) == Some("a");
        let fenced = record.ledger.fenced.iter().find(|(slot, at)| is_a(slot) && **at > killed);
        let fenced = fenced.context("a was fenced")?.1.saturating_sub(killed);
        let others = self.party.nodes.iter().filter(|node| node.name != "a");
        let entered = others
            .filter_map(|node| node.find("entered", |event| event.0["partition"] == "on-a"))
            .map(|heard| heard.at)
            .min()
            .context("the partition runs again")?
            .saturating_sub(killed);
        ensure!(fenced <= FOUND, "the death was found after {fenced:?}");
        ensure!(entered <= RESTARTED, "the partition was entered after {entered:?}");
        Ok(format!("(death found after {fenced:?}, partition entered after {entered:?})"))
    }
}
