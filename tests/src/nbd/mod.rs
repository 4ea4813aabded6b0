//! A disk that several emulators share: an NBD server on one image, with a port for each node,
//! rules that inject faults, and a log of every request.
//!
//! ```text
//!   node a ── port a ─┐                  ┌─ do it ────────────> image, answer
//!                     ├─ request ─ rules ┼─ hold, then do it ──> image, answer (late)
//!   node b ── port b ─┘        │         ├─ fail ─────────────> answer with an error
//!                              v         └─ keep ─────────────> nothing, until released
//!                             log
//! ```
//!
//! * Requests of a connection are carried out in the order of their arrival, except for those that
//!   a rule holds or keeps. These delay no other request, so a held write lands after later ones,
//!   as on a slow path to a disk.
//! * A write that fails or is kept has not touched the image.
//! * A flush does not cover writes that are held or kept.

mod image;
mod log;
mod protocol;
mod rule;
#[cfg(test)]
mod tests;

pub use log::{Recording, RequestLogEntry};
pub use protocol::{NbdError, RequestKind};
pub use rule::{Action, Rule};

use anyhow::{Context, Result};
use image::NbdImage;
use log::RequestLog;
use protocol::{NbdRequest, shake_hands};
use rule::Rules;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// The disk and its ports, which live as long as the process.
#[derive(Clone, Debug)]
pub struct NbdDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    image: NbdImage,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: Rules,
    log: RequestLog,
    kept: Vec<Kept>,
}

/// A request that a rule kept, and the connection for its answer.
#[derive(Debug)]
struct Kept {
    index: usize,
    request: NbdRequest,
    client: Client,
}

impl NbdDisk {
    /// Serves the image at `path`; the file's size is the disk's size.
    ///
    /// # Errors
    /// Where the image cannot be opened.
    pub fn new(path: &Path, recording: Recording) -> Result<Self> {
        let image = NbdImage::open(path)?;
        let state =
            State { rules: Rules::default(), log: RequestLog::new(recording), kept: Vec::new() };
        Ok(Self { shared: Arc::new(Shared { image, state: Mutex::new(state) }) })
    }

    /// Opens a port for `node`; returns an image name for QEMU.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn serve(&self, node: &'static str) -> Result<PathBuf> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for an NBD server")?;
        let port = listener.local_addr()?.port();
        let disk = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let disk = disk.clone();
                // A client that disconnects ends only its own thread.
                std::thread::spawn(move || drop(disk.talk(node, stream)));
            }
        });
        Ok(format!("nbd:127.0.0.1:{port}").into())
    }

    /// Adds a rule for requests that arrive from now on. The first matching rule decides.
    pub fn rule(&self, rule: Rule) {
        self.state().rules.add(rule);
    }

    /// Removes all rules, and carries out the kept requests in the order of their arrival.
    pub fn let_go(&self) {
        let kept = {
            let mut state = self.state();
            state.rules = Rules::default();
            std::mem::take(&mut state.kept)
        };
        for Kept { index, request, client } in kept {
            self.carry_out(index, &request, &client);
        }
    }

    /// Returns all requests so far, in the order of their arrival.
    pub fn log(&self) -> Vec<RequestLogEntry> {
        self.state().log.entries().to_vec()
    }

    /// Returns the first request to which a rule applied.
    pub fn first_met(&self) -> Option<RequestLogEntry> {
        self.state().log.entries().iter().find(|entry| entry.action.is_some()).cloned()
    }

    /// Returns the disk's size in bytes.
    pub fn size(&self) -> u64 {
        self.shared.image.len()
    }

    /// Returns the time since the server's start, which is the log's clock.
    pub fn now(&self) -> Duration {
        self.state().log.now()
    }

    /// Returns the time of the server's start, zero of the log's clock.
    pub fn started(&self) -> SystemTime {
        self.state().log.started()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn talk(&self, node: &'static str, mut stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        if !shake_hands(&mut stream, self.shared.image.len())? {
            return Ok(());
        }
        let client = Client(Arc::new(Mutex::new(stream.try_clone()?)));
        while let Some(request) = NbdRequest::read(&mut stream)? {
            self.take(node, request, &client);
        }
        Ok(())
    }

    fn take(&self, node: &'static str, request: NbdRequest, client: &Client) {
        let mut state = self.state();
        let action = state.rules.decide(node, &request);
        let index = state.log.arrive(node, &request, action);
        match action {
            None => {}
            Some(Action::Keep) => {
                state.kept.push(Kept { index, request, client: client.clone() });
                return;
            }
            Some(Action::Fail(failure)) => {
                state.log.answer(index, Some(failure));
                drop(state);
                return client.answer(&request, Err(failure));
            }
            Some(Action::Hold(time)) => {
                let (disk, client) = (self.clone(), client.clone());
                std::thread::spawn(move || {
                    std::thread::sleep(time);
                    disk.carry_out(index, &request, &client);
                });
                return;
            }
        }
        drop(state);
        self.carry_out(index, &request, client);
    }

    fn carry_out(&self, index: usize, request: &NbdRequest, client: &Client) {
        let outcome = self.shared.image.carry_out(request);
        self.state().log.answer(index, outcome.as_ref().err().copied());
        client.answer(request, outcome);
    }
}

/// The way for a connection's answers, one at a time.
#[derive(Clone, Debug)]
struct Client(Arc<Mutex<TcpStream>>);

impl Client {
    /// Sends an answer. Where the client has disconnected, the answer is dropped.
    fn answer(&self, request: &NbdRequest, outcome: Result<Vec<u8>, NbdError>) {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(request.answer(&mut *stream, outcome));
    }
}
