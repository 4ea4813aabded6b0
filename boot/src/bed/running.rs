//! A machine that runs: its lines, its emulator, and its orderly or sudden end.

use super::nested::Session;
use super::process::Emulator;
use super::runner::Runner;
use crate::events::Events;
use crate::serial::{Echo, Line, Listener};
use anyhow::{Context, Result, bail};
use kernel::arch::exit::ExitCode;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// File names in a transcript folder.
const CONSOLE: &str = "console.txt";
const EVENTS: &str = "events.jsonl";
pub(super) const EMULATOR: &str = "emulator.txt";
const MONITOR: &str = "monitor.jsonl";
pub(super) const COMMAND: &str = "command.txt";
/// For bytes that are on their way already.
const GRACE: Duration = Duration::from_secs(5);

/// How a machine ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Everything asked for was done.
    Success,
    /// It says that something failed, or stopped without a word.
    Failure,
    /// It still runs.
    Not,
}

/// A running machine. Dropping it ends the emulator and keeps the transcript.
pub struct Running {
    /// The first serial line: for people.
    pub console: Line,
    /// The second serial line: for programs.
    pub events: Events,
    pub(super) monitor: Option<Line>,
    /// The monitor takes commands from the first one on that says so, and only once.
    pub(super) monitor_greeted: bool,
    pub(super) runner: Runner,
    debugger: Option<std::process::ChildStdin>,
    folder: PathBuf,
}

/// The serial lines of a machine that is about to start.
pub(super) struct Lines {
    pub console: Listener,
    pub events: Listener,
    /// QEMU's own monitor.
    pub monitor: Option<Listener>,
}

impl Lines {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { console: Listener::new()?, events: Listener::new()?, monitor: None })
    }
}

/// Starts `command` in `folder` and waits for its serial lines.
pub(super) fn start(mut command: Command, lines: Lines, folder: PathBuf, echo: Echo) -> Result<Running> {
    fs::write(folder.join(COMMAND), format!("{command:?}\n"))?;
    let output = fs::File::create(folder.join(EMULATOR))?;
    command.stdout(output.try_clone()?).stderr(output);
    let wants_debugger = command.get_program() == super::bochs::PROGRAM;
    command.stdin(if wants_debugger { Stdio::piped() } else { Stdio::null() });
    let mut emulator = Emulator::start(command)?;
    let debugger = emulator.stdin();
    let (console, events, monitor) = accept(lines, &folder, echo, || alive(&mut emulator, &folder))?;
    let runner = Runner::Process(emulator);
    Ok(Running { console, monitor, monitor_greeted: false, events, runner, debugger, folder })
}

/// Takes over a machine that runs within another one, `session`; its serial lines are connected already.
pub(super) fn adopt(session: Session, lines: Lines, folder: PathBuf, echo: Echo) -> Result<Running> {
    let (console, events, monitor) = accept(lines, &folder, echo, || Ok(()))?;
    let runner = Runner::Nested(session);
    Ok(Running { console, monitor, monitor_greeted: false, events, runner, debugger: None, folder })
}

fn accept(
    lines: Lines,
    folder: &Path,
    echo: Echo,
    mut alive: impl FnMut() -> Result<()>,
) -> Result<(Line, Events, Option<Line>)> {
    let console = lines.console.accept(&folder.join(CONSOLE), echo, &mut alive)?;
    let events = lines.events.accept(&folder.join(EVENTS), Echo::Silent, &mut alive)?;
    let monitor = lines.monitor.map(|line| line.accept(&folder.join(MONITOR), Echo::Silent, &mut alive)).transpose()?;
    Ok((console, Events::new(events), monitor))
}

fn alive(emulator: &mut Emulator, folder: &Path) -> Result<()> {
    match emulator.ended()? {
        None => Ok(()),
        Some(status) => {
            let words = fs::read_to_string(folder.join(EMULATOR)).unwrap_or_default();
            bail!("the emulator ended with {status}: {}", words.trim())
        }
    }
}

impl Running {
    /// Returns the folder of the transcript.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until the machine has stopped by itself, at most `limit`.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<Ended> {
        let status = self.runner.wait(limit)?;
        let Some(status) = status else { return Ok(Ended::Not) };
        // What the emulator wrote last may still be on its way through the sockets.
        self.console.wait_for_end(GRACE);
        let success = match exit_value(status) {
            Some(value) => value == ExitCode::Success as i32,
            // Bochs has no status: what the hypervisor said last counts.
            None => self.events.last_named("end", GRACE)?.is_some_and(|end| end.0["status"] == 0),
        };
        Ok(if success { Ended::Success } else { Ended::Failure })
    }

    /// Returns the Linux around a machine of bed C.
    ///
    /// # Errors
    /// Where the machine runs in another bed.
    pub fn nested(&mut self) -> Result<&mut Session> {
        self.runner.nested()
    }

    /// Runs a shell script where the emulator runs; returns what it says.
    ///
    /// # Errors
    /// Where it fails, or does not end within `limit` (looked at in bed C only).
    pub fn beside(&mut self, script: &str, limit: Duration) -> Result<String> {
        if let Runner::Nested(session) = &self.runner {
            return session.beside(script, limit);
        }
        let output = Command::new("sh").args(["-c", script]).output().context("no shell")?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if !output.status.success() {
            bail!("“{script}” ended with {}: {said}", output.status);
        }
        Ok(said)
    }

    /// Cuts the power.
    pub fn cut_power(&mut self) {
        self.runner.kill();
    }

    /// Ends the machine and removes its transcript.
    pub fn passed(mut self) {
        self.runner.discard();
        let _ = fs::remove_dir_all(&self.folder);
    }

    /// Stops Bochs in its debugger for as long as it takes to run `commands`, then lets it go on.
    ///
    /// # Errors
    /// Where the machine runs in another bed, or has ended.
    pub(super) fn debug(&mut self, commands: &str) -> Result<()> {
        use std::io::Write;
        let debugger = self.debugger.as_mut().context("only Bochs has a debugger")?;
        self.runner.process()?.interrupt();
        debugger.write_all(format!("{commands}\nc\n").as_bytes()).context("Bochs has ended")?;
        Ok(debugger.flush()?)
    }
}

/// QEMU's exit device turns a value v into the status 2 v + 1. Bochs always ends with 1, which no value of ours gives.
fn exit_value(status: ExitStatus) -> Option<i32> {
    status.code().filter(|code| code % 2 == 1 && *code > 1).map(|code| code >> 1)
}
