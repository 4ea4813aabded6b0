//! `boot --events PATH`: the event stream for several programs, and their commands.
//!
//! ```text
//!   hypervisor ──event──> history ──> every client's outbox ──> client
//!              ──answer─> the outbox of the client that asked, with the id that it gave
//!   client ──command──> an id of ours ──> hypervisor
//! ```
//!
//! A client that connects late first gets the earlier events that are still kept. A client that
//! reads too slowly loses whole lines and gets their number.

use super::commands::{Asker, MachineCommands};
use super::local::LocalSocket;
use super::outbox::{Outbox, OutboxPiece};
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes of earlier events kept for clients that connect late.
const HISTORY: usize = 512 << 10;
/// Longest line of a client.
const LONGEST: usize = 4096;
/// Maximum number of clients.
const CLIENTS: usize = 64;

struct EventClient {
    outbox: Outbox,
    lost: u64,
}

impl EventClient {
    /// Queues a line, preceded by a message about lines that were lost before.
    fn push(&mut self, line: &OutboxPiece) {
        if self.lost > 0 {
            let note = json!({"event": "lost", "lines": self.lost});
            if self.outbox.push(&piece(&note)) {
                self.lost = 0;
            }
        }
        let fits = self.lost == 0 && self.outbox.push(line);
        self.lost += u64::from(!fits);
    }
}

#[derive(Default)]
struct Clients {
    all: BTreeMap<u64, EventClient>,
    next: u64,
    history: VecDeque<OutboxPiece>,
    history_bytes: usize,
    /// Lines that were dropped from the history.
    forgotten: u64,
}

impl Clients {
    fn remember(&mut self, line: &OutboxPiece) {
        self.history_bytes += line.len();
        self.history.push_back(Arc::clone(line));
        while self.history_bytes > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.history_bytes -= oldest.len();
            self.forgotten += 1;
        }
    }

    fn add(&mut self, outbox: Outbox) -> Option<u64> {
        self.all.retain(|_, client| !client.outbox.is_closed());
        if self.all.len() >= CLIENTS {
            return None;
        }
        let mut client = EventClient { outbox, lost: self.forgotten };
        self.history.iter().for_each(|line| client.push(line));
        self.next += 1;
        self.all.insert(self.next, client);
        Some(self.next)
    }
}

struct EventShared {
    clients: Mutex<Clients>,
    commands: Arc<MachineCommands>,
}

/// The event socket.
pub(super) struct EventServer {
    shared: Arc<EventShared>,
    _socket: LocalSocket,
}

impl EventServer {
    /// Accepts clients at `socket`.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub(super) fn start(socket: LocalSocket, commands: Arc<MachineCommands>) -> Result<Self> {
        let shared = Arc::new(EventShared { clients: Mutex::default(), commands });
        let theirs = Arc::clone(&shared);
        socket.serve(move |stream| theirs.take_in(stream))?;
        Ok(Self { shared, _socket: socket })
    }

    /// Passes an event to all clients.
    pub(super) fn broadcast(&self, event: &Value) {
        let line = piece(event);
        let mut clients = self.shared.lock();
        clients.remember(&line);
        clients.all.retain(|_, client| !client.outbox.is_closed());
        clients.all.values_mut().for_each(|client| client.push(&line));
    }

    /// Passes an answer to the client that asked, with that client's own id.
    pub(super) fn answer(&self, client: u64, id: Value, event: &Value) {
        self.shared.answer(client, id, event);
    }

    /// Sends all queued lines to the clients until `deadline`, and closes.
    pub(super) fn finish(&self, deadline: Instant) {
        let clients = std::mem::take(&mut self.shared.lock().all);
        clients.values().for_each(|client| client.outbox.finish(deadline));
    }
}

impl EventShared {
    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, client: u64, id: Value, event: &Value) {
        let mut event = event.clone();
        event["id"] = id;
        if let Some(client) = self.lock().all.get_mut(&client) {
            client.push(&piece(&event));
        }
    }

    /// Adds a client. Where that fails the connection is closed.
    fn take_in(self: &Arc<Self>, stream: UnixStream) {
        let Ok(reader) = stream.try_clone() else { return };
        let Ok(outbox) = Outbox::start(stream) else { return };
        let Some(client) = self.lock().add(outbox.clone()) else {
            return outbox.finish(Instant::now());
        };
        let shared = Arc::clone(self);
        let _ = std::thread::Builder::new()
            .name("client".into())
            .spawn(move || shared.listen(client, reader));
    }

    /// Carries out a client's commands until it stops sending; it may go on reading then.
    fn listen(&self, client: u64, stream: UnixStream) {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            let read = reader.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut line);
            if !matches!(read, Ok(1..)) {
                return;
            }
            if line.len() > LONGEST && line.last() != Some(&b'\n') {
                self.refuse(
                    client,
                    Value::Null,
                    &format!("line too long: at most {LONGEST} bytes"),
                );
                // The rest of this line belongs to the command that is too long.
                if !matches!(reader.skip_until(b'\n'), Ok(1..)) {
                    return;
                }
                continue;
            }
            self.command(client, &line);
        }
    }

    fn command(&self, client: u64, line: &[u8]) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let command = serde_json::from_slice::<Value>(line)
            .ok()
            .filter(|command| command["command"].is_string());
        let Some(command) = command else {
            let id = serde_json::from_slice::<Value>(line)
                .map_or(Value::Null, |line| line["id"].clone());
            let message = "not a command: {\"id\":N,\"command\":\"...\",\"partition\":\"...\"}";
            return self.refuse(client, id, message);
        };
        let id = command["id"].clone();
        if let Err(message) = self.commands.send(Asker::Client { client, id: id.clone() }, &command)
        {
            self.refuse(client, id, &message);
        }
    }

    fn refuse(&self, client: u64, id: Value, message: &str) {
        self.answer(client, id, &json!({"event": "reply", "ok": false, "error": message}));
    }
}

fn piece(event: &Value) -> OutboxPiece {
    format!("{event}\n").into_bytes().into()
}

#[cfg(test)]
mod tests;
