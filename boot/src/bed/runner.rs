//! The process that runs a machine: a child of ours, or a process of the Linux of bed C.

use super::nested::session::Session;
use super::process::Emulator;
use anyhow::{Context, Result};
use std::process::ExitStatus;
use std::time::Duration;

/// The emulator of a machine.
pub(super) enum Runner {
    /// A process on this host.
    Process(Emulator),
    /// A process of the Linux within Bochs.
    Nested(Session),
}

impl Runner {
    /// Waits for the emulator to end, at most `limit`.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        match self {
            Self::Process(emulator) => emulator.wait(limit),
            Self::Nested(session) => session.wait(limit),
        }
    }

    /// Ends the emulator where its disks are not needed any more: asks, waits, then kills.
    /// (Otherwise, drop it.)
    pub(super) fn discard(&mut self) {
        match self {
            Self::Process(emulator) => emulator.end(),
            Self::Nested(session) => session.discard(),
        }
    }

    /// Kills the emulator at once, as a power cut would.
    pub(super) fn kill(&mut self) {
        match self {
            Self::Process(emulator) => emulator.kill(),
            Self::Nested(session) => session.kill(),
        }
    }

    /// Returns the process, for operations that need a process on this host.
    pub(super) fn process(&mut self) -> Result<&mut Emulator> {
        match self {
            Self::Process(emulator) => Some(emulator),
            Self::Nested(_) => None,
        }
        .context("the emulator is no process of this machine")
    }

    /// Returns the nested session, for operations that need the Linux within Bochs.
    pub(super) fn nested(&mut self) -> Result<&mut Session> {
        match self {
            Self::Nested(session) => Some(session),
            Self::Process(_) => None,
        }
        .context("there is no Linux around this machine")
    }
}
