//! Two hypervisors on one image, through a server that can be slow: at most one has the space at a
//! time, no write of the new owner is lost, and no page is ever wrong.
//!
//! `TIDEPOOL_TWO_NODES=200` sets the number of seeded runs; `TIDEPOOL_SEED` sets the first seed,
//! the others follow it.

use anyhow::{Context, Result, ensure};
use boot::bed::qemu::TRACE;
use boot::bed::{Bed, BedMachine, RunningMachine};
use boot::events::{Event, Polled};
use kernel::space::claim::{CLAIM_LEN, ClaimSectors, PAGE_LEN, SpaceClaim};
use kernel::space::copies::{RecordSequence, TAIL_LEN, newest};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tests::nbd::{Action, NbdDisk, Recording, RequestKind, RequestLogEntry, Rule};
use tests::scenario::scenario_folder;
use tests::seeded_runs::SeededRuns;
use tests::several::{Member, Several};
use tests::twin::judge::{Known, nothing_is_overtaken, old_owners_keep_away, tenures};
use tests::twin::plan::{Disturbance, TwinPlan};
use tests::twin::submitted::{self, Submitted};
use tests::{Case, plan_machine};

pub(crate) const CASES: &[Case] = &[Case {
    name: "two_nodes_keep_apart_on_a_slow_path",
    beds: &[Bed::Qemu],
    needs: &[],
    run: two_nodes,
}];

/// Number of runs by default.
const FEW: u64 = 6;
/// Number of runs at a time: most of a run is waiting.
const AT_A_TIME: usize = 2;
const LIMIT: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(10);
/// Number of late writes: in flight when their node is stopped, or sent as it continues.
const LATE: usize = 4;
/// Passes of a guest that prove that its node goes on.
const PASSES: usize = 2;

fn two_nodes(bed: Bed) -> Result<()> {
    let runs = SeededRuns { at_a_time: AT_A_TIME, ..SeededRuns::plan("TIDEPOOL_TWO_NODES", FEW) };
    runs.each(|seed| {
        let plan = TwinPlan::new(seed);
        let said = run(bed, plan).with_context(|| format!("{plan:?}, TIDEPOOL_TWO_NODES=1"))?;
        println!("{plan:?}: {said}");
        Ok(said)
    })
}

fn run(bed: Bed, plan: TwinPlan) -> Result<String> {
    let folder = scenario_folder("two-nodes")?;
    let several = Several {
        pool_mib: 8,
        cpus: 1,
        devices_mib: vec![24],
        members: vec![Member::new("p", "fill", 10, "passes=1000000 rewrite=3")],
    };
    let machine =
        plan_machine(bed, &format!("two-nodes-{}", plan.seed), &several.toml(bed)?, folder.path())?;
    let disk = NbdDisk::new(&machine.disks[0], Recording::Bytes)?;
    let image = machine.disks[0].clone();
    let mut pair = Pair { plan, disk, machine, nodes: Vec::new(), resumed: None };
    let outcome = pair.play().and_then(|winner| pair.judge(winner, &image));
    if outcome.is_err() {
        pair.keep_log(&folder_of_log())?;
        return outcome.with_context(|| pair.describe());
    }
    pair.nodes.into_iter().for_each(|node| node.running.passed());
    outcome
}

fn folder_of_log() -> std::path::PathBuf {
    boot::paths::tidepool().join("transcripts")
}

/// One of the two nodes.
struct Node {
    name: &'static str,
    running: RunningMachine,
    /// Times at which its guest completed a pass.
    passes: Vec<Instant>,
    /// Whether it was refused the space, gave it up, or has ended.
    is_out: bool,
    /// Whether its guest lost a page.
    has_lost: bool,
}

impl Node {
    fn start(name: &'static str, disk: &NbdDisk, machine: &BedMachine) -> Result<Self> {
        let mut machine = BedMachine { trace: submitted::EVENTS, ..machine.clone() };
        machine.disks[0] = disk.serve(name)?;
        Ok(Self {
            name,
            running: machine.start()?,
            passes: Vec::new(),
            is_out: false,
            has_lost: false,
        })
    }

    /// Takes the events that have come meanwhile.
    fn look(&mut self) -> Result<()> {
        loop {
            match self.running.events.poll(Duration::ZERO) {
                Polled::Event(event) => {
                    self.note(&event).with_context(|| format!("node {}: {}", self.name, event.0))?
                }
                Polled::Nothing => return Ok(()),
                Polled::Ended => {
                    self.is_out = true;
                    return Ok(());
                }
            }
        }
    }

    fn note(&mut self, event: &Event) -> Result<()> {
        let text = |member: &str| event.0[member].as_str().unwrap_or("");
        match event.name() {
            "guest" if text("text").starts_with("pass ") => {
                ensure!(text("text").ends_with(" wrong 0"), "a page is wrong");
                self.passes.push(Instant::now());
            }
            "guest" => ensure!(text("kind") != "fail", "a page is wrong"),
            "error" => {
                let told = text("message");
                self.is_out |= told.contains("was taken by node") || told.contains("in use: node");
            }
            "crash" => {
                let is_lost = ["page lost", "page cannot be written"].contains(&text("reason"));
                ensure!(is_lost, "the guest crashed by itself");
                self.has_lost = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the requests that it has submitted to the disk.
    fn submitted(&self, disk: &NbdDisk) -> Result<Vec<Submitted>> {
        let path = self.running.folder().join(TRACE);
        let trace = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // The last line may be cut off by the emulator's end and is ignored.
        submitted::read(
            self.name,
            &trace[..trace.rfind('\n').map_or(0, |end| end + 1)],
            disk.started(),
        )
    }

    fn passes_since(&self, time: Instant) -> usize {
        self.passes.iter().filter(|at| **at > time).count()
    }
}

/// The two nodes and their disk.
struct Pair {
    plan: TwinPlan,
    disk: NbdDisk,
    machine: BedMachine,
    nodes: Vec<Node>,
    /// Time at which `a` continued, by the log's clock.
    resumed: Option<Duration>,
}

impl Pair {
    fn start(&mut self, name: &'static str) -> Result<()> {
        let node = Node::start(name, &self.disk, &self.machine)?;
        self.nodes.push(node);
        Ok(())
    }

    /// Polls both nodes until `holds` returns true.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !holds(self) {
            ensure!(Instant::now() < deadline, "waited {} s for {what}", LIMIT.as_secs());
            self.nodes.iter_mut().try_for_each(Node::look)?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn until_time(&mut self, end: Instant) -> Result<()> {
        self.until("a time", |_| Instant::now() >= end)
    }

    /// Carries out the plan; returns the node that has the space at the end, if any.
    fn play(&mut self) -> Result<Option<&'static str>> {
        if let Disturbance::Starters { late } = self.plan.disturbance {
            self.disk.rule(self.late_claims(late)?);
            self.start("a")?;
            self.until_time(Instant::now() + self.plan.start_of_b)?;
            self.start("b")?;
        } else {
            self.start("a")?;
            self.until("the first pass of a", |pair| !pair.nodes[0].passes.is_empty())?;
            self.disturb()?;
        }
        let since = Instant::now();
        self.until("one node that goes on, and one that does not", |pair| pair.is_settled(since))?;
        Ok(self.nodes.iter().find(|node| !node.is_out).map(|node| node.name))
    }

    fn late_claims(&self, node: &'static str) -> Result<Rule> {
        let start = ending(self.disk.size())?.start;
        let bytes = start..start + PAGE_LEN as u64;
        let (times, action) = (self.plan.held_claims, Action::Hold(self.plan.hold));
        Ok(Rule {
            node: Some(node),
            kinds: &[RequestKind::Write],
            bytes,
            times,
            ..Rule::all(action)
        })
    }

    /// Disturbs `a`, and starts `b` at its time.
    fn disturb(&mut self) -> Result<()> {
        let length = self.begin_to_disturb()?;
        let begin = Instant::now();
        let (start, end) = (begin + self.plan.start_of_b, begin + length);
        if start <= end {
            self.until_time(start)?;
            self.start("b")?;
        }
        self.until_time(end)?;
        self.leave_in_peace()?;
        if start > end {
            self.until_time(start)?;
            self.start("b")?;
        }
        Ok(())
    }

    /// Returns a rule that delays requests of `a` from now on.
    fn late_requests(&self, kinds: &'static [RequestKind]) -> Rule {
        Rule { node: Some("a"), kinds, ..Rule::all(Action::Hold(self.plan.hold)) }
    }

    /// Begins the disturbance; returns its length.
    fn begin_to_disturb(&mut self) -> Result<Duration> {
        let length = match self.plan.disturbance {
            Disturbance::Starters { .. } => return Ok(Duration::ZERO),
            Disturbance::SlowPath(length) => {
                self.disk.rule(self.late_requests(&[]));
                return Ok(length);
            }
            Disturbance::LateWritesAndPause(length) => {
                self.disk.rule(self.late_requests(&[RequestKind::Write]));
                let count = |log: &[RequestLogEntry]| {
                    log.iter().filter(|entry| entry.action.is_some()).count()
                };
                self.until("writes that are held", |pair| count(&pair.disk.log()) >= LATE)?;
                length
            }
            Disturbance::Pause(length) | Disturbance::PauseAndSlowWrites(length) => length,
        };
        self.nodes[0].running.freeze()?;
        Ok(length)
    }

    fn leave_in_peace(&mut self) -> Result<()> {
        match self.plan.disturbance {
            Disturbance::Starters { .. } | Disturbance::Pause(_) => {}
            Disturbance::SlowPath(_) | Disturbance::LateWritesAndPause(_) => self.disk.let_go(),
            Disturbance::PauseAndSlowWrites(_) => self
                .disk
                .rule(Rule { times: LATE as u64, ..self.late_requests(&[RequestKind::Write]) }),
        }
        if !matches!(self.plan.disturbance, Disturbance::SlowPath(_)) {
            self.resumed = Some(self.disk.now());
            self.nodes[0].running.thaw()?;
        }
        Ok(())
    }

    /// Returns whether one node has the space and goes on, and no request of the other is in
    /// flight.
    fn is_settled(&self, since: Instant) -> bool {
        let goes_on = |node: &Node| node.has_lost || node.passes_since(since) >= PASSES;
        let out: Vec<_> =
            self.nodes.iter().filter(|node| node.is_out).map(|node| node.name).collect();
        let rest_is_well = self.nodes.iter().filter(|node| !node.is_out).all(goes_on);
        let is_over = !out.is_empty() && rest_is_well;
        is_over
            && self
                .disk
                .log()
                .iter()
                .all(|entry| entry.answered.is_some() || !out.contains(&entry.node))
    }

    /// Judges the server's log and the image.
    fn judge(&mut self, winner: Option<&'static str>, image: &Path) -> Result<String> {
        self.nodes.iter_mut().for_each(|node| node.running.cut_power());
        let log = self.disk.log();
        let known = Known { ending: ending(self.disk.size())?, resumed: self.resumed };
        let submitted: Vec<_> =
            self.nodes.iter().map(|node| node.submitted(&self.disk)).collect::<Result<_>>()?;
        let submitted = submitted.concat();
        submitted::covers(&submitted, &log)?;
        let tenures = tenures(&log, &known);
        old_owners_keep_away(&tenures, &submitted, &known)?;
        let lost: Vec<_> =
            self.nodes.iter().filter(|node| node.has_lost).map(|node| node.name).collect();
        let said = format!(
            "{:?}, pages lost by {lost:?}",
            tenures.iter().map(|tenure| tenure.node).collect::<Vec<_>>()
        );
        let Some(winner) = winner else { return Ok(format!("{said}, no owner")) };
        ensure!(
            tenures.last().is_some_and(|tenure| tenure.node == winner),
            "{winner} goes on without the space: {tenures:?}"
        );
        what_the_owner_wrote_is_there(&log, winner, image, &known.ending)?;
        Ok(said)
    }

    fn describe(&self) -> String {
        let places = self
            .nodes
            .iter()
            .map(|node| format!("{}: {}", node.name, node.running.folder().display()));
        format!("transcripts and the server's log: {}", places.collect::<Vec<_>>().join(", "))
    }

    /// Writes the server's log to a file, without the written data.
    fn keep_log(&self, folder: &Path) -> Result<()> {
        let lines = self
            .disk
            .log()
            .into_iter()
            .map(|entry| format!("{:?}\n", RequestLogEntry { data: None, ..entry }));
        let head = format!("{:?}, a resumed at {:?}\n", self.plan, self.resumed);
        Ok(std::fs::write(
            folder.join(format!("two-nodes-{}.log", self.plan.seed)),
            head + &lines.collect::<String>(),
        )?)
    }
}

/// Returns the range of claims and records.
fn ending(len: u64) -> Result<Range<u64>> {
    let start = SpaceClaim::start(len).context("room for a claim")?;
    Ok(start..start + (PAGE_LEN + TAIL_LEN) as u64)
}

/// Checks that claim, record and header are the owner's: no write of an earlier owner has
/// overwritten them for good.
fn what_the_owner_wrote_is_there(
    log: &[RequestLogEntry],
    owner: &str,
    image: &Path,
    ending: &Range<u64>,
) -> Result<()> {
    const HEADER: Range<u64> = 0..4096;
    let file = File::open(image)?;
    let (mut header, mut page, mut tail) = (vec![0; 4096], [0; PAGE_LEN], [0; TAIL_LEN]);
    file.read_exact_at(&mut header, HEADER.start)?;
    file.read_exact_at(&mut page, ending.start)?;
    file.read_exact_at(&mut tail, ending.start + PAGE_LEN as u64)?;
    let claim = last_claim(log, owner, ending).context("the owner has claimed the space")?;
    let found = ClaimSectors::decode(&page).owner();
    ensure!(
        found.is_some_and(|found| (found.node, found.epoch) == (claim.node, claim.epoch)),
        "{found:?}, not {claim:?}"
    );
    let record =
        newest(&tail, file.metadata()?.len()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    ensure!(
        RecordSequence(record.sequence).epoch() == claim.epoch,
        "the newest record is of epoch {}",
        record.sequence >> 32
    );
    ensure!(
        record.owner.is_some_and(|by| by.node == claim.node),
        "the newest record is not the owner's"
    );
    nothing_is_overtaken(log, owner, &HEADER, &header).context("the ELF header")?;
    let records = ending.start + PAGE_LEN as u64..ending.end;
    nothing_is_overtaken(log, owner, &records, &tail).context("the records")
}

fn last_claim(log: &[RequestLogEntry], node: &str, ending: &Range<u64>) -> Option<SpaceClaim> {
    let claims = ending.start..ending.start + PAGE_LEN as u64;
    let mut written =
        log.iter().rev().filter(|entry| entry.node == node && claims.contains(&entry.bytes.start));
    written.find_map(|entry| SpaceClaim::decode(entry.data.as_deref()?.first_chunk::<CLAIM_LEN>()?))
}
