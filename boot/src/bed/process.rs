//! An emulator's process, which never outlives us.
//!
//! Three safeguards: dropping the handle ends the emulator, an interrupt ends it
//! ([`crate::interrupt`]), and if this process is killed the system kills the emulator
//! (`PR_SET_PDEATHSIG`). That signal fires when the *thread* that started the emulator ends, so
//! start emulators from threads that outlive them. The emulator has its own process group, so
//! Ctrl-C at the terminal reaches only this process.

// UNSAFETY: fork-time set-up and signals to a process group exist only as system calls.
#![expect(unsafe_code)]

use crate::interrupt::{OnSignal, Signalled};
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time for an emulator to write back its caches and end before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(5);

/// A running emulator.
pub struct Emulator {
    child: Arc<Mutex<Child>>,
    _on_signal: OnSignal,
}

impl Emulator {
    /// Starts `command`.
    ///
    /// # Errors
    /// Where the program is missing.
    pub fn start(mut command: Command) -> Result<Self> {
        command.process_group(0);
        // SAFETY: between fork and exec only async-signal-safe functions may run; `prctl` is a bare
        // system call.
        unsafe { command.pre_exec(die_with_parent) };
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("{program} cannot be started"))?;
        let child = Arc::new(Mutex::new(child));
        let theirs = Arc::clone(&child);
        let on_signal = OnSignal::new(Signalled::End, move || {
            end(&mut lock(&theirs));
        });
        Ok(Self { child, _on_signal: on_signal })
    }

    /// Takes the write end of the emulator's standard input, if it was piped.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        lock(&self.child).stdin.take()
    }

    /// Returns the exit status if the emulator has ended.
    ///
    /// # Errors
    /// Where the system does not report it.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(lock(&self.child).try_wait()?)
    }

    /// Waits for the emulator to end, at most `limit`.
    ///
    /// # Errors
    /// Where the system does not report it.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            // Lock only for each check: the interrupt handler needs the child too.
            let status = self.ended()?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            std::thread::sleep(TICK);
        }
    }

    /// Ends the emulator: asks it to end, waits `PATIENCE`, then kills it.
    pub fn end(&mut self) {
        end(&mut lock(&self.child));
    }

    /// Kills the emulator at once, as a power cut would.
    pub fn kill(&mut self) {
        let mut child = lock(&self.child);
        signal(&mut child, libc::SIGKILL);
        let _ = child.wait();
    }

    /// Stops all threads of the emulator. Time stands still in the machine, but not outside it.
    pub fn freeze(&mut self) {
        signal(&mut lock(&self.child), libc::SIGSTOP);
    }

    /// Continues a stopped emulator.
    pub fn thaw(&mut self) {
        signal(&mut lock(&self.child), libc::SIGCONT);
    }

    /// Sends the terminal's interrupt, which stops Bochs in its debugger.
    pub fn interrupt(&mut self) {
        signal(&mut lock(&self.child), libc::SIGINT);
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(child: &mut Child) {
    signal(child, libc::SIGTERM);
    let deadline = Instant::now() + PATIENCE;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            signal(child, libc::SIGKILL);
            let _ = child.wait();
            return;
        }
        std::thread::sleep(TICK);
    }
}

/// Signals the process group of `child`, unless the child was reaped: its number may belong to
/// another process then.
fn signal(child: &mut Child, signal: libc::c_int) {
    if let (Ok(None), Ok(group)) = (child.try_wait(), libc::pid_t::try_from(child.id())) {
        // SAFETY: no memory is involved; the group is ours because its leader is not reaped yet
        // (checked above).
        unsafe { libc::kill(-group, signal) };
    }
}

fn die_with_parent() -> std::io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_that_ignores_the_request_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; exec sleep 100"]);
        let mut emulator = Emulator::start(command).unwrap();
        emulator.kill();
        assert!(emulator.ended().unwrap().is_some());
    }

    #[test]
    fn dropping_ends_the_process() {
        let mut command = Command::new("sleep");
        command.arg("100");
        let emulator = Emulator::start(command).unwrap();
        let child = Arc::clone(&emulator.child);
        drop(emulator);
        assert!(lock(&child).try_wait().unwrap().is_some());
    }
}
