//! When each step of a trace happened, by the clock of the disk's server: a node has one step at a
//! time, so its requests lie in the server's log in the order of its steps.

use super::words::{AskedStep, TraceWord};
use crate::nbd::{RequestKind, RequestLogEntry};
use anyhow::{Context, Result};
use cluster::layout::Extent;
use std::ops::Range;
use std::time::Duration;

/// Times of a step.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StepTimes {
    /// When it was asked for, by the node's clock.
    pub asked: u64,
    /// When its first request reached the server.
    pub arrived: Duration,
    /// When the server had answered its last read or write.
    pub ended: Duration,
}

/// A node's trace, with times.
#[derive(Clone, Debug)]
pub struct TimedTrace {
    /// The node.
    pub node: &'static str,
    /// What its state machine was told, and answered.
    pub words: Vec<TraceWord>,
    /// A word's times are those of the step that it belongs to, or that follows; `None` behind the
    /// last step.
    times: Vec<Option<StepTimes>>,
}

impl TimedTrace {
    /// Finds the times of a trace in a server's log. `area` is the place of the area on the disk.
    ///
    /// # Errors
    /// Names the first step whose requests the server has not seen.
    pub fn new(
        node: &'static str,
        words: Vec<TraceWord>,
        log: &[RequestLogEntry],
        area: &Range<u64>,
    ) -> Result<Self> {
        let is_own = |entry: &&RequestLogEntry| {
            entry.node == node && entry.answered.is_some() && area.contains(&entry.bytes.start)
        };
        let mut requests = log.iter().filter(is_own);
        let (mut times, mut asked) = (vec![None; words.len()], None);
        let mut first = 0;
        for (at, word) in words.iter().enumerate() {
            match (word, asked) {
                (TraceWord::Ask(step), _) => asked = Some(*step),
                (TraceWord::GaveUp, _) => asked = None,
                (TraceWord::Done { .. }, Some(step)) => {
                    let found = found(&step, &mut requests, area.start);
                    let found = found.with_context(|| {
                        format!("{node}, word {at}: the server has not seen {step:?}")
                    })?;
                    // The word after it says what was noted.
                    let end = (at + 2).min(words.len());
                    times[first..end].fill(Some(found));
                    (first, asked) = (end, None);
                }
                _ => {}
            }
        }
        Ok(Self { node, words, times })
    }

    /// Returns the time of a word; `None` behind the last one.
    pub(super) fn next(&self, at: usize) -> Option<Duration> {
        let times = self.times.get(at)?;
        Some(times.map_or(Duration::MAX, |times| times.ended))
    }

    /// Returns the times of a word's step.
    pub(super) fn times(&self, at: usize) -> StepTimes {
        let last = || self.times.iter().flatten().last().copied().unwrap_or_default();
        self.times.get(at).copied().flatten().unwrap_or_else(last)
    }
}

fn found<'l>(
    step: &AskedStep,
    requests: &mut impl Iterator<Item = &'l RequestLogEntry>,
    start: u64,
) -> Option<StepTimes> {
    let mut one = |kind, part: Extent| {
        let bytes = start + part.at..start + part.at + part.len as u64;
        requests.find(|entry| entry.kind == kind && entry.bytes == bytes)
    };
    let write = step.write.map(|part| one(RequestKind::Write, part));
    let read = step.read.map(|part| one(RequestKind::Read, part));
    let (first, last) = (write.or(read)??, read.or(write)??);
    Some(StepTimes { asked: step.now, arrived: first.arrived, ended: last.answered? })
}
