//! The log of arrived requests and their outcomes.

use super::protocol::{NbdError, NbdRequest, RequestKind};
use super::rule::Action;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The part of a write that is kept in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recording {
    /// Its range, without the bytes.
    Places,
    /// All bytes, so that the image of any moment can be reconstructed.
    Bytes,
    /// The bytes of writes that begin here.
    Within {
        /// The first byte.
        start: u64,
        /// The byte behind the last one.
        end: u64,
    },
}

/// A request in the log. Times count from the server's start.
#[derive(Clone, Debug)]
pub struct RequestLogEntry {
    /// The node's name.
    pub node: &'static str,
    /// The kind of the request.
    pub kind: RequestKind,
    /// Bytes of the disk.
    pub bytes: Range<u64>,
    /// Time at which the server had received it completely.
    pub arrived: Duration,
    /// Time at which it was carried out and answered.
    pub answered: Option<Duration>,
    /// The action of a rule, if one applied.
    pub action: Option<Action>,
    /// Its error, if it failed.
    pub failure: Option<NbdError>,
    /// The bytes to write, with [`Recording::Bytes`].
    pub data: Option<Arc<[u8]>>,
}

impl RequestLogEntry {
    /// Returns whether the request has changed the image, or will.
    pub fn writes(&self) -> bool {
        matches!(self.kind, RequestKind::Write | RequestKind::WriteZeroes | RequestKind::Trim)
            && self.failure.is_none()
    }
}

#[derive(Debug)]
pub(super) struct RequestLog {
    recording: Recording,
    start: Instant,
    started: SystemTime,
    entries: Vec<RequestLogEntry>,
}

impl RequestLog {
    pub(super) fn new(recording: Recording) -> Self {
        Self { recording, start: Instant::now(), started: SystemTime::now(), entries: Vec::new() }
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns the time at which the clock was zero.
    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    pub(super) fn entries(&self) -> &[RequestLogEntry] {
        &self.entries
    }

    /// Logs a request; returns its index.
    pub(super) fn arrive(
        &mut self,
        node: &'static str,
        request: &NbdRequest,
        action: Option<Action>,
    ) -> usize {
        let is_kept = match self.recording {
            Recording::Places => false,
            Recording::Bytes => true,
            Recording::Within { start, end } => (start..end).contains(&request.bytes.start),
        };
        let keep = is_kept && request.kind == RequestKind::Write;
        self.entries.push(RequestLogEntry {
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

    /// Logs the answer to a request.
    pub(super) fn answer(&mut self, index: usize, failure: Option<NbdError>) {
        let now = self.now();
        let entry = &mut self.entries[index];
        entry.answered = Some(now);
        entry.failure = failure;
    }
}
