//! The story of a base and its children so far, from the events and the consoles.

use super::child::{ChildProgress, behind};
use super::{BASE, CloneScale};
use crate::demo::picture::PoolSeries;
use crate::events::Event;
use crate::report::time;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The layers of the picture.
const BASES_FRAMES: &str = "the base's, shared";
pub(super) const OWN_FRAMES: &str = "the children's own";

/// The frames of the pool at one moment, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameCount {
    /// All, and the free ones.
    pub pool: u64,
    /// Free ones.
    pub free: u64,
    /// Those of dump images.
    pub image: u64,
    /// The base's.
    pub base: u64,
    /// The children's own.
    pub own: u64,
    /// Pages of children that show a frame of the base.
    pub shown: u64,
}

impl FrameCount {
    /// Returns the frames that the base, the children and dump images account for.
    pub const fn accounted(&self) -> u64 {
        self.base + self.own + self.image
    }
}

/// What has happened so far.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CloneStory {
    /// The children by name.
    pub children: BTreeMap<String, ChildProgress>,
    /// Pages that the base's program has filled.
    pub filled: Option<u64>,
    /// The base's kernel log is marked.
    pub is_marked: bool,
    /// The last counters of each partition.
    pub stats: BTreeMap<String, Value>,
    pool: Value,
    /// The dumps that were sealed: partition and event.
    pub dumps: Vec<Event>,
    /// Crashes: partition, reason, and what the guest has said.
    pub crashes: Vec<(String, String, String)>,
    /// The pool over time.
    pub series: PoolSeries,
    /// What ends the story early.
    pub failure: Option<String>,
    /// Crashes that are part of the story.
    expected: Vec<String>,
    /// Blocks of the base are damaged, so an unreadable page is part of the story.
    is_damaged: bool,
}

impl CloneStory {
    /// Begins a story.
    pub fn new(scale: &CloneScale) -> Self {
        let names = (1..=scale.children).map(CloneScale::name);
        let children = names.map(|name| (name, ChildProgress::default())).collect();
        Self { children, ..Self::default() }
    }

    /// A crash of this child is part of the story from now on.
    pub fn expect_crash(&mut self, child: &str) {
        self.expected.push(child.to_owned());
    }

    /// This child is about to read blocks that are damaged by now.
    pub fn expect_damage(&mut self, child: &str) {
        self.expect_crash(child);
        self.is_damaged = true;
    }

    /// Takes an event; returns the line to show to people.
    pub fn event(&mut self, event: &Event) -> Option<String> {
        let number = |member: &str| event.0[member].as_u64().unwrap_or(0);
        let text = |member: &str| event.0[member].as_str().unwrap_or("").to_owned();
        let who = text("partition");
        let told = match event.name() {
            "boot" => Some(format!("the hypervisor runs: {}", text("backend"))),
            "start" if who == BASE => Some("starts".to_owned()),
            "suspended" => Some(suspended(event)),
            "sealed" => Some("sealed: every block is read and checked".to_owned()),
            "cloned" => self.cloned(&who, number("incarnation"), number("clone_ns")),
            "pool" => {
                self.pool = event.0.clone();
                None
            }
            "stats" => {
                self.stats.insert(who.clone(), event.0.clone());
                None
            }
            "crash" => self.crashed(&who, text("reason"), text("text")),
            "dump_complete" => {
                self.dumps.push(event.clone());
                let since = time(number("since_crash_ns"));
                Some(format!("its dump is complete, {since} after the crash"))
            }
            "reply" => {
                self.sample(number("t"));
                None
            }
            "dump_failed" | "seal_failed" | "suspend_failed" | "clone_failed" => {
                self.fail(format!("{who}: {}: {}", event.name(), text("message")))
            }
            "error" if self.is_damaged => Some(text("message")),
            "error" => self.fail(format!("{}: {}", text("place"), text("message"))),
            "panic" => self.fail(format!("the hypervisor panicked: {}", text("message"))),
            "stopped" => self.fail(format!("{who} stopped: {}", text("how"))),
            _ => None,
        };
        if matches!(event.name(), "crash" | "dump_complete") {
            let mark = json!({"event": event.name(), "t": event.0["t"], "partition": OWN_FRAMES});
            self.series.event(&Event(mark));
        }
        told.map(|told| if who.is_empty() { told } else { format!("{who}: {told}") })
    }

    fn cloned(&mut self, who: &str, incarnation: u64, clone_ns: u64) -> Option<String> {
        self.children.get_mut(who)?.begin(incarnation, clone_ns);
        Some(format!("cloned in {}", time(clone_ns)))
    }

    fn crashed(&mut self, who: &str, reason: String, text: String) -> Option<String> {
        let told = format!("crashed ({reason}): {text}");
        self.crashes.push((who.to_owned(), reason, text));
        if self.expected.iter().any(|expected| expected == who) {
            return Some(told);
        }
        self.failure.get_or_insert(format!("{who} {told}"));
        Some(told)
    }

    fn fail(&mut self, what: String) -> Option<String> {
        self.failure.get_or_insert(what.clone());
        Some(what)
    }

    /// Takes a line of a console; returns the line to show to people.
    pub fn line(&mut self, at: f64, line: &str) -> Option<String> {
        let (name, line) =
            line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).unwrap_or((BASE, line));
        if let Some(child) = self.children.get_mut(name) {
            return child.line(at, line).map(|line| format!("{name}: {line}"));
        }
        if let Some(text) = behind(line, "child: filled pages ") {
            self.filled = text.split(' ').next()?.parse().ok();
            return Some(format!("{BASE}: filled {text}"));
        }
        self.is_marked |= behind(line, "init: marked").is_some();
        Some(format!("{BASE}: Linux {}", behind(line, "init: Linux ")?))
    }

    /// Returns the last count of frames.
    pub fn frames(&self) -> FrameCount {
        let number = |value: &Value, member: &str| value[member].as_u64().unwrap_or(0);
        let of = |who: &str, member: &str| self.stats.get(who).map_or(0, |s| number(s, member));
        let all = |member: &str| self.children.keys().map(|name| of(name, member)).sum();
        FrameCount {
            pool: number(&self.pool, "pages"),
            free: number(&self.pool, "free"),
            image: number(&self.pool, "image"),
            base: of(BASE, "resident"),
            own: all("resident"),
            shown: all("shared"),
        }
    }

    /// Adds the counts to the picture: all children are one layer.
    fn sample(&mut self, t: u64) {
        let frames = self.frames();
        if self.pool["t"].as_u64().is_none_or(|seen| seen > t) || frames.pool == 0 {
            return;
        }
        self.series.event(&Event(self.pool.clone()));
        let promised = self.children.len() as u64 * self.stats.get(BASE).map_or(0, logical);
        for (name, resident, all) in
            [(BASES_FRAMES, frames.base, 0), (OWN_FRAMES, frames.own, promised)]
        {
            let paged = all.saturating_sub(resident);
            let layer = json!({
                "event": "stats", "partition": name, "resident": resident, "paged": paged
            });
            self.series.event(&Event(layer));
        }
    }
}

fn suspended(event: &Event) -> String {
    let number = |member: &str| event.0[member].as_u64().unwrap_or(0);
    let pages = number("pages_written") + number("pages_precopied");
    format!("suspended: {} MiB written, its pause {}", pages / 256, time(number("pause_ns")))
}

fn logical(stats: &Value) -> u64 {
    stats["logical"].as_u64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story() -> CloneStory {
        CloneStory::new(&CloneScale::of(2))
    }

    #[test]
    fn frames_are_counted_apart_from_what_shows_them() {
        let mut story = story();
        let mut stats = |who: &str, resident: u64, shared: u64| {
            story.event(&Event(json!({
                "event": "stats", "partition": who, "resident": resident, "shared": shared
            })));
        };
        stats(BASE, 100, 0);
        stats("child-1", 10, 90);
        stats("child-2", 20, 95);
        story.event(&Event(json!({"event": "pool", "pages": 200, "free": 65, "image": 5})));
        let frames = story.frames();
        assert_eq!((frames.accounted(), frames.shown), (135, 185));
        assert_eq!(frames.pool - frames.free, frames.accounted());
    }

    #[test]
    fn a_crash_that_is_not_part_of_the_story_ends_it() {
        let mut story = story();
        let crash = |who: &str| {
            Event(json!({"event": "crash", "partition": who, "reason": "page lost", "text": ""}))
        };
        story.expect_crash("child-1");
        assert!(story.event(&crash("child-1")).is_some() && story.failure.is_none());
        assert!(story.event(&crash("child-2")).is_some());
        assert_eq!(story.failure.as_deref(), Some("child-2 crashed (page lost): "));
        assert_eq!(story.crashes.len(), 2);
    }

    #[test]
    fn lines_belong_to_the_partition_before_them() {
        let mut story = story();
        story.line(1.0, "child: filled pages 90 key 0x5eed\r");
        story.line(1.0, "[base] init: marked");
        assert_eq!((story.filled, story.is_marked), (Some(90), true));
        assert!(story.line(2.0, "[child-2] child: all pages 90 wrong 0 foreign 0").is_none());
        assert!(story.children["child-2"].has_checked(1));
        assert!(!story.children["child-1"].has_checked(1));
    }
}
