//! One step of a member on the areas: write, flush, read. It counts when a majority of the areas
//! has done all three, each in this order.
//!
//! ```text
//!   lane of an area:  Write ── all copies completed ──> Flush ──> Read ──> Done
//!                       ^ │ time-out: the same bytes again, up to `times`
//!                       └─┴── error: from the start          after that ──> GivenUp
//! ```
//!
//! * A member takes its steps one after the other. An area takes part only if all earlier writes of
//!   the member to it have completed, so two writes of one member never overtake each other.
//! * A write that was sent several times counts when *every* copy has completed. Otherwise the
//!   first copy could land later, on what was written since.

const MAX_AREAS: usize = 3;

/// When a request is sent again. Only a registration does so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResendPlan {
    /// Time to the first repetition in nanoseconds; it doubles with each.
    pub first_ns: u64,
    /// Number of repetitions.
    pub times: u8,
}

impl ResendPlan {
    /// Five repetitions, after 2, 4, 8, 16 and 32 seconds; after 64 more the step is given up.
    pub const DEFAULT: Self = Self { first_ns: 2_000_000_000, times: 5 };
}

/// A request of a step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RoundStep {
    /// Write the bytes.
    Write,
    /// Make them durable.
    Flush,
    /// Read.
    Read,
}

impl RoundStep {
    /// Returns the request's name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Read => "read",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LaneState {
    Out,
    Busy(RoundStep),
    Done,
    GivenUp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lane {
    state: LaneState,
    /// Copies of the write that have not completed.
    copies: u8,
    resends: u8,
    due_ns: u64,
    read_ns: u64,
}

/// What a lane does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneNext {
    /// Submit this request to the area.
    Submit(RoundStep),
    /// Nothing; another completion is awaited, or came too late.
    Wait,
}

/// What a time-out asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoundDue {
    /// Submit the request to this area once more; it is this repetition.
    Resend(u8, RoundStep, u8),
    /// The area was given up.
    GivenUp(u8),
}

/// A step that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Round {
    lanes: [Lane; MAX_AREAS],
    quorum: usize,
    writes: bool,
    reads: bool,
    plan: Option<ResendPlan>,
}

impl Round {
    /// Begins a step on the areas of `mask`, one a bit. `areas` is the number of all areas; those
    /// in the mask have to be idle. `None` if they are no majority. The first request of each is
    /// [`Self::first`].
    pub fn begin(
        areas: u8,
        mask: u8,
        (writes, reads): (bool, bool),
        plan: Option<ResendPlan>,
        now_ns: u64,
    ) -> Option<Self> {
        let quorum = usize::from(areas / 2 + 1);
        let lanes = core::array::from_fn(|area| {
            let takes_part = area < usize::from(areas) && mask >> area & 1 == 1;
            let due_ns = plan.map_or(u64::MAX, |plan| now_ns.saturating_add(plan.first_ns));
            let step = if writes { RoundStep::Write } else { RoundStep::Read };
            Lane {
                state: if takes_part { LaneState::Busy(step) } else { LaneState::Out },
                copies: writes.into(),
                resends: 0,
                due_ns,
                read_ns: now_ns,
            }
        });
        let round = Self { lanes, quorum, writes, reads, plan };
        (round.count(|state| matches!(state, LaneState::Busy(_))) >= quorum).then_some(round)
    }

    /// Returns the first request.
    pub const fn first(&self) -> RoundStep {
        if self.writes { RoundStep::Write } else { RoundStep::Read }
    }

    fn count(&self, is: impl Fn(LaneState) -> bool) -> usize {
        self.lanes.iter().filter(|lane| is(lane.state)).count()
    }

    /// Notes the completion of a request.
    pub fn completed(&mut self, area: u8, step: RoundStep, now_ns: u64) -> LaneNext {
        let (reads, plan) = (self.reads, self.plan);
        let Some(lane) = self.lanes.get_mut(usize::from(area)) else { return LaneNext::Wait };
        if step == RoundStep::Write {
            lane.copies = lane.copies.saturating_sub(1);
        }
        if lane.state != LaneState::Busy(step) {
            return LaneNext::Wait;
        }
        if step == RoundStep::Write && lane.copies > 0 && !mutant!(FirstCopyCounts) {
            return LaneNext::Wait;
        }
        let next = match step {
            RoundStep::Write => Some(RoundStep::Flush),
            RoundStep::Flush if reads => Some(RoundStep::Read),
            RoundStep::Flush | RoundStep::Read => None,
        };
        let Some(next) = next else {
            lane.state = LaneState::Done;
            return LaneNext::Wait;
        };
        lane.state = LaneState::Busy(next);
        lane.resends = 0;
        lane.due_ns = plan.map_or(u64::MAX, |plan| now_ns.saturating_add(plan.first_ns));
        lane.read_ns = now_ns;
        LaneNext::Submit(next)
    }

    /// Notes an error: the lane begins again, because the area may have lost what it had not
    /// flushed.
    pub fn failed(&mut self, area: u8, step: RoundStep, now_ns: u64) -> LaneNext {
        let (first, writes) = (self.first(), self.writes);
        let Some(lane) = self.lanes.get_mut(usize::from(area)) else { return LaneNext::Wait };
        if step == RoundStep::Write {
            lane.copies = lane.copies.saturating_sub(1);
        }
        if lane.state != LaneState::Busy(step) {
            return LaneNext::Wait;
        }
        lane.state = LaneState::Busy(first);
        lane.copies += u8::from(writes);
        lane.read_ns = now_ns;
        LaneNext::Submit(first)
    }

    /// Returns the request that is overdue. To be called until it returns `None`.
    pub fn overdue(&mut self, now_ns: u64) -> Option<RoundDue> {
        let plan = self.plan?;
        let late =
            |lane: &&mut Lane| matches!(lane.state, LaneState::Busy(_)) && lane.due_ns <= now_ns;
        let (area, lane) = self.lanes.iter_mut().enumerate().find(|(_, lane)| late(lane))?;
        let LaneState::Busy(step) = lane.state else { return None };
        if lane.resends == plan.times {
            lane.state = LaneState::GivenUp;
            return Some(RoundDue::GivenUp(area as u8));
        }
        lane.resends += 1;
        lane.copies += u8::from(step == RoundStep::Write);
        lane.due_ns = now_ns.saturating_add(plan.first_ns << lane.resends.min(16));
        Some(RoundDue::Resend(area as u8, step, lane.resends))
    }

    /// Returns the time of the next [`Self::overdue`].
    pub fn next_due_ns(&self) -> Option<u64> {
        self.plan?;
        let busy = self.lanes.iter().filter(|lane| matches!(lane.state, LaneState::Busy(_)));
        busy.map(|lane| lane.due_ns).min()
    }

    /// Returns whether a majority has done everything.
    pub fn is_done(&self) -> bool {
        self.count(|state| state == LaneState::Done) >= self.quorum
    }

    /// Returns whether no majority can be reached any more.
    pub fn is_hopeless(&self) -> bool {
        self.count(|state| matches!(state, LaneState::Done | LaneState::Busy(_))) < self.quorum
    }

    /// Returns the areas that have done everything, one a bit.
    pub fn done_mask(&self) -> u8 {
        let bit = |(area, lane): (usize, &Lane)| u8::from(lane.state == LaneState::Done) << area;
        self.lanes.iter().enumerate().map(bit).sum()
    }

    /// Returns when the first of the reads was submitted.
    pub fn read_ns(&self) -> u64 {
        let done = self.lanes.iter().filter(|lane| lane.state == LaneState::Done);
        done.map(|lane| lane.read_ns).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: ResendPlan = ResendPlan { first_ns: 10, times: 2 };

    fn begin(areas: u8, mask: u8) -> Option<Round> {
        Round::begin(areas, mask, (true, true), Some(PLAN), 0)
    }

    #[test]
    fn a_majority_in_order_is_enough() {
        assert_eq!((begin(3, 0b100), begin(1, 0)), (None, None));
        let mut round = begin(3, 0b111).unwrap();
        for (area, step, next) in [
            (0, RoundStep::Write, LaneNext::Submit(RoundStep::Flush)),
            (0, RoundStep::Flush, LaneNext::Submit(RoundStep::Read)),
            (0, RoundStep::Flush, LaneNext::Wait),
            (0, RoundStep::Read, LaneNext::Wait),
            (2, RoundStep::Write, LaneNext::Submit(RoundStep::Flush)),
        ] {
            assert_eq!(round.completed(area, step, 1), next);
        }
        assert_eq!(round.failed(2, RoundStep::Flush, 2), LaneNext::Submit(RoundStep::Write));
        assert!(!round.is_done());
        round.completed(2, RoundStep::Write, 3);
        round.completed(2, RoundStep::Flush, 4);
        round.completed(2, RoundStep::Read, 5);
        assert_eq!((round.is_done(), round.done_mask(), round.read_ns()), (true, 0b101, 1));
    }

    #[test]
    fn a_write_that_was_sent_twice_waits_for_both_copies() {
        let mut round = begin(1, 1).unwrap();
        assert_eq!(round.overdue(9), None);
        assert_eq!(round.overdue(10), Some(RoundDue::Resend(0, RoundStep::Write, 1)));
        assert_eq!(round.completed(0, RoundStep::Write, 11), LaneNext::Wait);
        assert_eq!(round.completed(0, RoundStep::Write, 12), LaneNext::Submit(RoundStep::Flush));
    }

    #[test]
    fn repetitions_double_their_distance_and_end() {
        let mut round = begin(1, 1).unwrap();
        let times: Vec<u64> = (0..200).filter(|now| round.overdue(*now).is_some()).collect();
        assert_eq!(times, [10, 30, 70], "two repetitions, then given up");
        assert!(round.is_hopeless() && !round.is_done());
        assert_eq!(round.completed(0, RoundStep::Write, 300), LaneNext::Wait);
    }
}
