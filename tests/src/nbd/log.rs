//! What arrived, and what became of it.

use super::protocol::{Failure, Kind, Request};
use super::rule::Action;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How much of a write is kept in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recording {
    /// Where it was, and no bytes.
    Places,
    /// All bytes, so that the image of any moment can be made anew.
    Bytes,
}

/// A request in the log. Times count from the server's start.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The node's name.
    pub node: &'static str,
    /// What it asked for.
    pub kind: Kind,
    /// Bytes of the disk.
    pub bytes: Range<u64>,
    /// When the server had it whole.
    pub arrived: Duration,
    /// When it was done and answered.
    pub answered: Option<Duration>,
    /// What a rule did to it.
    pub action: Option<Action>,
    /// How it failed.
    pub failure: Option<Failure>,
    /// What it was to write, with [`Recording::Bytes`].
    pub data: Option<Arc<[u8]>>,
}

impl Entry {
    /// Returns whether the image has changed, or will.
    pub fn writes(&self) -> bool {
        matches!(self.kind, Kind::Write | Kind::WriteZeroes | Kind::Trim) && self.failure.is_none()
    }
}

#[derive(Debug)]
pub(super) struct Log {
    recording: Recording,
    start: Instant,
    started: SystemTime,
    entries: Vec<Entry>,
}

impl Log {
    pub(super) fn new(recording: Recording) -> Self {
        Self { recording, start: Instant::now(), started: SystemTime::now(), entries: Vec::new() }
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns when the clock was zero.
    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Notes a request; returns its place.
    pub(super) fn arrive(&mut self, node: &'static str, request: &Request, action: Option<Action>) -> usize {
        let keep = self.recording == Recording::Bytes && request.kind == Kind::Write;
        self.entries.push(Entry {
            node,
            kind: request.kind,
            bytes: request.bytes.clone(),
            arrived: self.now(),
            answered: None,
            action,
            failure: None,
            data: keep.then(|| request.data.as_slice().into()),
        });
        self.entries.len() - 1
    }

    /// Notes that a request is answered.
    pub(super) fn answer(&mut self, index: usize, failure: Option<Failure>) {
        let now = self.now();
        let entry = &mut self.entries[index];
        entry.answered = Some(now);
        entry.failure = failure;
    }
}
