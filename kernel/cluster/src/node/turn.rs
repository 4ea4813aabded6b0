//! The end of a turn: the lease, the suspicion, the next proposal.
//!
//! ```text
//!   none ── a member may be suspected ──> Raised ── written, read again, unchanged ──> Proposed
//!    ^                                      │ it has moved                               │
//!    └── number decided ────────────────────┴──────────── number decided ────────────────┘
//! ```

use super::{ClusterEvent, ClusterNode, NodePhase, StepDone};
use crate::beat::Suspicion;
use crate::decree::Decree;
use crate::duty::duty;
use crate::watch::{Sighting, TurnFound};

impl<S: AsRef<[Sighting]> + AsMut<[Sighting]>> ClusterNode<S> {
    /// Judges the reads of a turn.
    pub(super) fn turned(&mut self, done: &StepDone<'_>, note: &mut impl FnMut(ClusterEvent)) {
        let found = self.watch.look(&self.beat, &self.state, &self.timing, &done.times, done.reads);
        self.phase = NodePhase::Idle(self.next_turn_ns);
        if found.is_foreign {
            self.lease_ns = None;
            self.phase = NodePhase::Gone;
            return note(ClusterEvent::Foreign);
        }
        self.announced = self.beat.known;
        self.want = found.want;
        if !found.is_suspected && (found.behind.is_none() || mutant!(ExtendBehind)) {
            let from =
                if mutant!(LeaseFromCompletion) { done.times.seen_ns } else { done.times.asked_ns };
            let end = from.saturating_add(self.timing.lease_ns());
            self.lease_ns = Some(end);
            note(ClusterEvent::Extended(end));
        } else if found.is_suspected {
            note(ClusterEvent::Suspected);
        }
        if let Some(slot) = found.behind {
            // The suspicion, if there is one, is of an earlier number.
            self.phase = NodePhase::Learn(slot);
            return;
        }
        let fence = self.fence(note);
        if done.times.seen_ns >= self.retry_ns
            && let Some(value) = fence.or_else(|| self.other_proposal(&found))
        {
            self.phase = NodePhase::First(value);
        }
        self.suspect(note);
        self.mail.settle(&self.state, note);
        if matches!(self.phase, NodePhase::Idle(_)) {
            self.look_for_mail(0);
        }
    }

    /// Returns the fence, if the suspicion lay on the disk before this turn's read and the suspect
    /// has not moved.
    fn fence(&mut self, note: &mut impl FnMut(ClusterEvent)) -> Option<Decree> {
        let early = self.want.filter(|_| mutant!(NoSecondRead));
        let number = self.state.number() + 1;
        let written = self.beat.suspicion.filter(|one| one.known + 1 == number);
        let who = written.map(|one| one.who).or(early)?;
        if !self.has_proposed {
            if self.want != Some(who) {
                return None;
            }
            self.has_proposed = true;
            note(ClusterEvent::Proposes(who, number));
        }
        Some(Decree::Fence { who: who.slot, heir: self.me().slot })
    }

    /// Returns what else may be proposed. A suspicion has the right of way.
    fn other_proposal(&mut self, found: &TurnFound) -> Option<Decree> {
        if found.is_named {
            return Some(Decree::Nothing);
        }
        if found.stands || self.want.is_some() || self.beat.suspicion.is_some() {
            return None;
        }
        duty(&self.state, found.left).or(self.wish)
    }

    /// Withdraws, keeps or raises the suspicion that the next turn writes.
    fn suspect(&mut self, note: &mut impl FnMut(ClusterEvent)) {
        let known = self.state.number();
        if let Some(old) = self.beat.suspicion {
            let is_over = old.known < known;
            let is_free = !self.has_proposed || mutant!(WithdrawOpen);
            if !is_over && self.want.is_none() && is_free {
                note(ClusterEvent::Withdrew(old.who));
                self.beat.suspicion = None;
            }
            if is_over {
                self.beat.suspicion = None;
            }
        }
        if self.beat.suspicion.is_none() {
            self.has_proposed = false;
            self.beat.suspicion = self.want.map(|who| Suspicion { who, known });
            if let Some(who) = self.want {
                note(ClusterEvent::Suspects(who));
            }
        }
    }
}
