//! Simulates two and three nodes on one fake disk, by the rules that the hypervisor runs
//! ([`SpaceTaking`], [`SpaceHolding`], [`RecordSequence`]). Writes land late, are slow or get lost.
//! Nodes stall for up to 20 s, lose power and start again. A seed decides every event.
//!
//! The invariants, checked at every event:
//! * a write under a lease is submitted only by the node that took the space last;
//! * the newest record is the last owner's. While a late write of an earlier owner is not repaired,
//!   the newest valid one may be the record before it (only one such write at a time: two, from two
//!   earlier owners, onto both copies, while the owner is stalled, defeat any rule);
//! * an owner ends only where a later claim was written, or a claim of its own epoch whose write
//!   was slow;
//! * a block that differs from its owner's write is detected by its checksum.

use super::claim::{BEAT_NS, ClaimSector, ClaimSectors, SETTLE_NS, SpaceClaim};
use super::copies::{RecordSequence, RecordSide};
use super::holding::{BeatVerdict, SpaceHolding};
use super::taking::{ClaimLook, SpaceTaking, TakingStep};
use super::uuid::Uuid;
use crate::time::Ns;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const MS: Ns = Ns::from_ms(1);
const SECOND: Ns = Ns::from_secs(1);
const END: Ns = Ns::from_secs(60);
const BLOCKS: usize = 4;
/// Used instead of the write's time if a look precedes the beat.
const FIRST: Ns = Ns::MAX;

/// A small generator (splitmix64).
struct ClaimRandom(u64);

impl ClaimRandom {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    /// A request's time to the disk: mostly short, sometimes as long as a hanging path.
    fn latency(&mut self, slow_one_in: u64) -> Ns {
        if self.one_in(slow_one_in) { self.below(20_000) * MS } else { MS + self.below(15) * MS }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum ClaimSimWrite {
    Claim { epoch: u64, bytes: u64 },
    Record { sequence: u64 },
    Block { number: usize, content: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum ClaimSimEvent {
    /// A write reaches the medium.
    Land { by: u64, write: ClaimSimWrite, submitted: Ns },
    /// Its node gets the completion; or a read is served now.
    Answer { node: usize, life: u32, what: ClaimSimAnswer },
    /// The node does its periodic work.
    Work { node: usize, life: u32 },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum ClaimSimAnswer {
    ClaimWritten { submitted: Ns },
    LookDue { submitted: Ns, written: Ns },
    Looked { submitted: Ns, written: Ns },
    RecordWritten { sequence: u64 },
    BeatDue,
}

#[derive(Default)]
struct FakeClaimDisk {
    /// The claims on the medium.
    claims: Option<ClaimSectors>,
    records: [u64; 2],
    blocks: [u64; BLOCKS],
}

enum ClaimSimMode {
    Taking(SpaceTaking),
    Holding(SpaceHolding),
    Gone,
}

struct ClaimSimNode {
    uuid: Uuid,
    mode: ClaimSimMode,
    life: u32,
    paused_until: Ns,
    lease_end: Ns,
    /// Ordinal number of its ownership; 0: it never owned the space.
    reign: u32,
    record: u64,
    record_in_flight: bool,
    took_over: u8,
    blocks: [u64; BLOCKS],
}

struct World {
    random: ClaimRandom,
    now: Ns,
    events: BinaryHeap<Reverse<(Ns, u64, ClaimSimEvent)>>,
    count: u64,
    disk: FakeClaimDisk,
    nodes: Vec<ClaimSimNode>,
    reigns: u32,
    /// All claims ever submitted, and whether each write landed late.
    written: Vec<(SpaceClaim, bool)>,
    /// The last record that was completed, and the reign that wrote it.
    completed: (u64, u32),
    found: ClaimSimCounts,
    next_late_record: Ns,
}

/// Counts of events, so that a simulation in which nothing happens is noticed.
#[derive(Default, Debug)]
struct ClaimSimCounts {
    reigns: u32,
    lost_pages: u32,
    overwritten: u32,
    repaired: u32,
    ended: u32,
    in_use: u32,
    woke: u32,
}

fn encode(claim: SpaceClaim) -> ClaimSector {
    ClaimSector::decode(&claim.encode())
}

impl World {
    fn new(seed: u64, nodes: usize) -> Self {
        let mut world = Self {
            random: ClaimRandom(seed),
            now: Ns::ZERO,
            events: BinaryHeap::new(),
            count: 0,
            disk: FakeClaimDisk { claims: Some(ClaimSectors::NONE), ..FakeClaimDisk::default() },
            nodes: Vec::new(),
            reigns: 0,
            written: Vec::new(),
            completed: (0, 0),
            found: ClaimSimCounts::default(),
            next_late_record: Ns::ZERO,
        };
        for number in 0..nodes {
            world.nodes.push(ClaimSimNode {
                uuid: Uuid([number as u8 + 1; 16]),
                mode: ClaimSimMode::Gone,
                life: 0,
                paused_until: Ns::ZERO,
                lease_end: Ns::ZERO,
                reign: 0,
                record: 0,
                record_in_flight: false,
                took_over: 0,
                blocks: [0; BLOCKS],
            });
            let at = world.random.below(5_000) * MS;
            world.at(at, ClaimSimEvent::Work { node: number, life: 0 });
        }
        world
    }

    fn at(&mut self, when: Ns, event: ClaimSimEvent) {
        self.count += 1;
        self.events.push(Reverse((when, self.count, event)));
    }

    fn claims(&self) -> ClaimSectors {
        self.disk.claims.unwrap_or(ClaimSectors::NONE)
    }

    fn newest(&self) -> u64 {
        self.disk.records[0].max(self.disk.records[1])
    }

    fn run(&mut self) {
        while let Some(Reverse((when, _, event))) = self.events.pop() {
            if when > END {
                return;
            }
            self.now = when;
            match event {
                ClaimSimEvent::Land { by, write, submitted } => self.land(by, write, submitted),
                ClaimSimEvent::Answer { node, life, what } => {
                    self.unless_paused(node, life, event, |world| world.answer(node, what))
                }
                ClaimSimEvent::Work { node, life } => {
                    self.unless_paused(node, life, event, |world| world.work(node))
                }
            }
            self.check();
        }
    }

    fn unless_paused(
        &mut self,
        node: usize,
        life: u32,
        event: ClaimSimEvent,
        act: impl FnOnce(&mut Self),
    ) {
        let it = &self.nodes[node];
        if it.life != life {
            return;
        }
        if self.now < it.paused_until {
            let when = it.paused_until;
            return self.at(when, event);
        }
        act(self);
    }

    fn land(&mut self, _by: u64, write: ClaimSimWrite, submitted: Ns) {
        match write {
            ClaimSimWrite::Claim { epoch, bytes } => {
                let (claim, is_late) = &mut self.written[bytes as usize];
                *is_late = self.now - submitted > SETTLE_NS;
                let mark = encode(*claim);
                self.disk.claims = Some(self.claims().with(epoch, mark));
            }
            ClaimSimWrite::Record { sequence } => {
                self.disk.records[(sequence % 2) as usize] = sequence
            }
            ClaimSimWrite::Block { number, content } => self.disk.blocks[number] = content,
        }
    }

    fn submit(&mut self, node: usize, write: ClaimSimWrite, answer: Option<ClaimSimAnswer>) {
        let latency = self.latency(&write);
        let (now, life) = (self.now, self.nodes[node].life);
        self.at(now + latency, ClaimSimEvent::Land { by: node as u64, write, submitted: now });
        if let Some(what) = answer {
            self.at(now + latency + MS, ClaimSimEvent::Answer { node, life, what });
        }
    }

    /// Spaces late record writes apart: two of them, on both copies, before the owner was awake to
    /// repair the first, defeat any rule.
    fn latency(&mut self, write: &ClaimSimWrite) -> Ns {
        let latency = self.random.latency(60);
        if !matches!(write, ClaimSimWrite::Record { .. }) || latency < SECOND {
            return latency;
        }
        if self.now < self.next_late_record {
            return MS;
        }
        self.next_late_record = self.now + latency + 25 * SECOND;
        latency
    }

    /// The one gate for all writes that need a lease.
    fn submit_gated(
        &mut self,
        node: usize,
        write: ClaimSimWrite,
        answer: Option<ClaimSimAnswer>,
    ) -> bool {
        let it = &self.nodes[node];
        if self.now > it.lease_end || !matches!(it.mode, ClaimSimMode::Holding(_)) {
            return false;
        }
        if it.reign == 0 {
            assert!(
                matches!(write, ClaimSimWrite::Record { .. }),
                "only its records are written before a space is taken over"
            );
            self.submit(node, write, answer);
            return true;
        }
        assert_eq!(
            it.reign,
            self.reigns,
            "node {node} submits at {} ms after the change of hands",
            self.now.as_u64() / MS.as_u64()
        );
        self.submit(node, write, answer);
        true
    }

    fn write_claim(&mut self, node: usize, claim: SpaceClaim) {
        let bytes = self.written.len() as u64;
        self.written.push((claim, false));
        let submitted = self.now;
        self.submit(
            node,
            ClaimSimWrite::Claim { epoch: claim.epoch, bytes },
            Some(ClaimSimAnswer::ClaimWritten { submitted }),
        );
    }

    fn look(&mut self, node: usize, written: Ns) {
        let (now, life) = (self.now, self.nodes[node].life);
        let latency = self.random.latency(200);
        self.at(
            now + latency,
            ClaimSimEvent::Answer {
                node,
                life,
                what: ClaimSimAnswer::Looked { submitted: now, written },
            },
        );
    }

    fn answer(&mut self, node: usize, what: ClaimSimAnswer) {
        match what {
            ClaimSimAnswer::ClaimWritten { submitted } => match &mut self.nodes[node].mode {
                ClaimSimMode::Taking(taking) => {
                    let step = taking.wrote(self.now);
                    self.step(node, step);
                }
                ClaimSimMode::Holding(_) => self.look(node, submitted),
                ClaimSimMode::Gone => {}
            },
            ClaimSimAnswer::LookDue { written, .. } => self.look(node, written),
            ClaimSimAnswer::BeatDue => self.beat(node),
            ClaimSimAnswer::Looked { submitted, written } => self.looked(node, submitted, written),
            ClaimSimAnswer::RecordWritten { sequence } => {
                let it = &mut self.nodes[node];
                it.record_in_flight = false;
                match it.reign {
                    0 => self.founded(node),
                    reign if reign == self.reigns => self.completed = (sequence, reign),
                    _ => {}
                }
            }
        }
    }

    fn looked(&mut self, node: usize, submitted: Ns, written: Ns) {
        let (claims, now) = (self.claims(), self.now);
        let record_epoch = RecordSequence(self.newest()).epoch();
        match &mut self.nodes[node].mode {
            ClaimSimMode::Taking(taking) => {
                let step = taking.looked(&ClaimLook {
                    claims,
                    record_epoch,
                    asked_ns: submitted,
                    seen_ns: now,
                });
                if let TakingStep::Own(claim) = step {
                    self.nodes[node].mode =
                        ClaimSimMode::Holding(SpaceHolding::new(claim, submitted));
                    return self.beat(node);
                }
                self.step(node, step);
            }
            ClaimSimMode::Holding(holding) => {
                let look = ClaimLook { claims, record_epoch, asked_ns: submitted, seen_ns: now };
                let mine = holding.claim();
                let held = if written != FIRST {
                    holding.looked(&look, written)
                } else if now - submitted > BEAT_NS {
                    return self.look(node, FIRST);
                } else {
                    holding.looked_first(&look)
                };
                self.held(node, held, mine, written == FIRST);
            }
            ClaimSimMode::Gone => {}
        }
    }

    fn step(&mut self, node: usize, step: TakingStep) {
        let (now, life) = (self.now, self.nodes[node].life);
        match step {
            TakingStep::Look(at) => {
                let what = ClaimSimAnswer::LookDue { submitted: now, written: Ns::ZERO };
                self.at(at.max(now), ClaimSimEvent::Answer { node, life, what });
            }
            TakingStep::Write(claim) => self.write_claim(node, claim),
            TakingStep::Own(_) => unreachable!("only a look shows that"),
            TakingStep::InUse(_) | TakingStep::Exhausted => {
                self.found.in_use += 1;
                self.leave(node);
            }
        }
    }

    fn held(&mut self, node: usize, held: BeatVerdict, mine: SpaceClaim, is_first: bool) {
        match held {
            BeatVerdict::Confirmed { lease_end_ns } => {
                self.nodes[node].lease_end = lease_end_ns;
                let (life, now) = (self.nodes[node].life, self.now);
                self.at(
                    now + BEAT_NS,
                    ClaimSimEvent::Answer { node, life, what: ClaimSimAnswer::BeatDue },
                );
                match self.nodes[node].reign {
                    0 if !self.nodes[node].record_in_flight => self.found_by(node),
                    0 => {}
                    _ => self.repair(node),
                }
            }
            BeatVerdict::Again => self.begin(node),
            BeatVerdict::Overwritten => {
                self.found.overwritten += u32::from(!is_first);
                self.found.woke += u32::from(is_first);
                self.write_beat(node);
            }
            BeatVerdict::Ended(_) => {
                let later = |(c, late): &(SpaceClaim, bool)| {
                    c.epoch > mine.epoch
                        || c.epoch == mine.epoch
                            && c.node != mine.node
                            && (*late || self.nodes[node].reign == 0)
                };
                assert!(
                    self.written.iter().any(later),
                    "node {node} ended at {} ms without a later claim",
                    self.now.as_u64() / MS.as_u64()
                );
                self.found.ended += 1;
                self.leave(node);
            }
        }
    }

    /// Writes both records with the new epoch, before any other write.
    fn found_by(&mut self, node: usize) {
        let newest = self.newest();
        let (done, _) = self.completed;
        assert!(
            newest + 1 >= done,
            "a record of the owner before is lost: {newest:#x} after {done:#x}"
        );
        (self.nodes[node].record, self.nodes[node].took_over) = (newest, 0);
        self.write_record(node);
    }

    fn founded(&mut self, node: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        let ClaimSimMode::Holding(holding) = &mut it.mode else { return };
        it.took_over += 1;
        if it.took_over < 2 {
            return self.write_record(node);
        }
        if !holding.found(now) {
            // The next beat starts over.
            return;
        }
        self.reigns += 1;
        self.found.reigns += 1;
        it.reign = self.reigns;
        self.completed = (it.record, it.reign);
        let (life, now) = (it.life, self.now);
        self.at(now, ClaimSimEvent::Work { node, life });
    }

    /// Repairs a record: an owner that finds another record in place of its newest writes its own
    /// again.
    fn repair(&mut self, node: usize) {
        let it = &self.nodes[node];
        let (record, is_still) = (it.record, !it.record_in_flight);
        let there = self.disk.records[(record % 2) as usize];
        if is_still
            && there != record
            && self.submit_gated(node, ClaimSimWrite::Record { sequence: record }, None)
        {
            self.found.repaired += 1;
        }
    }

    fn beat(&mut self, node: usize) {
        let now = self.now;
        if let ClaimSimMode::Holding(holding) = &mut self.nodes[node].mode {
            if holding.has_lapsed(now) {
                return self.begin(node);
            }
            if holding.looks_first(now) {
                return self.look(node, FIRST);
            }
            self.write_beat(node);
        }
    }

    fn write_beat(&mut self, node: usize) {
        if let ClaimSimMode::Holding(holding) = &mut self.nodes[node].mode {
            let claim = holding.beat();
            self.write_claim(node, claim);
        }
    }

    fn leave(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        (it.mode, it.life, it.reign) = (ClaimSimMode::Gone, it.life + 1, 0);
        let (life, at) = (it.life, self.now + (1 + self.random.below(12)) * SECOND);
        self.at(at, ClaimSimEvent::Work { node, life });
    }

    fn work(&mut self, node: usize) {
        if self.random.one_in(12) {
            self.nodes[node].paused_until = self.now + (1 + self.random.below(20)) * SECOND;
        }
        if self.random.one_in(60) {
            return self.leave(node);
        }
        let life = self.nodes[node].life;
        if matches!(self.nodes[node].mode, ClaimSimMode::Gone) {
            let uuid = Uuid([node as u8 + 1 + 16 * (life as u8 % 15); 16]);
            self.nodes[node].uuid = uuid;
            return self.begin(node);
        }
        if self.nodes[node].reign > 0 {
            self.page(node);
            self.write_record(node);
            let at = self.now + (10 + self.random.below(400)) * MS;
            self.at(at, ClaimSimEvent::Work { node, life });
        }
    }

    fn begin(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        (it.mode, it.record_in_flight, it.life) =
            (ClaimSimMode::Taking(SpaceTaking::new(it.uuid)), false, it.life + 1);
        it.blocks = [0; BLOCKS];
        self.look(node, Ns::ZERO);
    }

    fn page(&mut self, node: usize) {
        for _ in 0..3 {
            let number = self.random.below(BLOCKS as u64) as usize;
            let there = self.disk.blocks[number];
            if self.nodes[node].blocks[number] != 0 && there % 8 != node as u64 {
                // Other content has another checksum: the page is lost, and reported as lost.
                self.found.lost_pages += 1;
            }
            let content = self.random.next() & !7 | node as u64;
            if self.submit_gated(node, ClaimSimWrite::Block { number, content }, None) {
                self.nodes[node].blocks[number] = content;
            }
        }
    }

    fn write_record(&mut self, node: usize) {
        let it = &self.nodes[node];
        let ClaimSimMode::Holding(holding) = &it.mode else { return };
        if it.record_in_flight {
            return;
        }
        let next = RecordSequence(it.record).next(holding.claim().epoch).0;
        let answer = ClaimSimAnswer::RecordWritten { sequence: next };
        if self.submit_gated(node, ClaimSimWrite::Record { sequence: next }, Some(answer)) {
            let it = &mut self.nodes[node];
            (it.record, it.record_in_flight) = (next, true);
        }
    }

    fn check(&self) {
        let Some(owner) = self.nodes.iter().find(|n| n.reign == self.reigns && n.reign > 0) else {
            return;
        };
        let ClaimSimMode::Holding(holding) = &owner.mode else { return };
        let (newest, mine) = (RecordSequence(self.newest()), holding.claim().epoch);
        let at = self.now.as_u64() / MS.as_u64();
        assert!(newest.epoch() >= mine, "a record of an earlier owner is the newest at {at} ms");
        assert!(
            newest.epoch() == mine || self.now > owner.lease_end,
            "taken over under a lease at {at} ms"
        );
        assert!(
            newest.0 + 1 >= self.completed.0,
            "a record is lost: {:#x} after {:#x} at {at} ms",
            newest.0,
            self.completed.0
        );
    }
}

/// Number of seeds in a run; `TIDEPOOL_RUNS` overrides it.
fn runs() -> u64 {
    std::env::var("TIDEPOOL_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(4000)
}

#[test]
fn no_owner_loses_a_claim_or_a_record_whatever_lands_late() {
    let first = std::env::var("TIDEPOOL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut all = ClaimSimCounts::default();
    for seed in first..first + runs() {
        let found = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, 2 + (seed % 2) as usize);
            world.run();
            world.found
        });
        let found =
            found.unwrap_or_else(|_| panic!("TIDEPOOL_SEED={seed} TIDEPOOL_RUNS=1 shows it again"));
        all.reigns += found.reigns;
        all.lost_pages += found.lost_pages;
        all.overwritten += found.overwritten;
        all.repaired += found.repaired;
        all.ended += found.ended;
        all.in_use += found.in_use;
        all.woke += found.woke;
    }
    let happened = [
        all.reigns,
        all.lost_pages,
        all.overwritten,
        all.repaired,
        all.ended,
        all.in_use,
        all.woke,
    ];
    assert!(
        runs() < 1000 || happened.iter().all(|count| *count > 0),
        "the simulation has no such case: {all:?}"
    );
    assert_eq!(RecordSide::of(RecordSequence(0).next(1).0), RecordSide::B);
}
