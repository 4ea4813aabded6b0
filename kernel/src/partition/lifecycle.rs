//! The life of a partition: its states, and what others see of them.
//!
//! ```text
//!   NeedsSpace ──> Activating ──> Loading ──> Running ──> Crashed ──┐ restart gate opens
//!        ^             ^  └ NeedsTables ┘       │ reset, stop       │
//!        │             │                        v                   │
//!        │             └─────────────────── Retiring ──> Stopped    │
//!        ├──────────────────────────────────────────────────────────┘
//!        └── start ── Stopped ── leave ──> gone
//!
//!   Running ── suspend ──> Suspending ──> Retiring ──> Suspended ── resume ──> Resuming ──> Running
//!      ^                      │ failed                  ^  │ stop, release       │ refused
//!      └──────────────────────┘                         │  └──> Stopped          │
//!                                                       └────────────────────────┘
//!   Suspended ── seal ──> Sealed ── stop, release ──> Stopped
//!   NeedsSpace ── a clone ──> Cloning ──> Running
//! ```
//!
//! The runner (`partition::runner`) owns the state. [`LifecycleView`] is its projection for other
//! CPUs, people and requests. The runner publishes the view whenever it sets the state, and
//! *shutting down* when it presses a running guest's power button.

pub use super::view::LifecycleView;

use super::loading::KernelLoading;
use super::resume::ResumeProgress;
use crate::crash::dumps::DumpProgress;
use crate::crash::gate::RestartGate;
use crate::crash::suspend::SuspensionProgress;
use crate::host::reaper::TeardownDone;
use crate::mm::object::WaitTicket;
use crate::storage::spaces::SpaceId;
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
    /// The vCPU has stopped, and the memory drains into the space.
    Suspending {
        job: Arc<SuspensionProgress>,
        /// Why the guest was parked before.
        parked: ParkReason,
    },
    /// The space holds the partition, the machine nothing of it.
    Suspended {
        space: SpaceId,
    },
    /// The space holds the base that the partition has become.
    Sealed {
        space: SpaceId,
    },
    /// A clone's next incarnation begins from its base.
    Cloning,
    /// The suspended state is being read and checked.
    Resuming(Arc<ResumeProgress>),
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
    Suspend,
}

impl Lifecycle {
    /// Returns what others see of the state.
    pub(super) const fn view(&self) -> LifecycleView {
        match self {
            // Its next space is being made ready in the background.
            Self::Activating | Self::NeedsTables(BackingState::Awaited) | Self::Cloning => {
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
            Self::Suspending { .. } | Self::Retiring { then: AfterTeardown::Suspend, .. } => {
                LifecycleView::Suspending
            }
            Self::Suspended { .. } => LifecycleView::Suspended,
            Self::Sealed { .. } => LifecycleView::Sealed,
            Self::Resuming(_) => LifecycleView::Resuming,
            Self::Stopped => LifecycleView::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
