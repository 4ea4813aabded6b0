//! What happened so far, told by events and by the partition's console.

use super::PARTITION;
use crate::events::Event;
use serde_json::Value;
use std::collections::BTreeMap;

/// What the worker of one incarnation has said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Worker {
    /// Passes that ended.
    pub passes: u64,
    /// Pages of a pass.
    pub pages: u64,
    /// Pages verified, all passes together.
    pub verified: u64,
    /// Pages found wrong.
    pub wrong: u64,
}

/// The story of one partition.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Story {
    /// What each incarnation's worker has said.
    pub workers: BTreeMap<u64, Worker>,
    /// The event of the crash.
    pub crash: Option<Event>,
    /// The event of the restart behind it.
    pub restart: Option<Event>,
    /// Whether the dump was complete before the restart.
    pub complete_before_restart: bool,
    /// The event of the complete dump.
    pub complete: Option<Event>,
    /// The last counters of each incarnation.
    pub stats: BTreeMap<u64, Value>,
    /// Speed of the raw disk in bytes a second, where it was measured.
    pub raw_speed: Option<u64>,
    /// What ends the story early.
    pub failure: Option<String>,
    incarnation: u64,
}

impl Story {
    /// Takes an event in; returns what to tell people.
    pub fn event(&mut self, event: &Event) -> Option<String> {
        if event.0.get("partition").is_some_and(|name| name != PARTITION) {
            return None;
        }
        let number = |member: &str| event.0[member].as_u64().unwrap_or(0);
        let text = |member: &str| event.0[member].as_str().unwrap_or("").to_owned();
        match event.name() {
            "boot" => Some(format!("the hypervisor runs: {}, {} CPUs", text("backend"), number("cpus"))),
            "start" => Some(format!("incarnation {} starts", number("incarnation"))),
            "waiting" => Some(format!("waiting: {}", text("what"))),
            "bench" if text("id").starts_with("raw-disk") => {
                // The first disk is the one that the dump goes to.
                self.raw_speed.get_or_insert(number("average"));
                Some(format!("{} writes {} MB/s", text("id"), number("average") / 1_000_000))
            }
            "crash" => {
                self.crash = Some(event.clone());
                Some(format!("crashed ({}): {} pages resident, {} paged", text("reason"), number("resident"), number("paged")))
            }
            "restart" => {
                self.restart = Some(event.clone());
                self.complete_before_restart = self.complete.is_some();
                Some(format!("restarting, with {} pages still to drain", number("drain_remaining")))
            }
            "dump_complete" => {
                self.complete = Some(event.clone());
                Some(format!("the dump is complete: {} bytes written", number("bytes_written")))
            }
            "stats" => {
                self.stats.insert(number("incarnation"), event.0.clone());
                None
            }
            "dump_failed" => self.fail(format!("the dump failed: {}", text("message"))),
            "error" => self.fail(format!("{}: {}", text("place"), text("message"))),
            "panic" => self.fail(format!("the hypervisor panicked: {}", text("message"))),
            "end" if number("status") != 0 => self.fail("the hypervisor ended with an error".to_owned()),
            _ => None,
        }
    }

    fn fail(&mut self, what: String) -> Option<String> {
        self.failure.get_or_insert(what.clone());
        Some(what)
    }

    /// Takes a line of the partition's console in; returns what to tell people.
    pub fn line(&mut self, line: &str) -> Option<String> {
        if let Some(text) = behind(line, "init: Linux ") {
            self.incarnation = text.rsplit(' ').next()?.parse().ok()?;
            return Some(format!("Linux {text}"));
        }
        let text = behind(line, "worker: ")?;
        let words: Vec<_> = text.split(' ').collect();
        if let ["pass", pass, "pages", pages, "wrong", wrong] = words.as_slice() {
            let worker = self.workers.entry(self.incarnation).or_default();
            worker.passes = pass.parse().ok()?;
            worker.pages = pages.parse().ok()?;
            worker.verified += worker.pages;
            worker.wrong += wrong.parse::<u64>().ok()?;
        }
        Some(format!("worker: {text}"))
    }

    /// Returns whether everything has happened that the demonstration waits for.
    pub fn is_over(&self) -> bool {
        let works_again = self.workers.iter().any(|(&incarnation, worker)| incarnation > 1 && worker.passes >= 2);
        self.failure.is_some() || (self.complete.is_some() && self.restart.is_some() && works_again)
    }

    /// Returns the largest value of a counter over the incarnations.
    pub fn counter(&self, name: &str) -> u64 {
        self.stats.values().filter_map(|stats| stats[name].as_u64()).max().unwrap_or(0)
    }
}

/// Consoles of partitions may have something in front of the line.
fn behind<'a>(line: &'a str, what: &str) -> Option<&'a str> {
    line.find(what).map(|at| line[at + what.len()..].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn passes_count_for_the_incarnation_that_made_them() {
        let mut story = Story::default();
        story.line("[debian] init: Linux 6.1.0 is up, incarnation 1");
        story.line("worker: pass 1 pages 100 wrong 0");
        story.line("worker: pass 2 pages 100 wrong 3");
        story.line("init: Linux 6.1.0 is up, incarnation 2");
        story.line("worker: pass 1 pages 90 wrong 0\r");
        assert_eq!(story.workers[&1], Worker { passes: 2, pages: 100, verified: 200, wrong: 3 });
        assert_eq!(story.workers[&2], Worker { passes: 1, pages: 90, verified: 90, wrong: 0 });
    }

    #[test]
    fn the_story_is_over_when_the_dump_is_complete_and_the_successor_works() {
        let mut story = Story::default();
        for event in [json!({"event": "crash"}), json!({"event": "restart"}), json!({"event": "dump_complete"})] {
            story.event(&Event(event));
        }
        assert!(!story.is_over() && !story.complete_before_restart);
        story.line("init: Linux 6.1.0 is up, incarnation 2");
        story.line("worker: pass 1 pages 90 wrong 0");
        assert!(!story.is_over());
        story.line("worker: pass 2 pages 90 wrong 0");
        assert!(story.is_over());
    }

    #[test]
    fn a_panic_ends_it() {
        let mut story = Story::default();
        story.event(&Event(json!({"event": "panic", "message": "why"})));
        assert_eq!(story.failure.as_deref(), Some("the hypervisor panicked: why"));
        assert!(story.is_over());
    }
}
