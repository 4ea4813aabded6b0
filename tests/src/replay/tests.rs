//! A trace that a state machine on the host makes, without emulators.

use super::*;
use crate::nbd::{RequestKind, RequestLogEntry};
use cluster::beat::BeatDetails;
use cluster::crc::crc32c;
use cluster::decree::{Decree, Owner};
use cluster::id::Incarnation;
use cluster::layout::Extent;
use cluster::node::{ClusterNode, NodeAsk, StepDone};
use cluster::sector::SECTOR;
use cluster::timing::ClusterTiming;
use cluster::watch::{Sighting, TurnTimes};

const LIMIT: usize = 1024;
const AREA: std::ops::Range<u64> = 1 << 20..2 << 20;

fn superblock() -> Superblock {
    Superblock {
        features_optional: 0,
        cluster: 7,
        slots: 4,
        areas: 1,
        area: 0,
        state_bytes: LIMIT as u32,
        timing: ClusterTiming::DEFAULT,
        formatted_ns: 0,
    }
}

/// Two nodes on one area in memory, that write down every word and every request.
struct Recorder {
    area: Vec<u8>,
    now: u64,
    log: Vec<RequestLogEntry>,
    nodes: Vec<(ClusterNode<Vec<Sighting>>, Vec<TraceWord>)>,
}

const NAMES: [&str; 2] = ["a", "b"];

impl Recorder {
    fn new() -> Self {
        let layout = superblock().layout().unwrap();
        let node = |n: u128| {
            let (me, seen) = (Incarnation(n), vec![Sighting::NEVER; 4]);
            let node = ClusterNode::new(me, layout, ClusterTiming::DEFAULT, LIMIT, 5, seen);
            (node, vec![TraceWord::Begin { me, entropy: 5, expected: 0 }])
        };
        let area = vec![0; layout.len() as usize];
        Self { area, now: 0, log: Vec::new(), nodes: vec![node(1), node(2)] }
    }

    fn request(&mut self, n: usize, kind: RequestKind, part: Extent) {
        self.now += 1_000_000;
        let at = Duration::from_nanos(self.now);
        let start = AREA.start + part.at;
        self.log.push(RequestLogEntry {
            node: NAMES[n],
            kind,
            bytes: start..start + part.len as u64,
            arrived: at,
            answered: Some(at),
            action: None,
            failure: None,
            data: None,
        });
    }

    /// Lets a node go on until it waits.
    fn drive(&mut self, n: usize) {
        let mut out = [0; LIMIT];
        loop {
            let asked = self.now;
            self.nodes[n].0.describe(BeatDetails::NONE);
            let ask = self.nodes[n].0.ask(asked, &mut out);
            let NodeAsk::Step { write, read, areas, resends } = ask else { return };
            let sum = crc32c(&out[..write.map_or(0, |part| part.len)]);
            let (now, details) = (asked, BeatDetails::NONE);
            let step = AskedStep { now, areas, resends, write, read, details, hurry: 0, sum };
            let mut words = vec![TraceWord::Ask(step)];
            if let Some(part) = write {
                self.area[part.at as usize..][..part.len].copy_from_slice(&out[..part.len]);
                self.request(n, RequestKind::Write, part);
            }
            let mut seen = Vec::new();
            if let Some(part) = read {
                seen = self.area[part.at as usize..][..part.len].to_vec();
                self.request(n, RequestKind::Read, part);
                for (sector, bytes) in seen.chunks(SECTOR).enumerate() {
                    let at = part.at + (sector * SECTOR) as u64;
                    words.push(TraceWord::Read { area: 0, at, bytes: bytes.to_vec() });
                }
            }
            let times = TurnTimes { asked_ns: asked, read_ns: self.now, seen_ns: self.now };
            words.push(TraceWord::Done { areas: 1, times });
            let mut notes = Vec::new();
            let reads: Vec<&[u8]> = read.map(|_| seen.as_slice()).into_iter().collect();
            let (node, all) = &mut self.nodes[n];
            node.done(&StepDone { areas: 1, times, reads: &reads }, &mut |note| notes.push(note));
            let (number, lease) = (node.state().number(), node.lease_end_ns().unwrap_or(0));
            words.push(TraceWord::Noted { number, lease, text: format!("{notes:?}") });
            all.extend(words);
        }
    }

    fn traces(&self) -> Vec<TimedTrace> {
        let trace = |(n, (_, words)): (usize, &(_, Vec<TraceWord>))| {
            TimedTrace::new(NAMES[n], words.clone(), &self.log, &AREA).unwrap()
        };
        self.nodes.iter().enumerate().map(trace).collect()
    }
}

/// Two nodes register and beat; one wishes for a partition, dies, and is fenced.
fn recorded() -> Recorder {
    let mut recorder = Recorder::new();
    for second in 0..24 {
        recorder.now = recorder.now.max(second * 1_000_000_000);
        recorder.drive(0);
        if second < 8 {
            recorder.drive(1);
        }
        if second == 4 {
            let decree = Decree::Own { partition: 9, from: Owner::Unowned, to: Owner::Slot(0) };
            recorder.nodes[0].0.wish(decree);
            recorder.nodes[0].1.push(TraceWord::Wish(decree));
        }
    }
    recorder
}

#[test]
fn what_two_nodes_did_is_done_again() {
    let traces = recorded().traces();
    let count = replay(superblock(), &traces).unwrap();
    assert!(count.decided == 4 && count.extended > 20, "{count:?}");
}

#[test]
fn a_word_that_differs_is_found() {
    let recorder = recorded();
    let whole = recorder.traces();
    let fails = |change: &dyn Fn(&mut TraceWord) -> bool, node: usize| {
        let mut traces = whole.clone();
        assert!(traces[node].words.iter_mut().any(change), "nothing to change");
        replay(superblock(), &traces).unwrap_err().to_string()
    };
    let other_sum = |word: &mut TraceWord| match word {
        TraceWord::Ask(step) if step.write.is_some() => {
            step.sum ^= 1;
            true
        }
        _ => false,
    };
    assert!(fails(&other_sum, 0).starts_with("a, word"));
    let longer_lease = |word: &mut TraceWord| match word {
        TraceWord::Noted { lease, .. } if *lease > 0 => {
            *lease += 1;
            true
        }
        _ => false,
    };
    assert!(fails(&longer_lease, 1).starts_with("b, word"));
    let beats = superblock().layout().unwrap().beats();
    // A beat that the other node never wrote: its sequence, 24 bytes from the start, is another.
    let other_beat = |word: &mut TraceWord| match word {
        TraceWord::Read { at, bytes, .. } if *at == beats.at && bytes[24] > 3 => {
            bytes[24] ^= 1;
            true
        }
        _ => false,
    };
    assert!(fails(&other_beat, 0).starts_with("a, word"));
}

#[test]
fn a_fence_under_a_lease_is_found() {
    let recorder = recorded();
    let mut traces = recorder.traces();
    // The beats of the dead node arrive later, by the server's clock, than they were seen.
    let late = recorder.log.iter().map(|entry| {
        let late = Duration::from_secs(if entry.node == "b" { 4 } else { 0 });
        let (arrived, answered) = (entry.arrived + late, entry.answered);
        RequestLogEntry { arrived, answered, ..entry.clone() }
    });
    let log: Vec<_> = late.collect();
    traces[1] = TimedTrace::new("b", traces[1].words.clone(), &log, &AREA).unwrap();
    let error = format!("{:#}", replay(superblock(), &traces).unwrap_err());
    assert!(error.contains("under its lease"), "{error}");
}
