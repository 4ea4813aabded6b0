//! Commands of several clients on the machine's single command line. Each gets an id of ours, by
//! which its answers are routed back.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Longest line that the hypervisor accepts (`kernel/src/console/input.rs`).
const LONGEST: usize = 2048;
/// Maximum number of commands that wait until the hypervisor listens.
const EARLY: usize = 64;

/// The destination of an answer.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Asker {
    /// A client of the event socket, with the id that it gave.
    Client {
        /// Its number.
        client: u64,
        /// Its own id, any JSON value.
        id: Value,
    },
    /// The console socket of a partition.
    Console(String),
}

#[derive(Default)]
struct Pending {
    next_id: u64,
    askers: BTreeMap<u64, Asker>,
    /// Lines from before the hypervisor listens; `None` once it does.
    early: Option<Vec<String>>,
}

/// The machine's line for commands.
pub(super) struct MachineCommands {
    line: Mutex<TcpStream>,
    pending: Mutex<Pending>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MachineCommands {
    /// Creates the line; commands are sent on `line` only after [`Self::listens`] was called.
    pub(super) fn new(line: TcpStream) -> Self {
        let pending = Pending { next_id: 1, early: Some(Vec::new()), ..Pending::default() };
        Self { line: Mutex::new(line), pending: Mutex::new(pending) }
    }

    /// Notes that the hypervisor listens, and sends the waiting commands.
    pub(super) fn listens(&self) {
        // Lock the line first: a command that arrives now is sent after those that waited.
        let mut line = lock(&self.line);
        let early = lock(&self.pending).early.take().unwrap_or_default();
        let _ = line.write_all(early.concat().as_bytes());
    }

    /// Sends a command.
    ///
    /// # Errors
    /// The fault in the command as text, for the reply.
    pub(super) fn send(&self, asker: Asker, command: &Value) -> Result<(), String> {
        let (id, text) = self.register(asker, command)?;
        let Some(text) = text else { return Ok(()) };
        let sent = lock(&self.line).write_all(text.as_bytes());
        sent.map_err(|_| {
            lock(&self.pending).askers.remove(&id);
            "the machine has ended".to_owned()
        })
    }

    /// Registers the asker; returns the line to send, or `None` if it has to wait.
    fn register(&self, asker: Asker, command: &Value) -> Result<(u64, Option<String>), String> {
        let mut pending = lock(&self.pending);
        let id = pending.next_id;
        let mut command = command.clone();
        command["id"] = json!(id);
        let text = format!("{command}\n");
        if text.len() > LONGEST {
            return Err(format!("{} bytes, but a command has at most {LONGEST}", text.len()));
        }
        pending.next_id += 1;
        let text = match &mut pending.early {
            Some(early) if early.len() >= EARLY => {
                return Err("the hypervisor does not listen yet".to_owned());
            }
            Some(early) => {
                early.push(text);
                None
            }
            None => Some(text),
        };
        pending.askers.insert(id, asker);
        Ok((id, text))
    }

    /// Returns the asker of the command that an event with `id` answers. A reply is the last of its
    /// answers.
    pub(super) fn asker(&self, id: u64, is_last: bool) -> Option<Asker> {
        let askers = &mut lock(&self.pending).askers;
        if is_last { askers.remove(&id) } else { askers.get(&id).cloned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::{Ipv4Addr, TcpListener};

    fn pair() -> (MachineCommands, BufReader<TcpStream>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (MachineCommands::new(ours), BufReader::new(listener.accept().unwrap().0))
    }

    fn asker(client: u64, id: Value) -> Asker {
        Asker::Client { client, id }
    }

    fn line(machine: &mut BufReader<TcpStream>) -> Value {
        let mut text = String::new();
        machine.read_line(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_same_id_of_two_clients_is_two_ids_of_the_machine() {
        let (commands, mut machine) = pair();
        commands.listens();
        commands.send(asker(1, json!(7)), &json!({"id": 7, "command": "stats"})).unwrap();
        commands.send(asker(2, json!("seven")), &json!({"id": 7, "command": "list"})).unwrap();
        let ids = [line(&mut machine), line(&mut machine)].map(|line| line["id"].as_u64().unwrap());
        assert_ne!(ids[0], ids[1]);
        assert_eq!(commands.asker(ids[1], true), Some(asker(2, json!("seven"))));
        assert_eq!(commands.asker(ids[0], false), Some(asker(1, json!(7))));
        assert_eq!(commands.asker(ids[0], true), Some(asker(1, json!(7))));
        assert_eq!(commands.asker(ids[0], true), None);
    }

    #[test]
    fn a_command_from_before_the_start_waits_and_keeps_its_place() {
        let (commands, mut machine) = pair();
        commands.send(asker(1, json!(1)), &json!({"command": "stats"})).unwrap();
        commands.listens();
        commands.send(asker(1, json!(2)), &json!({"command": "list"})).unwrap();
        assert_eq!(
            [line(&mut machine), line(&mut machine)].map(|line| line["command"].clone()),
            ["stats", "list"]
        );
    }

    #[test]
    fn a_command_that_the_hypervisor_could_not_take_is_refused_here() {
        let (commands, _machine) = pair();
        let long = json!({"command": "crash", "partition": "x".repeat(LONGEST)});
        assert!(commands.send(asker(1, json!(1)), &long).unwrap_err().contains("at most 2048"));
        for _ in 0..EARLY {
            commands.send(asker(1, json!(1)), &json!({"command": "list"})).unwrap();
        }
        assert!(
            commands
                .send(asker(1, json!(1)), &json!({"command": "list"}))
                .unwrap_err()
                .contains("not listen yet")
        );
    }
}
