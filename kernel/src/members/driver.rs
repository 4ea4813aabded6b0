//! Carries out the steps of the crate's state machine with real requests, at real times.
//!
//! ```text
//!   ask ── Step ──> Round ── requests on the areas ──> answers ── a majority done ──> done ──> ask
//!    │                 └── overdue: the same bytes again (registration only), then gave_up
//!    ├── Wait          until the next beat
//!    ├── Drain         the disks are closed; until nothing is in flight
//!    └── Gone          this incarnation has ended
//! ```
//!
//! * An area takes part in a step only if all its earlier writes *and reads* have ended, because
//!   each has one buffer. A read that was sent again counts when all its copies have ended.
//! * A failed request begins its area anew after [`PAUSE_NS`].
//! * Times that the rules compare err to the safe side: submissions are taken early, completions
//!   late.

use super::area::{AreaAnswer, AreaIo};
use super::side::{AreaLane, MemberSide, MemberStanding};
use super::{tell, trace};
use crate::block::Disk;
use crate::storage::log_desk::LogDesk;
use crate::time::Ns;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use cluster::beat::BeatDetails;
use cluster::decree::{Decree, QuietProof};
use cluster::id::Incarnation;
use cluster::layout::Extent;
use cluster::node::{ClusterEvent, ClusterNode, NodeAsk, StepDone};
use cluster::round::{LaneNext, ResendPlan, Round, RoundDue, RoundStep};
use cluster::state::MemberStatus;
use cluster::watch::{Sighting, TurnTimes};

/// Pause before an area that has failed is tried again.
const PAUSE_NS: u64 = 250_000_000;
/// Most areas of a cluster.
const MAX_AREAS: usize = 3;
/// Pause before the first registration after a fence; each further one is twice as long, to about
/// four minutes.
const REJOIN_NS: u64 = 1_000_000_000;
/// Turns follow each other sooner while an order to the log waits, and so long after it.
const ORDER_NS: u64 = 300_000_000;
/// Slots that a start may lose before it waits a random time.
const FREE_BURNS: u16 = 3;

/// The step that is under way.
#[derive(Clone, Copy)]
struct StepIo {
    write: Option<Extent>,
    read: Option<Extent>,
    asked_ns: u64,
}

/// A start of this hypervisor as a member.
pub(super) struct MemberDriver {
    pub(super) side: MemberSide,
    areas: u8,
    io: &'static AreaIo,
    round: Option<Round>,
    round_id: u32,
    step: StepIo,
    pending: Option<NodeAsk>,
    out: Vec<u8>,
    retries: ArrayVec<(u8, RoundStep, u64), 32>,
    hold_until_ns: u64,
    random: u64,
    /// Slots of fenced members that the operator has confirmed to be off.
    confirmed: ArrayVec<u16, 8>,
    /// How often it has registered anew.
    rejoins: u32,
    log: &'static LogDesk,
}

/// What a driver is made of.
pub(super) struct DriverParts {
    pub side: MemberSide,
    /// Number of areas of the cluster.
    pub areas: u8,
    pub io: &'static AreaIo,
    pub log: &'static LogDesk,
    /// Room for a copy of the state.
    pub out: Vec<u8>,
    pub entropy: u64,
}

impl MemberDriver {
    pub(super) fn new(parts: DriverParts) -> Self {
        let DriverParts { side, areas, io, log, out, entropy } = parts;
        Self {
            side,
            areas,
            io,
            round: None,
            round_id: 0,
            step: StepIo { write: None, read: None, asked_ns: 0 },
            pending: None,
            out,
            retries: ArrayVec::new(),
            hold_until_ns: 0,
            random: entropy,
            confirmed: ArrayVec::new(),
            rejoins: 0,
            log,
        }
    }

    /// Goes on as far as possible.
    pub(super) fn poll(&mut self, now_ns: Ns, details: impl Fn() -> BeatDetails) {
        let now = now_ns.as_u64();
        while let Some(answer) = self.io.take() {
            self.answered(answer, now);
        }
        self.retry(now);
        self.overdue(now);
        while self.advance(now, &details) {}
        tell::lease(&mut self.side, now);
    }

    fn lane(&mut self, area: u8) -> Option<&mut AreaLane> {
        self.side.lanes.iter_mut().find(|lane| lane.area.number == area)
    }

    fn answered(&mut self, answer: AreaAnswer, now: u64) {
        let AreaAnswer { area, step, result, .. } = answer;
        let is_current = answer.round == self.round_id && self.round.is_some();
        let read_len = self.step.read.map_or(0, |part| part.len);
        let Some(lane) = self.lane(area) else { return };
        let mut result = result;
        match step {
            RoundStep::Write => lane.writes = lane.writes.saturating_sub(1),
            RoundStep::Flush => {}
            RoundStep::Read => {
                lane.reads = lane.reads.saturating_sub(1);
                lane.has_bad_read |= result.is_err();
                if lane.reads > 0 || !is_current {
                    return;
                }
                match core::mem::take(&mut lane.has_bad_read) {
                    true => result = Err(crate::block::DiskError::Io),
                    false => lane.area.fetch(lane.seen.get_mut(..read_len).unwrap_or(&mut [])),
                }
            }
        }
        let Some(round) = self.round.as_mut().filter(|_| is_current) else { return };
        match result {
            Ok(()) => {
                if let LaneNext::Submit(next) = round.completed(area, step, now) {
                    self.submit(area, next);
                }
            }
            // The list has room for the copies of a write on each area.
            Err(_) => {
                let _ = self.retries.try_push((area, step, now.saturating_add(PAUSE_NS)));
            }
        }
    }

    /// Begins areas anew whose pause is over.
    fn retry(&mut self, now: u64) {
        while let Some(n) = self.retries.iter().position(|(.., due)| *due <= now) {
            let (area, step, _) = self.retries.swap_remove(n);
            let Some(round) = &mut self.round else { continue };
            if let LaneNext::Submit(next) = round.failed(area, step, now) {
                self.submit(area, next);
            }
        }
    }

    /// Sends overdue requests again.
    fn overdue(&mut self, now: u64) {
        while let Some(due) = self.round.as_mut().and_then(|round| round.overdue(now)) {
            let step = self.side.node.join_step();
            match due {
                RoundDue::Resend(area, request, resend) => {
                    tell::resent(step, area, request, resend);
                    self.submit(area, request);
                }
                RoundDue::GivenUp(area) => tell::given_up(&self.side, step, area),
            }
        }
    }

    fn submit(&mut self, area: u8, request: RoundStep) {
        let (io, round, step) = (self.io, self.round_id, self.step);
        let Some(lane) = self.lane(area) else { return };
        let part = match request {
            RoundStep::Write => {
                lane.writes += 1;
                step.write
            }
            RoundStep::Flush => None,
            RoundStep::Read => {
                lane.reads += 1;
                step.read
            }
        };
        lane.area.submit(io, round, request, part.unwrap_or(Extent { at: 0, len: 0 }));
    }

    /// Takes one step of the state machine; returns whether another one may follow at once.
    fn advance(&mut self, now: u64, details: &impl Fn() -> BeatDetails) -> bool {
        let Some(round) = &self.round else { return self.ask(now, details) };
        if round.is_done() {
            self.judge(now);
        } else if round.is_hopeless() {
            self.round = None;
            trace::word("gave_up", &[]);
            self.noting(now, None, |node, note| node.gave_up(&mut |event| note(event)));
        } else {
            return false;
        }
        true
    }

    fn ask(&mut self, now: u64, details: &impl Fn() -> BeatDetails) -> bool {
        if now < self.hold_until_ns {
            return false;
        }
        self.wish(now);
        let ask = self.pending.take().unwrap_or_else(|| {
            let details = details();
            self.side.node.describe(details);
            let ask = self.side.node.ask(now, &mut self.out);
            let hurry = self.side.node.hurries_until_ns();
            trace::asked((now, hurry), &details, &ask, &self.out);
            ask
        });
        match ask {
            NodeAsk::Step { write, read, areas, resends } => {
                let plan = resends.then_some(ResendPlan::DEFAULT);
                let idle = self.idle() & areas;
                let parts = (write.is_some(), read.is_some());
                let Some(round) = Round::begin(self.areas, idle, parts, plan, now) else {
                    self.pending = Some(ask);
                    return false;
                };
                self.begin(round, idle, StepIo { write, read, asked_ns: now });
                true
            }
            NodeAsk::Wait(_) => false,
            NodeAsk::Drain => {
                tell::stop(&mut self.side);
                let disks = self.side.disks.list();
                let is_quiet = disks.iter().all(|disk| !disk.has_writes());
                if is_quiet {
                    let is_tainted = disks.iter().any(|disk| disk.is_dead());
                    self.side.is_tainted = is_tainted;
                    self.side.node.drained(is_tainted);
                    trace::word("drained", &[is_tainted.into()]);
                }
                is_quiet
            }
            NodeAsk::Gone => {
                tell::gone(&mut self.side);
                false
            }
        }
    }

    /// Returns the areas on which no request is in flight that a step could disturb.
    fn idle(&self) -> u8 {
        let is_idle = |lane: &&AreaLane| lane.writes == 0 && lane.reads == 0;
        self.side.lanes.iter().filter(is_idle).map(|lane| 1 << lane.area.number).sum()
    }

    fn begin(&mut self, round: Round, areas: u8, step: StepIo) {
        self.round_id = self.round_id.wrapping_add(1);
        self.retries.clear();
        (self.round, self.step) = (Some(round), step);
        let first = round.first();
        for area in (0..MAX_AREAS as u8).filter(|area| areas >> area & 1 == 1) {
            let len = step.write.map_or(0, |part| part.len);
            if let Some(lane) = self.side.lanes.iter_mut().find(|lane| lane.area.number == area) {
                lane.has_bad_read = false;
                lane.area.fill(self.out.get(..len).unwrap_or_default());
            }
            self.submit(area, first);
        }
    }

    /// Has the state machine judge the step that is done.
    fn judge(&mut self, now: u64) {
        let Some(round) = self.round.take() else { return };
        let (areas, read) = (round.done_mask(), self.step.read);
        let times =
            TurnTimes { asked_ns: self.step.asked_ns, read_ns: round.read_ns(), seen_ns: now };
        let beats = read.filter(|part| *part == self.side.layout.beats()).map(|_| areas);
        let len = read.map(|part| part.len);
        let lanes = core::mem::take(&mut self.side.lanes);
        let is_done = |lane: &&AreaLane| areas >> lane.area.number & 1 == 1;
        let reads: ArrayVec<&[u8], MAX_AREAS> = lanes
            .iter()
            .filter(is_done)
            .filter_map(|lane| lane.seen.get(..len?))
            .take(MAX_AREAS)
            .collect();
        let done = StepDone { areas, times, reads: &reads };
        trace::done(&lanes, areas, read, &times);
        let shown = beats.is_some().then_some(&reads[..]);
        self.noting(now, shown, |node, note| node.done(&done, &mut |event| note(event)));
        drop(reads);
        self.side.lanes = lanes;
        tell::settle(&mut self.side);
    }

    /// Runs a transition and tells what it notes.
    fn noting(
        &mut self,
        now: u64,
        beats: Option<&[&[u8]]>,
        transition: impl FnOnce(&mut ClusterNode<Vec<Sighting>>, &mut dyn FnMut(ClusterEvent)),
    ) {
        let mut notes: ArrayVec<ClusterEvent, 16> = ArrayVec::new();
        transition(&mut self.side.node, &mut |event| {
            let _ = notes.try_push(event);
        });
        trace::noted(&self.side.node, &notes);
        for event in notes {
            if let ClusterEvent::Burned(burned) = event
                && burned >= FREE_BURNS
            {
                let most = self.random_below(1_000_000_000 << burned.min(5));
                self.hold_until_ns = now.saturating_add(most);
            }
            self.log.note(&event);
            tell::event(&mut self.side, event);
        }
        if self.side.node.state().number() > 0 {
            self.side.roll.update(self.side.node.me(), self.side.node.state(), beats, Ns::new(now));
        }
    }

    /// Registers as another incarnation after this one was fenced and has signed off. The pause
    /// before grows, so that a node whose disk is slow again and again does not use up the slots.
    pub(super) fn rejoin(&mut self, now_ns: Ns) {
        if self.side.standing != MemberStanding::Parted {
            return;
        }
        self.rejoins = self.rejoins.saturating_add(1);
        let me = Incarnation(self.side.first.0.wrapping_add(self.rejoins.into()));
        let entropy = self.random_below(u64::MAX).rotate_left(32) ^ now_ns.as_u64();
        self.side.node.begin_anew(me, entropy);
        trace::begin(me, entropy, 0);
        (self.round, self.pending) = (None, None);
        self.retries.clear();
        self.confirmed.clear();
        let pause = REJOIN_NS << (self.rejoins - 1).min(8);
        self.hold_until_ns = now_ns.as_u64().saturating_add(pause);
        self.side.begin_anew();
    }

    fn random_below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % n.max(1)
    }

    /// Notes that the operator has switched a fenced member off; `false` if the list is full.
    pub(super) fn confirm(&mut self, slot: u16) -> bool {
        self.confirmed.contains(&slot) || self.confirmed.try_push(slot).is_ok()
    }

    /// Takes every fenced member for quiet: the rule that a demonstration leaves out.
    fn confirm_all(&mut self) {
        let is_fenced = |status| matches!(status, MemberStatus::Fenced { .. });
        let state = self.side.node.state();
        let fenced = state.members().iter().filter(|row| is_fenced(row.status));
        let slots: ArrayVec<u16, 8> = fenced.map(|row| row.id.slot).take(8).collect();
        for slot in slots {
            self.confirm(slot);
        }
    }

    /// Wishes for the next confirmed member's decree, until the log has it.
    fn wish(&mut self, now: u64) {
        if cfg!(feature = "without-quarantine") {
            self.confirm_all();
        }
        let Self { side: MemberSide { node, .. }, confirmed, .. } = self;
        confirmed.retain(|slot| {
            let status = node.state().member(*slot).map(|row| row.status);
            matches!(status, Some(MemberStatus::Fenced { .. }))
        });
        let first = confirmed.first().copied();
        let quiet = first.map(|who| Decree::Quiet { who, proof: QuietProof::Confirmed });
        let order = self.log.next_order(self.side.node.state());
        if order.is_some() {
            self.side.node.hurry(now.saturating_add(ORDER_NS));
        }
        if let Some(decree) = quiet.or(order).filter(|_| !self.side.node.has_wish()) {
            trace::wish(&decree);
            self.side.node.wish(decree);
        }
    }
}
