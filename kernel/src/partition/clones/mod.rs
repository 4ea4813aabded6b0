//! Clones: partitions that begin as copies of a base.
//!
//! ```text
//!   Suspended ── seal ──> base ── clone ──> child: vCPU and devices from the notes, every page inherited
//!                          │                  │ crash ──> the next incarnation begins from the base again
//!                          └ loaded once      └ its own space for what it writes
//! ```

pub mod load;

use alloc::string::String;

/// How a crashed clone begins again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CloneRestart {
    /// From the base's state.
    #[default]
    Base,
    /// By a boot of its kernel.
    Boot,
}

/// The origin of a clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloneOrigin {
    /// Name of the base.
    pub base: String,
    /// How it begins again after a crash.
    pub restart: CloneRestart,
}
