//! The event stream: one JSON object a line from the second serial port, and commands in the other
//! direction.
//!
//! Every wait has a limit and consumes the events that it skips, so a test states the order in
//! which it expects events. All events stay available in [`EventStream::all`].

use crate::serial::{LineError, SerialLine};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};

/// One event.
#[derive(Clone, PartialEq, Debug)]
pub struct Event(pub Value);

impl Event {
    /// Returns the member `event`, or an empty string where there is none.
    pub fn name(&self) -> &str {
        self.0["event"].as_str().unwrap_or("")
    }

    /// Returns a member that is a whole number.
    ///
    /// # Errors
    /// Names the event and the member.
    pub fn number(&self, member: &str) -> Result<u64> {
        self.0[member].as_u64().with_context(|| {
            format!("event “{}” has no number “{member}”: {}", self.name(), self.0)
        })
    }

    /// Returns a member that is text.
    ///
    /// # Errors
    /// Names the event and the member.
    pub fn text(&self, member: &str) -> Result<&str> {
        self.0[member]
            .as_str()
            .with_context(|| format!("event “{}” has no text “{member}”: {}", self.name(), self.0))
    }
}

/// The result of polling the stream.
#[derive(Clone, PartialEq, Debug)]
pub enum Polled {
    /// An event.
    Event(Event),
    /// Nothing yet.
    Nothing,
    /// The machine has stopped.
    Ended,
}

/// The stream of events of one machine.
pub struct EventStream {
    line: SerialLine,
    all: Vec<Event>,
    kept: usize,
    next_id: u64,
}

/// Bytes of the stream to keep for a caller that keeps only the last events.
const STREAM_KEPT: usize = 4 << 20;

impl EventStream {
    /// Reads events from `line`.
    pub fn new(line: SerialLine) -> Self {
        Self { line, all: Vec::new(), kept: usize::MAX, next_id: 1 }
    }

    /// Limits the memory from now on to at least the last `count` events: a machine may run for
    /// months.
    pub fn keep_last(&mut self, count: usize) {
        self.kept = count;
        self.line.keep_last(STREAM_KEPT);
    }

    fn keep(&mut self, event: &Event) {
        self.all.push(event.clone());
        if self.all.len() / 2 > self.kept {
            self.all.drain(..self.all.len() - self.kept);
        }
    }

    /// Returns a second handle for sending.
    ///
    /// # Errors
    /// Where the system refuses one.
    pub fn typist(&self) -> Result<std::net::TcpStream> {
        self.line.typist()
    }

    /// Returns all events read so far, or the kept part of them.
    pub fn all(&self) -> &[Event] {
        &self.all
    }

    /// Returns the next event, or `None` at the end of the stream.
    ///
    /// # Errors
    /// Where none comes before `deadline`.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<Event>> {
        match self.poll(deadline.saturating_duration_since(Instant::now())) {
            Polled::Event(event) => Ok(Some(event)),
            Polled::Ended => Ok(None),
            Polled::Nothing => bail!("no event in time; the last was {}", self.last()),
        }
    }

    /// Returns the next event that arrives within `limit`, or why there is none.
    pub fn poll(&mut self, limit: Duration) -> Polled {
        let deadline = Instant::now() + limit;
        loop {
            match self.line.next_line(deadline).map(|line| parse(&line)) {
                Ok(Some(event)) => {
                    self.keep(&event);
                    return Polled::Event(event);
                }
                Ok(None) => {}
                Err(LineError::TimeOut) => return Polled::Nothing,
                Err(LineError::Ended) => return Polled::Ended,
            }
        }
    }

    /// Sends a command without waiting for its answer; returns its id.
    ///
    /// # Errors
    /// Where the machine is gone.
    pub fn send(&mut self, mut command: Value) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        command["id"] = id.into();
        self.line.send(format!("{command}\n").as_bytes())?;
        Ok(id)
    }

    /// Waits for an event that `wanted` accepts; earlier events are skipped.
    ///
    /// # Errors
    /// Where no such event comes within `limit`, or the machine stops first. `what` names the event
    /// in the error.
    pub fn wait_for(
        &mut self,
        limit: Duration,
        what: &str,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Event> {
        let deadline = Instant::now() + limit;
        loop {
            match self
                .next(deadline)
                .with_context(|| format!("waiting {} s for {what}", limit.as_secs()))?
            {
                Some(event) if wanted(&event) => return Ok(event),
                Some(_) => {}
                None => {
                    bail!("the machine stopped before {what}; its last event was {}", self.last())
                }
            }
        }
    }

    /// Waits for an event by name.
    ///
    /// # Errors
    /// As [`EventStream::wait_for`].
    pub fn wait_named(&mut self, limit: Duration, name: &str) -> Result<Event> {
        self.wait_for(limit, &format!("event “{name}”"), |e| e.name() == name)
    }

    /// Reads to the end of a stopped machine's stream; returns the last event of this name.
    ///
    /// # Errors
    /// Where the stream does not end within `limit`.
    pub fn last_named(&mut self, name: &str, limit: Duration) -> Result<Option<Event>> {
        let deadline = Instant::now() + limit;
        while self.next(deadline)?.is_some() {}
        Ok(self.newest(name).cloned())
    }

    /// Returns the newest event of this name among those that have come and are kept.
    pub fn newest(&self, name: &str) -> Option<&Event> {
        self.all.iter().rev().find(|event| event.name() == name)
    }

    /// Sends a command and waits for the answer with its `id`.
    ///
    /// # Errors
    /// Where no answer comes within `limit`.
    pub fn command(&mut self, limit: Duration, command: Value) -> Result<Event> {
        let what = format!("the answer to {command}");
        let id = self.send(command)?;
        self.wait_for(limit, &what, |event| {
            event.name() == "reply" && event.0["id"].as_u64() == Some(id)
        })
    }

    fn last(&self) -> String {
        self.all.last().map_or_else(|| "none".to_owned(), |e| e.0.to_string())
    }
}

/// Returns the event in a line. Firmware writes to the same line before the hypervisor does, so
/// lines without a JSON object are skipped.
fn parse(line: &str) -> Option<Event> {
    let start = line.find('{')?;
    serde_json::from_str::<Value>(&line[start..]).ok().filter(Value::is_object).map(Event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_passed_over_and_an_object_is_an_event() {
        assert_eq!(parse("SeaBIOS"), None);
        assert_eq!(parse("{\"event\":"), None);
        assert_eq!(
            parse("\u{1b}c{\"event\":\"start\",\"cpus\":2}").unwrap().number("cpus").unwrap(),
            2
        );
    }
}
