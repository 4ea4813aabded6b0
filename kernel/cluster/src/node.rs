//! A member's one task: registration, turns, proposals, the end. The caller does the I/O.
//!
//! ```text
//!   Join ─ won ─> CatchUp ──> (Learn) ──> First ──> Second ── decided ──> Copy ── member ──> Turn
//!     │ given up, no slot                   ^ conflict: later                                 │
//!     v                                     └──────── a suspicion, a wish, a duty ────────────┤
//!   Gone <── Leave <── Drain <── fenced, or asked to leave ────────── Idle <── every b ───────┘
//! ```
//!
//! * A turn writes the beat and reads all beats. If no other member suspects this one or knows a
//!   later decree, the lease runs from the *submission* of the beat.
//! * A suspicion is written by a turn. If the suspect has not moved in that turn's read, which came
//!   after it, the fence is proposed. From then on the suspicion stays until its number is decided.
//! * A suspect proposes [`Decree::Nothing`], which closes the number and ends the suspicion.
//! * Before a beat says that a decree is known, the state after it lies on disk.
//! * A start gives its registration up only as long as its decree cannot be decided by others:
//!   until it submits the second phase. A write that lands later then makes no member.

use crate::beat::{Beat, BeatDetails, BeatMode};
use crate::decree::Decree;
pub use crate::event::ClusterEvent;
use crate::id::{Incarnation, MemberId};
use crate::join::{JoinStep, Splitter};
use crate::layout::{AreaLayout, Extent, Half};
use crate::mail::MAIL_BLOCK;
use crate::post::MemberMail;
use crate::proposal::{PhaseVerdict, Proposer};
use crate::sector::{SECTOR, SectorError};
use crate::state::{ClusterState, VoidError};
use crate::timing::ClusterTiming;
use crate::watch::{Sighting, TurnTimes, Watch};

mod letters;
#[cfg(test)]
pub(crate) mod restored;
mod turn;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NodePhase {
    Join,
    CatchUp,
    Learn(u16),
    First(Decree),
    Second(Decree),
    Copy,
    Turn,
    /// Writes its block of mail.
    Post,
    /// Reads the block of mail of a slot.
    Mail(u16),
    Idle(u64),
    Drain,
    Leave,
    Gone,
}

/// What the caller has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeAsk {
    /// A step on the areas ([`crate::round::Round`]), then [`ClusterNode::done`].
    Step {
        /// Bytes to write: the first ones of the buffer.
        write: Option<Extent>,
        /// Bytes to read then.
        read: Option<Extent>,
        /// Areas that may take part, one a bit.
        areas: u8,
        /// Set if requests are sent again after a time-out, and given up
        /// ([`ClusterNode::gave_up`]).
        resends: bool,
    },
    /// Nothing before this time.
    Wait(u64),
    /// Submit nothing more, wait until nothing is in flight, then [`ClusterNode::drained`].
    Drain,
    /// This incarnation has ended.
    Gone,
}

/// A step that was done.
#[derive(Clone, Copy, Debug)]
pub struct StepDone<'a> {
    /// The areas that took part, one a bit.
    pub areas: u8,
    /// Its times.
    pub times: TurnTimes,
    /// What was read from each.
    pub reads: &'a [&'a [u8]],
}

/// A start of a hypervisor, as the cluster sees it. `S` has a [`Sighting`] for each slot of the
/// area.
pub struct ClusterNode<S> {
    layout: AreaLayout,
    timing: ClusterTiming,
    state: ClusterState,
    phase: NodePhase,
    splitter: Splitter,
    beat: Beat,
    watch: Watch<S>,
    proposer: Proposer,
    lease_ns: Option<u64>,
    next_turn_ns: u64,
    retry_ns: u64,
    conflicts: u32,
    want: Option<MemberId>,
    /// The fence of the suspect is proposed, and may be decided at any time.
    has_proposed: bool,
    wish: Option<Decree>,
    details: BeatDetails,
    /// Number of the next copy of the state.
    copies: u64,
    is_member: bool,
    /// Set when the second phase of the own membership was submitted.
    is_committed: bool,
    wants_to_leave: bool,
    random: u64,
    /// The last decree that this node knew before this start.
    expected: u64,
    /// First slot whose state was not looked at for it.
    looked: u16,
    /// The last decree that a beat of this incarnation has announced.
    announced: u64,
    mail: MemberMail,
    /// When the last turn began, and until when turns follow each other sooner.
    turn_ns: u64,
    hurry_ns: u64,
}

impl<S: AsRef<[Sighting]> + AsMut<[Sighting]>> ClusterNode<S> {
    /// Starts. `limit` is the number of bytes of a copy of the state, `entropy` any number; `seen`
    /// holds [`Sighting::NEVER`] for each slot of the area.
    pub fn new(
        me: Incarnation,
        layout: AreaLayout,
        timing: ClusterTiming,
        limit: usize,
        entropy: u64,
        seen: S,
    ) -> Self {
        let nowhere = MemberId { slot: u16::MAX, incarnation: me };
        Self {
            layout,
            timing,
            state: ClusterState::new(limit),
            phase: NodePhase::Join,
            splitter: Splitter::new(me),
            beat: Beat::new(nowhere),
            watch: Watch::new(seen),
            proposer: Proposer::new(nowhere, layout.slots()),
            lease_ns: None,
            next_turn_ns: 0,
            retry_ns: 0,
            conflicts: 0,
            want: None,
            has_proposed: false,
            wish: None,
            details: BeatDetails::NONE,
            copies: 0,
            is_member: false,
            is_committed: false,
            wants_to_leave: false,
            random: entropy,
            expected: 0,
            looked: 0,
            announced: 0,
            mail: MemberMail::new(),
            turn_ns: 0,
            hurry_ns: 0,
        }
    }

    /// Expects an area that knows this decree, as an earlier start of this node did. An area that
    /// does not was restored from an old image, and is not joined.
    pub const fn expect_decree(&mut self, number: u64) {
        self.expected = number;
    }

    /// Returns the last decree that a beat of this incarnation has announced; 0 before the first.
    pub const fn announced(&self) -> u64 {
        self.announced
    }

    /// Begins anew as another incarnation, after this one has ended ([`NodeAsk::Gone`]) and
    /// nothing of it is in flight. Nothing that it knew counts: only its memory is used again.
    pub fn begin_anew(&mut self, me: Incarnation, entropy: u64) {
        let nowhere = MemberId { slot: u16::MAX, incarnation: me };
        self.state.clear();
        self.phase = NodePhase::Join;
        self.splitter = Splitter::new(me);
        self.beat = Beat::new(nowhere);
        self.watch.clear();
        self.proposer = Proposer::new(nowhere, self.layout.slots());
        (self.lease_ns, self.next_turn_ns, self.retry_ns) = (None, 0, 0);
        (self.conflicts, self.copies, self.looked) = (0, 0, 0);
        (self.want, self.wish, self.has_proposed) = (None, None, false);
        (self.is_member, self.is_committed, self.wants_to_leave) = (false, false, false);
        let known = if mutant!(ForgetsAnnounced) { 0 } else { self.announced };
        (self.expected, self.announced) = (self.expected.max(known), 0);
        (self.details, self.random) = (BeatDetails::NONE, entropy);
        self.mail.clear();
        (self.turn_ns, self.hurry_ns) = (0, 0);
    }

    /// Returns slot and incarnation; the slot counts once it is won.
    pub const fn me(&self) -> MemberId {
        self.beat.member
    }

    /// Returns the state after the last decree that is known here.
    pub const fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Sets what the next beats say about the member for people and for placement.
    pub const fn describe(&mut self, details: BeatDetails) {
        self.details = details;
    }

    /// Returns whether this incarnation takes part.
    pub const fn is_member(&self) -> bool {
        self.is_member
    }

    /// Returns where the registration stands.
    pub const fn join_step(&self) -> JoinStep {
        self.splitter.step()
    }

    /// Returns when the lease ends; `None` before the first one, and after the last one.
    pub const fn lease_end_ns(&self) -> Option<u64> {
        self.lease_ns
    }

    /// Returns whether a request for a space may be submitted now. An answer "no" freezes the
    /// partitions; they go on when the lease does.
    pub fn may_submit(&self, now_ns: u64) -> bool {
        self.lease_ns.is_some_and(|end| now_ns < end)
    }

    /// Sets the decree to propose when nothing more urgent is due. It is dropped when another
    /// decree is decided first.
    pub fn wish(&mut self, decree: Decree) {
        self.wish = Some(decree);
    }

    /// Returns whether a wish waits.
    pub const fn has_wish(&self) -> bool {
        self.wish.is_some()
    }

    /// Asks the member to leave in order.
    pub fn leave(&mut self) {
        self.wants_to_leave = true;
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % n.max(1)
    }

    /// Returns the next thing to do; a write's bytes go to the start of `out`, which has
    /// [`AreaLayout::longest_write`] bytes.
    pub fn ask(&mut self, now_ns: u64, out: &mut [u8]) -> NodeAsk {
        if let NodePhase::Idle(until) = self.phase {
            if self.wants_to_leave {
                self.stop();
            } else if self.has_to_post() {
                self.phase = NodePhase::Post;
            } else if now_ns < self.sooner(until, now_ns) {
                return NodeAsk::Wait(self.sooner(until, now_ns));
            } else if self.is_member {
                self.phase = NodePhase::Turn;
            } else {
                self.phase = NodePhase::CatchUp;
            }
        }
        match self.phase {
            NodePhase::Join => {
                let (write, read) = self.splitter.ask(&self.layout, out);
                NodeAsk::Step { write, read, areas: self.splitter.areas(), resends: true }
            }
            NodePhase::CatchUp => self.step(None, Some(self.layout.beats())),
            NodePhase::Learn(slot) => self.step(None, Some(self.layout.both_states(slot))),
            NodePhase::First(_) => {
                let block = self.proposer.first(self.state.number() + 1);
                self.write_block(block.encode(), block.half(), out)
            }
            NodePhase::Second(value) => {
                self.is_committed = true;
                let block = self.proposer.second(value);
                self.write_block(block.encode(), block.half(), out)
            }
            NodePhase::Copy => {
                self.copies += 1;
                let at = self.layout.state(self.me().slot, Half::of(self.copies));
                if let Some(room) = out.get_mut(..at.len) {
                    self.state.encode(self.beat.member, self.copies, room);
                }
                self.step(Some(at), None)
            }
            NodePhase::Turn => {
                self.turn_ns = now_ns;
                self.next_turn_ns = now_ns.saturating_add(self.timing.beat_ns());
                self.write_beat(out, Some(self.layout.beats()))
            }
            NodePhase::Post => self.write_mail(out),
            NodePhase::Mail(slot) => self.step(None, self.layout.mail(slot)),
            NodePhase::Leave => {
                // A suspicion stays: its fence may be decided by others yet.
                self.beat.mode = BeatMode::Leaving;
                self.write_beat(out, None)
            }
            NodePhase::Drain => NodeAsk::Drain,
            NodePhase::Gone | NodePhase::Idle(_) => NodeAsk::Gone,
        }
    }

    fn step(&self, write: Option<Extent>, read: Option<Extent>) -> NodeAsk {
        let resends = !self.is_member && (!self.is_committed || mutant!(GiveUpLate));
        NodeAsk::Step { write, read, areas: u8::MAX, resends }
    }

    fn write_block(&self, bytes: [u8; SECTOR], half: Half, out: &mut [u8]) -> NodeAsk {
        fill(out, &bytes);
        self.step(Some(self.layout.log(self.me().slot, half)), Some(self.layout.logs()))
    }

    fn write_beat(&mut self, out: &mut [u8], read: Option<Extent>) -> NodeAsk {
        self.beat.sequence += 1;
        self.beat.nonce = self.below(u64::MAX);
        self.beat.known = self.state.number();
        self.beat.details = self.details;
        self.beat.mail = self.announced_mail();
        fill(out, &self.beat.encode());
        self.step(Some(self.layout.beat(self.me().slot)), read)
    }

    /// Judges a step that a majority of areas has done.
    pub fn done(&mut self, done: &StepDone<'_>, note: &mut impl FnMut(ClusterEvent)) {
        match self.phase {
            NodePhase::Join => self.joined_step(done, note),
            NodePhase::CatchUp => self.caught_up(done, note),
            NodePhase::Learn(_) => self.learned(done, note),
            NodePhase::First(value) => {
                let verdict = self.proposer.judge(done.reads, false);
                self.phase_done(verdict, NodePhase::Second(value), done, note);
            }
            NodePhase::Second(_) => {
                let verdict = self.proposer.judge(done.reads, true);
                if verdict == PhaseVerdict::Clear {
                    return self.decided(note);
                }
                self.phase_done(verdict, NodePhase::Gone, done, note);
            }
            NodePhase::Copy if self.is_member => self.phase = NodePhase::Turn,
            NodePhase::Copy => {
                note(ClusterEvent::Joined(self.me().slot));
                (self.is_member, self.phase) = (true, NodePhase::Turn);
            }
            NodePhase::Turn => self.turned(done, note),
            NodePhase::Post => {
                self.mail.posted();
                self.phase = NodePhase::Turn;
            }
            NodePhase::Mail(slot) => self.read_mail(slot, done, note),
            NodePhase::Leave => self.phase = NodePhase::Gone,
            NodePhase::Idle(_) | NodePhase::Drain | NodePhase::Gone => {}
        }
    }

    /// Ends a registration whose areas do not answer.
    pub fn gave_up(&mut self, note: &mut impl FnMut(ClusterEvent)) {
        if !self.is_member {
            self.phase = NodePhase::Gone;
            note(ClusterEvent::JoinFailed(self.splitter.step()));
        }
    }

    /// Notes that nothing is in flight any more. A member that has abandoned a request is `tainted`
    /// and does not sign off.
    pub fn drained(&mut self, is_tainted: bool) {
        if self.phase == NodePhase::Drain {
            let is_quiet = !is_tainted || mutant!(AbandonedRequest);
            self.phase = if is_quiet { NodePhase::Leave } else { NodePhase::Gone };
        }
    }

    fn joined_step(&mut self, done: &StepDone<'_>, note: &mut impl FnMut(ClusterEvent)) {
        let burned = self.splitter.burned();
        self.splitter.done(done.areas, done.reads);
        if self.splitter.burned() > burned {
            note(ClusterEvent::Burned(self.splitter.burned()));
        }
        match self.splitter.step() {
            JoinStep::Won(slot) => {
                self.beat.member.slot = slot;
                self.proposer = Proposer::new(self.me(), self.layout.slots());
                self.phase = NodePhase::CatchUp;
                note(ClusterEvent::Won(slot));
            }
            JoinStep::NoSlot => {
                self.phase = NodePhase::Gone;
                note(ClusterEvent::JoinFailed(JoinStep::NoSlot));
            }
            JoinStep::Row | JoinStep::First(_) | JoinStep::Second(_) => {}
        }
    }

    fn caught_up(&mut self, done: &StepDone<'_>, note: &mut impl FnMut(ClusterEvent)) {
        let sectors = || done.reads.iter().flat_map(|read| read.chunks(SECTOR).enumerate());
        let beats =
            sectors().filter_map(|(slot, bytes)| Some((Beat::decode(bytes).ok()?.known, slot)));
        let last = beats.max();
        let known = last.map_or(0, |(known, _)| known).max(self.state.number());
        if known < self.expected && !mutant!(JoinsOld) {
            // A writer that died in the middle of its beat may have announced the decree: its
            // state tells.
            let is_torn = |(slot, bytes): &(usize, &[u8])| {
                *slot >= usize::from(self.looked) && Beat::decode(bytes) == Err(SectorError::Torn)
            };
            if let Some(slot) = sectors().filter(is_torn).map(|(slot, _)| slot as u16).min() {
                self.looked = slot + 1;
                self.phase = NodePhase::Learn(slot);
                return;
            }
            self.phase = NodePhase::Gone;
            return note(ClusterEvent::Restored { known, expected: self.expected });
        }
        self.phase = match last {
            Some((known, slot)) if known > self.state.number() => NodePhase::Learn(slot as u16),
            _ => NodePhase::First(Decree::Member(self.me())),
        };
    }

    fn learned(&mut self, done: &StepDone<'_>, note: &mut impl FnMut(ClusterEvent)) {
        let copies = done.reads.iter().flat_map(|both| ClusterState::halves(both));
        let newest = copies.max_by_key(|copy| ClusterState::number_of(copy));
        let known = self.state.number();
        let is_later = newest.and_then(ClusterState::number_of) > Some(known);
        if !is_later || newest.is_none_or(|copy| self.state.read(copy).is_err()) {
            // Its copy was being written: look again.
            self.phase = NodePhase::Idle(done.times.seen_ns + self.timing.beat_ns() / 4);
            return;
        }
        self.wish = None;
        note(ClusterEvent::Learned(self.state.number()));
        if self.state.number() < self.expected {
            self.phase = NodePhase::CatchUp;
            return;
        }
        self.go_on(note);
    }

    /// Goes on after a new decree.
    fn go_on(&mut self, note: &mut impl FnMut(ClusterEvent)) {
        let me = self.me();
        let is_up =
            self.state.is_up(me.slot) && self.state.member(me.slot).is_some_and(|row| row.id == me);
        self.phase = match (self.is_member, is_up) {
            (_, true) => NodePhase::Copy,
            (true, false) => {
                note(ClusterEvent::Fenced);
                self.stop();
                return;
            }
            (false, false) if self.state.was_used(me.slot) => {
                // Fenced before the first turn.
                note(ClusterEvent::Fenced);
                NodePhase::Gone
            }
            (false, false) => NodePhase::First(Decree::Member(me)),
        };
    }

    fn stop(&mut self) {
        self.lease_ns = None;
        self.phase = NodePhase::Drain;
    }

    fn phase_done(
        &mut self,
        verdict: PhaseVerdict,
        next: NodePhase,
        done: &StepDone<'_>,
        note: &mut impl FnMut(ClusterEvent),
    ) {
        self.phase = match verdict {
            PhaseVerdict::Clear => next,
            PhaseVerdict::Behind(slot) => NodePhase::Learn(slot),
            PhaseVerdict::Conflict => {
                note(ClusterEvent::Conflict);
                self.conflicts = (self.conflicts + 1).min(4);
                let pause = self.below((self.timing.beat_ns() / 4) << self.conflicts);
                self.retry_ns = done.times.seen_ns.saturating_add(pause);
                let until = if self.is_member { self.next_turn_ns } else { self.retry_ns };
                NodePhase::Idle(until)
            }
        };
    }

    fn decided(&mut self, note: &mut impl FnMut(ClusterEvent)) {
        let Some(value) = self.proposer.value() else { return };
        let effect = self.state.apply(&value);
        if mutant!(CountsDecided) {
            self.announced = self.state.number();
        }
        self.conflicts = 0;
        self.wish = None;
        note(ClusterEvent::Decided(self.state.number(), value, effect));
        if value == Decree::Member(self.me()) && effect == Err(VoidError::Full) {
            note(ClusterEvent::JoinFailed(JoinStep::NoSlot));
            self.phase = NodePhase::Gone;
            return;
        }
        self.go_on(note);
    }
}

fn fill(out: &mut [u8], bytes: &[u8]) {
    if let Some(room) = out.get_mut(..bytes.len()) {
        room.copy_from_slice(bytes);
    }
}
