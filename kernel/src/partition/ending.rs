//! When a partition's incarnation ends, and how: decisions alone; the runner carries them out.
//!
//! ```text
//!   request ──┐
//!             ├──> stage ──> now, later, or never
//!   guest ────┘      └ a guest that has reported a panic has crashed, however it ends
//! ```

use super::last_words::PanicSignal;
use super::shared::PartitionRequest;
use crate::crash::record::CrashCause;

/// The stage of a partition, as far as requests are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LifecycleStage {
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
pub enum RequestTiming {
    /// It is carried out.
    Now,
    /// It is kept until the stage is over.
    Later,
    /// It is forgotten: there is nothing to crash or to stop.
    Never,
}

/// Decides on a request.
pub const fn answer(request: PartitionRequest, stage: LifecycleStage) -> RequestTiming {
    match (request, stage) {
        (
            PartitionRequest::Stop,
            LifecycleStage::Waiting | LifecycleStage::Alive | LifecycleStage::Leaving,
        )
        | (PartitionRequest::Crash | PartitionRequest::GiveUp, LifecycleStage::Alive) => {
            RequestTiming::Now
        }
        (PartitionRequest::Stop, LifecycleStage::Activating) => RequestTiming::Later,
        (PartitionRequest::Stop, LifecycleStage::Stopped) => RequestTiming::Never,
        // The request meant the incarnation before; the next one is not hit.
        (PartitionRequest::Crash | PartitionRequest::GiveUp, _) => RequestTiming::Never,
    }
}

/// The ways in which a guest ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestEnd {
    /// It cannot go on, or has reported that it crashed.
    Crash(CrashCause),
    /// It wants to start again.
    Reset,
    /// It has stopped: the cause, and its code.
    Stop(&'static str, u64),
}

/// Returns the true end, given the guest's earlier report: a kernel that panics may halt, reset or
/// triple fault as its way out.
pub const fn true_end(end: GuestEnd, said: Option<PanicSignal>) -> GuestEnd {
    match (said, end) {
        (
            Some(signal),
            GuestEnd::Reset | GuestEnd::Stop(..) | GuestEnd::Crash(CrashCause::TripleFault),
        ) => GuestEnd::Crash(signal.reason()),
        (_, end) => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_can_be_stopped_in_every_stage_sooner_or_later() {
        for stage in [LifecycleStage::Waiting, LifecycleStage::Alive, LifecycleStage::Leaving] {
            assert_eq!(answer(PartitionRequest::Stop, stage), RequestTiming::Now);
        }
        assert_eq!(
            answer(PartitionRequest::Stop, LifecycleStage::Activating),
            RequestTiming::Later
        );
        assert_eq!(answer(PartitionRequest::Stop, LifecycleStage::Stopped), RequestTiming::Never);
    }

    #[test]
    fn only_what_has_memory_crashes_and_no_request_outlives_it() {
        assert_eq!(answer(PartitionRequest::Crash, LifecycleStage::Alive), RequestTiming::Now);
        for stage in [
            LifecycleStage::Waiting,
            LifecycleStage::Activating,
            LifecycleStage::Leaving,
            LifecycleStage::Stopped,
        ] {
            assert_eq!(answer(PartitionRequest::Crash, stage), RequestTiming::Never);
        }
    }

    #[test]
    fn whatever_ends_a_guest_after_its_panic_is_the_panic() {
        for end in [
            GuestEnd::Reset,
            GuestEnd::Stop("halted for good", 0),
            GuestEnd::Crash(CrashCause::TripleFault),
        ] {
            assert_eq!(
                true_end(end, Some(PanicSignal::Panicked)),
                GuestEnd::Crash(CrashCause::Panic)
            );
            assert_eq!(
                true_end(end, Some(PanicSignal::Recorded)),
                GuestEnd::Crash(CrashCause::PanicRecord)
            );
            assert_eq!(true_end(end, None), end);
        }
        let lost = GuestEnd::Crash(CrashCause::PageLost(1));
        assert_eq!(true_end(lost, Some(PanicSignal::Panicked)), lost);
    }
}
