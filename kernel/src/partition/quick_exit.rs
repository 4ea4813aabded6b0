//! The short way of exits: whether it is open, and why it ended.

use super::devices::DeviceEffect;

/// Whether the short way answers exits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShortWay {
    /// It answers every exit that it can.
    Open,
    /// It answers none, because only the longer way checks the guest's breakpoints.
    Closed,
}

/// Why the short way ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum QuickExit {
    /// The last exit is left to the longer way.
    Exit,
    /// Every exit is answered, and there may be an event for the guest.
    News,
    /// The guest has executed HLT, and no event is there to wake it.
    Halted,
    /// Every exit is answered, and a device has an effect on the partition.
    Effect(DeviceEffect),
}
