//! A running machine: its lines, its emulator, and its orderly or sudden end.

use super::nested::session::Session;
use super::process::Emulator;
use super::runner::Runner;
use super::transcript::RunFolder;
use crate::bounded;
use crate::events::{Event, EventStream};
use crate::serial::{Echo, Listener, SerialLine};
use anyhow::{Context, Result, bail};
use kernel::log::exit::ExitCode;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// File names in a transcript folder.
const CONSOLE: &str = "console.txt";
const EVENTS: &str = "events.jsonl";
pub(super) const EMULATOR: &str = "emulator.txt";
const BOCHS_LOG: &str = "bochs.log";
const MONITOR: &str = "monitor.jsonl";
pub(super) const COMMAND: &str = "command.txt";
/// Lines of the emulator's output that an error repeats.
const LAST_LINES: usize = 10;
/// Time limit for bytes that are already in flight.
const GRACE: Duration = Duration::from_secs(5);

/// How a machine ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MachineEnd {
    /// The run has ended with success.
    Success,
    /// The hypervisor reported a failure, or the machine stopped without a report.
    Failure,
    /// It still runs.
    Not,
}

/// A running machine. Dropping it ends the emulator and keeps the transcript.
pub struct RunningMachine {
    /// The first serial line: for people.
    pub console: SerialLine,
    /// The second serial line: for programs.
    pub events: EventStream,
    pub(super) monitor: Option<SerialLine>,
    /// Whether `qmp_capabilities` was sent: the monitor accepts no commands before it, and accepts
    /// it only once.
    pub(super) monitor_greeted: bool,
    pub(super) runner: Runner,
    debugger: Option<std::process::ChildStdin>,
    folder: RunFolder,
}

/// The serial lines of a machine that is about to start.
pub(super) struct MachineLines {
    pub console: Listener,
    pub events: Listener,
    /// QEMU's own monitor.
    pub monitor: Option<Listener>,
}

impl MachineLines {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { console: Listener::new()?, events: Listener::new()?, monitor: None })
    }
}

/// What an emulator reads from its standard input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EmulatorInput {
    /// Nothing.
    None,
    /// Commands of its debugger.
    Debugger,
}

/// Starts `command` in `folder` and waits for its serial lines.
pub(super) fn start(
    mut command: Command,
    input: EmulatorInput,
    lines: MachineLines,
    folder: RunFolder,
    echo: &Echo,
) -> Result<RunningMachine> {
    fs::write(folder.path().join(COMMAND), format!("{command:?}\n"))?;
    let output = fs::File::create(folder.path().join(EMULATOR))?;
    command.stdout(output.try_clone()?).stderr(output);
    command.stdin(match input {
        EmulatorInput::Debugger => Stdio::piped(),
        EmulatorInput::None => Stdio::null(),
    });
    let mut emulator = Emulator::start(command)?;
    let debugger = emulator.stdin();
    let (console, events, monitor) =
        accept(lines, folder.path(), echo, || alive(&mut emulator, folder.path()))?;
    let runner = Runner::Process(emulator);
    Ok(RunningMachine {
        console,
        monitor,
        monitor_greeted: false,
        events,
        runner,
        debugger,
        folder,
    })
}

/// Takes over a machine that runs within another machine, `session`; its serial lines are connected
/// already.
pub(super) fn adopt(
    session: Session,
    lines: MachineLines,
    folder: RunFolder,
    echo: &Echo,
) -> Result<RunningMachine> {
    let (console, events, monitor) = accept(lines, folder.path(), echo, || Ok(()))?;
    let runner = Runner::Nested(session);
    Ok(RunningMachine {
        console,
        monitor,
        monitor_greeted: false,
        events,
        runner,
        debugger: None,
        folder,
    })
}

fn accept(
    lines: MachineLines,
    folder: &Path,
    echo: &Echo,
    mut alive: impl FnMut() -> Result<()>,
) -> Result<(SerialLine, EventStream, Option<SerialLine>)> {
    let console = lines.console.accept(&folder.join(CONSOLE), echo.clone(), &mut alive)?;
    let events = lines.events.accept(&folder.join(EVENTS), Echo::Silent, &mut alive)?;
    let monitor = lines
        .monitor
        .map(|line| line.accept(&folder.join(MONITOR), Echo::Silent, &mut alive))
        .transpose()?;
    Ok((console, EventStream::new(events), monitor))
}

fn alive(emulator: &mut Emulator, folder: &Path) -> Result<()> {
    match emulator.ended()? {
        None => Ok(()),
        Some(status) => bail!("the emulator ended with {status}{}", said(folder)),
    }
}

/// Returns the emulator's last output, to be placed behind a sentence. Bochs writes the cause of
/// its end to a log of its own.
fn said(folder: &Path) -> String {
    let read = |name: &str| {
        String::from_utf8_lossy(&fs::read(folder.join(name)).unwrap_or_default()).into_owned()
    };
    let fatal: String = read(BOCHS_LOG)
        .lines()
        .filter(|line| line.contains(">>PANIC<<"))
        .map(|line| format!("{line}\n"))
        .collect();
    let words = read(EMULATOR);
    let lines: Vec<_> = words
        .lines()
        .chain(fatal.lines())
        .map(str::trim)
        .filter(|line| line.contains(char::is_alphanumeric))
        .collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    if last.is_empty() { ", and said nothing".to_owned() } else { format!(": {}", last.join("; ")) }
}

impl RunningMachine {
    /// Returns the folder of the transcript.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the reason why a machine ended with [`MachineEnd::Failure`]: the emulator's output
    /// where the emulator failed, else the last error that the hypervisor reported.
    pub fn failure(&mut self) -> String {
        let status = self.runner.wait(Duration::ZERO).ok().flatten();
        let blamed = |event: &Event| match event.name() {
            "error" => {
                Some(format!("{}: {}", event.text("place").ok()?, event.text("message").ok()?))
            }
            "panic" => Some(format!("it panicked: {}", event.text("message").ok()?)),
            _ => None,
        };
        let last = self.events.all().iter().rev().find_map(blamed);
        match (status, last) {
            (Some(status), last) if exit_value(status).is_none() && !self.has_told_its_end() => {
                let last = last.map(|last| format!("; before that: {last}")).unwrap_or_default();
                format!("the emulator ended with {status}{}{last}", said(self.folder()))
            }
            (_, Some(last)) => format!("the hypervisor stopped with a failure: {last}"),
            (_, None) => "the hypervisor stopped with a failure".to_owned(),
        }
    }

    fn has_told_its_end(&self) -> bool {
        self.events.all().iter().any(|event| matches!(event.name(), "end" | "panic"))
    }

    /// Waits for the machine to stop by itself, at most `limit`.
    ///
    /// # Errors
    /// Where the system does not report it.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<MachineEnd> {
        let status = self.runner.wait(limit)?;
        let Some(status) = status else { return Ok(MachineEnd::Not) };
        // The emulator's last bytes may still be in flight in the sockets.
        self.console.wait_for_end(GRACE);
        let success = match exit_value(status) {
            Some(value) => value == ExitCode::Success as i32,
            // Bochs has no exit status of ours: the hypervisor's last event decides.
            None => self.events.last_named("end", GRACE)?.is_some_and(|end| end.0["status"] == 0),
        };
        Ok(if success { MachineEnd::Success } else { MachineEnd::Failure })
    }

    /// Returns the Linux around a machine of bed C.
    ///
    /// # Errors
    /// Where the machine runs in another bed.
    pub fn nested(&mut self) -> Result<&mut Session> {
        self.runner.nested()
    }

    /// Runs a shell script on the system that runs the emulator; returns its output.
    ///
    /// # Errors
    /// Where it fails, or does not end within `limit`.
    pub fn beside(&mut self, script: &str, limit: Duration) -> Result<String> {
        if let Runner::Nested(session) = &self.runner {
            return session.beside(script, limit);
        }
        let output = bounded::output(Command::new("sh").args(["-c", script]), limit)?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if !output.status.success() {
            bail!("“{script}” ended with {}: {said}", output.status);
        }
        Ok(said)
    }

    /// Kills the emulator, as a power cut would.
    pub fn cut_power(&mut self) {
        self.runner.kill();
    }

    /// Stops the emulator. Time stands still in the machine, but not outside it.
    ///
    /// # Errors
    /// Where the emulator is no process of this machine.
    pub fn freeze(&mut self) -> Result<()> {
        self.runner.process()?.freeze();
        Ok(())
    }

    /// Continues a frozen emulator.
    ///
    /// # Errors
    /// As [`RunningMachine::freeze`].
    pub fn thaw(&mut self) -> Result<()> {
        self.runner.process()?.thaw();
        Ok(())
    }

    /// Ends the machine and removes its transcript.
    pub fn passed(mut self) {
        self.runner.discard();
        self.folder.discard();
    }

    /// Stops Bochs in its debugger, runs `commands`, and continues it.
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

/// QEMU's exit device turns a value v into the status 2 v + 1. Bochs always ends with status 1,
/// which no value of ours produces.
fn exit_value(status: ExitStatus) -> Option<i32> {
    status.code().filter(|code| code % 2 == 1 && *code > 1).map(|code| code >> 1)
}
