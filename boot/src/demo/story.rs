//! The story so far, from the events and the partitions' consoles.
//!
//! Times are seconds since the machine's start, by the clock that [`DemoScale`] selects.

use super::DemoScale;
use super::picture::PoolSeries;
use super::scale::PaceClock;
use super::worker::WorkerProgress;
use crate::events::Event;
use serde_json::Value;
use std::collections::BTreeMap;

/// Seconds that a neighbour may be silent around the drain; otherwise it prints several times a
/// second.
pub(super) const RECOVERY_S: f64 = 10.0;

/// An event with its time.
pub type TimedEvent = (f64, Event);

/// The story of all partitions.
#[derive(Clone, PartialEq, Debug)]
pub struct DemoStory {
    scale: DemoScale,
    /// The worker of each partition.
    pub workers: BTreeMap<String, WorkerProgress>,
    /// The crash of the first partition.
    pub crash: Option<TimedEvent>,
    /// The restart after the crash.
    pub restart: Option<TimedEvent>,
    /// The complete dump.
    pub complete: Option<TimedEvent>,
    /// Whether the dump was complete before the restart.
    pub complete_before_restart: bool,
    /// The last counters of each incarnation of each partition.
    pub stats: BTreeMap<(String, u64), Value>,
    /// The pool over time.
    pub series: PoolSeries,
    /// Speed of each raw disk in bytes a second, where it was measured.
    pub raw_speed: BTreeMap<u64, u64>,
    /// The failure that ends the story early, if any.
    pub failure: Option<String>,
    /// Time of the last event by the machine's own clock, and the latest moment by the selected
    /// clock, in seconds.
    machine_s: f64,
    now: f64,
    /// Pages that each worker had verified when the dump was complete.
    verified_then: BTreeMap<String, u64>,
}

impl DemoStory {
    /// Begins a story without events.
    pub fn new(scale: DemoScale) -> Self {
        let workers = (0..scale.partitions)
            .map(|index| (DemoScale::name(index), WorkerProgress::default()))
            .collect();
        Self {
            scale,
            workers,
            crash: None,
            restart: None,
            complete: None,
            complete_before_restart: false,
            stats: BTreeMap::new(),
            series: PoolSeries::default(),
            raw_speed: BTreeMap::new(),
            failure: None,
            machine_s: 0.0,
            now: 0.0,
            verified_then: BTreeMap::new(),
        }
    }

    /// Returns the size of the demonstration.
    pub fn scale(&self) -> &DemoScale {
        &self.scale
    }

    /// Takes an event that came at `host_s`; returns the line to show to people.
    pub fn event(&mut self, host_s: f64, event: &Event) -> Option<String> {
        self.machine_s = event.0["t"].as_u64().map_or(self.machine_s, |ns| ns as f64 / 1e9);
        let at = self.moment(host_s);
        let number = |member: &str| event.0[member].as_u64().unwrap_or(0);
        let text = |member: &str| event.0[member].as_str().unwrap_or("").to_owned();
        let told = match event.name() {
            "boot" => Some(format!(
                "the hypervisor runs: {}, {} CPUs",
                text("backend"),
                number("guest_cpus")
            )),
            "start" => Some(format!("incarnation {} starts", number("incarnation"))),
            "waiting" => Some(format!("waiting: {}", text("what"))),
            "bench" => self.measured(&text("id"), number("average")),
            "crash" => self.crashed(at, event),
            "restart" => {
                self.restart = Some((at, event.clone()));
                self.complete_before_restart = self.complete.is_some();
                Some(format!("restarting, with {} pages still to drain", number("drain_remaining")))
            }
            "dump_complete" => {
                self.complete = Some((at, event.clone()));
                self.verified_then =
                    self.workers.iter().map(|(name, w)| (name.clone(), w.verified)).collect();
                Some(format!("the dump is complete: {} bytes written", number("bytes_written")))
            }
            "stats" => {
                self.stats.insert((text("partition"), number("incarnation")), event.0.clone());
                None
            }
            "dump_failed" => self.fail(format!("the dump failed: {}", text("message"))),
            "error" => self.fail(format!("{}: {}", text("place"), text("message"))),
            "panic" => self.fail(format!("the hypervisor panicked: {}", text("message"))),
            "stopped" => self.fail(format!("stopped: {}", text("how"))),
            "end" if number("status") != 0 => {
                self.fail("the hypervisor ended with an error".to_owned())
            }
            _ => None,
        };
        self.series.event(event);
        let who = text("partition");
        told.map(|told| if who.is_empty() { told } else { format!("{who}: {told}") })
    }

    /// Returns the time by the selected clock.
    fn moment(&mut self, host_s: f64) -> f64 {
        self.now = match self.scale.clock {
            PaceClock::Host => host_s,
            PaceClock::Machine => self.machine_s,
        };
        self.now
    }

    fn measured(&mut self, id: &str, speed: u64) -> Option<String> {
        let disk = id.strip_prefix("raw-disk ")?;
        self.raw_speed.insert(disk.parse().ok()?, speed);
        Some(format!("raw disk {disk} writes {} MB/s", speed / 1_000_000))
    }

    fn crashed(&mut self, at: f64, event: &Event) -> Option<String> {
        let (reason, who) = (event.0["reason"].as_str()?, event.0["partition"].as_str()?);
        if who != DemoScale::name(0) || self.crash.is_some() {
            return self.fail(format!("crashed ({reason}), which nobody asked for"));
        }
        self.crash = Some((at, event.clone()));
        Some(format!(
            "crashed ({reason}): {} pages resident, {} paged",
            event.0["resident"], event.0["paged"]
        ))
    }

    fn fail(&mut self, what: String) -> Option<String> {
        self.failure.get_or_insert(what.clone());
        Some(what)
    }

    /// Takes a console line that came at `host_s`; returns the line to show to people.
    pub fn line(&mut self, host_s: f64, line: &str) -> Option<String> {
        let at = self.moment(host_s);
        let (name, line) =
            line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).unwrap_or(("", line));
        let only = self.scale.partitions == 1;
        let worker =
            if only { self.workers.values_mut().next() } else { self.workers.get_mut(name) }?;
        let told = if let Some(text) = behind(line, "init: Linux ") {
            worker.begin(text.rsplit(' ').next()?.parse().ok()?);
            format!("Linux {text}")
        } else {
            let text = behind(line, "worker: ")?;
            if !worker.said(at, text) {
                return None;
            }
            format!("worker: {text}")
        };
        Some(if only { told } else { format!("{name}: {told}") })
    }

    /// Returns whether the story is complete: the dump has been complete for a while, and the
    /// successor and the other partitions have worked.
    pub fn is_over(&self) -> bool {
        let (first, needed) = (DemoScale::name(0), self.scale.successor_passes);
        let works = |(name, worker): (&String, &WorkerProgress)| match *name == first {
            true => needed == 0 || worker.incarnation > 1 && worker.passes >= needed,
            false => self.verified_then.get(name).is_some_and(|&then| worker.verified > then),
        };
        let recovered = self.complete.as_ref().is_some_and(|(at, _)| self.now >= at + RECOVERY_S);
        self.failure.is_some()
            || (recovered && self.restart.is_some() && self.workers.iter().all(works))
    }

    /// Returns whether the drain is in progress.
    pub fn drains(&self) -> bool {
        self.crash.is_some() && self.complete.is_none()
    }

    /// Returns a counter's sum over all incarnations of a partition.
    pub fn counter(&self, partition: &str, name: &str) -> u64 {
        let of = self.stats.iter().filter(|((who, _), _)| who == partition);
        of.filter_map(|(_, stats)| stats[name].as_u64()).sum()
    }
}

/// Returns the text behind `what`. A partition's console may have a prefix before the line.
fn behind<'a>(line: &'a str, what: &str) -> Option<&'a str> {
    line.find(what).map(|at| line[at + what.len()..].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bed::Bed;
    use serde_json::json;

    fn story() -> DemoStory {
        DemoStory::new(DemoScale { partitions: 2, ..DemoScale::of(Bed::Qemu) })
    }

    #[test]
    fn the_story_is_over_when_the_dump_is_complete_and_all_work() {
        let mut story = story();
        for event in ["crash", "restart", "dump_complete"] {
            story.event(
                1.0,
                &Event(json!({"event": event, "partition": "debian-1", "reason": "panic"})),
            );
        }
        assert!(!story.is_over() && !story.complete_before_restart);
        story.line(2.0, "[debian-1] init: Linux 6.1.0 is up, incarnation 2");
        story.line(3.0, "[debian-1] worker: pass 1 pages 90 wrong 0");
        story.line(3.0, "[debian-1] worker: pass 2 pages 90 wrong 0");
        assert!(!story.is_over());
        story.line(4.0, "[debian-2] [   12.3] worker: pass 7 pages 90 wrong 0\r");
        assert!(!story.is_over());
        story.line(1.0 + RECOVERY_S, "[debian-2] worker: at 8000");
        assert!(story.is_over());
    }

    #[test]
    fn up_to_the_dump_nobody_waits_for_a_boot() {
        let mut story = DemoStory::new(
            DemoScale { partitions: 1, clock: PaceClock::Machine, ..DemoScale::of(Bed::Qemu) }
                .to_the_dump(),
        );
        for (event, t) in [("crash", 1_u64), ("restart", 2), ("dump_complete", 3), ("pool", 12)] {
            let event = json!({
                "event": event, "partition": "debian-1", "reason": "panic", "t": t * 1_000_000_000
            });
            story.event(500.0, &Event(event));
            assert!(!story.is_over());
        }
        story.event(500.0, &Event(json!({"event": "pool", "t": 13_000_000_000_u64})));
        assert!(story.is_over());
    }

    #[test]
    fn a_crash_that_nobody_asked_for_ends_it() {
        let mut story = story();
        story.event(
            1.0,
            &Event(json!({"event": "crash", "partition": "debian-2", "reason": "triple fault"})),
        );
        assert!(story.is_over() && story.crash.is_none());
    }

    #[test]
    fn a_panic_ends_it() {
        let mut story = story();
        story.event(1.0, &Event(json!({"event": "panic", "message": "why"})));
        assert_eq!(story.failure.as_deref(), Some("the hypervisor panicked: why"));
        assert!(story.is_over());
    }

    #[test]
    fn counters_are_summed_over_incarnations() {
        let mut story = story();
        for (incarnation, page_ins) in [(1, 5), (1, 7), (2, 3)] {
            let stats = json!({
                "event": "stats", "partition": "debian-1", "incarnation": incarnation,
                "page_ins": page_ins
            });
            story.event(1.0, &Event(stats));
        }
        assert_eq!(story.counter("debian-1", "page_ins"), 10);
    }
}
