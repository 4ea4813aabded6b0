//! The demonstration in bed C, on VMX in nested KVM: the same story at a smaller size, of Debian
//! and a test kernel.
//!
//! ```text
//!  debian   boots ── worker ── panic ─────── dump ── boots again ── worker
//!  small    fills, verifies ── triple fault ── dump ── fills, verifies, ends
//! ```
//!
//! Both dumps are read in the Linux that runs the machine, by programs that know nothing of paging
//! spaces (makedumpfile and `checker`). Then they are verified here, block by block against the
//! checksums.

use super::counters::CounterPoll;
use super::picture::PoolSeries;
use super::verdict::DemoVerdict;
use super::worker::WorkerProgress;
use crate::bed::{Bed, BedMachine, RunningMachine};
use crate::config;
use crate::dump::Dump;
use crate::events::{Event, Polled};
use crate::kernel_build::{self, Variant};
use crate::setup::{self, Permission, SetupJob, debian};
use crate::volume::VolumeAccess;
use crate::{initramfs, paths};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DEBIAN: &str = "debian";
const SMALL: &str = "small";
/// Keys of the pages of Debian's worker and of the test kernel.
const DEBIAN_KEY: u64 = 0xdeb1;
const SMALL_KEY: u64 = 0x7ea5;
/// MiB of Debian, of the test kernel, and of the pool.
const MIB: [u64; 3] = [122, 6, 64];
/// MiB that a space needs besides its pages.
const SPARE: u64 = 8;
/// Time limit for the whole story, on a busy machine.
const LIMIT: Duration = Duration::from_secs(1800);
/// Time limit for an answer of the machine, and for a reader.
const ANSWER: Duration = Duration::from_secs(120);
/// Time between two requests for counters: each answer takes a second in this bed.
const STATS: Duration = Duration::from_secs(8);
/// The same time while Debian's dump drains.
const STATS_OF_DRAIN: Duration = Duration::from_millis(500);

/// Runs the demonstration in the folder `name`.
///
/// # Errors
/// Names the missing thing, the failure, or the claim that did not hold.
pub fn demonstrate(bed: Bed, permission: Permission, name: &str) -> Result<()> {
    setup::prepare(&[SetupJob::Boot(bed), SetupJob::Guest, SetupJob::Readers], permission)?;
    let kernel = debian::kernel(permission)?;
    let folder = paths::tidepool().join(name);
    std::fs::create_dir_all(&folder)?;
    let small = kernel_build::test_kernels()?.join("fill");
    let text = configuration(&folder, &kernel.vmlinuz(), &initramfs::prepare(&kernel)?, &small)?;
    let plan = config::read(name, &text, &folder, bed)?;
    let disks = plan.disks.clone();
    let mut machine = BedMachine::new(bed, name, kernel_build::hypervisor(Variant::Ordinary)?);
    machine.apply(plan);

    println!("{} {} and a test kernel in {}", kernel.package, kernel.version, bed.name());
    let start = Instant::now();
    let mut running = machine.start()?;
    println!("{:7.1} s  the machine starts", start.elapsed().as_secs_f64());
    let place = format!("transcript in {}", running.folder().display());
    let story = follow(&mut running, start).with_context(|| place.clone())?;
    story.series.draw(&folder, DEBIAN)?;
    let verdict = judge(&mut running, bed, &story, &disks).with_context(|| place.clone())?;
    println!("\n{}\n{}", verdict.table().indented(), verdict.facts());
    if !verdict.broken().is_empty() {
        bail!("did not hold: {}; {place}", verdict.broken().join(", "));
    }
    running.passed();
    Ok(())
}

/// Returns the configuration, for new images in `folder`.
fn configuration(folder: &Path, vmlinuz: &Path, initrd: &Path, small: &Path) -> Result<String> {
    let [debian_mib, small_mib, pool_mib] = MIB;
    let mut text = format!("[pool]\nmemory = \"{pool_mib} MiB\"\n[machine]\ncpus = 1\n");
    for (number, mib) in [debian_mib, debian_mib, small_mib, small_mib].iter().enumerate() {
        let image = folder.join(format!("{number}.img"));
        if image.exists() {
            std::fs::remove_file(&image)?;
        }
        text += &format!(
            "[[paging_device]]\nimage = \"{number}.img\"\nsize = \"{} MiB\"\n",
            mib + SPARE
        );
    }
    let (vmlinuz, initrd, small) = (vmlinuz.display(), initrd.display(), small.display());
    text += &format!(
        "[[partition]]\nname = \"{SMALL}\"\nmemory = \"{small_mib} MiB\"\nkernel = \
         \"{small}\"\ncmdline = \"key={SMALL_KEY} passes=1 rewrite=4 \
         crash=1\"\n[[partition]]\nname = \"{DEBIAN}\"\nmemory = \"{debian_mib} MiB\"\nkernel = \
         \"{vmlinuz}\"\ninitrd = \"{initrd}\"\ncmdline = \"console=ttyS0 quiet \
         worker.key={DEBIAN_KEY} worker.mib=16 worker.crash_after=1 worker.dirty_mib=4\"\nrestart \
         = \"threshold\"\nboot_memory = \"16 MiB\"\n"
    );
    Ok(text)
}

/// The story so far.
#[derive(Default)]
struct NestedStory {
    events: Vec<Event>,
    /// The pool over time.
    series: PoolSeries,
    /// Pages that Debian's worker filled in each incarnation, as it reported.
    filled: Vec<u64>,
    /// The output of Debian's worker, and of the test kernel.
    debian: WorkerProgress,
    small: WorkerProgress,
}

impl NestedStory {
    fn find(&self, partition: &str, name: &str) -> Option<&Event> {
        self.events.iter().find(|event| event.name() == name && event.0["partition"] == partition)
    }

    /// Returns whether the story is complete.
    fn is_over(&self) -> bool {
        let dumped = [DEBIAN, SMALL].iter().all(|name| self.find(name, "dump_complete").is_some());
        dumped && self.filled.len() >= 2 && self.verdict_of_small().is_some()
    }

    fn verdict_of_small(&self) -> Option<&str> {
        let of_small = |event: &&Event| {
            event.name() == "guest" && event.0["partition"] == SMALL && event.0["kind"] != "log"
        };
        self.events.iter().find(of_small).and_then(|event| event.0["kind"].as_str())
    }

    /// Returns whether a partition's restart was reported before its dump was complete.
    fn is_early(&self, partition: &str) -> bool {
        let place = |name: &str| {
            self.events
                .iter()
                .position(|event| event.name() == name && event.0["partition"] == partition)
        };
        place("restart")
            .is_some_and(|restart| place("dump_complete").is_none_or(|complete| restart < complete))
    }

    /// Returns whether Debian's drain is in progress.
    fn drains(&self) -> bool {
        self.find(DEBIAN, "crash").is_some() && self.find(DEBIAN, "dump_complete").is_none()
    }

    /// Takes an event.
    fn event(&mut self, at: f64, event: &Event) {
        self.series.event(event);
        let of_small = event.0["partition"] == SMALL;
        match event.0["text"].as_str() {
            Some(text) if of_small && event.name() == "guest" => drop(self.small.said(at, text)),
            _ if of_small && event.name() == "start" => {
                self.small.begin(event.0["incarnation"].as_u64().unwrap_or(0))
            }
            _ => {}
        }
    }

    /// Takes a line of Debian's console; returns whether to show it.
    fn line(&mut self, at: f64, line: &str) -> bool {
        let behind = |what: &str| line.split_once(what).map(|(_, rest)| rest.trim_end());
        if let Some(text) = behind("worker: ") {
            let filled: Option<u64> = text
                .strip_prefix("filled pages ")
                .and_then(|rest| rest.split(' ').next()?.parse().ok());
            self.filled.extend(filled);
            return self.debian.said(at, text);
        }
        if let Some(incarnation) = behind("is up, incarnation ") {
            self.debian.begin(incarnation.parse().unwrap_or(0));
        }
        line.contains("init:") || line.contains("Kernel panic")
    }

    /// Returns a counter's sum over all incarnations of a partition.
    fn counter(&self, partition: &str, name: &str) -> u64 {
        let stats = self
            .events
            .iter()
            .filter(|event| event.name() == "stats" && event.0["partition"] == partition);
        let last: BTreeMap<_, _> =
            stats.map(|event| (event.0["incarnation"].as_u64(), event.0[name].as_u64())).collect();
        last.values().flatten().sum()
    }
}

fn follow(running: &mut RunningMachine, start: Instant) -> Result<NestedStory> {
    const LOOK: Duration = Duration::from_millis(100);
    const TOLD: [&str; 6] = ["boot", "start", "crash", "restart", "dump_complete", "guest"];
    let (mut story, mut counters) = (NestedStory::default(), CounterPoll::new());
    while !story.is_over() {
        counters.ask(&mut running.events, if story.drains() { STATS_OF_DRAIN } else { STATS })?;
        let at = start.elapsed().as_secs_f64();
        if start.elapsed() > LIMIT {
            bail!("the story took more than {} s", LIMIT.as_secs());
        }
        let mut told = Vec::new();
        match running.events.poll(LOOK) {
            Polled::Event(event) => {
                if TOLD.contains(&event.name()) {
                    told.push(event.0.to_string());
                }
                counters.event(&event);
                story.event(at, &event);
                story.events.push(event);
            }
            Polled::Nothing => {}
            Polled::Ended => bail!("the machine stopped too early"),
        }
        while let Ok(line) = running.console.next_line(Instant::now()) {
            if story.line(at, &line) {
                told.push(line);
            }
        }
        for line in told {
            println!("{at:7.1} s  {line}");
        }
    }
    running.events.command(ANSWER, json!({"command": "stats"}))?;
    story.events = running.events.all().to_vec();
    // Power off first: the readers must not share the CPU with a worker that never ends.
    running.events.send(json!({"command": "poweroff"}))?;
    running.wait_for_end(ANSWER)?;
    Ok(story)
}

fn judge(
    running: &mut RunningMachine,
    bed: Bed,
    story: &NestedStory,
    disks: &[PathBuf],
) -> Result<DemoVerdict> {
    let mut verdict = DemoVerdict::default();
    let [debian_mib, small_mib, pool_mib] = MIB;
    verdict.overcommit((debian_mib + small_mib) * 100 / pool_mib);
    for name in [DEBIAN, SMALL] {
        let reason = story
            .find(name, "crash")
            .and_then(|crash| crash.0["reason"].as_str())
            .unwrap_or("none");
        verdict.claim(&format!("{name}: crash"), reason, reason != "none" && reason != "page lost");
        let restart =
            story.find(name, "restart").with_context(|| format!("{name} did not restart"))?;
        verdict.restart(&format!("{name}: "), restart, story.is_early(name));
    }
    for (name, worker) in [(DEBIAN, &story.debian), (SMALL, &story.small)] {
        let (ins, outs) = (story.counter(name, "page_ins"), story.counter(name, "page_outs"));
        verdict.row(name, [worker.incarnation, ins, outs, worker.verified, worker.wrong], None);
        verdict
            .hold(&format!("{name}: every page right"), worker.verified > 0 && worker.wrong == 0);
    }
    verdict.hold("debian: pages go out", story.counter(DEBIAN, "page_outs") > 0);
    verdict.hold("debian: pages come back", story.counter(DEBIAN, "page_ins") > 0);
    let small = story.verdict_of_small().unwrap_or("none");
    verdict.claim("small: second incarnation", small, small == "pass");
    for name in [DEBIAN, SMALL] {
        let complete = story.find(name, "dump_complete").context("the story is over")?;
        let number = usize::try_from(complete.number("disk")?)?;
        let image = disks.get(number).context("such a disk")?;
        let (disk, checker) = match bed {
            Bed::Nested => (format!("/tmp/disk{number}"), "checker".to_owned()),
            _ => (image.display().to_string(), kernel_build::checker()?.display().to_string()),
        };
        read_where_it_is(running, name, (&disk, &checker), story, &mut verdict)?;
        if bed == Bed::Nested {
            running.nested()?.bring_out(number, image)?;
        }
        let blocks = Dump::open(image, VolumeAccess::Read)?.verify()?;
        let text = format!(
            "{} right, {} zero, {} wrong, {} missing",
            blocks.right, blocks.zero, blocks.wrong, blocks.missing
        );
        verdict.claim(
            &format!("{name}: blocks of the dump"),
            text,
            blocks.wrong + blocks.missing == 0 && blocks.header_current,
        );
    }
    Ok(verdict)
}

/// Reads a partition's dump by the program `checker`, in the Linux that runs the emulator.
fn read_where_it_is(
    running: &mut RunningMachine,
    name: &str,
    (disk, checker): (&str, &str),
    story: &NestedStory,
    verdict: &mut DemoVerdict,
) -> Result<()> {
    let key = if name == DEBIAN { DEBIAN_KEY } else { SMALL_KEY };
    let said = running.beside(&format!("{checker} {disk} {key}"), ANSWER)?;
    let holds = name != DEBIAN
        || story
            .filled
            .first()
            .is_some_and(|pages| said.contains(&format!(" pages {pages} wrong 0 ")));
    verdict.claim(&format!("{name}: pages in the dump"), said.trim(), holds);
    if name == DEBIAN {
        let log = format!("{disk}.log");
        let script = format!(
            "makedumpfile --dump-dmesg {disk} {log} > /dev/null && grep 'Kernel panic' {log} && \
             rm {log}"
        );
        let said = running.beside(&script, ANSWER)?;
        verdict.claim(
            "debian: kernel log, by makedumpfile",
            said.trim(),
            said.contains("sysrq triggered crash"),
        );
    }
    Ok(())
}
