//! The effect of a device access on the partition, beyond the device itself.
//!
//! Devices never act on the partition: they return an [`DeviceEffect`], and the vCPU loop applies
//! it.

/// What the vCPU loop has to do after an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an effect that nobody applies is a crash that nobody sees"]
pub enum DeviceEffect {
    /// Nothing.
    None,
    /// Console output waits to be taken.
    Console,
    /// Console output has no more room: the guest goes on when some has been taken.
    ConsoleFull,
    /// A line of a test kernel's log waits to be taken.
    TestLine,
    /// A test kernel reports failure, with a code.
    TestFailed(u32),
    /// A test kernel reports success.
    TestPassed,
    /// A test kernel wrote the debug-exit port.
    ExitCode(u32),
    /// The guest wants to be restarted: a plain reboot, no crash.
    Reset,
    /// The guest switched itself off.
    PowerOff,
    /// The guest reported a crash through pvpanic. It runs on: its log may follow as
    /// [`DeviceEffect::PanicRecorded`].
    Panicked(PanicKind),
    /// The guest has stored the log of a panic in the error record store, and the operation has
    /// ended.
    PanicRecorded,
    /// Devices on the bus may have work.
    BusWork,
}

/// The event that the guest reported through pvpanic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PanicKind {
    /// The kernel has panicked and stays where it is.
    Panicked,
    /// The kernel has panicked and starts its own crash kernel.
    CrashKernel,
    /// The kernel asks to be shut down (an orderly end).
    Shutdown,
}
