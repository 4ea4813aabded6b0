//! Requests a running machine's counters at intervals.

use crate::events::{Event, EventStream};
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};

/// A request without an answer for this long counts as lost, and the next one is due.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time of the next request.
///
/// The event line is slow. A request sent before the last one is answered would only queue, until
/// the hypervisor's event buffer overflows and events are lost.
#[derive(Debug)]
pub struct CounterPoll {
    /// Whether a partition has started. Before that the firmware owns the line, and a request would
    /// be lost.
    started: bool,
    last: Instant,
    unanswered: Option<u64>,
}

impl CounterPoll {
    /// Begins without a request; the first one is due once a partition has started.
    pub fn new() -> Self {
        Self { started: false, last: Instant::now(), unanswered: None }
    }

    /// Takes an event, which may be the start of a partition or the answer.
    pub fn event(&mut self, event: &Event) {
        self.started |= event.name() == "start";
        if event.name() == "reply" && event.0["id"].as_u64() == self.unanswered {
            self.unanswered = None;
        }
    }

    /// Sends a request if the last one is at least `period` old and was answered.
    ///
    /// # Errors
    /// Where the machine is gone.
    pub fn ask(&mut self, events: &mut EventStream, period: Duration) -> Result<()> {
        let since = self.last.elapsed();
        if self.started && since >= period && (self.unanswered.is_none() || since >= PATIENCE) {
            self.unanswered = Some(events.send(json!({"command": "stats"}))?);
            self.last = Instant::now();
        }
        Ok(())
    }
}

impl Default for CounterPoll {
    fn default() -> Self {
        Self::new()
    }
}
