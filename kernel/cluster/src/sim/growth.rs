//! How a cluster grows: members of the real state machine on a disk with a speed, one of which
//! dies. A table of requests, detection time, frozen and suspected members.
//!
//! ```text
//!   member ── ask ──> write ─> flush ─> read ──> done ── next turn
//!                     each takes the disk's latency, its bytes' time, a place of its queue,
//!                     and now and then a stall
//! ```
//!
//! All members are admitted before the first turn, so the time of a run is that of turns only. A
//! write lands when it completes, and a read shows what had landed when it completes. Nothing is
//! torn, lost or refused: that is the other simulation's work.

use super::number;
use super::random::{SimClock, SimRandom};
use crate::decree::Decree;
use crate::id::Incarnation;
use crate::layout::{AreaLayout, Extent};
use crate::node::{ClusterEvent, ClusterNode, NodeAsk, StepDone};
use crate::timing::ClusterTiming;
use crate::watch::{Sighting, TurnTimes};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// Members are kept to this by the state's rows.
const MOST: usize = crate::state::MAX_MEMBERS;
const STATE: u32 = 16_384;

/// A disk with a speed.
#[derive(Clone, Copy)]
struct DiskSpeed {
    name: &'static str,
    /// Time of a request without bytes.
    latency_ns: u64,
    bytes_a_second: u64,
    /// Requests that it serves at a time.
    depth: usize,
    /// One request of so many takes a stall's time more; 0: none does.
    stalls: u64,
    stall_ns: u64,
}

const SAN: DiskSpeed = DiskSpeed {
    name: "80 us, 2 GB/s, 16 at a time",
    latency_ns: 80_000,
    bytes_a_second: 2_000_000_000,
    depth: 16,
    stalls: 0,
    stall_ns: 2 * SECOND,
};
const STALLING: DiskSpeed =
    DiskSpeed { name: "the same, 0.1 % stall for 2 s", stalls: 1000, ..SAN };
const HARD_DISKS: DiskSpeed = DiskSpeed {
    name: "8 ms, 100 MB/s, 2 at a time, 0.1 % stall",
    latency_ns: 8 * MS,
    bytes_a_second: 100_000_000,
    depth: 2,
    stalls: 1000,
    stall_ns: 2 * SECOND,
};

/// What a run has found.
#[derive(Default, Debug)]
struct GrowthRow {
    requests: u64,
    bytes: u64,
    /// From the death to the decree that fences.
    detected_ns: Option<u64>,
    freezes: u32,
    frozen_ns: u64,
    /// Suspicions of members that live.
    wrong_suspicions: u32,
    /// Living members that were fenced.
    wrong_fences: u32,
    run_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum GrowthStep {
    Ask,
    Flushed,
    Written,
    Read,
}

struct GrowthNode {
    node: ClusterNode<Vec<Sighting>>,
    clock: SimClock,
    out: Vec<u8>,
    step: (Option<Extent>, Option<Extent>),
    asked_ns: u64,
    read_ns: u64,
    frozen_since: Option<u64>,
    is_member: bool,
}

struct Growth {
    area: Vec<u8>,
    disk: DiskSpeed,
    places: BinaryHeap<Reverse<u64>>,
    random: SimRandom,
    nodes: Vec<GrowthNode>,
    events: BinaryHeap<Reverse<(u64, usize, GrowthStep)>>,
    dies_ns: u64,
    row: GrowthRow,
}

impl Growth {
    fn new(members: usize, timing: ClusterTiming, disk: DiskSpeed, seed: u64) -> Self {
        let layout = AreaLayout::new(MOST as u16, STATE).expect("possible numbers");
        let mut random = SimRandom(seed);
        let nodes = (0..members).map(|n| {
            let seen = vec![Sighting::NEVER; MOST];
            let me = Incarnation(n as u128 + 1);
            let entropy = random.next();
            GrowthNode {
                node: ClusterNode::new(me, layout, timing, STATE as usize, entropy, seen),
                clock: SimClock::new(&mut random, timing.drift_ppm.into()),
                out: vec![0; STATE as usize],
                step: (None, None),
                asked_ns: 0,
                read_ns: 0,
                frozen_since: None,
                is_member: false,
            }
        });
        let nodes = nodes.collect();
        let mut it = Self {
            area: vec![0; layout.len() as usize],
            disk,
            places: (0..disk.depth).map(|_| Reverse(0)).collect(),
            random,
            nodes,
            events: BinaryHeap::new(),
            dies_ns: u64::MAX,
            row: GrowthRow::default(),
        };
        it.admit();
        it
    }

    /// Registers all members, one after the other on an idle disk that takes no time.
    fn admit(&mut self) {
        for number in 0..self.nodes.len() {
            let start = self.nodes[number].clock.local(0);
            while !self.nodes[number].node.is_member() {
                let it = &mut self.nodes[number];
                let NodeAsk::Step { write, read, .. } = it.node.ask(start, &mut it.out) else {
                    panic!("the area answers");
                };
                (it.step, it.asked_ns, it.read_ns) = ((write, read), start, start);
                self.land(number);
                self.judge(number, 0);
            }
        }
    }

    fn land(&mut self, number: usize) {
        let it = &self.nodes[number];
        if let (Some(part), _) = it.step {
            self.area[part.at as usize..][..part.len].copy_from_slice(&it.out[..part.len]);
        }
    }

    /// Returns when a request of so many bytes is done.
    fn request(&mut self, now: u64, bytes: usize) -> u64 {
        let mut takes = self.disk.latency_ns + bytes as u64 * SECOND / self.disk.bytes_a_second;
        if self.disk.stalls > 0 && self.random.one_in(self.disk.stalls) {
            // Exponential, as queues in a storage network are.
            let unit = (self.random.below(1 << 32) + 1) as f64 / (1_u64 << 32) as f64;
            takes += (-unit.ln() * self.disk.stall_ns as f64) as u64;
        }
        let Reverse(free) = self.places.pop().expect("a place");
        let end = now.max(free) + takes;
        self.places.push(Reverse(end));
        (self.row.requests, self.row.bytes) =
            (self.row.requests + 1, self.row.bytes + bytes as u64);
        end
    }

    fn later(&mut self, number: usize, step: GrowthStep, at: u64) {
        self.events.push(Reverse((at, number, step)));
    }

    fn run(&mut self, run_ns: u64, beat_ns: u64) {
        for number in 0..self.nodes.len() {
            let at = self.random.below(beat_ns);
            self.later(number, GrowthStep::Ask, at);
        }
        (self.dies_ns, self.row.run_ns) = (run_ns / 2, run_ns);
        let dead = self.nodes.len() - 1;
        while let Some(Reverse((now, number, step))) = self.events.pop() {
            if now > run_ns {
                break;
            }
            if number == dead && now >= self.dies_ns {
                continue;
            }
            self.happens(number, step, now);
            self.look(number, now);
        }
        for it in &mut self.nodes[..dead] {
            self.row.frozen_ns += it.frozen_since.map_or(0, |since| run_ns - since);
        }
    }

    fn happens(&mut self, number: usize, step: GrowthStep, now: u64) {
        let parts = self.nodes[number].step;
        match step {
            GrowthStep::Ask => self.ask(number, now),
            GrowthStep::Written => {
                self.land(number);
                let at = self.request(now, 0);
                self.later(number, GrowthStep::Flushed, at);
            }
            GrowthStep::Flushed => match parts.1 {
                Some(part) => {
                    let it = &mut self.nodes[number];
                    it.read_ns = it.clock.local(now);
                    let at = self.request(now, part.len);
                    self.later(number, GrowthStep::Read, at);
                }
                None => self.happens(number, GrowthStep::Read, now),
            },
            GrowthStep::Read => {
                self.judge(number, now);
                self.later(number, GrowthStep::Ask, now);
            }
        }
    }

    fn ask(&mut self, number: usize, now: u64) {
        let it = &mut self.nodes[number];
        let local = it.clock.local(now);
        match it.node.ask(local, &mut it.out) {
            NodeAsk::Step { write, read, .. } => {
                (it.step, it.asked_ns) = ((write, read), local);
                match write {
                    Some(part) => {
                        let at = self.request(now, part.len);
                        self.later(number, GrowthStep::Written, at);
                    }
                    None => self.happens(number, GrowthStep::Flushed, now),
                }
            }
            NodeAsk::Wait(until) => {
                let at = it.clock.real(until).max(now + 1);
                self.later(number, GrowthStep::Ask, at);
            }
            NodeAsk::Drain => {
                it.node.drained(false);
                self.later(number, GrowthStep::Ask, now + MS);
            }
            NodeAsk::Gone => {}
        }
    }

    fn judge(&mut self, number: usize, now: u64) {
        let it = &mut self.nodes[number];
        let read = it.step.1.map(|part| &self.area[part.at as usize..][..part.len]);
        let times =
            TurnTimes { asked_ns: it.asked_ns, read_ns: it.read_ns, seen_ns: it.clock.local(now) };
        let done = StepDone { areas: 1, times, reads: read.as_slice() };
        let mut notes = Vec::new();
        it.node.done(&done, &mut |event| notes.push(event));
        let dead = self.nodes.last().expect("members").node.me();
        for event in notes {
            match event {
                ClusterEvent::Suspects(who) if who != dead || now < self.dies_ns => {
                    self.row.wrong_suspicions += 1;
                }
                ClusterEvent::Decided(_, Decree::Fence { who, .. }, _) => {
                    if who == dead.slot && now >= self.dies_ns {
                        let detected = &mut self.row.detected_ns;
                        *detected = detected.or(Some(now - self.dies_ns));
                    } else {
                        self.row.wrong_fences += 1;
                    }
                }
                _ => {}
            }
        }
    }

    /// Notes when a member has no lease.
    fn look(&mut self, number: usize, now: u64) {
        let it = &mut self.nodes[number];
        let is_open = it.node.may_submit(it.clock.local(now));
        let end = it.node.lease_end_ns();
        it.is_member |= is_open;
        match (is_open, it.frozen_since) {
            (false, None) if it.is_member => {
                let since = end.map_or(now, |end| it.clock.real(end).min(now));
                it.frozen_since = Some(since);
                self.row.freezes += 1;
            }
            (true, Some(since)) => {
                self.row.frozen_ns += now - since;
                it.frozen_since = None;
            }
            _ => {}
        }
    }
}

fn measure(members: usize, beat_ms: u32, disk: DiskSpeed, seconds: u64) -> GrowthRow {
    let timing = ClusterTiming { beat_ms, lease_ms: 8 * beat_ms, ..ClusterTiming::DEFAULT };
    let mut growth = Growth::new(members, timing, disk, number("TIDEPOOL_SEED", 1));
    growth.row = GrowthRow::default();
    growth.run(seconds * SECOND, timing.beat_ns());
    growth.row
}

fn line(members: usize, beat_ms: u32, disk: DiskSpeed, row: &GrowthRow) {
    let seconds = row.run_ns as f64 / SECOND as f64;
    println!(
        "{:42} {members:5} {:3} s {:8.1} {:7.2} {:>9} {:7} {:8.1} s {:6} {:6}",
        disk.name,
        beat_ms / 1000,
        row.requests as f64 / seconds / members as f64,
        row.bytes as f64 / seconds / 1e6,
        row.detected_ns.map_or("never".into(), |ns| format!("{:.1} s", ns as f64 / 1e9)),
        row.freezes,
        row.frozen_ns as f64 / 1e9,
        row.wrong_suspicions,
        row.wrong_fences,
    );
}

/// Prints the table. `TIDEPOOL_GROWTH` is the simulated time of a row in seconds; without it the
/// small clusters run for a short time.
#[test]
fn a_cluster_grows_with_few_requests_and_finds_a_death_in_time() {
    const ROWS: [(usize, u32); 4] = [(2, 1000), (8, 1000), (64, 1000), (64, 2000)];
    let (seconds, usual) = (number("TIDEPOOL_GROWTH", 0), 40);
    let rows = if seconds == 0 { &ROWS[..2] } else { &ROWS[..] };
    let seconds = seconds.max(usual);
    println!(
        "{:42} {:>5} {:>5} {:>8} {:>7} {:>9} {:>7} {:>10} {:>6} {:>6}",
        "disk",
        "nodes",
        "beat",
        "IO/s/node",
        "MB/s",
        "found in",
        "freezes",
        "frozen",
        "wrong",
        "fenced"
    );
    for disk in [SAN, STALLING, HARD_DISKS] {
        for &(members, beat_ms) in rows {
            let row = measure(members, beat_ms, disk, seconds);
            line(members, beat_ms, disk, &row);
            if disk.stalls == 0 {
                let rate = row.requests as f64 / seconds as f64 / members as f64;
                assert!(rate < 3.5, "{members}: {rate} requests a second and member");
                let bar = 13 * u64::from(beat_ms) * MS;
                assert!(row.detected_ns.is_some_and(|ns| ns <= bar), "{members}: {row:?}");
                let wrong = (row.freezes, row.wrong_suspicions, row.wrong_fences);
                assert_eq!(wrong, (0, 0, 0), "{members}: {row:?}");
            }
        }
    }
}
