//! When a partition's incarnation ends, and how: decisions alone; the runner carries them out.
//!
//! ```text
//!   request ──┐
//!             ├──> stage ──> now, later, or never
//!   guest ────┘      └ a guest that has reported a panic has crashed, however it ends
//! ```

use super::last_words::Signal;
use super::shared::Request;
use crate::crash::record::Reason;

/// The stage of a partition, as far as requests are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It waits for a space or for frames of its image; no work for it is in progress.
    Waiting,
    /// Its space is being made ready; this is not interrupted.
    Activating,
    /// It has memory: its kernel is being loaded, or the guest runs.
    Alive,
    /// Its memory is being taken apart.
    Leaving,
    /// It will not run again.
    Stopped,
}

/// The treatment of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is carried out.
    Now,
    /// It is kept until the stage is over.
    Later,
    /// It is forgotten: there is nothing to crash or to stop.
    Never,
}

/// Decides on a request.
pub const fn answer(request: Request, stage: Stage) -> Answer {
    match (request, stage) {
        (Request::Stop, Stage::Waiting | Stage::Alive | Stage::Leaving) | (Request::Crash | Request::GiveUp, Stage::Alive) => {
            Answer::Now
        }
        (Request::Stop, Stage::Activating) => Answer::Later,
        (Request::Stop, Stage::Stopped) => Answer::Never,
        // The request meant the incarnation before; the next one is not hit.
        (Request::Crash | Request::GiveUp, _) => Answer::Never,
    }
}

/// The ways in which a guest ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It cannot go on, or has reported that it crashed.
    Crash(Reason),
    /// It wants to start again.
    Reset,
    /// It has stopped: the cause, and its code.
    Stop(&'static str, u64),
}

/// Returns the true end, given the guest's earlier report: a kernel that panics may halt, reset or
/// triple fault as its way out.
pub const fn true_end(end: End, said: Option<Signal>) -> End {
    match (said, end) {
        (Some(signal), End::Reset | End::Stop(..) | End::Crash(Reason::TripleFault)) => End::Crash(signal.reason()),
        (_, end) => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_can_be_stopped_in_every_stage_sooner_or_later() {
        for stage in [Stage::Waiting, Stage::Alive, Stage::Leaving] {
            assert_eq!(answer(Request::Stop, stage), Answer::Now);
        }
        assert_eq!(answer(Request::Stop, Stage::Activating), Answer::Later);
        assert_eq!(answer(Request::Stop, Stage::Stopped), Answer::Never);
    }

    #[test]
    fn only_what_has_memory_crashes_and_no_request_outlives_it() {
        assert_eq!(answer(Request::Crash, Stage::Alive), Answer::Now);
        for stage in [Stage::Waiting, Stage::Activating, Stage::Leaving, Stage::Stopped] {
            assert_eq!(answer(Request::Crash, stage), Answer::Never);
        }
    }

    #[test]
    fn whatever_ends_a_guest_after_its_panic_is_the_panic() {
        for end in [End::Reset, End::Stop("halted for good", 0), End::Crash(Reason::TripleFault)] {
            assert_eq!(true_end(end, Some(Signal::Panicked)), End::Crash(Reason::Panic));
            assert_eq!(true_end(end, Some(Signal::Recorded)), End::Crash(Reason::PanicRecord));
            assert_eq!(true_end(end, None), end);
        }
        let lost = End::Crash(Reason::PageLost(1));
        assert_eq!(true_end(lost, Some(Signal::Panicked)), lost);
    }
}
