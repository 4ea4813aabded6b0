//! One serial line of a running machine: its output so far, waiting for more output, and typing.
//!
//! Both emulators connect to a TCP port on which we listen before they start, so no output is lost.
//! A thread reads the line; all output is kept in memory and in the run's transcript.

use crate::screen::HostScreen;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time limit for an emulator to connect a line. Emulators connect before anything else.
const CONNECTED: Duration = Duration::from_secs(120);

/// The destination of the bytes besides memory and transcript.
#[derive(Clone, Debug)]
pub enum Echo {
    /// Nowhere.
    Silent,
    /// To the screen.
    Screen(HostScreen),
}

struct Heard {
    bytes: Vec<u8>,
    /// Bytes dropped from the front of `bytes`.
    forgotten: usize,
    /// Minimum of bytes to keep.
    kept: usize,
    ended: bool,
}

impl Default for Heard {
    fn default() -> Self {
        Self { bytes: Vec::new(), forgotten: 0, kept: usize::MAX, ended: false }
    }
}

impl Heard {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Drop only when twice that many are held: the cost of the move is then spread over as many
        // new bytes.
        if self.bytes.len() / 2 > self.kept {
            let surplus = self.bytes.len() - self.kept;
            self.bytes.drain(..surplus);
            self.forgotten += surplus;
        }
    }
}

#[derive(Default)]
struct SerialShared {
    heard: Mutex<Heard>,
    more: Condvar,
}

impl SerialShared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line whose emulator has not yet connected.
pub struct Listener(TcpListener);

impl Listener {
    /// Binds a free port of this machine.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn new() -> Result<Self> {
        Ok(Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a serial line")?))
    }

    /// Returns the port to give to the emulator.
    ///
    /// # Errors
    /// Where the operating system does not report it.
    pub fn port(&self) -> Result<u16> {
        Ok(self.0.local_addr()?.port())
    }

    /// Waits for the emulator to connect, while `alive` returns `Ok` and for at most two minutes.
    ///
    /// # Errors
    /// Where the emulator ends first, or does not connect.
    pub fn accept(
        self,
        transcript: &Path,
        echo: Echo,
        alive: impl FnMut() -> Result<()>,
    ) -> Result<SerialLine> {
        SerialLine::start(self.accept_stream(alive)?, transcript, echo)
    }

    /// Accepts the connection as [`Listener::accept`] does, for a caller that reads the stream
    /// itself.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    pub fn accept_stream(self, mut alive: impl FnMut() -> Result<()>) -> Result<TcpStream> {
        self.0.set_nonblocking(true)?;
        let deadline = Instant::now() + CONNECTED;
        let stream = loop {
            match self.0.accept() {
                Ok((stream, _)) => break stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => alive()?,
                Err(e) => return Err(e).context("a serial line failed"),
            }
            if Instant::now() >= deadline {
                bail!(
                    "the emulator has not connected a serial line within {} s",
                    CONNECTED.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A serial line.
pub struct SerialLine {
    shared: Arc<SerialShared>,
    stream: TcpStream,
    cursor: usize,
}

impl SerialLine {
    fn start(stream: TcpStream, transcript: &Path, echo: Echo) -> Result<Self> {
        let shared = Arc::new(SerialShared::default());
        let file = File::create(transcript).with_context(|| format!("{}", transcript.display()))?;
        let (reader, theirs) = (stream.try_clone()?, Arc::clone(&shared));
        std::thread::Builder::new()
            .name("serial".into())
            .spawn(move || listen(reader, file, &echo, &theirs))?;
        Ok(Self { shared, stream, cursor: 0 })
    }

    /// Types `bytes`.
    ///
    /// # Errors
    /// Where the machine is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("the machine's serial line is closed")
    }

    /// Returns a second handle for typing.
    ///
    /// # Errors
    /// Where the system refuses one.
    pub fn typist(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// Limits the memory from now on to at least the last `bytes` bytes: a machine may run for
    /// months.
    pub fn keep_last(&self, bytes: usize) {
        self.shared.lock().kept = bytes;
    }

    /// Returns everything received so far, or the kept part of it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().bytes).into_owned()
    }

    /// Waits until the machine has closed the line, at most `limit`; returns whether it has.
    pub fn wait_for_end(&self, limit: Duration) -> bool {
        let guard = self.shared.lock();
        let (guard, _) = self
            .shared
            .more
            .wait_timeout_while(guard, limit, |heard| !heard.ended)
            .unwrap_or_else(PoisonError::into_inner);
        guard.ended
    }

    /// Returns the next whole line that was not returned before, waiting for it until `deadline`.
    ///
    /// # Errors
    /// [`LineError`] says whether time ran out or the machine stopped.
    pub fn next_line(&mut self, deadline: Instant) -> Result<String, LineError> {
        let mut heard = self.shared.lock();
        loop {
            self.cursor = self.cursor.max(heard.forgotten);
            let rest = &heard.bytes[self.cursor - heard.forgotten..];
            if let Some(length) = rest.iter().position(|&b| b == b'\n') {
                let line =
                    String::from_utf8_lossy(&rest[..length]).trim_end_matches('\r').to_owned();
                self.cursor += length + 1;
                return Ok(line);
            }
            if heard.ended {
                return Err(LineError::Ended);
            }
            let left = deadline.checked_duration_since(Instant::now()).ok_or(LineError::TimeOut)?;
            heard = self
                .shared
                .more
                .wait_timeout(heard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for a line that contains `text` and returns it. Earlier lines are skipped.
    ///
    /// # Errors
    /// Where no such line comes within `limit`, or the machine stops first.
    pub fn wait_for(&mut self, limit: Duration, text: &str) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.next_line(deadline) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(_) => {}
                Err(LineError::TimeOut) => {
                    bail!("no line with “{text}” within {} s", limit.as_secs())
                }
                Err(LineError::Ended) => bail!("the machine stopped before a line with “{text}”"),
            }
        }
    }
}

/// The reason why there is no further line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineError {
    /// The deadline has passed.
    TimeOut,
    /// The machine has stopped.
    Ended,
}

fn listen(mut reader: TcpStream, mut transcript: File, echo: &Echo, shared: &SerialShared) {
    let mut buffer = [0; 4096];
    loop {
        match reader.read(&mut buffer) {
            Ok(n) if n > 0 => hear(&buffer[..n], &mut transcript, echo, shared),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    shared.lock().ended = true;
    shared.more.notify_all();
}

fn hear(bytes: &[u8], transcript: &mut File, echo: &Echo, shared: &SerialShared) {
    // A full disk or a closed pipe must not stop the machine: the output stays in memory.
    let _ = transcript.write_all(bytes);
    if let Echo::Screen(screen) = echo {
        screen.output(bytes);
    }
    shared.lock().take(bytes);
    shared.more.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_bytes_are_forgotten_and_lines_go_on_behind_them() {
        let (listener, shared) = (
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            Arc::new(SerialShared::default()),
        );
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut line = SerialLine { shared: Arc::clone(&shared), stream, cursor: 0 };
        line.keep_last(8);
        shared.lock().take(b"one\n");
        assert_eq!(line.next_line(Instant::now()).unwrap(), "one");
        (0..10).for_each(|n| shared.lock().take(format!("two {n}\n").as_bytes()));
        assert!(shared.lock().bytes.len() <= 17, "{}", line.text());
        let rest: Vec<_> = std::iter::from_fn(|| line.next_line(Instant::now()).ok()).collect();
        assert_eq!(rest.last().map(String::as_str), Some("two 9"));
        assert_eq!(line.next_line(Instant::now()), Err(LineError::TimeOut));
    }
}
