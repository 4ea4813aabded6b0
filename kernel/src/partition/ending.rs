//! When a partition's incarnation ends, and how: decisions alone; the runner carries them out.
//!
//! ```text
//!   request ──┐
//!             ├──> view ──> now, later, or never
//!   guest ────┘      ├ a guest that has reported a panic has crashed, however it ends
//!                    └ a guest that was asked to end does not start again
//! ```

use super::last_words::PanicSignal;
use super::shared::PartitionRequest;
use super::view::LifecycleView;
use crate::crash::record::CrashCause;

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
pub const fn answer(request: PartitionRequest, view: LifecycleView) -> RequestTiming {
    use LifecycleView as View;
    match (request, view) {
        (
            PartitionRequest::Stop,
            View::Waiting
            | View::Loading
            | View::Running
            | View::ShuttingDown
            | View::Crashed
            | View::Restarting
            | View::Suspended
            | View::Sealed,
        )
        | (
            PartitionRequest::ShutDown,
            View::Waiting
            | View::Loading
            | View::Running
            | View::ShuttingDown
            | View::Crashed
            | View::Restarting,
        )
        | (
            PartitionRequest::Crash | PartitionRequest::GiveUp,
            View::Loading | View::Running | View::ShuttingDown,
        ) => RequestTiming::Now,
        (PartitionRequest::Stop | PartitionRequest::ShutDown, View::Activating) => {
            RequestTiming::Later
        }
        (
            PartitionRequest::Stop | PartitionRequest::ShutDown,
            View::Suspending | View::Resuming,
        ) => RequestTiming::Later,
        (PartitionRequest::Suspend, View::Running)
        | (PartitionRequest::Resume, View::Suspended | View::Stopped)
        | (PartitionRequest::Leave, View::Suspended | View::Sealed)
        | (PartitionRequest::Start | PartitionRequest::Leave, View::Stopped)
        | (PartitionRequest::ShareLine | PartitionRequest::BusNews, _) => RequestTiming::Now,
        // Its memory must be gone first.
        (PartitionRequest::Start | PartitionRequest::Leave, View::Stopping) => RequestTiming::Later,
        // It is about to run, or to have stopped.
        (PartitionRequest::Suspend, View::Loading)
        | (PartitionRequest::Resume, View::Waiting | View::Suspending | View::Stopping) => {
            RequestTiming::Later
        }
        (PartitionRequest::Suspend | PartitionRequest::Resume, _)
        | (PartitionRequest::Start | PartitionRequest::Leave, _) => RequestTiming::Never,
        (PartitionRequest::Stop, View::Stopping | View::Stopped) => RequestTiming::Never,
        // Only a kill gives a suspended state up.
        (
            PartitionRequest::ShutDown,
            View::Suspended | View::Sealed | View::Stopping | View::Stopped,
        ) => RequestTiming::Never,
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

/// The end of a guest that has switched itself off.
pub const POWER_OFF: GuestEnd = GuestEnd::Stop("power off", 0);
/// The end of a guest that has not ended in the time that a stop gives it.
pub const HARD_STOP: GuestEnd = GuestEnd::Stop("hard after time-out", 0);

/// Returns the end of a guest whose power button was pressed: it does not start again, whatever it
/// does.
pub fn end_of_stop(end: GuestEnd) -> GuestEnd {
    match end {
        GuestEnd::Reset => GuestEnd::Stop("reset while stopping", 0),
        POWER_OFF => GuestEnd::Stop("power button", 0),
        other => other,
    }
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
    fn a_partition_can_be_stopped_all_its_life_sooner_or_later() {
        for view in LifecycleView::ALL {
            let timing = match view {
                LifecycleView::Activating | LifecycleView::Suspending | LifecycleView::Resuming => {
                    RequestTiming::Later
                }
                LifecycleView::Stopping | LifecycleView::Stopped => RequestTiming::Never,
                _ => RequestTiming::Now,
            };
            assert_eq!(answer(PartitionRequest::Stop, view), timing, "{view:?}");
            let in_order = match view {
                // Only a kill gives a suspended state up.
                LifecycleView::Suspended | LifecycleView::Sealed => RequestTiming::Never,
                _ => timing,
            };
            assert_eq!(answer(PartitionRequest::ShutDown, view), in_order, "{view:?}");
        }
    }

    #[test]
    fn only_what_has_stopped_starts_or_leaves() {
        for request in [PartitionRequest::Start, PartitionRequest::Leave] {
            for view in LifecycleView::ALL {
                let timing = match view {
                    LifecycleView::Stopped => RequestTiming::Now,
                    LifecycleView::Stopping => RequestTiming::Later,
                    LifecycleView::Suspended | LifecycleView::Sealed
                        if request == PartitionRequest::Leave =>
                    {
                        RequestTiming::Now
                    }
                    _ => RequestTiming::Never,
                };
                assert_eq!(answer(request, view), timing, "{view:?}");
            }
        }
    }

    #[test]
    fn only_what_runs_is_suspended_and_only_what_does_not_is_resumed() {
        for view in LifecycleView::ALL {
            let suspend = match view {
                LifecycleView::Running => RequestTiming::Now,
                LifecycleView::Loading => RequestTiming::Later,
                _ => RequestTiming::Never,
            };
            assert_eq!(answer(PartitionRequest::Suspend, view), suspend, "{view:?}");
            let resume = match view {
                LifecycleView::Suspended | LifecycleView::Stopped => RequestTiming::Now,
                LifecycleView::Waiting | LifecycleView::Suspending | LifecycleView::Stopping => {
                    RequestTiming::Later
                }
                _ => RequestTiming::Never,
            };
            assert_eq!(answer(PartitionRequest::Resume, view), resume, "{view:?}");
        }
    }

    #[test]
    fn only_what_has_memory_crashes_and_no_request_outlives_it() {
        for request in [PartitionRequest::Crash, PartitionRequest::GiveUp] {
            for view in LifecycleView::ALL {
                let timing =
                    if view.is_alive() { RequestTiming::Now } else { RequestTiming::Never };
                assert_eq!(answer(request, view), timing, "{view:?}");
            }
        }
    }

    #[test]
    fn a_guest_that_was_asked_to_end_stops_or_crashes() {
        for (end, expected) in [
            (POWER_OFF, GuestEnd::Stop("power button", 0)),
            (GuestEnd::Reset, GuestEnd::Stop("reset while stopping", 0)),
        ] {
            assert_eq!(end_of_stop(end), expected);
        }
        for end in [
            HARD_STOP,
            GuestEnd::Stop("halted for good", 0),
            GuestEnd::Stop("debug exit", 9),
            GuestEnd::Crash(CrashCause::Panic),
        ] {
            assert_eq!(end_of_stop(end), end);
        }
        let hard = true_end(HARD_STOP, Some(PanicSignal::Panicked));
        assert_eq!(hard, GuestEnd::Crash(CrashCause::Panic), "a panic that takes too long");
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
