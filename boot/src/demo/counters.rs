//! Asks a running machine for its counters now and then.

use crate::events::{Event, Events};
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};

/// An answer that has not come after that long was lost, and the next request is due.
const PATIENCE: Duration = Duration::from_secs(60);

/// When to ask next.
///
/// The events' line is slow: a request before the last one is answered would only queue, until the hypervisor has no room left for
/// events and drops some.
#[derive(Debug)]
pub struct Counters {
    /// Whether a partition has started: before that the line is the firmware's, and a request is lost.
    started: bool,
    last: Instant,
    unanswered: Option<u64>,
}

impl Counters {
    /// The first time to ask is when a partition has started.
    pub fn new() -> Self {
        Self { started: false, last: Instant::now(), unanswered: None }
    }

    /// Looks whether an event is the answer.
    pub fn event(&mut self, event: &Event) {
        self.started |= event.name() == "start";
        if event.name() == "reply" && event.0["id"].as_u64() == self.unanswered {
            self.unanswered = None;
        }
    }

    /// Asks, if the last time was a `period` ago and has been answered.
    ///
    /// # Errors
    /// Where the machine is gone.
    pub fn ask(&mut self, events: &mut Events, period: Duration) -> Result<()> {
        let since = self.last.elapsed();
        if self.started && since >= period && (self.unanswered.is_none() || since >= PATIENCE) {
            self.unanswered = Some(events.send(json!({"command": "stats"}))?);
            self.last = Instant::now();
        }
        Ok(())
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
