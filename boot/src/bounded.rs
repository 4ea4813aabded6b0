//! Child processes with a time limit: neither the wait for a process nor the wait for its output is
//! unbounded.

use anyhow::{Context, Result, bail};
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(5);
/// Time to collect the last output of a process that has ended. Only output inherited by another
/// process takes longer.
const GRACE: Duration = Duration::from_secs(5);

/// Waits for a child process to end, at most `limit`.
///
/// # Errors
/// Where it does not end in time; the process is then killed.
pub fn finish(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("process {} did not end within {} s and was killed", child.id(), limit.as_secs());
        }
        std::thread::sleep(TICK);
    }
}

/// Runs a command as [`Command::output`] does, for at most `limit`.
///
/// # Errors
/// Where the program cannot be started, does not end in time, or leaves its output open in another
/// process. The error contains the output so far.
pub fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    let program = command.get_program().display().to_string();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{program} cannot be started"))?;
    let (stdout, stderr) = (listen(child.stdout.take()), listen(child.stderr.take()));
    let ended = finish(&mut child, limit);
    let (stdout, stderr) = (heard(&stdout), heard(&stderr));
    let said =
        || String::from_utf8_lossy(&[stdout.0.as_slice(), &stderr.0].concat()).trim().to_owned();
    let status = ended.with_context(|| format!("{program}: {}", said()))?;
    if !(stdout.1 && stderr.1) {
        bail!("{program} has ended, and another process keeps its output open: {}", said());
    }
    Ok(Output { status, stdout: stdout.0, stderr: stderr.0 })
}

/// Reads a stream to its end, on a thread of its own.
fn listen(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (Some(mut stream), mut bytes) = (stream, [0; 4096]) else { return };
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if sender.send(bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Returns the bytes received, and whether the stream has ended.
fn heard(receiver: &Receiver<Vec<u8>>) -> (Vec<u8>, bool) {
    let (mut all, deadline) = (Vec::new(), Instant::now() + GRACE);
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => all.extend(bytes),
            Err(mpsc::RecvTimeoutError::Disconnected) => return (all, true),
            Err(mpsc::RecvTimeoutError::Timeout) => return (all, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<Output> {
        output(Command::new("sh").args(["-c", script]), limit)
    }

    #[test]
    fn what_a_program_says_and_its_status_come_back() {
        let output = shell("echo one; echo two >&2; exit 3", Duration::from_secs(60)).unwrap();
        assert_eq!(
            (output.status.code(), &*output.stdout, &*output.stderr),
            (Some(3), &b"one\n"[..], &b"two\n"[..])
        );
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let begin = Instant::now();
        let error = shell("echo here; exec sleep 1000", Duration::from_millis(300)).unwrap_err();
        assert!(
            format!("{error:#}").contains("sh: here") && begin.elapsed() < Duration::from_secs(60),
            "{error:#}"
        );
    }

    #[test]
    fn an_output_that_another_process_keeps_open_is_not_waited_for() {
        let begin = Instant::now();
        let error = shell("sleep 30 & echo here", Duration::from_secs(20)).unwrap_err();
        assert!(
            error.to_string().contains("keeps its output open: here")
                && begin.elapsed() < Duration::from_secs(25),
            "{error}"
        );
    }
}
