//! When a partition's incarnation ends, and how: decisions alone, which the runner carries out.
//!
//! ```text
//!   request ──┐
//!             ├──> stage ──> now, later, or never
//!   guest ────┘      └ a guest that has said that it panics has crashed, whatever it does to end
//! ```

use super::crash::Reason;
use super::last_words::Signal;
use super::shared::Request;

/// Where a partition is, as far as requests are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It waits, with nothing of its own in the making: for a space, for frames of its image.
    Waiting,
    /// Its space is being made ready, which nobody interrupts.
    Activating,
    /// It has memory: its kernel is being loaded, or the guest runs.
    Alive,
    /// Its memory is being taken apart.
    Leaving,
    /// It will not run again.
    Stopped,
}

/// What becomes of a request.
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
        // The next incarnation is not the one that was meant.
        (Request::Crash | Request::GiveUp, _) => Answer::Never,
    }
}

/// How a guest ends by its own doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It cannot go on, or has said so.
    Crash(Reason),
    /// It wants to start again.
    Reset,
    /// It is over: how, and its code.
    Stop(&'static str, u64),
}

/// Returns what an end is after what the guest has said: a kernel that panics may halt, reset or triple fault as its way out.
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
