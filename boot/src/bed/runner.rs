//! What runs a machine: a process of ours, or one of the Linux that bed C runs.

use super::nested::Session;
use super::process::Emulator;
use anyhow::{Context, Result};
use std::process::ExitStatus;
use std::time::Duration;

/// The emulator of a machine, wherever it runs.
pub(super) enum Runner {
    /// Here.
    Process(Emulator),
    /// Within Linux within Bochs.
    Nested(Session),
}

impl Runner {
    /// Waits for the end, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        match self {
            Self::Process(emulator) => emulator.wait(limit),
            Self::Nested(session) => session.wait(limit),
        }
    }

    /// Ends it, where nobody will look at its disks any more: asks, waits a little, then kills. (Otherwise, drop it.)
    pub fn discard(&mut self) {
        match self {
            Self::Process(emulator) => emulator.end(),
            Self::Nested(session) => session.discard(),
        }
    }

    /// Kills it at once, as a power cut would.
    pub fn kill(&mut self) {
        match self {
            Self::Process(emulator) => emulator.kill(),
            Self::Nested(session) => session.kill(),
        }
    }

    /// Returns the process, for what only a process of ours can do.
    pub fn process(&mut self) -> Result<&mut Emulator> {
        match self {
            Self::Process(emulator) => Some(emulator),
            Self::Nested(_) => None,
        }
        .context("the emulator is no process of this machine")
    }

    /// Returns the nested session, for what only Linux within Bochs can do.
    pub fn nested(&mut self) -> Result<&mut Session> {
        match self {
            Self::Nested(session) => Some(session),
            Self::Process(_) => None,
        }
        .context("there is no Linux around this machine")
    }
}
