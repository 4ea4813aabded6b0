//! What the nodes of the demonstration have told: their states, and who ran what when.
//!
//! Times are seconds of the host since the first start.

use super::{NODES, PARTITIONS};
use crate::demo::worker::WorkerProgress;
use crate::events::Event;
use std::collections::BTreeMap;

/// A partition's incarnation on a node.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PartitionTenure {
    /// The node, by its place in [`NODES`].
    pub node: usize,
    /// The incarnation.
    pub incarnation: u64,
    /// Time of its beginning.
    pub from: f64,
    /// Time at which the guest was entered first.
    pub entered: Option<f64>,
    /// Times of what its guest has printed.
    pub said: Vec<f64>,
    /// Time and reason of its end, as its node has told it.
    pub end: Option<(f64, String)>,
    /// What its worker has reported.
    pub worker: WorkerProgress,
}

/// A node's word that a partition uses a space.
#[derive(Clone, PartialEq, Debug)]
pub struct SpaceUse {
    at: f64,
    node: usize,
    partition: String,
    incarnation: u64,
}

/// A node's state at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodePhase {
    /// It starts, and registers.
    Joining,
    /// A member.
    Member,
    /// Its lease is over.
    Frozen,
    /// Its emulator is stopped.
    Standing,
    /// It knows that it was fenced.
    Fenced,
    /// Its emulator was killed.
    Dead,
}

/// What a node has told of itself.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NodeStory {
    /// Its phases, each with its beginning.
    pub phases: Vec<(f64, NodePhase)>,
    /// Times and slots of its registrations.
    pub joined: Vec<(f64, u64)>,
    /// Times at which another member told that it was fenced.
    pub fenced: Vec<f64>,
    /// Times at which it signed off.
    pub left: Vec<f64>,
}

/// The story of all nodes and partitions.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClusterStory {
    /// The nodes, in the order of [`NODES`].
    pub nodes: [NodeStory; NODES.len()],
    /// The tenures of each partition, in the order of their beginnings.
    pub tenures: BTreeMap<String, Vec<PartitionTenure>>,
    /// Spaces that nodes have told to be in use, by their numbers.
    pub uses: BTreeMap<u64, Vec<SpaceUse>>,
    /// Crashes: time, partition, reason.
    pub crashes: Vec<(f64, String, String)>,
}

impl ClusterStory {
    /// Takes an event of a node; returns the line to show to people.
    pub fn event(&mut self, node: usize, at: f64, event: &Event) -> Option<String> {
        let text = |member: &str| event.0[member].as_str().unwrap_or("").to_owned();
        let number = |member: &str| event.0[member].as_u64().unwrap_or(0);
        let partition = text("partition");
        match event.name() {
            "joined" => {
                self.nodes[node].joined.push((at, number("slot")));
                self.phase(node, at, NodePhase::Member);
                Some(format!("joined, slot {}, {} members", number("slot"), number("members")))
            }
            "member" if event.0["id"].is_null() => self.member(at, event),
            "lease" if text("state") == "frozen" => {
                self.phase(node, at, NodePhase::Frozen);
                Some("the lease is over: its guests stand still".into())
            }
            "lease" => {
                self.phase(node, at, NodePhase::Member);
                Some("the lease goes on".into())
            }
            "fenced" => {
                self.phase(node, at, NodePhase::Fenced);
                Some("learns that it was fenced".into())
            }
            "left" => {
                self.nodes[node].left.push(at);
                Some("has signed off".into())
            }
            "space" if text("state") == "active" => {
                let incarnation = number("epoch");
                let of = SpaceUse { at, node, partition, incarnation };
                self.uses.entry(number("space")).or_default().push(of);
                None
            }
            "start" => {
                self.begin(node, at, &partition, number("incarnation"));
                Some(format!("{partition}: incarnation {} starts", number("incarnation")))
            }
            "entered" => {
                let tenure = self.tenure_mut(&partition, node)?;
                tenure.entered.get_or_insert(at);
                None
            }
            "stopped" => {
                let how = text("how");
                self.tenure_mut(&partition, node)?.end.get_or_insert((at, how.clone()));
                Some(format!("{partition}: stopped, {how}"))
            }
            "crash" => {
                let reason = text("reason");
                self.crashes.push((at, partition.clone(), reason.clone()));
                self.tenure_mut(&partition, node)?.end.get_or_insert((at, reason.clone()));
                Some(format!("{partition}: crashed, {reason}"))
            }
            "waiting" => Some(format!("{partition}: waits for {}", text("what"))),
            "inherited" => Some(format!("inherits {partition} of slot {}", number("slot"))),
            "not_inherited" => Some(format!("{partition} is not inherited: {}", text("reason"))),
            "error" => Some(format!("error: {}: {}", text("place"), text("message"))),
            _ => None,
        }
    }

    /// Another member has told of a member.
    fn member(&mut self, at: f64, event: &Event) -> Option<String> {
        let (name, state) = (event.0["node"].as_str()?, event.0["state"].as_str()?);
        let fenced = &mut self.nodes[place_of(name)?].fenced;
        // Each of the others tells it.
        if state == "fenced" && fenced.last().is_none_or(|last| at - last > 5.0) {
            fenced.push(at);
        }
        (state != "up").then(|| format!("{name} is {state}"))
    }

    /// Takes a line of a node's console; returns it if it is worth showing.
    pub fn line(&mut self, node: usize, at: f64, line: &str) -> Option<String> {
        let (partition, said) = self.whose(node, line)?;
        let tenure = self.tenure_mut(&partition, node)?;
        if let Some(text) = said.strip_prefix("worker: ") {
            tenure.said.push(at);
            let is_shown = tenure.worker.said(at, text.trim_end());
            return is_shown.then(|| format!("{partition}: {}", said.trim_end()));
        }
        let is_init = said.starts_with("init: ");
        is_init.then(|| format!("{partition}: {}", said.trim_end()))
    }

    /// Returns a line's partition and text. A node's only partition has the line to itself, so its
    /// lines have no name.
    fn whose(&self, node: usize, line: &str) -> Option<(String, String)> {
        let named = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        if let Some((name, text)) = named
            && PARTITIONS.contains(&name)
        {
            return Some((name.to_owned(), text.to_owned()));
        }
        let here = |tenures: &&String| self.tenures[*tenures].iter().any(|of| of.node == node);
        let mut names = self.tenures.keys().filter(here);
        let only = names.next().filter(|_| names.next().is_none())?;
        let at = ["worker: ", "init: "].iter().find_map(|word| line.find(word))?;
        Some((only.clone(), line[at..].to_owned()))
    }

    fn begin(&mut self, node: usize, from: f64, partition: &str, incarnation: u64) {
        let mut tenure = PartitionTenure { node, incarnation, from, ..Default::default() };
        tenure.worker.begin(incarnation);
        self.tenures.entry(partition.to_owned()).or_default().push(tenure);
    }

    fn tenure_mut(&mut self, partition: &str, node: usize) -> Option<&mut PartitionTenure> {
        self.tenures.get_mut(partition)?.iter_mut().rfind(|tenure| tenure.node == node)
    }

    /// Notes that a node is in another phase from now on.
    pub fn phase(&mut self, node: usize, at: f64, phase: NodePhase) {
        self.nodes[node].phases.push((at, phase));
    }

    /// Returns the last tenure of a partition.
    pub fn last(&self, partition: &str) -> Option<&PartitionTenure> {
        self.tenures.get(partition)?.last()
    }

    /// Returns whether a partition's newest tenure is elsewhere than on this node, and its worker
    /// has verified all its pages there.
    pub fn works_off(&self, partition: &str, node: usize) -> bool {
        self.last(partition).is_some_and(|last| last.node != node && last.worker.passes > 0)
    }

    /// Returns for how long a partition's guest went on on its old node after it had begun to work
    /// on another one, in seconds. Output that was on its way comes at once, so it does not count.
    pub fn ran_twice(&self, partition: &str) -> f64 {
        let Some(tenures) = self.tenures.get(partition) else { return 0.0 };
        let pairs = tenures.windows(2).filter(|pair| pair[0].node != pair[1].node);
        let overlap = |pair: &[PartitionTenure]| {
            let Some(begun) = pair[1].said.first() else { return 0.0 };
            let late: Vec<_> = pair[0].said.iter().filter(|at| *at > begun).collect();
            late.first().zip(late.last()).map_or(0.0, |(first, last)| **last - **first)
        };
        pairs.map(overlap).fold(0.0, f64::max)
    }

    /// Returns the node whose partition had a space at a time. A node that only looks at a space
    /// tells of it too, but runs nothing in it.
    pub fn owner(&self, space: u64, at: f64) -> Option<usize> {
        let runs = |of: &&SpaceUse| {
            let tenures = self.tenures.get(&of.partition).map_or(&[][..], Vec::as_slice);
            tenures.iter().any(|it| it.node == of.node && it.incarnation == of.incarnation)
        };
        let uses = self.uses.get(&space)?.iter().rev();
        uses.filter(runs).find(|of| of.at <= at).map(|of| of.node)
    }

    /// Returns since when a node was away the first time: it stood still, was killed, or its lease
    /// ended.
    pub fn away_since(&self, node: usize) -> Option<f64> {
        let is_away = |phase: &&(f64, NodePhase)| {
            matches!(phase.1, NodePhase::Standing | NodePhase::Dead | NodePhase::Frozen)
        };
        self.nodes[node].phases.iter().find(is_away).map(|(at, _)| *at)
    }

    /// Returns a node's phase at a time.
    pub fn phase_at(&self, node: usize, at: f64) -> NodePhase {
        let phases = &self.nodes[node].phases;
        phases.iter().rev().find(|(since, _)| *since <= at).map_or(NodePhase::Joining, |p| p.1)
    }
}

/// Returns a node's place in [`NODES`].
pub fn place_of(name: &str) -> Option<usize> {
    NODES.iter().position(|node| *node == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// debian-a works on node-a, and from second 30 on node-c.
    fn story() -> ClusterStory {
        let mut story = ClusterStory::default();
        let mut told = |node, at, event| drop(story.event(node, at, &Event(event)));
        told(0, 1.0, json!({"event": "joined", "slot": 4, "members": 1}));
        for (node, at, incarnation) in [(0, 2.0, 1), (2, 25.0, 2)] {
            let start = json!({
                "event": "start", "partition": "debian-a", "incarnation": incarnation
            });
            told(node, at, start);
            told(node, at + 1.0, json!({"event": "entered", "partition": "debian-a"}));
            let space = json!({
                "event": "space", "space": 1 + node, "state": "active", "partition": "debian-a",
                "epoch": incarnation
            });
            told(node, at, space);
        }
        let fenced = json!({
            "event": "member", "node": "node-a", "state": "fenced", "id": null
        });
        told(1, 20.0, fenced.clone());
        told(2, 20.4, fenced);
        story.line(0, 3.0, "worker: at 1024");
        story.line(2, 30.0, "worker: at 1024");
        story
    }

    #[test]
    fn lines_belong_to_the_partition_of_their_name_or_to_the_only_one() {
        let mut story = story();
        assert!(story.line(2, 31.0, "worker: pass 1 pages 9 wrong 0").is_some());
        assert!(story.works_off("debian-a", 0) && !story.works_off("debian-a", 2));
        let second = json!({"event": "start", "partition": "debian-c", "incarnation": 1});
        story.event(2, 32.0, &Event(second));
        assert_eq!(story.line(2, 33.0, "worker: pass 2 pages 9 wrong 0"), None);
        assert!(story.line(2, 33.0, "[debian-c] worker: pass 1 pages 9 wrong 0").is_some());
        assert_eq!(story.tenures["debian-c"][0].worker.passes, 1);
        assert_eq!(story.last("debian-a").map(|last| last.worker.passes), Some(1));
    }

    #[test]
    fn a_node_is_fenced_once_though_all_others_tell_it() {
        let story = story();
        assert_eq!((story.nodes[0].fenced.len(), story.nodes[1].fenced.len()), (1, 0));
    }

    #[test]
    fn a_space_belongs_to_the_node_that_runs_a_partition_in_it() {
        let mut story = story();
        let owners = |story: &ClusterStory| [1.0, 9.0, 40.0].map(|at| story.owner(1, at));
        assert_eq!(owners(&story), [None, Some(0), Some(0)]);
        assert_eq!(story.owner(3, 26.0), Some(2));
        // A member that adopts the space tells what its record says.
        let looked = json!({
            "event": "space", "space": 1, "state": "active", "partition": "debian-a", "epoch": 1
        });
        story.event(1, 30.0, &Event(looked));
        assert_eq!(owners(&story), [None, Some(0), Some(0)]);
    }

    #[test]
    fn a_guest_that_goes_on_beside_its_successor_is_found() {
        let mut story = story();
        assert_eq!(story.ran_twice("debian-a"), 0.0);
        // Output that was on its way when the node stood still.
        story.line(0, 61.0, "worker: at 2048");
        story.line(0, 61.1, "worker: at 3072");
        assert!(story.ran_twice("debian-a") < 0.5);
        story.line(0, 66.0, "worker: at 4096");
        assert_eq!(story.ran_twice("debian-a"), 5.0);
    }
}
