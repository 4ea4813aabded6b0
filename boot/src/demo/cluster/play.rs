//! Drives the machines of the demonstration.

use super::story::{ClusterStory, NodePhase};
use super::writes::{self, LandedWrite};
use super::{ClusterRule, DemoDisks, NODES, PARTITIONS};
use crate::bed::qemu::TRACE;
use crate::bed::{Bed, BedMachine, RunningMachine};
use crate::config;
use crate::events::Polled;
use crate::kernel_build::{self, Variant};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime};

/// Time limit of one poll for events, and so the delay of a console line.
const LOOK: Duration = Duration::from_millis(20);
/// How long a node stands still, or its disk gives no answer to writes.
const STANDS_S: f64 = 60.0;
/// Bytes a second that the disk of a node takes before the node stands still, so that writes are
/// under way then; and for how long.
const SLOW: u64 = 256 << 10;
const SLOW_S: f64 = 2.0;
/// The shared disk follows the image store.
const DISK: usize = 1;
/// Longest time for a step, in seconds: a busy machine boots slowly.
const STEP_S: f64 = 300.0;
const ANSWER: Duration = Duration::from_secs(60);

/// The machines of the demonstration, and what they have told.
pub struct ClusterPlay {
    machines: Vec<Option<RunningMachine>>,
    traces: Vec<std::path::PathBuf>,
    /// What the machines have told.
    pub story: ClusterStory,
    begun: Instant,
    begun_at: SystemTime,
}

impl ClusterPlay {
    /// Starts all nodes.
    ///
    /// # Errors
    /// Where an emulator does not start.
    pub fn start(bed: Bed, site: &DemoDisks, without: Option<ClusterRule>) -> Result<Self> {
        let variant = without.map_or(Variant::Ordinary, ClusterRule::variant);
        let hypervisor = kernel_build::hypervisor(variant)?;
        let (begun, begun_at) = (Instant::now(), SystemTime::now());
        let (mut machines, mut traces) = (Vec::new(), Vec::new());
        for name in NODES {
            let mut machine =
                BedMachine::new(bed, &format!("demo-cluster-{name}"), hypervisor.clone());
            machine.apply(config::load(&site.file(name), bed)?);
            machine.trace = writes::EVENTS;
            let running = machine.start()?;
            traces.push(running.folder().join(TRACE));
            machines.push(Some(running));
        }
        Ok(Self { machines, traces, story: ClusterStory::default(), begun, begun_at })
    }

    /// Returns the seconds since the start.
    pub fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Returns the folders of the transcripts.
    pub fn places(&self) -> String {
        let folder = |trace: &std::path::PathBuf| trace.with_file_name("").display().to_string();
        self.traces.iter().map(folder).collect::<Vec<_>>().join(" ")
    }

    /// Plays the story.
    ///
    /// # Errors
    /// Where a machine ends, or a step takes too long.
    pub fn play(&mut self, without: Option<ClusterRule>) -> Result<()> {
        self.follow("the nodes to join", |story| {
            story.nodes.iter().all(|node| !node.joined.is_empty())
        })?;
        for (node, partition) in PARTITIONS.iter().enumerate() {
            self.send(node, json!({"command": "start", "partition": partition}))?;
        }
        self.follow("all workers", |story| {
            PARTITIONS.iter().all(|name| story.last(name).is_some_and(|of| of.worker.passes > 0))
        })?;
        match without {
            Some(ClusterRule::Freeze) => self.stall()?,
            _ => self.stand_still()?,
        }
        self.follow("node-a to join anew", |story| story.nodes[0].joined.len() > 1)?;
        if without.is_none() {
            self.kill()?;
        }
        let passes = self.passes();
        self.follow("another pass everywhere", |story| {
            let has_more = |(name, before): (&&str, &u64)| {
                story.last(name).is_none_or(|of| of.end.is_some() || of.worker.verified > *before)
            };
            PARTITIONS.iter().zip(&passes).all(has_more)
        })
    }

    fn passes(&self) -> Vec<u64> {
        let verified = |name| self.story.last(name).map_or(0, |last| last.worker.verified);
        PARTITIONS.map(verified).to_vec()
    }

    /// Lets the first node stand still while its writes are under way.
    fn stand_still(&mut self) -> Result<()> {
        self.say(0, "its disk becomes slow, so that writes are under way");
        self.machine(0)?.limit_writes(DISK, SLOW)?;
        self.wait(SLOW_S)?;
        self.machine(0)?.freeze()?;
        let at = self.now();
        self.story.phase(0, at, NodePhase::Standing);
        self.say(0, "its emulator is stopped for a minute");
        self.elsewhere(0)?;
        self.wait((at + STANDS_S - self.now()).max(0.0))?;
        self.machine(0)?.thaw()?;
        let at = self.now();
        self.story.phase(0, at, NodePhase::Frozen);
        self.say(0, "its emulator goes on");
        self.machine(0)?.limit_writes(DISK, 0)
    }

    /// Lets the first node's disk take no write, while the node itself runs.
    fn stall(&mut self) -> Result<()> {
        self.say(0, "its disk takes no write for a minute");
        self.machine(0)?.limit_writes(DISK, 1)?;
        let at = self.now();
        self.elsewhere(0)?;
        self.wait((at + STANDS_S - self.now()).max(0.0))?;
        self.say(0, "its disk answers again");
        self.machine(0)?.limit_writes(DISK, 0)
    }

    /// Kills the second node.
    fn kill(&mut self) -> Result<()> {
        self.machine(1)?.cut_power();
        let at = self.now();
        self.story.phase(1, at, NodePhase::Dead);
        self.say(1, "its emulator is killed");
        self.machines[1] = None;
        self.elsewhere(1)?;
        let heir = self.story.last(PARTITIONS[1]).map_or(2, |last| last.node);
        self.say(heir, "`fence confirm node-b`: the operator says that it is off");
        let confirm = json!({"command": "fence confirm", "node": NODES[1]});
        self.machine(heir)?.events.command(ANSWER, confirm)?;
        Ok(())
    }

    /// Waits until a node's own partition has verified its pages on another node.
    fn elsewhere(&mut self, node: usize) -> Result<()> {
        let partition = PARTITIONS[node];
        self.follow("its partition to work elsewhere", |story| story.works_off(partition, node))
    }

    /// Ends the machines in order, and removes their transcripts.
    ///
    /// # Errors
    /// Where one does not end.
    pub fn finish(&mut self) -> Result<()> {
        for node in 0..NODES.len() {
            if self.machines[node].is_some() {
                self.send(node, json!({"command": "poweroff"}))?;
            }
        }
        for machine in self.machines.iter_mut().flatten() {
            machine.wait_for_end(ANSWER)?;
        }
        Ok(())
    }

    /// Removes the transcripts.
    pub fn passed(self) {
        self.machines.into_iter().flatten().for_each(RunningMachine::passed);
    }

    /// Returns the writes of a node that have landed.
    ///
    /// # Errors
    /// Where its trace cannot be read.
    pub fn writes(&self, node: usize) -> Result<Vec<LandedWrite>> {
        let file = &self.traces[node];
        let trace = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        writes::landed(&trace, self.begun_at)
    }

    fn machine(&mut self, node: usize) -> Result<&mut RunningMachine> {
        self.machines[node].as_mut().with_context(|| format!("{} has ended", NODES[node]))
    }

    fn send(&mut self, node: usize, command: Value) -> Result<()> {
        self.machine(node)?.events.send(command).map(|_| ())
    }

    fn say(&self, node: usize, what: &str) {
        println!("{:7.1} s  {}  {what}", self.now(), NODES[node]);
    }

    /// Follows all machines until the story is so far.
    fn follow(&mut self, what: &str, until: impl Fn(&ClusterStory) -> bool) -> Result<()> {
        let end = self.now() + STEP_S;
        while !until(&self.story) {
            if self.now() > end {
                bail!("waited {STEP_S} s for {what}");
            }
            self.look()?;
        }
        Ok(())
    }

    /// Follows all machines for a time.
    fn wait(&mut self, seconds: f64) -> Result<()> {
        let end = self.now() + seconds;
        while self.now() < end {
            self.look()?;
        }
        Ok(())
    }

    /// Takes what the machines have told meanwhile.
    fn look(&mut self) -> Result<()> {
        for (node, name) in NODES.iter().enumerate() {
            let Some(machine) = &mut self.machines[node] else { continue };
            let mut lines = Vec::new();
            let mut limit = LOOK;
            loop {
                let at = self.begun.elapsed().as_secs_f64();
                match machine.events.poll(limit) {
                    Polled::Event(event) => lines.extend(self.story.event(node, at, &event)),
                    Polled::Nothing => break,
                    Polled::Ended => bail!("{name} has ended"),
                }
                limit = Duration::ZERO;
            }
            let at = self.begun.elapsed().as_secs_f64();
            while let Ok(line) = machine.console.next_line(Instant::now()) {
                lines.extend(self.story.line(node, at, &line));
            }
            lines.iter().for_each(|line| self.say(node, line));
        }
        Ok(())
    }
}
