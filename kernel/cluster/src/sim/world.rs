//! Areas, nodes and time: requests that are slow, reorder, tear or fail; nodes that stand still,
//! die and come back. Every step of a node is the crate's own rule.

use super::app::{DataWrite, FakeSpace, SimApp};
use super::area::FakeArea;
use super::mail::MailTruth;
use super::random::{SimClock, SimRandom};
use super::truth::Truth;
use crate::decree::Decree;
use crate::id::Incarnation;
use crate::layout::{AreaLayout, Extent, Half};
use crate::node::{ClusterEvent, ClusterNode, NodeAsk, StepDone};
use crate::round::{LaneNext, ResendPlan, Round, RoundDue, RoundStep};
use crate::sector::SECTOR;
use crate::state::MemberStatus;
use crate::timing::ClusterTiming;
use crate::watch::{Sighting, TurnTimes};
use std::collections::{BTreeMap, HashSet};

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1000 * MS;
const END: u64 = 40 * SECOND;
const SLOTS: usize = 24;
const LIMIT: usize = 2048;
const TIMING: ClusterTiming = ClusterTiming { beat_ms: 500, lease_ms: 2500, drift_ppm: 20_000 };
const PLAN: ResendPlan = ResendPlan { first_ns: 100 * MS, times: 5 };

#[derive(Clone)]
pub(super) struct AreaRequest {
    node: usize,
    life: u32,
    round: u32,
    area: usize,
    step: RoundStep,
    at: Extent,
    bytes: Vec<u8>,
    cuts: u32,
    /// A long write lands in two parts.
    is_first_part: bool,
    is_ok: bool,
}

pub(super) enum SimEvent {
    Land(AreaRequest),
    Answer(AreaRequest),
    Wake { node: usize, wake: u32 },
    Due { node: usize, round: u32 },
    App { node: usize, life: u32 },
    DataSubmit(DataWrite),
    DataLand(DataWrite),
    DataDone(DataWrite),
    Start(usize),
    Fate,
}

pub(super) struct SimNode {
    pub(super) clock: SimClock,
    pub(super) life: u32,
    pub(super) incarnation: Incarnation,
    paused_until: u64,
    pub(super) node: Option<Box<ClusterNode<[Sighting; SLOTS]>>>,
    /// The last decree in its local copy.
    known: u64,
    /// It has ended in a hypervisor that goes on.
    ended: Option<Box<ClusterNode<[Sighting; SLOTS]>>>,
    round: Option<Round>,
    round_id: u32,
    wake: u32,
    asked_ns: u64,
    io: (Option<Extent>, Option<Extent>),
    reads: [Option<Vec<u8>>; 3],
    buffer: Vec<u8>,
    pending: Option<NodeAsk>,
    /// Writes to each area that have not completed.
    writes_out: [u32; 3],
    /// Power cuts of each area when the last write landed.
    write_cuts: [u32; 3],
    pub(super) app: SimApp,
}

pub(super) struct World {
    pub(super) random: SimRandom,
    pub(super) now: u64,
    events: BTreeMap<(u64, u64), SimEvent>,
    sequence: u64,
    areas: Vec<FakeArea>,
    pub(super) nodes: Vec<SimNode>,
    pub(super) truth: Truth,
    pub(super) mail: MailTruth,
    pub(super) spaces: Vec<FakeSpace>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// Decrees that may be decided without effect.
    pub(super) voids: HashSet<Decree>,
    starts: u128,
    slow_one_in: u64,
    traces: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = SimRandom(seed);
        let areas = if random.one_in(3) { 3 } else { 1 };
        let len = layout().len();
        let nodes = 2 + random.below(3);
        let mut world = Self {
            slow_one_in: [20, 80, 400][random.below(3) as usize],
            areas: (0..areas).map(|_| FakeArea::new(len)).collect(),
            now: 0,
            events: BTreeMap::new(),
            sequence: 0,
            nodes: Vec::new(),
            truth: Truth::new(LIMIT),
            mail: MailTruth::default(),
            spaces: FakeSpace::all(),
            counts: BTreeMap::new(),
            voids: HashSet::new(),
            starts: 0,
            traces: std::env::var_os("TIDEPOOL_TRACE").is_some(),
            random,
        };
        for number in 0..nodes as usize {
            let clock = SimClock::new(&mut world.random, TIMING.drift_ppm.into());
            world.nodes.push(SimNode {
                clock,
                life: 0,
                incarnation: Incarnation(0),
                paused_until: 0,
                node: None,
                known: 0,
                ended: None,
                round: None,
                round_id: 0,
                wake: 0,
                asked_ns: 0,
                io: (None, None),
                reads: [None, None, None],
                buffer: vec![0; layout().longest_write()],
                pending: None,
                writes_out: [0; 3],
                write_cuts: [0; 3],
                app: SimApp::default(),
            });
            // Often all at once.
            let spread = if seed.is_multiple_of(2) { 30 * MS } else { 3 * SECOND };
            let after = world.random.below(spread);
            world.after(after, SimEvent::Start(number));
        }
        world.after(SECOND, SimEvent::Fate);
        world
    }

    pub(super) fn after(&mut self, delay: u64, event: SimEvent) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    /// Prints what happens, for a run that is looked at.
    pub(super) fn trace(&self, text: impl Fn() -> String) {
        if self.traces {
            println!("{:8} ms  {}", self.now / MS, text());
        }
    }

    pub(super) fn tally(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Returns a request's time: mostly short, sometimes as long as a hanging path.
    pub(super) fn latency(&mut self) -> u64 {
        if self.random.one_in(self.slow_one_in) {
            self.tally("slow request");
            self.random.below(7 * SECOND)
        } else {
            self.random.below(8 * MS)
        }
    }

    pub(super) fn run(&mut self) {
        while let Some(((when, _), event)) = self.events.pop_first() {
            if when > END {
                return;
            }
            self.now = when;
            if let Some(until) = self.paused(&event) {
                self.after(until - when, event);
                continue;
            }
            match event {
                SimEvent::Land(request) => self.land(request),
                SimEvent::Answer(request) => self.answer(request),
                SimEvent::Wake { node, wake } if self.nodes[node].wake == wake => self.drive(node),
                SimEvent::Due { node, round } if self.nodes[node].round_id == round => {
                    self.due(node);
                }
                SimEvent::App { node, life } if self.nodes[node].life == life => self.app(node),
                SimEvent::Wake { .. } | SimEvent::Due { .. } | SimEvent::App { .. } => {}
                SimEvent::DataSubmit(write) => self.data_submit(write),
                SimEvent::DataLand(write) => self.data_land(write),
                SimEvent::DataDone(write) => self.data_done(&write),
                SimEvent::Start(node) => self.start(node),
                SimEvent::Fate => self.fate(),
            }
        }
    }

    /// Returns until when the node of an event stands still.
    fn paused(&self, event: &SimEvent) -> Option<u64> {
        let node = match event {
            SimEvent::Answer(request) => request.node,
            SimEvent::Wake { node, .. }
            | SimEvent::Due { node, .. }
            | SimEvent::App { node, .. } => *node,
            SimEvent::DataSubmit(write) | SimEvent::DataDone(write) => write.node,
            _ => return None,
        };
        let until = self.nodes[node].paused_until;
        (until > self.now).then_some(until)
    }

    fn start(&mut self, number: usize) {
        self.starts += 1;
        if mutant!(ReuseSlot) {
            self.sweep_while_nodes_run();
        }
        let entropy = self.random.next();
        let it = &mut self.nodes[number];
        it.life += 1;
        it.incarnation = Incarnation(self.starts);
        let before = it.node.as_ref().or(it.ended.as_ref());
        it.known = it.known.max(before.map_or(0, |node| node.announced()));
        let has_begun_anew = it.ended.is_some();
        it.node = it.ended.take();
        match &mut it.node {
            // The hypervisor goes on, and registers once more.
            Some(node) => node.begin_anew(it.incarnation, entropy),
            None => {
                let seen = [Sighting::NEVER; SLOTS];
                let me = it.incarnation;
                let mut node = ClusterNode::new(me, layout(), TIMING, LIMIT, entropy, seen);
                node.expect_decree(it.known);
                it.node = Some(Box::new(node));
            }
        }
        if has_begun_anew {
            self.tally("begun anew");
        }
        let it = &mut self.nodes[number];
        (it.round, it.pending, it.paused_until) = (None, None, 0);
        it.round_id += 1;
        it.writes_out = [0; 3];
        it.app = SimApp::default();
        let life = it.life;
        self.after(0, SimEvent::App { node: number, life });
        self.drive(number);
    }

    fn sweep_while_nodes_run(&mut self) {
        let fenced = |status| matches!(status, MemberStatus::Fenced { .. });
        let row = self.truth.state.members().iter().find(|row| fenced(row.status));
        let Some(slot) = row.map(|row| row.id.slot) else { return };
        for area in &mut self.areas {
            for half in [Half::A, Half::B] {
                area.write(layout().join(slot, half).at, &[0; SECTOR]);
            }
        }
    }

    /// The start has ended: nothing of it runs any more. Its writes may still land.
    fn end(&mut self, number: usize) {
        let it = &mut self.nodes[number];
        it.life += 1;
        it.round_id += 1;
        (it.node, it.round, it.pending, it.paused_until) = (None, None, None, 0);
        it.app = SimApp::default();
        let delay = 300 * MS + self.random.below(6 * SECOND);
        self.after(delay, SimEvent::Start(number));
    }

    fn fate(&mut self) {
        let number = self.random.below(self.nodes.len() as u64) as usize;
        match self.random.below(20) {
            0..5 => {
                self.tally("pause");
                // Often about as long as a lease: it ends while others act on it.
                let length = match self.random.one_in(2) {
                    true => 2 * SECOND + self.random.below(2 * SECOND),
                    false => 1 + self.random.below(9 * SECOND),
                };
                self.nodes[number].paused_until = self.now + length;
            }
            5 if self.nodes[number].node.is_some() => {
                self.tally("death");
                self.end(number);
            }
            10 => {
                let area = self.random.below(self.areas.len() as u64) as usize;
                self.trace(|| format!("area {area}: power cut"));
                let random = &mut self.random;
                if self.areas[area].cut(|| random.one_in(2)) > 0 {
                    self.tally("unflushed sectors lost");
                }
            }
            11 if self.random.one_in(2) => {
                if let Some(node) = &mut self.nodes[number].node {
                    node.leave();
                    self.tally("asked to leave");
                }
            }
            12 if self.random.one_in(2) => {
                let area = self.random.below(self.areas.len() as u64) as usize;
                self.areas[area].stalled_until = self.now + self.random.below(15 * SECOND);
                self.tally("stalled area");
            }
            _ => {}
        }
        let delay = 100 * MS + self.random.below(2 * SECOND);
        self.after(delay, SimEvent::Fate);
    }

    /// Lets a node go on until it waits for something.
    pub(super) fn drive(&mut self, number: usize) {
        loop {
            let areas = self.areas.len() as u8;
            let it = &mut self.nodes[number];
            let local = it.clock.local(self.now);
            let (None, Some(node)) = (&it.round, &mut it.node) else { return };
            let ask = it.pending.take().unwrap_or_else(|| node.ask(local, &mut it.buffer));
            match ask {
                NodeAsk::Step { write, read, areas: mask, resends } => {
                    let idle = (0..3).map(|n| u8::from(it.writes_out[n] == 0) << n).sum::<u8>();
                    let plan = resends.then_some(PLAN);
                    let parts = (write.is_some(), read.is_some());
                    let Some(round) = Round::begin(areas, mask & idle, parts, plan, local) else {
                        it.pending = Some(ask);
                        return;
                    };
                    (it.round, it.asked_ns, it.io) = (Some(round), local, (write, read));
                    it.round_id += 1;
                    it.reads = [None, None, None];
                    for area in (0..areas).filter(|area| (mask & idle) >> area & 1 == 1) {
                        self.submit(number, area.into(), round.first());
                    }
                    self.arm(number);
                    return;
                }
                NodeAsk::Wait(until) => {
                    it.wake += 1;
                    let wake = it.wake;
                    let at = it.clock.real(until).max(self.now);
                    self.after(at - self.now, SimEvent::Wake { node: number, wake });
                    return;
                }
                NodeAsk::Drain if it.app.flying > 0 => {
                    // It submits nothing more.
                    self.truth.leases.insert(node.me().slot, 0);
                    return;
                }
                NodeAsk::Drain => {
                    self.truth.leases.insert(node.me().slot, 0);
                    node.drained(it.app.is_tainted);
                    it.app.clear();
                }
                NodeAsk::Gone => {
                    let ended = self.nodes[number].node.take();
                    self.end(number);
                    self.nodes[number].ended = ended;
                    return;
                }
            }
        }
    }

    fn arm(&mut self, number: usize) {
        let it = &self.nodes[number];
        let Some(due) = it.round.and_then(|round| round.next_due_ns()) else { return };
        let (at, round) = (it.clock.real(due).max(self.now), it.round_id);
        self.after(at - self.now, SimEvent::Due { node: number, round });
    }

    fn submit(&mut self, number: usize, area: usize, step: RoundStep) {
        let it = &mut self.nodes[number];
        let nothing = Extent { at: 0, len: 0 };
        let (at, bytes) = match step {
            RoundStep::Write => {
                it.writes_out[area] += 1;
                let at = it.io.0.unwrap_or(nothing);
                (at, it.buffer[..at.len].to_vec())
            }
            RoundStep::Flush => (nothing, Vec::new()),
            RoundStep::Read => (it.io.1.unwrap_or(nothing), Vec::new()),
        };
        let request = AreaRequest {
            node: number,
            life: it.life,
            round: it.round_id,
            area,
            step,
            at,
            is_first_part: bytes.len() > SECTOR,
            bytes,
            cuts: self.areas[area].cuts,
            is_ok: true,
        };
        let delay = self.latency();
        self.after(delay, SimEvent::Land(request));
    }

    fn land(&mut self, mut request: AreaRequest) {
        let stalled = self.areas[request.area].stalled_until;
        if stalled > self.now {
            let delay = stalled - self.now + self.random.below(20 * MS);
            return self.after(delay, SimEvent::Land(request));
        }
        let is_dead = self.nodes[request.node].life != request.life;
        let cuts = self.areas[request.area].cuts;
        let mut delay = self.latency();
        request.is_ok = request.cuts == cuts;
        if request.is_ok {
            match request.step {
                RoundStep::Write if request.is_first_part && self.random.one_in(3) => {
                    let part = SECTOR * (1 + self.random.below(3) as usize);
                    self.areas[request.area].write(request.at.at, &request.bytes[..part]);
                    request.is_first_part = false;
                    delay = self.random.below(20 * MS);
                    return self.after(delay, SimEvent::Land(request));
                }
                RoundStep::Write => {
                    let mut len = request.bytes.len();
                    if is_dead && self.random.one_in(3) {
                        self.tally("torn write");
                        len = self.random.below(len as u64) as usize;
                    }
                    self.areas[request.area].write(request.at.at, &request.bytes[..len]);
                    self.nodes[request.node].write_cuts[request.area] = cuts;
                }
                // What the cut has lost must not be taken for durable.
                RoundStep::Flush if self.nodes[request.node].write_cuts[request.area] != cuts => {
                    request.is_ok = false;
                }
                RoundStep::Flush => self.areas[request.area].flush(),
                RoundStep::Read => {
                    request.bytes = self.areas[request.area].read(request.at.at, request.at.len);
                }
            }
        }
        self.trace(|| {
            let AreaRequest { node, area, step, is_ok, .. } = &request;
            format!("area {area}: {step:?} of node {node} at {}: {is_ok}", request.at.at)
        });
        if !request.is_ok {
            self.tally("failed request");
        }
        self.after(delay, SimEvent::Answer(request));
    }

    fn answer(&mut self, request: AreaRequest) {
        let (number, area, step) = (request.node, request.area, request.step);
        let it = &mut self.nodes[number];
        if it.life != request.life {
            return;
        }
        if step == RoundStep::Write {
            it.writes_out[area] -= 1;
        }
        let local = it.clock.local(self.now);
        let round = it.round.as_mut().filter(|_| it.round_id == request.round);
        let Some(round) = round else { return self.drive(number) };
        let next = if request.is_ok {
            if step == RoundStep::Read && it.reads[area].is_none() {
                it.reads[area] = Some(request.bytes);
            }
            round.completed(area as u8, step, local)
        } else {
            round.failed(area as u8, step, local)
        };
        let is_done = round.is_done();
        if let LaneNext::Submit(step) = next {
            self.submit(number, area, step);
        }
        if is_done {
            self.finish(number);
        }
    }

    fn finish(&mut self, number: usize) {
        let it = &mut self.nodes[number];
        let (Some(round), Some(node)) = (it.round.take(), &mut it.node) else { return };
        it.round_id += 1;
        let areas = round.done_mask();
        let reads: Vec<&[u8]> = (0..3)
            .filter(|area| areas >> area & 1 == 1)
            .filter_map(|area| it.reads[area].as_deref())
            .collect();
        let times = TurnTimes {
            asked_ns: it.asked_ns,
            read_ns: round.read_ns(),
            seen_ns: it.clock.local(self.now),
        };
        let mut events = Vec::new();
        let done = StepDone { areas, times, reads: &reads };
        node.done(&done, &mut |event| events.push(event));
        events.into_iter().for_each(|event| self.happened(number, event));
        self.drive(number);
    }

    fn due(&mut self, number: usize) {
        loop {
            let it = &mut self.nodes[number];
            let local = it.clock.local(self.now);
            let Some(round) = &mut it.round else { return };
            match round.overdue(local) {
                Some(RoundDue::Resend(area, step, _)) => {
                    self.tally("resend");
                    self.submit(number, area.into(), step);
                }
                Some(RoundDue::GivenUp(_)) => self.tally("request given up"),
                None => break,
            }
        }
        let it = &mut self.nodes[number];
        if it.round.is_some_and(|round| round.is_hopeless())
            && let Some(node) = &mut it.node
        {
            let mut events = Vec::new();
            node.gave_up(&mut |event| events.push(event));
            it.round = None;
            it.round_id += 1;
            events.into_iter().for_each(|event| self.happened(number, event));
            return self.drive(number);
        }
        self.arm(number);
    }

    fn happened(&mut self, number: usize, event: ClusterEvent) {
        self.trace(|| format!("node {number}: {event:?}"));
        let it = &self.nodes[number];
        let Some(node) = &it.node else { return };
        let (me, now, truth) = (node.me(), self.now, &mut self.truth);
        let what = match event {
            ClusterEvent::Won(_) => {
                truth.won(me);
                "slot won"
            }
            ClusterEvent::Burned(_) => "slot lost to another start",
            ClusterEvent::Joined(_) => "joined",
            ClusterEvent::JoinFailed(_) => {
                truth.failed(me.incarnation);
                "registration failed"
            }
            ClusterEvent::Decided(decree, value, effect) => {
                truth.decided(decree, value, node.state(), now);
                let is_known = effect.is_ok() || self.voids.contains(&value);
                assert!(is_known, "a proposer knows the state: {value:?}: {effect:?}");
                super::name(&value)
            }
            ClusterEvent::Learned(decree) => {
                truth.learned(decree, node.state());
                "state learned"
            }
            ClusterEvent::Conflict => "ballot lost",
            ClusterEvent::Extended(end) => {
                if truth.extended(me.slot, it.clock.real(end), now) {
                    "thawed"
                } else {
                    "lease extended"
                }
            }
            ClusterEvent::Suspected => "found itself suspected",
            ClusterEvent::Suspects(_) => "suspicion",
            ClusterEvent::Withdrew(_) => "suspicion withdrawn",
            ClusterEvent::Proposes(who, decree) => {
                truth.proposes(who.slot, decree, now);
                "fence proposed"
            }
            ClusterEvent::Fenced => "found itself fenced",
            ClusterEvent::MailRead { slot, number, .. } => {
                let reader = node.state().member(slot).expect("a member").id;
                self.mail.told((me.incarnation, number), reader.incarnation);
                "mail acknowledged"
            }
            ClusterEvent::MailLost { .. } => "mail lost",
            ClusterEvent::Foreign => panic!("a sector differs from what its only writer wrote"),
            ClusterEvent::Restored { .. } => panic!("the area has forgotten what a beat announced"),
        };
        self.tally(what);
    }
}

fn layout() -> AreaLayout {
    AreaLayout::new(SLOTS as u16, LIMIT as u32).expect("possible numbers").with_mail()
}
