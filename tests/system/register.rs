//! Registration in a cluster area: several starts at once, and an area that does not answer.
//!
//! `TIDEPOOL_JOINS=100` sets the number of rounds, and adds areas that never answer;
//! `TIDEPOOL_SEED` sets the first seed, the others follow it.

use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use boot::cluster::create;
use boot::events::Event;
use cluster::timing::ClusterTiming;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tests::nbd::{Action, NbdDisk, Recording, Rule};
use tests::scenario::scenario_folder;
use tests::scene::Play;
use tests::seeded_runs::SeededRuns;
use tests::seeds::{self, Choices};
use tests::{Case, plan_machine, test_kernel};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "node_starts_at_once_get_slots_of_their_own",
        beds: &[Bed::Qemu],
        needs: &[],
        run: at_once,
    },
    Case {
        name: "node_waits_for_an_area_that_stands_still",
        beds: &[Bed::Qemu],
        needs: &[],
        run: stalls,
    },
];

const FEW: u64 = 1;
const SLOTS: u16 = 32;
/// The superblocks, which a start reads before it registers.
const HEADS: u64 = 8192;
const STALL: Duration = Duration::from_secs(12);
/// Repetitions of a request before an area is given up.
const RESENDS: u64 = 5;
/// From the first request without an answer to the end: 2, 4, 8, 16, 32 and 64 s.
const GIVEN_UP: Duration = Duration::from_secs(126 + 60);
const WAIT: Duration = Duration::from_secs(120);

fn rounds() -> SeededRuns {
    SeededRuns { at_a_time: 1, ..SeededRuns::plan("TIDEPOOL_JOINS", FEW) }
}

/// An area behind a server.
struct StalledSite {
    folder: TempDir,
    bed: Bed,
    disk: NbdDisk,
}

impl StalledSite {
    fn new(bed: Bed) -> Result<Self> {
        let folder = scenario_folder("register")?;
        let area = folder.path().join("area.img");
        create(std::slice::from_ref(&area), SLOTS, ClusterTiming::DEFAULT)?;
        let disk = NbdDisk::new(&area, Recording::Places)?;
        Ok(Self { folder, bed, disk })
    }

    /// Starts a node, with further lines of its configuration.
    fn start(&self, name: &'static str, lines: &str) -> Result<Play> {
        let text = format!(
            "{lines}[machine]\ncpus = 1\n[cluster]\nname = \"{name}\"\nareas = [\"area.img\"]\n"
        );
        let mut machine = plan_machine(self.bed, name, &text, self.folder.path())?;
        let area: &mut PathBuf = machine.shared.last_mut().context("the area's disk")?;
        *area = self.disk.serve(name)?;
        Play::of(&machine)
    }
}

/// Returns slot and incarnation of all members that `nodes` lists, once there are `count`.
fn members(play: &mut Play, count: usize) -> Result<BTreeSet<(u64, String)>> {
    let deadline = std::time::Instant::now() + WAIT;
    loop {
        let id = play.running.events.send(json!({"command": "nodes"}))?;
        play.event_with("reply", |e| e.0["id"] == id)?;
        let all = play.running.events.all().iter();
        let rows = all.filter(|e| e.name() == "member" && e.0["id"] == id && e.0["state"] == "up");
        let row = |e: &Event| Ok((e.number("slot")?, e.text("incarnation")?.to_owned()));
        let rows = rows.map(row).collect::<Result<BTreeSet<_>>>()?;
        if rows.len() == count {
            return Ok(rows);
        }
        ensure!(std::time::Instant::now() < deadline, "{rows:?}, not {count} members");
    }
}

const POOL: &str = "pool.memory = \"8 MiB\"\n";

fn at_once(bed: Bed) -> Result<()> {
    rounds().each(|_| {
        let site = StalledSite::new(bed)?;
        let names = ["a", "b", "c"];
        let mut plays =
            names.iter().map(|name| site.start(name, POOL)).collect::<Result<Vec<_>>>()?;
        let mut slots = BTreeSet::new();
        for play in &mut plays {
            slots.insert(play.event("joined")?.number("slot")?);
        }
        ensure!(slots.len() == names.len(), "the slots {slots:?}");
        let mut lists = BTreeSet::new();
        for play in &mut plays {
            lists.insert(members(play, names.len())?);
        }
        ensure!(lists.len() == 1, "several lists: {lists:?}");
        let listed: BTreeSet<_> = lists.iter().flatten().map(|(slot, _)| *slot).collect();
        ensure!(listed == slots, "{listed:?}, not {slots:?}");
        plays.into_iter().for_each(Play::cut_power);
        Ok(format!("slots {slots:?}"))
    })
}

fn stalls(bed: Bed) -> Result<()> {
    let is_long = seeds::number_from("TIDEPOOL_JOINS").is_some();
    rounds().each(|seed| {
        let mut choices = Choices::new(seed);
        let skip = choices.number(0..9);
        let is_for_ever = is_long && choices.one_in(4);
        let said = stall(bed, skip, is_for_ever);
        said.with_context(|| format!("from request {skip} on, for ever: {is_for_ever}"))
    })
}

/// A partition that works on a disk of its own.
fn neighbour() -> Result<String> {
    Ok(format!(
        "pool.memory = \"8 MiB\"\n[[paging_device]]\nimage = \"own.img\"\nsize = \"14 MiB\"\n\
         [[partition]]\nname = \"p\"\nmemory = \"10 MiB\"\nkernel = \"{}\"\ncmdline = \
         \"passes=1000000 rewrite=3\"\n",
        test_kernel("fill")?.display()
    ))
}

fn is_pass(event: &Event) -> bool {
    event.0["partition"] == "p" && event.0["text"].to_string().contains("pass ")
}

/// Has an area stand still from a request of the registration on.
fn stall(bed: Bed, skip: u64, is_for_ever: bool) -> Result<String> {
    let site = StalledSite::new(bed)?;
    site.disk.rule(Rule { skip, bytes: HEADS..u64::MAX, ..Rule::all(Action::Keep) });
    let mut play = site.start("a", &neighbour()?)?;
    let first = play.event("register")?;
    play.event_with("guest", is_pass).context("the neighbour works")?;
    if is_for_ever {
        play.running.events.wait_named(GIVEN_UP, "join_failed")?;
    } else {
        std::thread::sleep(STALL.saturating_sub(Duration::from_secs(2)));
        site.disk.let_go();
        play.event("joined")?;
    }
    play.event_with("guest", is_pass).context("the neighbour works on")?;
    let told = resends(&play)?;
    ensure!(told >= if is_for_ever { RESENDS } else { 2 }, "{told} repetitions");
    let wrong = |e: &Event| is_pass(e) && !e.0["text"].to_string().contains(" wrong 0");
    ensure!(!play.running.events.all().iter().any(wrong), "a page is wrong");
    if is_for_ever {
        site.disk.let_go();
        let mut other = site.start("b", POOL)?;
        other.event("joined")?;
        members(&mut other, 1).context("what lands late makes no member")?;
        other.cut_power();
        let joined = play.running.events.all().iter().any(|e| e.name() == "joined");
        ensure!(!joined, "it joined after it had given up");
    }
    play.cut_power();
    let step = first.text("step")?.to_owned();
    Ok(format!("step {step}, {told} repetitions, for ever: {is_for_ever}"))
}

/// Returns the number of repetitions; those of a request are numbered from 1 on.
fn resends(play: &Play) -> Result<u64> {
    let (mut last, mut all) = ((String::new(), 0), 0);
    for event in play.running.events.all().iter().filter(|e| e.name() == "register") {
        let what =
            format!("{} {} {}", event.text("step")?, event.number("area")?, event.text("request")?);
        let resend = event.number("resend")?;
        let expected = if what == last.0 && resend > 1 { last.1 + 1 } else { 1 };
        ensure!(resend == expected, "repetition {resend} of {what} after {last:?}");
        (last, all) = ((what, resend), all + 1);
    }
    Ok(all)
}
