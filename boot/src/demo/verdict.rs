//! What of the demonstration held: each claim with its figure, and one verdict.

use super::story::Story;
use super::{MEMORY, POOL};
use crate::dump::Verdict as BlockVerdict;
use crate::report::{Facts, time};
use serde_json::Value;
use std::fmt::Display;

/// Share of the raw disk's speed that a drain shall reach, in percent.
const DRAIN_PERCENT: u64 = 80;

/// What the readers found in the dump.
#[derive(Clone, PartialEq, Debug)]
pub struct Reading {
    /// Every block against its checksum.
    pub blocks: BlockVerdict,
    /// The kernel's log, by makedumpfile.
    pub log: String,
    /// Bytes of makedumpfile's compressed copy without free and zero pages.
    pub compressed: u64,
    /// Tasks, backtrace and pages, by drgn.
    pub drgn: Value,
}

/// Claims with their figures.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    facts: Facts,
    broken: Vec<String>,
}

impl Verdict {
    /// Returns the claims that did not hold.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Returns the figures.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Adds a claim with its figure.
    pub fn claim(&mut self, name: &str, value: impl Display, holds: bool) {
        self.facts.add(name, value);
        if !holds {
            self.broken.push(name.to_owned());
        }
    }

    /// Judges the paging and the crash.
    pub fn of_story(&mut self, story: &Story) {
        let overcommit = MEMORY * 100 / POOL;
        self.claim("overcommit", format!("{}.{:02}", overcommit / 100, overcommit % 100), overcommit >= 200);
        for (name, counter) in [("page-ins", "page_ins"), ("page-outs", "page_outs")] {
            let count = story.counter(counter);
            self.claim(name, count, count > 0);
        }
        let verified: u64 = story.workers.values().map(|worker| worker.verified).sum();
        let wrong: u64 = story.workers.values().map(|worker| worker.wrong).sum();
        self.claim("pages verified", verified, verified > 0);
        self.claim("pages wrong", wrong, wrong == 0);
        self.of_restart(story);
        self.of_drain(story);
    }

    fn of_restart(&mut self, story: &Story) {
        let reason = story.crash.as_ref().and_then(|event| event.0["reason"].as_str()).unwrap_or("none");
        self.claim("crash reason", reason, story.crash.is_some());
        let Some(restart) = &story.restart else {
            return self.claim("restart", "none", false);
        };
        let number = |member: &str| restart.0[member].as_u64().unwrap_or(0);
        let remaining = number("drain_remaining");
        self.claim("pages still to drain at the restart", remaining, remaining > 0 && !story.complete_before_restart);
        let (freed, needed) = (number("freed_from_image"), number("boot_memory"));
        let gate = restart.0["gate"].as_str().unwrap_or("");
        self.claim("restart gate", format!("{gate}: {freed} of {needed} pages freed"), gate == "threshold" && freed >= needed);
        self.facts.add("from crash to restart", time(number("since_crash_ns")));
    }

    fn of_drain(&mut self, story: &Story) {
        let Some(complete) = &story.complete else {
            return self.claim("dump", "not complete", false);
        };
        let number = |member: &str| complete.0[member].as_u64().unwrap_or(0);
        self.facts.add("from crash to complete dump", time(number("since_crash_ns")));
        let written = number("bytes_written");
        let share = format!("{} MiB of {} MiB of RAM", written >> 20, MEMORY >> 20);
        self.claim("written for the dump", share, written < MEMORY);
        let speed = written.saturating_mul(1_000_000_000) / number("drain_ns").max(1);
        match story.raw_speed {
            Some(raw) => {
                let percent = speed.saturating_mul(100) / raw.max(1);
                let text = format!("{} MB/s, {percent} % of the raw disk's {} MB/s", speed / 1_000_000, raw / 1_000_000);
                self.claim("drain speed", text, percent >= DRAIN_PERCENT);
            }
            None => self.claim("drain speed", "not measured beside the disk's", false),
        }
    }

    /// Judges the dump by what the readers found, against what the worker had in memory.
    pub fn of_reading(&mut self, story: &Story, reading: &Reading) {
        let blocks = reading.blocks;
        let text = format!("{} right, {} zero, {} wrong, {} missing", blocks.right, blocks.zero, blocks.wrong, blocks.missing);
        self.claim("blocks of the dump", text, blocks.wrong == 0 && blocks.missing == 0 && blocks.header_current);
        let panic = reading.log.lines().find(|line| line.contains("Kernel panic - not syncing"));
        self.claim("makedumpfile: kernel log", panic.unwrap_or("no panic").trim(), reading.log.contains("sysrq triggered crash"));
        let compressed = reading.compressed;
        self.claim("makedumpfile: compressed copy", format!("{} KiB", compressed >> 10), compressed > 0);
        let drgn = &reading.drgn;
        let frames = drgn["backtrace"].as_array().map_or(&[][..], Vec::as_slice);
        let crashed = frames.iter().any(|frame| frame == "sysrq_handle_crash");
        self.claim("drgn: tasks, panicking task", format!("{}, {}", drgn["tasks"], drgn["panicked"]), crashed);
        let expected = story.workers.get(&1).map_or(0, |worker| worker.pages);
        let (pages, wrong, missing) = (&drgn["pages"], &drgn["wrong"], &drgn["missing"]);
        let text = format!("{pages} of {expected} found, {wrong} wrong");
        self.claim("drgn: the worker's pages", text, expected > 0 && *pages == expected && *wrong == 0 && *missing == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Event;
    use serde_json::json;

    fn story() -> Story {
        let mut story = Story::default();
        let events = [
            json!({"event": "crash", "reason": "pvpanic"}),
            json!({"event": "restart", "gate": "threshold", "drain_remaining": 5, "freed_from_image": 9, "boot_memory": 9}),
            json!({"event": "bench", "id": "raw-disk 0", "average": 100}),
            json!({"event": "dump_complete", "bytes_written": 80, "drain_ns": 1_000_000_000}),
            json!({"event": "stats", "incarnation": 1, "page_ins": 1, "page_outs": 1}),
        ];
        story.line("init: Linux 6 is up, incarnation 1");
        story.line("worker: pass 1 pages 7 wrong 0");
        events.into_iter().for_each(|event| drop(story.event(&Event(event))));
        story
    }

    fn reading() -> Reading {
        Reading {
            blocks: BlockVerdict { right: 1, header_current: true, ..BlockVerdict::default() },
            log: "Kernel panic - not syncing: sysrq triggered crash".to_owned(),
            compressed: 1,
            drgn: json!({"tasks": 40, "panicked": "init", "backtrace": ["panic", "sysrq_handle_crash"], "pages": 7, "wrong": 0, "missing": 0}),
        }
    }

    fn broken(story: &Story, reading: &Reading) -> Vec<String> {
        let mut verdict = Verdict::default();
        verdict.of_story(story);
        verdict.of_reading(story, reading);
        verdict.broken().to_vec()
    }

    #[test]
    fn a_good_run_breaks_no_claim() {
        assert_eq!(broken(&story(), &reading()), Vec::<String>::new());
    }

    #[test]
    fn each_claim_can_break() {
        let mut late = story();
        late.complete_before_restart = true;
        assert_eq!(broken(&late, &reading()), ["pages still to drain at the restart"]);
        let mut wrong = story();
        wrong.line("worker: pass 2 pages 7 wrong 1");
        assert_eq!(broken(&wrong, &reading()), ["pages wrong"]);
        let mut slow = story();
        slow.raw_speed = Some(101);
        assert_eq!(broken(&slow, &reading()), ["drain speed"]);
        let mut lost = reading();
        lost.drgn["pages"] = 6.into();
        assert_eq!(broken(&story(), &lost), ["drgn: the worker's pages"]);
        assert_eq!(broken(&Story::default(), &reading()).len(), 7);
    }
}
