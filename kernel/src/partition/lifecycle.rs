//! The life of a partition: its states, and what others see of them.
//!
//! ```text
//!   NeedsSpace ──> Activating ──> Loading ──> Running ──> Crashed ──┐ restart gate opens
//!        ^             ^  └ NeedsTables ┘       │ reset, stop       │
//!        │             │                        v                   │
//!        │             └─────────────────── Retiring ──> Stopped    │
//!        ├──────────────────────────────────────────────────────────┘
//!        └── start ── Stopped ── leave ──> gone
//! ```
//!
//! The runner (`partition::runner`) owns the state. [`LifecycleView`] is its projection for other
//! CPUs, people and requests. The runner publishes the view whenever it sets the state, and
//! *shutting down* when it presses a running guest's power button.

use super::loading::KernelLoading;
use crate::crash::dumps::DumpProgress;
use crate::crash::gate::RestartGate;
use crate::host::reaper::TeardownDone;
use crate::mm::object::WaitTicket;
use crate::time::Ns;
use alloc::boxed::Box;
use alloc::sync::Arc;

/// The state of a partition.
pub(super) enum Lifecycle {
    /// The next incarnation needs a paging space. `told`: this has been reported.
    NeedsSpace {
        told: bool,
    },
    /// The space is being made ready.
    Activating,
    /// The next incarnation needs second-level tables, which are being freed.
    NeedsTables(BackingState),
    /// The kernel is being read and copied into memory.
    Loading(Box<KernelLoading>),
    Running(ParkReason),
    /// The old memory is being taken apart.
    Retiring {
        gone: TeardownDone,
        then: AfterTeardown,
    },
    Crashed {
        gate: RestartGate,
        /// The reason for the stop if the gate stays closed.
        how: &'static str,
        job: Arc<DumpProgress>,
        at_ns: Ns,
        /// Frames that live memory had given up until the crash.
        given_before: u64,
    },
    Stopped,
}

/// Whether the memory has the store that it will get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BackingState {
    /// It has its store, or there are no spaces.
    Settled,
    /// Its space is not ready yet.
    Awaited,
}

/// The reason why a running guest is parked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ParkReason {
    No,
    Page(WaitTicket),
    Halted,
    /// Its console has no room.
    Console,
}

/// The step that follows when the old memory is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AfterTeardown {
    Begin,
    Stop,
}

impl Lifecycle {
    /// Returns what others see of the state.
    pub(super) const fn view(&self) -> LifecycleView {
        match self {
            // Its next space is being made ready in the background.
            Self::Activating | Self::NeedsTables(BackingState::Awaited) => {
                LifecycleView::Activating
            }
            Self::NeedsSpace { .. } | Self::NeedsTables(BackingState::Settled) => {
                LifecycleView::Waiting
            }
            Self::Loading(_) => LifecycleView::Loading,
            Self::Running(_) => LifecycleView::Running,
            Self::Crashed { .. } => LifecycleView::Crashed,
            Self::Retiring { then: AfterTeardown::Begin, .. } => LifecycleView::Restarting,
            Self::Retiring { then: AfterTeardown::Stop, .. } => LifecycleView::Stopping,
            Self::Stopped => LifecycleView::Stopped,
        }
    }
}

/// The life of a partition as others see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum LifecycleView {
    /// It waits for a paging space or for tables; no work for it is in progress.
    Waiting,
    /// Its space is being made ready; this is not interrupted.
    Activating,
    /// Its kernel is being copied into its memory.
    Loading,
    /// The guest runs.
    Running,
    /// The guest runs, and its power button was pressed.
    ShuttingDown,
    /// It has crashed and the restart gate is closed.
    Crashed,
    /// The memory of its last incarnation is being taken apart; it will run again.
    Restarting,
    /// Its memory is being taken apart, and it stops then.
    Stopping,
    /// It runs again only when the operator starts it.
    Stopped,
}

impl LifecycleView {
    /// All views, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Waiting,
        Self::Activating,
        Self::Loading,
        Self::Running,
        Self::ShuttingDown,
        Self::Crashed,
        Self::Restarting,
        Self::Stopping,
        Self::Stopped,
    ];

    /// Returns the word for people and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting | Self::Activating => "waiting",
            Self::Loading => "loading",
            Self::Running => "running",
            Self::ShuttingDown => "shutting down",
            Self::Crashed => "crashed",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// Returns whether it has memory that can crash: its kernel is being loaded, or the guest runs.
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Loading | Self::Running | Self::ShuttingDown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_has_its_number_and_a_word() {
        for (number, view) in LifecycleView::ALL.into_iter().enumerate() {
            assert_eq!(view as usize, number);
            assert!(!view.as_str().is_empty());
        }
        assert_eq!(LifecycleView::ALL.len(), LifecycleView::Stopped as usize + 1);
    }

    #[test]
    fn the_view_follows_the_state() {
        let views = [
            (Lifecycle::NeedsSpace { told: true }, LifecycleView::Waiting),
            (Lifecycle::Activating, LifecycleView::Activating),
            (Lifecycle::NeedsTables(BackingState::Settled), LifecycleView::Waiting),
            // A task works on its space, and a space has one task at a time.
            (Lifecycle::NeedsTables(BackingState::Awaited), LifecycleView::Activating),
            (Lifecycle::Running(ParkReason::Halted), LifecycleView::Running),
            (Lifecycle::Stopped, LifecycleView::Stopped),
        ];
        for (state, view) in views {
            assert_eq!(state.view(), view);
        }
    }
}
