//! The times at which a runner has something to do, whatever its guest does.
//!
//! A runner compares the time with the next of them in every step, so there is one comparison for
//! all.

use crate::time::Ns;

/// What a runner does at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RunnerDuty {
    /// Frames that were kept for the partition are not kept any longer.
    EndPromise,
    /// The guest has not ended in order: the partition is stopped hard.
    StopHard,
    /// Its dirty pages may have been written: then it is suspended.
    LookAtPrecopy,
    /// The cluster's lease on its disk, as far as it was known, is over.
    RenewLease,
}

/// The times of a runner's duties.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct RunnerDuties {
    promise_ends: Option<Ns>,
    stop_ends: Option<Ns>,
    precopy_look: Option<Ns>,
    lease_ends: Option<Ns>,
    /// The first of them.
    next: Option<Ns>,
}

impl RunnerDuties {
    /// Returns the time of the next duty.
    pub(super) const fn next(&self) -> Option<Ns> {
        self.next
    }

    /// Returns until when frames are kept for the partition.
    pub(super) const fn promise_ends(&self) -> Option<Ns> {
        self.promise_ends
    }

    /// Sets until when frames are kept for the partition.
    pub(super) fn set_promise(&mut self, ends: Option<Ns>) {
        self.promise_ends = ends;
        self.look();
    }

    /// Returns whether the guest has been asked to end.
    pub(super) const fn is_stopping(&self) -> bool {
        self.stop_ends.is_some()
    }

    /// Sets when a guest that has been asked to end is stopped hard.
    pub(super) fn set_stop(&mut self, ends: Option<Ns>) {
        self.stop_ends = ends;
        self.look();
    }

    /// Sets when to look whether a pre-copy is over.
    pub(super) fn set_precopy_look(&mut self, at: Option<Ns>) {
        self.precopy_look = at;
        self.look();
    }

    /// Returns when the guest must be left, at most at `until`: a guest whose memory is on a
    /// cluster's disk executes nothing after the lease.
    pub(super) fn last_moment(&self, until: Ns) -> Ns {
        self.lease_ends.map_or(until, |ends| until.min(ends))
    }

    /// Sets the end of the cluster's lease, as it is known now.
    pub(super) fn set_lease(&mut self, ends: Option<Ns>) {
        self.lease_ends = ends;
        self.look();
    }

    /// Returns the duty that is due at `now_ns`.
    pub(super) fn due(&self, now_ns: Ns) -> Option<RunnerDuty> {
        let is_due = |at: Option<Ns>| at.is_some_and(|at| now_ns >= at);
        if is_due(self.stop_ends) {
            return Some(RunnerDuty::StopHard);
        }
        if is_due(self.precopy_look) {
            return Some(RunnerDuty::LookAtPrecopy);
        }
        if is_due(self.promise_ends) {
            return Some(RunnerDuty::EndPromise);
        }
        is_due(self.lease_ends).then_some(RunnerDuty::RenewLease)
    }

    fn look(&mut self) {
        let all = [self.promise_ends, self.stop_ends, self.precopy_look, self.lease_ends];
        self.next = all.into_iter().flatten().min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_duty_is_the_first_that_is_left() {
        let (early, late) = (Some(Ns::new(5)), Some(Ns::new(9)));
        let mut duties = RunnerDuties::default();
        assert_eq!((duties.next(), duties.due(Ns::MAX)), (None, None));
        duties.set_promise(late);
        duties.set_stop(early);
        assert_eq!((duties.next(), duties.is_stopping()), (early, true));
        assert_eq!(duties.due(Ns::new(4)), None);
        assert_eq!(duties.due(Ns::new(5)), Some(RunnerDuty::StopHard));
        duties.set_stop(None);
        assert_eq!((duties.next(), duties.promise_ends()), (late, late));
        assert_eq!(duties.due(Ns::new(8)), None);
        assert_eq!(duties.due(Ns::new(9)), Some(RunnerDuty::EndPromise));
        duties.set_precopy_look(early);
        assert_eq!(duties.due(Ns::new(9)), Some(RunnerDuty::LookAtPrecopy));
        duties.set_precopy_look(None);
        duties.set_promise(None);
        assert_eq!(duties, RunnerDuties::default());
    }

    #[test]
    fn a_lease_bounds_the_stay_and_is_looked_at_last() {
        let mut duties = RunnerDuties::default();
        assert_eq!(duties.last_moment(Ns::new(7)), Ns::new(7));
        duties.set_lease(Some(Ns::new(5)));
        assert_eq!(duties.last_moment(Ns::new(7)), Ns::new(5));
        assert_eq!(duties.last_moment(Ns::new(4)), Ns::new(4));
        assert_eq!(duties.due(Ns::new(5)), Some(RunnerDuty::RenewLease));
        duties.set_promise(Some(Ns::new(5)));
        assert_eq!(duties.due(Ns::new(5)), Some(RunnerDuty::EndPromise));
    }
}
