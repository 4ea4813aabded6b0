//! The sockets by which programs reach a node that `tidepool boot` runs: for events and commands,
//! and for consoles.

mod commands;
mod console;
mod events;
mod local;
mod outbox;

use anyhow::{Result, bail};
use commands::{Asker, MachineCommands};
use console::ConsoleServer;
use events::EventServer;
use local::LocalSocket;
use serde_json::Value;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time limit for the clients to read the last lines.
const PATIENCE: Duration = Duration::from_secs(2);

/// Listening sockets of a machine that has not started yet.
pub struct Sockets {
    events: Option<LocalSocket>,
    consoles: Vec<(String, LocalSocket)>,
}

impl Sockets {
    /// Creates all sockets. Call it before the machine starts, so that a bad path fails early.
    ///
    /// # Errors
    /// Names the path, or the partition that is named twice.
    pub fn bind(events: Option<&Path>, consoles: &[(String, PathBuf)]) -> Result<Self> {
        for (place, (name, path)) in consoles.iter().enumerate() {
            let earlier = &consoles[..place];
            if earlier.iter().any(|(other, _)| other == name) {
                bail!("--console {name}: has a path already");
            }
            if Some(path.as_path()) == events || earlier.iter().any(|(_, other)| other == path) {
                bail!("--console {name}: {} is another socket's path already", path.display());
            }
        }
        let events = events.map(LocalSocket::bind).transpose()?;
        let consoles =
            consoles.iter().map(|(name, path)| Ok((name.clone(), LocalSocket::bind(path)?)));
        Ok(Self { events, consoles: consoles.collect::<Result<_>>()? })
    }

    /// Accepts clients on all sockets; `line` takes commands for the machine.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn start(self, line: TcpStream) -> Result<SocketHub> {
        let commands = Arc::new(MachineCommands::new(line));
        let start = |(name, socket)| ConsoleServer::start(name, socket, Arc::clone(&commands));
        let consoles = self.consoles.into_iter().map(start).collect::<Result<_>>()?;
        let events = self
            .events
            .map(|socket| EventServer::start(socket, Arc::clone(&commands)))
            .transpose()?;
        Ok(SocketHub { commands, events, consoles })
    }
}

/// All sockets of a running machine.
pub struct SocketHub {
    commands: Arc<MachineCommands>,
    events: Option<EventServer>,
    consoles: Vec<ConsoleServer>,
}

impl SocketHub {
    /// Passes an event on: output to its console, an answer to the client that asked, everything
    /// else to all clients.
    pub fn event(&self, event: &Value) {
        if event["event"] == "boot" {
            self.commands.listens();
        }
        if event["event"] == "output" {
            return self
                .console(event["partition"].as_str().unwrap_or(""))
                .into_iter()
                .for_each(|console| console.output(event));
        }
        let Some(id) = event["id"].as_u64() else {
            return self.events.iter().for_each(|events| events.broadcast(event));
        };
        match self.commands.asker(id, event["event"] == "reply") {
            Some(Asker::Client { client, id }) => {
                self.events.iter().for_each(|events| events.answer(client, id.clone(), event))
            }
            Some(Asker::Console(name)) => {
                self.console(&name).into_iter().for_each(|console| console.answer(event))
            }
            None => {}
        }
    }

    /// Sends all queued lines to the clients within `PATIENCE`, and closes.
    pub fn finish(&self) {
        let deadline = Instant::now() + PATIENCE;
        self.events.iter().for_each(|events| events.finish(deadline));
        self.consoles.iter().for_each(|console| console.finish(deadline));
    }

    fn console(&self, partition: &str) -> Option<&ConsoleServer> {
        self.consoles.iter().find(|console| console.partition() == partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sockets_never_share_a_path_nor_a_partition() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let refused = |events: Option<&Path>, consoles: &[(&str, &Path)]| {
            let consoles: Vec<_> = consoles
                .iter()
                .map(|(name, path)| ((*name).to_owned(), path.to_path_buf()))
                .collect();
            format!("{:#}", Sockets::bind(events, &consoles).err().expect("it is refused"))
        };
        assert!(refused(Some(&path), &[("a", &path)]).contains("another socket's path"));
        assert!(refused(None, &[("a", &path), ("b", &path)]).contains("--console b"));
        assert!(
            refused(None, &[("a", &path), ("a", Path::new("other"))])
                .contains("has a path already")
        );
        assert!(!path.exists());
    }
}
