//! `boot --console NAME=PATH`: one partition's console for programs, byte for byte.
//!
//! Output goes to every client; input of all clients is typed into the one console. The hypervisor
//! accepts up to 64 bytes at a time and answers when the guest has room for more. So no input is
//! lost, and a client that types faster is held up.

use super::commands::{Asker, MachineCommands};
use super::local::LocalSocket;
use super::outbox::{Outbox, OutboxPiece};
use anyhow::Result;
use kernel::console::hex;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of earlier output kept for clients that connect late.
const HISTORY: usize = 64 << 10;
/// Bytes of input that may wait.
const TYPED: usize = 4096;
/// Maximum number of clients.
const CLIENTS: usize = 16;
/// Time limit for an answer of the hypervisor.
const ANSWER: Duration = Duration::from_secs(10);
/// Pause before the next attempt while the guest has not read its input.
const AGAIN: Duration = Duration::from_millis(50);

struct ConsoleClient {
    outbox: Outbox,
    /// Line ends that were dropped; `None` while nothing is lost.
    lost: Option<u64>,
}

impl ConsoleClient {
    /// Queues output. Where it does not fit, everything up to the end of a line is dropped.
    fn push(&mut self, bytes: &[u8]) {
        let Some(lost) = self.lost else {
            self.lost = (!self.outbox.push(&bytes.into())).then(|| line_ends(bytes));
            return;
        };
        self.lost = Some(lost + line_ends(bytes));
        let Some(end) = bytes.iter().rposition(|&byte| byte == b'\n') else { return };
        let note = format!("\r\n[tidepool: {} lines were lost]\r\n", lost + line_ends(bytes));
        let rest: OutboxPiece = [note.as_bytes(), &bytes[end + 1..]].concat().into();
        if self.outbox.push(&rest) {
            self.lost = None;
        }
    }
}

fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[derive(Default)]
struct ConsoleState {
    clients: Vec<ConsoleClient>,
    history: VecDeque<u8>,
    typed: VecDeque<u8>,
    /// The answer to the last command: whether the guest took the input.
    answer: Option<Result<(), String>>,
}

struct ConsoleShared {
    partition: String,
    state: Mutex<ConsoleState>,
    changed: Condvar,
    commands: Arc<MachineCommands>,
}

/// The console socket of one partition.
pub(super) struct ConsoleServer {
    shared: Arc<ConsoleShared>,
    _socket: LocalSocket,
}

impl ConsoleServer {
    /// Accepts clients at `socket`.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub(super) fn start(
        partition: String,
        socket: LocalSocket,
        commands: Arc<MachineCommands>,
    ) -> Result<Self> {
        let shared =
            ConsoleShared { partition, state: Mutex::default(), changed: Condvar::new(), commands };
        let shared = Arc::new(shared);
        let (theirs, typist) = (Arc::clone(&shared), Arc::clone(&shared));
        std::thread::Builder::new().name("typist".into()).spawn(move || typist.type_on())?;
        socket.serve(move |stream| theirs.take_in(stream))?;
        Ok(Self { shared, _socket: socket })
    }

    /// Returns the partition's name.
    pub(super) fn partition(&self) -> &str {
        &self.shared.partition
    }

    /// Passes an `output` event to all clients.
    pub(super) fn output(&self, event: &Value) {
        let text = event["bytes"].as_str().unwrap_or("");
        let pieces = text
            .as_bytes()
            .chunks(2 * hex::TYPED)
            .filter_map(|part| std::str::from_utf8(part).ok());
        let bytes: Vec<u8> = pieces.filter_map(hex::decode).flatten().collect();
        let state = &mut *self.shared.lock();
        state.history.extend(&bytes);
        let surplus = state.history.len().saturating_sub(HISTORY);
        state.history.drain(..surplus);
        state.clients.retain(|client| !client.outbox.is_closed());
        state.clients.iter_mut().for_each(|client| client.push(&bytes));
    }

    /// Takes the hypervisor's answer to a command that typed input.
    pub(super) fn answer(&self, event: &Value) {
        let error = event["error"].as_str().unwrap_or("").to_owned();
        self.shared.lock().answer = Some(if event["ok"] == true { Ok(()) } else { Err(error) });
        self.shared.changed.notify_all();
    }

    /// Sends all queued output to the clients until `deadline`, and closes.
    pub(super) fn finish(&self, deadline: Instant) {
        let clients = std::mem::take(&mut self.shared.lock().clients);
        clients.iter().for_each(|client| client.outbox.finish(deadline));
    }
}

impl ConsoleShared {
    fn lock(&self) -> MutexGuard<'_, ConsoleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, ConsoleState>) -> MutexGuard<'s, ConsoleState> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(self: &Arc<Self>, stream: UnixStream) {
        let Ok(reader) = stream.try_clone() else { return };
        let Ok(outbox) = Outbox::start(stream) else { return };
        {
            let state = &mut *self.lock();
            state.clients.retain(|client| !client.outbox.is_closed());
            if state.clients.len() >= CLIENTS {
                return outbox.finish(Instant::now());
            }
            let mut client = ConsoleClient { outbox, lost: None };
            client.push(state.history.make_contiguous());
            state.clients.push(client);
        }
        let shared = Arc::clone(self);
        let _ =
            std::thread::Builder::new().name("client".into()).spawn(move || shared.listen(reader));
    }

    fn listen(&self, mut stream: UnixStream) {
        let mut bytes = [0; 256];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            let mut state = self.lock();
            while state.typed.len() >= TYPED {
                state = self.wait(state);
            }
            state.typed.extend(&bytes[..count]);
            self.changed.notify_all();
        }
    }

    /// Types the waiting input, one command at a time.
    fn type_on(&self) {
        loop {
            let mut state = self.lock();
            while state.typed.is_empty() {
                state = self.wait(state);
            }
            let count = state.typed.len().min(hex::TYPED);
            let bytes: Vec<u8> = state.typed.iter().take(count).copied().collect();
            state.answer = None;
            drop(state);
            match self.type_once(&bytes) {
                // The guest has not read the earlier input: try again later.
                Err(error) if error.starts_with("busy") => std::thread::sleep(AGAIN),
                // Typed, or refused for good: a stopped partition takes no input.
                _ => drop(self.lock().typed.drain(..count)),
            }
            self.changed.notify_all();
        }
    }

    fn type_once(&self, bytes: &[u8]) -> Result<(), String> {
        let text = bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let command = json!({"command": "type", "partition": self.partition, "bytes": text});
        self.commands.send(Asker::Console(self.partition.clone()), &command)?;
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, ANSWER, |state| state.answer.is_none());
        // No answer in time counts as success: input typed twice is worse than input lost.
        waited.unwrap_or_else(PoisonError::into_inner).0.answer.take().unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::Sockets;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    #[test]
    fn output_comes_byte_for_byte_and_keys_are_typed_until_they_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let hub =
            Sockets::bind(None, &[("web".to_owned(), path.clone())]).unwrap().start(ours).unwrap();
        let mut machine = BufReader::new(listener.accept().unwrap().0);
        hub.event(&json!({"event": "boot"}));
        hub.event(&json!({"event": "output", "partition": "db", "bytes": "ffff"}));
        hub.event(&json!({"event": "output", "partition": "web", "bytes": "001b5b48ff0d0a"}));
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut bytes = [0; 7];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, *b"\0\x1b[H\xff\r\n");
        client.write_all(b"ls\r\x03").unwrap();
        for (round, ok) in [false, false, true].into_iter().enumerate() {
            let mut line = String::new();
            machine.read_line(&mut line).unwrap();
            let command: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(
                (&command["partition"], &command["bytes"]),
                (&json!("web"), &json!("6c730d03")),
                "round {round}"
            );
            hub.event(&json!({
                "event": "reply", "id": command["id"], "ok": ok,
                "error": if ok { "" } else { "busy" }
            }));
        }
        client.write_all(b"x").unwrap();
        let mut line = String::new();
        machine.read_line(&mut line).unwrap();
        assert!(line.contains("\"bytes\":\"78\""), "{line}");
    }

    #[test]
    fn a_client_that_reads_nothing_loses_whole_lines() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = ConsoleClient { outbox: Outbox::start(ours).unwrap(), lost: None };
        let line = format!("{}\r\n", "x".repeat(1022));
        (0..4096).for_each(|_| client.push(line.as_bytes()));
        assert!(client.lost.is_some());
        let reader = std::thread::spawn(move || {
            let mut all = String::new();
            theirs.read_to_string(&mut all).unwrap();
            all
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while client.lost.is_some() && Instant::now() < deadline {
            client.push(line.as_bytes());
        }
        client.push(b"last\r\n");
        client.outbox.finish(deadline);
        let all = reader.join().unwrap();
        assert!(all.contains(" lines were lost]\r\n") && all.ends_with("last\r\n"));
        assert!(all.lines().all(|line| line.len() == 1022
            || line.is_empty()
            || line.starts_with('[')
            || line == "last"));
    }
}
