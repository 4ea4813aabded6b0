//! The life of a partition as other CPUs, people and requests see it: the projection of
//! [`super::lifecycle`].

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
    /// It is being suspended; this is not interrupted.
    Suspending,
    /// Its space holds all of it; it goes on when the operator resumes it.
    Suspended,
    /// Its suspended state is being read; this is not interrupted.
    Resuming,
    /// It has become a base: others begin as copies of it.
    Sealed,
}

impl LifecycleView {
    /// All views, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Waiting,
        Self::Activating,
        Self::Loading,
        Self::Running,
        Self::ShuttingDown,
        Self::Crashed,
        Self::Restarting,
        Self::Stopping,
        Self::Stopped,
        Self::Suspending,
        Self::Suspended,
        Self::Resuming,
        Self::Sealed,
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
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Resuming => "resuming",
            Self::Sealed => "sealed",
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
        assert_eq!(LifecycleView::ALL.len(), LifecycleView::Sealed as usize + 1);
    }
}
