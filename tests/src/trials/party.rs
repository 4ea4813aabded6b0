//! Nodes on one shared disk, through a server that holds their requests, and the partitions that
//! they run: a test kernel each, which checks its own pages.

use super::blocks::RecordedArea;
use super::judge::SharedPlaces;
use super::ledger::OwnerLedger;
use crate::nbd::{NbdDisk, Recording, RequestLogEntry};
use crate::replay::{ReplayCount, TimedTrace, TraceWord, replay};
use crate::scenario::scenario_folder;
use crate::{plan_machine, test_kernel};
use anyhow::{Context, Result, bail, ensure};
use boot::bed::{Bed, RunningMachine};
use boot::events::{Event, Polled};
use boot::store::{self, ImageStore, NewImage};
use boot::volume::{self, BlankParts, VolumeAccess};
use cluster::timing::ClusterTiming;
use kernel::images::ImageKind;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Limit of each wait.
pub const LIMIT: Duration = Duration::from_secs(180);
const TICK: Duration = Duration::from_millis(5);
const SLOTS: u16 = 32;
const SPACE: u64 = 12 << 20;
/// Memory of a partition, and of each node's pool.
const MEMORY_MIB: u64 = 8;

/// An event, and when it came by the clock of the disk's server.
#[derive(Clone, Debug)]
pub struct HeardEvent {
    /// The event.
    pub event: Event,
    /// When it came.
    pub at: Duration,
}

/// A node.
pub struct TrialNode {
    /// Its name.
    pub name: &'static str,
    /// Its machine.
    pub running: RunningMachine,
    /// What it said.
    pub heard: Vec<HeardEvent>,
    /// It was killed.
    pub is_dead: bool,
}

/// Held while disks are made, and while an emulator starts: before its program begins, its process
/// has a copy of each open file, and so of the lock of a store that is being made.
static FORKS: Mutex<()> = Mutex::new(());

fn without_forks() -> MutexGuard<'static, ()> {
    FORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The nodes and their disk.
pub struct TrialParty {
    bed: Bed,
    /// The shared disk.
    pub disk: NbdDisk,
    /// Where everything lies on it.
    pub places: SharedPlaces,
    /// The nodes.
    pub nodes: Vec<TrialNode>,
    folder: TempDir,
    label: String,
}

fn disks(folder: &Path, spaces: usize) -> Result<()> {
    let shared = folder.join("shared.img");
    let area = BlankParts { cluster: Some(2 << 20), store: None };
    let sizes = vec![SPACE; spaces];
    volume::create_parts(&shared, SPACE * spaces as u64 + (6 << 20), &sizes, area)?;
    boot::cluster::create(&[shared], SLOTS, ClusterTiming::DEFAULT)?;
    let image = folder.join("store.img");
    store::create(&image, 8 << 20)?;
    let mut store = ImageStore::open(&image, VolumeAccess::Write)?;
    let file = test_kernel("fill")?;
    store.add(NewImage { file: &file, label: "fill", kind: ImageKind::Kernel, is_kept: true })?;
    Ok(())
}

impl TrialParty {
    /// Makes the disks.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn new(bed: Bed, label: &str, spaces: usize) -> Result<Self> {
        let folder = scenario_folder("trial")?;
        let forks = without_forks();
        disks(folder.path(), spaces)?;
        drop(forks);
        let shared = folder.path().join("shared.img");
        let places = SharedPlaces::read(&shared)?;
        let std::ops::Range { start, end } = places.area.bytes.clone();
        let disk = NbdDisk::new(&shared, Recording::Within { start, end })?;
        Ok(Self { bed, disk, places, nodes: Vec::new(), folder, label: label.to_owned() })
    }

    /// Starts a node.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(&mut self, name: &'static str) -> Result<()> {
        let text = format!(
            "pool.memory = \"{MEMORY_MIB} MiB\"\nmachine.cpus = 1\n[spare]\npartitions = 3\n\
             memory = \"32 MiB\"\n[[image_store]]\nimage = \"store.img\"\n[cluster]\nname = \
             \"{name}\"\nareas = [\"shared.img\"]\nlocal = \"{name}.img\"\n",
        );
        let label = format!("{}-{}-{name}", self.bed.name(), self.label);
        let mut machine = plan_machine(self.bed, &label, &text, self.folder.path())?;
        machine.append = "trace=cluster".to_owned();
        let area = machine.shared.last_mut().context("the area's disk")?;
        *area = self.disk.serve(name)?;
        let forks = without_forks();
        let running = machine.start()?;
        drop(forks);
        self.nodes.push(TrialNode { name, running, heard: Vec::new(), is_dead: false });
        Ok(())
    }

    /// Returns a node.
    ///
    /// # Errors
    /// If there is none.
    pub fn node(&mut self, name: &str) -> Result<&mut TrialNode> {
        let found = self.nodes.iter_mut().rev().find(|node| node.name == name);
        found.with_context(|| format!("node {name}"))
    }

    /// Takes the events that have come meanwhile.
    ///
    /// # Errors
    /// Where an event says that a page is wrong, or a machine has ended by itself.
    pub fn look(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().filter(|node| !node.is_dead) {
            loop {
                match node.running.events.poll(Duration::ZERO) {
                    Polled::Event(event) => node.hear(event, self.disk.now())?,
                    Polled::Nothing => break,
                    Polled::Ended => bail!("node {} has ended", node.name),
                }
            }
        }
        Ok(())
    }

    /// Polls all nodes until `holds` returns true.
    ///
    /// # Errors
    /// Where that takes longer than [`LIMIT`], or as [`Self::look`].
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !holds(self) {
            ensure!(Instant::now() < deadline, "waited {} s for {what}", LIMIT.as_secs());
            self.look()?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Polls all nodes for this time.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub fn pass(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        self.until("a time", |_| Instant::now() >= end)
    }

    /// Waits until every living node is a member.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub fn until_members(&mut self) -> Result<()> {
        self.until("all living nodes as members", |party| {
            party.nodes.iter().filter(|node| !node.is_dead).all(TrialNode::is_member)
        })
    }

    /// Gives a command to a node; returns why it was refused.
    ///
    /// # Errors
    /// Where there is no answer.
    pub fn ask(&mut self, name: &str, command: Value) -> Result<Option<String>> {
        let id = self.node(name)?.running.events.send(command.clone())?;
        let at = self.nodes.iter().rposition(|node| node.name == name).unwrap_or(0);
        let reply = |party: &Self| {
            party.nodes[at].find("reply", |event| event.0["id"] == id).map(|heard| heard.event)
        };
        self.until(&format!("the answer to {command}"), |party| reply(party).is_some())?;
        let reply = reply(self).context("a reply")?;
        Ok(if reply.0["ok"] == true { None } else { Some(reply.text("error")?.to_owned()) })
    }

    /// Defines and starts a partition of this name on a node.
    ///
    /// # Errors
    /// Where that is refused.
    pub fn run(&mut self, node: &'static str, partition: &str) -> Result<()> {
        let definition = json!({"command": "define", "definition": {
            "name": partition, "memory_bytes": MEMORY_MIB << 20, "store": "0",
            "kernel": {"image": "fill"},
            "cmdline": format!("key={} passes=1000000 rewrite=3", partition.len()), "dump": "off",
        }});
        self.until("a store", |party| {
            let node = party.nodes.iter().find(|one| one.name == node);
            node.is_some_and(|node| node.find("store", |_| true).is_some())
        })?;
        for command in [definition, json!({"command": "start", "partition": partition})] {
            let refused = self.ask(node, command.clone())?;
            ensure!(refused.is_none(), "{command}: {refused:?}");
        }
        Ok(())
    }

    /// Returns how many passes a partition has completed since a time, on any node.
    pub fn passes(&self, partition: &str, since: Duration) -> usize {
        let all = self.nodes.iter().flat_map(|node| &node.heard);
        let is_pass = |heard: &&HeardEvent| {
            heard.at > since
                && heard.event.0["partition"] == partition
                && heard.event.0["text"].as_str().is_some_and(|text| text.starts_with("pass "))
        };
        all.filter(is_pass).count()
    }

    /// Replays the traces of all nodes, whole and with a word changed: that is found. Returns
    /// `None` if a node's line of events was too slow for its trace.
    ///
    /// # Errors
    /// Says where a replay differs, or that a changed word was not noticed.
    pub fn replay(&self, log: &[RequestLogEntry]) -> Result<Option<ReplayCount>> {
        if self.nodes.iter().any(|node| node.find("lost", |_| true).is_some()) {
            return Ok(None);
        }
        let mut traces = Vec::new();
        for node in &self.nodes {
            let words = TraceWord::all(node.heard.iter().map(|heard| &heard.event))
                .with_context(|| node.name)?;
            traces.push(TimedTrace::new(node.name, words, log, &self.places.area.bytes)?);
        }
        let count = replay(self.places.superblock, &traces)?;
        let changed = traces.iter_mut().rev().find_map(|trace| {
            trace.words.iter_mut().rev().find_map(|word| match word {
                TraceWord::Noted { lease, .. } if *lease > 0 => Some(lease),
                _ => None,
            })
        });
        *changed.context("a lease in a trace")? += 1;
        ensure!(replay(self.places.superblock, &traces).is_err(), "a changed word is not noticed");
        Ok(Some(count))
    }

    /// Ends all machines, and reads what the server has recorded.
    ///
    /// # Errors
    /// Where the area is not as documented.
    pub fn end(&mut self) -> Result<TrialRecord> {
        self.look()?;
        self.nodes.iter_mut().for_each(|node| node.running.cut_power());
        let log = self.disk.log();
        let area = RecordedArea::read(&self.places.area, &log)?;
        let ledger = OwnerLedger::of(&area.decrees)?;
        Ok(TrialRecord { log, area, ledger })
    }

    /// Says where the transcripts are.
    pub fn describe(&self) -> String {
        let place =
            |node: &TrialNode| format!("{}: {}", node.name, node.running.folder().display());
        self.nodes.iter().map(place).collect::<Vec<_>>().join(", ")
    }

    /// Writes the server's log, without the bytes, beside the transcripts.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn keep_log(&self) -> Result<()> {
        let line = |entry| format!("{:?}\n", RequestLogEntry { data: None, ..entry });
        let text: String = self.disk.log().into_iter().map(line).collect();
        let folder = boot::paths::tidepool().join("transcripts");
        std::fs::create_dir_all(&folder)?;
        Ok(std::fs::write(folder.join(format!("{}.log", self.label)), text)?)
    }

    /// Removes the transcripts.
    pub fn passed(self) {
        self.nodes.into_iter().for_each(|node| node.running.passed());
    }
}

/// What a trial has left.
pub struct TrialRecord {
    /// All requests.
    pub log: Vec<RequestLogEntry>,
    /// The area's decrees and writes.
    pub area: RecordedArea,
    /// The owners.
    pub ledger: OwnerLedger,
}

impl TrialNode {
    fn hear(&mut self, event: Event, at: Duration) -> Result<()> {
        let text = |member: &str| event.0[member].as_str().unwrap_or("");
        if event.name() == "guest" {
            let is_wrong = text("kind") == "fail"
                || text("text").starts_with("pass ") && !text("text").ends_with(" wrong 0");
            ensure!(!is_wrong, "node {}: a page is wrong: {}", self.name, event.0);
        }
        ensure!(event.name() != "panic", "node {} panics: {}", self.name, event.0);
        self.heard.push(HeardEvent { event, at });
        Ok(())
    }

    /// Returns the last event of this name that `wanted` accepts.
    pub fn find(&self, name: &str, wanted: impl Fn(&Event) -> bool) -> Option<HeardEvent> {
        let is_it = |heard: &&HeardEvent| heard.event.name() == name && wanted(&heard.event);
        self.heard.iter().rev().find(is_it).cloned()
    }

    /// Returns when the node said this, by the server's clock: as its own clock says, which runs
    /// on while its process stands still. The event that was fastest tells how the clocks differ.
    ///
    /// # Errors
    /// If an event has no time.
    pub fn said_at(&self, heard: &HeardEvent) -> Result<Duration> {
        let since = |heard: &HeardEvent| {
            let own = Duration::from_nanos(heard.event.number("t")?);
            Ok::<_, anyhow::Error>(heard.at.saturating_sub(own))
        };
        let starts = self.heard.iter().map(since).collect::<Result<Vec<_>>>()?;
        let start = starts.into_iter().min().unwrap_or_default();
        Ok(start + Duration::from_nanos(heard.event.number("t")?))
    }

    /// Returns whether it is a member, with or without a lease.
    pub fn is_member(&self) -> bool {
        let last = self.heard.iter().rev().find_map(|heard| match heard.event.name() {
            "joined" => Some(true),
            "fenced" | "left" => Some(false),
            _ => None,
        });
        last == Some(true)
    }
}
