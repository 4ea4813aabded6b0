//! The verdict on a demonstration: each claim with its figure, and whether all of them held.

use super::DemoScale;
use super::story::{DemoStory, RECOVERY_S};
use crate::dump::DumpVerdict as BlockVerdict;
use crate::events::Event;
use crate::report::{Facts, TextTable, time};
use serde_json::Value;
use std::fmt::{Display, Write};

/// Seconds before the crash with which the time of the drain is compared.
const BEFORE_S: f64 = 10.0;
/// Longest usual time between two progress lines of a worker, in seconds.
const MARK_S: f64 = 0.5;

/// The results of the readers.
#[derive(Clone, PartialEq, Debug)]
pub struct Reading {
    /// The verification of all blocks against their checksums.
    pub blocks: BlockVerdict,
    /// The kernel's log, by makedumpfile.
    pub log: String,
    /// Bytes of makedumpfile's compressed copy without free and zero pages.
    pub compressed: u64,
    /// The panicking task and its backtrace, by crash(8).
    pub crash: String,
    /// Tasks, backtrace and pages, by drgn.
    pub drgn: Value,
}

/// Claims with their figures.
#[derive(Clone, Debug, Default)]
pub struct DemoVerdict {
    facts: Facts,
    table: Vec<Vec<String>>,
    broken: Vec<String>,
}

impl DemoVerdict {
    /// Returns the claims that did not hold.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Returns the figures.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns the figures, to add some that are no claims.
    pub fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    /// Returns one row for each partition.
    pub fn table(&self) -> TextTable {
        let head = [
            "partition",
            "incarnations",
            "page-ins",
            "page-outs",
            "pages verified",
            "wrong",
            "slower in the drain",
        ];
        let mut table = TextTable::new(&head);
        self.table.iter().for_each(|row| table.row(row));
        table
    }

    /// Adds a partition's row: incarnations, page-ins, page-outs, pages verified and wrong, and how
    /// much slower the partition was while another one drained.
    pub fn row(&mut self, partition: &str, counts: [u64; 5], slower: Option<String>) {
        let counts = counts.iter().map(u64::to_string);
        let row = [partition.to_owned()]
            .into_iter()
            .chain(counts)
            .chain([slower.unwrap_or_else(|| "-".to_owned())]);
        self.table.push(row.collect());
    }

    /// Adds a claim with its figure.
    pub fn claim(&mut self, name: &str, value: impl Display, holds: bool) {
        self.facts.add(name, value);
        self.hold(name, holds);
    }

    /// Adds a claim whose figure is in the table.
    pub fn hold(&mut self, name: &str, holds: bool) {
        if !holds {
            self.broken.push(name.to_owned());
        }
    }

    /// Judges the overcommit: the promised memory in percent of the pool.
    pub fn overcommit(&mut self, percent: u64) {
        self.claim("overcommit", format!("{}.{:02}", percent / 100, percent % 100), percent >= 200);
    }

    /// Judges a restart at the threshold; `early` if it came before the dump was complete.
    pub fn restart(&mut self, whose: &str, restart: &Event, early: bool) {
        let number = |member: &str| restart.0[member].as_u64().unwrap_or(0);
        let remaining = number("drain_remaining");
        self.claim(
            &format!("{whose}pages still to drain at the restart"),
            remaining,
            remaining > 0 && early,
        );
        let (freed, needed) = (number("freed_from_image"), number("boot_memory"));
        let gate = restart.0["gate"].as_str().unwrap_or("");
        let text = format!("{gate}: {freed} of {needed} pages freed");
        self.claim(&format!("{whose}restart gate"), text, gate == "threshold" && freed >= needed);
        self.facts.add(&format!("{whose}from crash to restart"), time(number("since_crash_ns")));
    }

    /// Judges the paging, the crash and its effect on the neighbours.
    pub fn of_story(&mut self, story: &DemoStory) {
        self.overcommit(story.scale().overcommit_percent());
        for name in story.workers.keys() {
            self.of_partition(story, name);
        }
        self.of_restart(story);
        self.of_drain(story);
    }

    fn of_partition(&mut self, story: &DemoStory, name: &str) {
        let worker = &story.workers[name];
        let (ins, outs) = (story.counter(name, "page_ins"), story.counter(name, "page_outs"));
        self.row(
            name,
            [worker.incarnation, ins, outs, worker.verified, worker.wrong],
            slowdown(story, name),
        );
        self.hold(&format!("{name}: pages go out and come back"), ins > 0 && outs > 0);
        self.hold(&format!("{name}: every page right"), worker.verified > 0 && worker.wrong == 0);
        if *name != DemoScale::name(0) {
            self.of_neighbour(story, name);
        }
    }

    /// Judges that a neighbour works on while the other partition crashes, drains and starts again.
    fn of_neighbour(&mut self, story: &DemoStory, name: &str) {
        let (Some((crash, _)), Some((complete, _))) = (&story.crash, &story.complete) else {
            return;
        };
        let worker = &story.workers[name];
        let pause = worker.longest_pause(*crash, *complete + RECOVERY_S);
        self.hold(
            &format!("{name}: works on through the drain"),
            worker.incarnation == 1 && pause < RECOVERY_S,
        );
    }

    fn of_restart(&mut self, story: &DemoStory) {
        let reason = story
            .crash
            .as_ref()
            .and_then(|(_, event)| event.0["reason"].as_str())
            .unwrap_or("none");
        self.claim("crash reason", reason, story.crash.is_some());
        let Some((_, restart)) = &story.restart else {
            return self.claim("restart", "none", false);
        };
        self.restart("", restart, !story.complete_before_restart);
    }

    fn of_drain(&mut self, story: &DemoStory) {
        let Some((_, complete)) = &story.complete else {
            return self.claim("dump", "not complete", false);
        };
        let number = |member: &str| complete.0[member].as_u64().unwrap_or(0);
        self.facts.add("from crash to complete dump", time(number("since_crash_ns")));
        let (written, memory) = (number("bytes_written"), story.scale().memory);
        let share = format!("{} MiB of {} MiB of RAM", written >> 20, memory >> 20);
        self.claim("written for the dump", share, written < memory);
        let speed = written.saturating_mul(1_000_000_000) / number("drain_ns").max(1);
        let needed = story.scale().drain_percent;
        match story.raw_speed.get(&number("disk")) {
            Some(&raw) => {
                let percent = speed.saturating_mul(100) / raw.max(1);
                let mut text = format!(
                    "{} MB/s, {percent} % of the raw disk's {} MB/s",
                    speed / 1_000_000,
                    raw / 1_000_000
                );
                if let Some(needed) = needed.filter(|needed| percent < *needed) {
                    write!(text, " (a quiet machine: {needed} % and more)")
                        .expect("a string takes text");
                }
                // A busy host slows the drain down and not the disk, so only a wide miss is a
                // fault.
                self.claim("drain speed", text, needed.is_none_or(|needed| percent >= needed / 4));
            }
            None => {
                self.claim("drain speed", format!("{} MB/s", speed / 1_000_000), needed.is_none())
            }
        }
    }

    /// Judges the dump by the readers' results, compared with the worker's memory.
    pub fn of_reading(&mut self, story: &DemoStory, reading: &Reading) {
        let blocks = reading.blocks;
        let text = format!(
            "{} right, {} zero, {} wrong, {} missing",
            blocks.right, blocks.zero, blocks.wrong, blocks.missing
        );
        self.claim(
            "blocks of the dump",
            text,
            blocks.wrong == 0 && blocks.missing == 0 && blocks.header_current,
        );
        let panic = reading.log.lines().find(|line| line.contains("Kernel panic - not syncing"));
        self.claim(
            "makedumpfile: kernel log",
            panic.unwrap_or("no panic").trim(),
            reading.log.contains("sysrq triggered crash"),
        );
        let compressed = reading.compressed;
        self.claim(
            "makedumpfile: compressed copy",
            format!("{} KiB", compressed >> 10),
            compressed > 0,
        );
        let task =
            reading.crash.lines().find_map(|line| Some(line.split_once("COMMAND: ")?.1.trim()));
        let is_there = reading.crash.contains("sysrq_handle_crash");
        self.claim("crash(8): panicking task", task.unwrap_or("none"), is_there && task.is_some());
        let drgn = &reading.drgn;
        let frames = drgn["backtrace"].as_array().map_or(&[][..], Vec::as_slice);
        let crashed = frames.iter().any(|frame| frame == "sysrq_handle_crash");
        self.claim(
            "drgn: tasks, panicking task",
            format!("{}, {}", drgn["tasks"], drgn["panicked"]),
            crashed,
        );
        let expected =
            story.workers.get(&DemoScale::name(0)).map_or(0, |worker| worker.first_pages);
        let (pages, wrong, missing) = (&drgn["pages"], &drgn["wrong"], &drgn["missing"]);
        let text = format!("{pages} of {expected} found, {wrong} wrong");
        self.claim(
            "drgn: the worker's pages",
            text,
            expected > 0 && *pages == expected && *wrong == 0 && *missing == 0,
        );
    }
}

/// Returns how much slower a neighbour was from the crash to the complete dump than before.
fn slowdown(story: &DemoStory, name: &str) -> Option<String> {
    let (crash, complete) = (story.crash.as_ref()?.0, story.complete.as_ref()?.0);
    if name == DemoScale::name(0) {
        return None;
    }
    let worker = &story.workers[name];
    // Extend the time by one mark's interval on each side: a short drain would otherwise contain no
    // mark.
    let during = worker.pace(crash - MARK_S, complete + MARK_S)?;
    let before = worker.pace(crash - MARK_S - BEFORE_S, crash - MARK_S)?;
    Some(format!("{:.0} %", (1.0 - during / before.max(1.0)) * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bed::Bed;
    use crate::events::Event;
    use serde_json::json;

    fn story() -> DemoStory {
        let mut story = DemoStory::new(DemoScale {
            partitions: 2,
            memory: 256 << 20,
            pool: 256 << 20,
            ..DemoScale::of(Bed::Qemu)
        });
        let (one, two) = ("debian-1", "debian-2");
        let events = [
            json!({"event": "bench", "id": "raw-disk 0", "average": 100}),
            json!({"event": "crash", "partition": one, "reason": "pvpanic"}),
            json!({
                "event": "restart", "gate": "threshold", "drain_remaining": 5,
                "freed_from_image": 9, "boot_memory": 9
            }),
            json!({
                "event": "dump_complete", "disk": 0, "bytes_written": 80,
                "drain_ns": 1_000_000_000
            }),
            json!({
                "event": "stats", "partition": one, "incarnation": 1, "page_ins": 1,
                "page_outs": 1
            }),
            json!({
                "event": "stats", "partition": two, "incarnation": 1, "page_ins": 1,
                "page_outs": 1
            }),
        ];
        for name in [one, two] {
            story.line(1.0, &format!("[{name}] init: Linux 6 is up, incarnation 1"));
            story.line(2.0, &format!("[{name}] worker: pass 1 pages 7 wrong 0"));
        }
        for second in 20..60_u64 {
            // Half as fast while the other partition drains.
            let seen = if second < 40 { second * 100 } else { 2000 + second * 50 };
            story.line(second as f64, &format!("[{two}] worker: at {seen}"));
        }
        events.into_iter().for_each(|event| drop(story.event(40.0, &Event(event))));
        story.complete.as_mut().unwrap().0 = 50.0;
        story
    }

    fn reading() -> Reading {
        Reading {
            blocks: BlockVerdict { right: 1, header_current: true, ..BlockVerdict::default() },
            log: "Kernel panic - not syncing: sysrq triggered crash".to_owned(),
            compressed: 1,
            crash: "PID: 1  TASK: ffff8a2bc11e0000  CPU: 0  COMMAND: \"init\"\n #1 [ffff] \
                    sysrq_handle_crash at ffff\n"
                .to_owned(),
            drgn: json!({
                "tasks": 40, "panicked": "init", "backtrace": ["panic", "sysrq_handle_crash"],
                "pages": 7, "wrong": 0, "missing": 0
            }),
        }
    }

    fn verdict(story: &DemoStory, reading: &Reading) -> DemoVerdict {
        let mut verdict = DemoVerdict::default();
        verdict.of_story(story);
        verdict.of_reading(story, reading);
        verdict
    }

    fn broken(story: &DemoStory, reading: &Reading) -> Vec<String> {
        verdict(story, reading).broken().to_vec()
    }

    #[test]
    fn a_good_run_breaks_no_claim() {
        let verdict = verdict(&story(), &reading());
        assert_eq!(verdict.broken(), Vec::<String>::new());
        let table = verdict.table().to_string();
        assert!(table.lines().count() == 3 && table.contains("50 %"), "{table}");
    }

    #[test]
    fn each_claim_can_break() {
        let mut late = story();
        late.complete_before_restart = true;
        assert_eq!(broken(&late, &reading()), ["pages still to drain at the restart"]);
        let mut wrong = story();
        wrong.line(70.0, "[debian-2] worker: pass 2 pages 7 wrong 1");
        assert_eq!(broken(&wrong, &reading()), ["debian-2: every page right"]);
        let unread = Reading { crash: "crash: cannot read".to_owned(), ..reading() };
        assert_eq!(broken(&story(), &unread), ["crash(8): panicking task"]);
        let mut slow = story();
        let quiet = slow.raw_speed[&0];
        slow.raw_speed.insert(0, quiet + quiet / 2);
        let remarked = verdict(&slow, &reading());
        assert!(
            remarked.broken().is_empty()
                && remarked.facts().to_string().contains("(a quiet machine: ")
        );
        slow.raw_speed.insert(0, quiet * 5);
        assert_eq!(broken(&slow, &reading()), ["drain speed"]);
        let mut stopped = story();
        stopped.complete.as_mut().unwrap().0 = 65.0;
        assert_eq!(broken(&stopped, &reading()), ["debian-2: works on through the drain"]);
        let mut lost = reading();
        lost.drgn["pages"] = 6.into();
        assert_eq!(broken(&story(), &lost), ["drgn: the worker's pages"]);
        assert!(broken(&DemoStory::new(DemoScale::of(Bed::Kvm)), &reading()).len() > 7);
    }
}
