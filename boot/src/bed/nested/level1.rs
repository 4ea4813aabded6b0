//! The Linux within Bochs: started once, runs one job after the other.
//!
//! ```text
//!  Bochs: com1 ── agent (orders, answers)      com2, com3, com4 ── the emulator it runs: console, events, monitor
//!         ata  ── exchange disk
//! ```
//!
//! It boots in about a minute and starts a machine in a few seconds, so all machines of a process
//! share it, one at a time ([`Level1Turn`]). It lives as long as the process: the thread that
//! started Bochs does, too.

use super::exchange::{self, Exchange};
use super::wire::Wire;
use crate::bed::bochsrc::{self, bochsrc};
use crate::bed::process::Emulator;
use crate::serial::{Echo, LineError, Listener, SerialLine};
use crate::setup::{Permission, debian};
use crate::{initramfs, iso, paths};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Time limit for Linux to boot; it usually takes a minute.
const BOOT: Duration = Duration::from_secs(400);
/// Time limit for the agent's next line: while a machine runs the agent prints nothing.
const SILENCE: Duration = Duration::from_secs(3600);
/// Time limit for the agent's answer.
const ANSWER: Duration = Duration::from_secs(60);
/// MiB of memory: for Linux, a machine of 512 MiB and its paging devices.
const MEMORY_MIB: u64 = 1536;
/// Emulated instructions a second of emulated time: four times as many as on bed B. Most
/// instructions are spent on exits; at bed B's rate a guest with a tick every 4 ms would do little
/// besides its ticks.
const IPS: u32 = 200_000_000;
/// Without mitigations the switches between the two levels take a third less time, and no data here
/// is secret.
const CMDLINE: &str = "console=ttyS0,115200 quiet panic=-1 nokaslr mitigations=off tsc=reliable";

/// A running Linux.
pub(super) struct Level1 {
    /// The way for files to and from it.
    pub(super) exchange: Exchange,
    /// The serial lines of the machine in it: console, events, monitor.
    pub(super) wires: [Wire; 3],
    agent: Mutex<TcpStream>,
    state: Mutex<Level1State>,
    changed: Condvar,
}

#[derive(Default)]
struct Level1State {
    jobs: BTreeMap<u32, Level1Job>,
    last: u32,
    /// Whether Bochs has ended.
    gone: bool,
}

/// The state of a job.
#[derive(Clone, Debug, Default)]
pub(super) struct Level1Job {
    started: bool,
    /// Its output, once it has ended.
    pub said: String,
    /// Its exit status, once it has ended.
    pub status: Option<i32>,
}

/// The right to use the Linux, held by one machine at a time.
pub(super) struct Level1Turn(());

static BUSY: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

impl Level1Turn {
    /// Waits until the Linux is free, and takes it.
    pub(super) fn take() -> Self {
        let busy = FREE.wait_while(lock(&BUSY), |busy| *busy);
        *busy.unwrap_or_else(PoisonError::into_inner) = true;
        Self(())
    }
}

impl Drop for Level1Turn {
    fn drop(&mut self) {
        *lock(&BUSY) = false;
        FREE.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Level1 {
    /// Returns the Linux of this process; starts it at the first call.
    ///
    /// # Errors
    /// Where it does not boot.
    pub(super) fn of_this_process() -> Result<Arc<Self>> {
        static CURRENT: Mutex<Option<Arc<Level1>>> = Mutex::new(None);
        let mut current = lock(&CURRENT);
        if let Some(level1) = current.as_ref().filter(|level1| !lock(&level1.state).gone) {
            return Ok(Arc::clone(level1));
        }
        let level1 = boot()?;
        *current = Some(Arc::clone(&level1));
        Ok(level1)
    }

    /// Returns the number of a new job.
    pub(super) fn new_job(&self) -> u32 {
        let mut state = lock(&self.state);
        state.last += 1;
        let id = state.last;
        state.jobs.insert(id, Level1Job::default());
        id
    }

    /// Starts a script as job `id`, and returns once it runs. `lines` names the serial lines that
    /// it uses.
    pub(super) fn run(&self, id: u32, script: &str, lines: &str) -> Result<()> {
        self.exchange.put_script(script)?;
        self.order(&format!("run {id} {} {lines}", script.len()))?;
        let job = self.wait(id, ANSWER, |job| job.started || job.status.is_some())?;
        job.map(drop).context("the Linux within Bochs does not answer")
    }

    /// Sends a signal to all processes of a job.
    pub(super) fn signal(&self, id: u32, signal: &str) -> Result<()> {
        self.order(&format!("stop {id} {signal}"))
    }

    fn order(&self, order: &str) -> Result<()> {
        lock(&self.agent)
            .write_all(format!("{order}\n").as_bytes())
            .context("the Linux within Bochs is gone")
    }

    /// Waits until job `id` has ended, at most `limit`.
    pub(super) fn wait_for_end(&self, id: u32, limit: Duration) -> Result<Option<Level1Job>> {
        self.wait(id, limit, |job| job.status.is_some())
    }

    fn wait(
        &self,
        id: u32,
        limit: Duration,
        enough: impl Fn(&Level1Job) -> bool,
    ) -> Result<Option<Level1Job>> {
        let waiting = |state: &mut Level1State| {
            !state.gone && state.jobs.get(&id).is_some_and(|job| !enough(job))
        };
        let state = self.changed.wait_timeout_while(lock(&self.state), limit, waiting);
        let (state, _) = state.unwrap_or_else(PoisonError::into_inner);
        match state.jobs.get(&id) {
            Some(job) if enough(job) => Ok(Some(job.clone())),
            _ if state.gone => bail!("Bochs has ended"),
            _ => Ok(None),
        }
    }

    /// Reads the agent's lines until Bochs ends.
    fn listen(&self, line: &mut SerialLine) {
        loop {
            match line.next_line(Instant::now() + SILENCE) {
                Ok(line) => self.hear(&line),
                Err(LineError::TimeOut) => {}
                Err(LineError::Ended) => break,
            }
        }
        lock(&self.state).gone = true;
        self.changed.notify_all();
    }

    /// Takes a line of the agent. Linux prints on the same serial line.
    fn hear(&self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (Some(word), Some(Ok(id))) = (words.next(), words.next().map(str::parse)) else {
            return;
        };
        let mut state = lock(&self.state);
        let Some(job) = state.jobs.get_mut(&id) else { return };
        let rest = words.next().unwrap_or("");
        match word {
            "@start" => job.started = true,
            "@say" => job.said += &format!("{rest}\n"),
            "@exit" => job.status = rest.parse().ok(),
            _ => {}
        }
        self.changed.notify_all();
    }
}

fn boot() -> Result<Arc<Level1>> {
    let folder = folder()?;
    let kernel = debian::kernel(Permission::Refuse)?;
    let [medium, initramfs] = [folder.join("iso"), folder.join("initramfs")];
    initramfs::level1::make(&debian::host_modules(&kernel, Permission::Refuse)?, &initramfs)?;
    initramfs::level1::fill(&medium)?;
    iso::make_linux(&folder.join("boot.iso"), &medium, &kernel.vmlinuz(), &initramfs, CMDLINE)?;
    let (told, answer) = mpsc::channel();
    // Bochs is killed when the thread that started it ends.
    std::thread::Builder::new().name("level1".into()).spawn(move || match start(&folder) {
        Ok((level1, mut line, emulator)) => {
            let _ = told.send(Ok(Arc::clone(&level1)));
            level1.listen(&mut line);
            drop(emulator);
        }
        Err(error) => drop(told.send(Err(error))),
    })?;
    answer.recv().context("the thread of the Linux within Bochs has ended")?
}

/// Creates a folder for this process's Linux, and removes those of ended processes.
fn folder() -> Result<PathBuf> {
    let all = paths::tidepool().join("nested");
    fs::create_dir_all(&all)?;
    for entry in fs::read_dir(&all)?.filter_map(Result::ok) {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let folder = all.join(std::process::id().to_string());
    // Any earlier Linux of this process has ended before another one is started.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    Ok(folder)
}

fn start(folder: &Path) -> Result<(Arc<Level1>, SerialLine, Emulator)> {
    let exchange = Exchange::new(folder)?;
    let listeners = [Listener::new()?, Listener::new()?, Listener::new()?, Listener::new()?];
    let mut ports = Vec::new();
    for listener in &listeners {
        ports.push(listener.port()?);
    }
    let disk = format!("ata0-slave: type=disk, path={}, mode=flat, cylinders=0\n", exchange::NAME);
    // At each exit KVM reads an MSR that Bochs does not have: ignore the error instead of logging
    // it each time.
    let settings = bochsrc(None, 1, IPS, MEMORY_MIB, &ports)
        .replace("error: action=report", "error: action=ignore");
    fs::write(folder.join("bochsrc"), settings + &disk)?;
    fs::write(folder.join("debugger"), "c\n")?;
    let output = fs::File::create(folder.join("emulator.txt"))?;
    let mut command = Command::new(bochsrc::PROGRAM);
    command.current_dir(folder).args(["-q", "-f", "bochsrc", "-rc", "debugger"]);
    // The debugger ends the machine at the end of its input, so the input must stay open.
    command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
    let mut emulator = Emulator::start(command)?;
    let [agent, lines @ ..] = listeners;
    let mut alive = || match emulator.ended()? {
        None => Ok(()),
        Some(status) => bail!("Bochs ended with {status}; see {}", folder.display()),
    };
    let mut line = agent.accept(&folder.join("agent.txt"), Echo::Silent, &mut alive)?;
    let mut wires = Vec::new();
    for listener in lines {
        wires.push(Wire::new(listener.accept_stream(&mut alive)?)?);
    }
    line.wait_for(BOOT, "@ready").with_context(|| format!("{}", folder.display()))?;
    let wires = wires.try_into().map_err(|_| anyhow::anyhow!("three lines make three wires"))?;
    let agent = Mutex::new(line.typist()?);
    let level1 =
        Level1 { exchange, wires, agent, state: Mutex::default(), changed: Condvar::new() };
    Ok((Arc::new(level1), line, emulator))
}
