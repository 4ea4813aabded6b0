//! Eight partitions at overcommit 3 that crash and restart at seeded random, some immediately, some
//! at the threshold: every page of every dump is correct, and at the end no resource is lost.
//!
//! `TIDEPOOL_SOAK_SECONDS=3600` makes the run an hour long by the hypervisor's clock, which then
//! counts instructions and leaps over idle time. Otherwise the run is short.

use anyhow::{Context, Result, bail, ensure};
use boot::bed::{Bed, ClockBase};
use boot::dump::Dump;
use boot::events::Event;
use boot::volume::VolumeAccess;
use kernel::space::SpaceState;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};
use tests::core::keyed_pages;
use tests::scenario::StartedScenario;
use tests::seeds;
use tests::several::{Member, Several};
use tests::{Case, expect_success};
use worker::turmoil::Turmoil;

pub(crate) const CASES: &[Case] = &[Case {
    name: "eight_that_crash_at_random_lose_no_page_and_no_frame",
    beds: &[Bed::Qemu, Bed::Kvm],
    needs: &[],
    run: soak,
}];

const LIMIT: Duration = Duration::from_secs(120);
const PARTITIONS: usize = 8;
const MEMORY_MIB: u64 = 6;
const POOL_MIB: u64 = 16;
/// Keyed pages of each partition: most of its memory.
const PAGES: u64 = 1100;
/// Least number of rewrites between a start and the crash.
const WRITES: u64 = 2500;
/// Length of a short run, in seconds of the hypervisor's clock.
const SHORT_S: u64 = 15;
/// The clock of a long run: 32 ns an instruction, as on a CPU of 31 MIPS. An hour of it takes about
/// ten minutes.
const LONG: ClockBase = ClockBase::Instructions(5);
/// More spaces than partitions, for the dumps that are not checked yet.
const SPACES: usize = 12;

fn name(index: usize) -> String {
    format!("p{index}")
}

fn soak(bed: Bed) -> Result<()> {
    let seed = seeds::announced();
    let member = |index| Member {
        lines: if index % 2 == 0 { "restart = \"threshold\"" } else { "restart = \"immediate\"" },
        ..Member::new(&name(index), "turmoil", MEMORY_MIB, &cmdline(seed, index))
    };
    let seconds = seeds::number_from("TIDEPOOL_SOAK_SECONDS");
    // With instruction counting QEMU runs its CPUs in turn, and QEMU 7.2 gives every turn to the
    // first CPU with work.
    let (clock, cpus) =
        if seconds.is_some() && bed == Bed::Qemu { (LONG, 1) } else { (ClockBase::Host, 2) };
    let several = Several {
        pool_mib: POOL_MIB,
        cpus,
        devices_mib: vec![MEMORY_MIB + 2; SPACES],
        members: (0..PARTITIONS).map(member).collect(),
    };
    let started = several.start_by(clock, bed, &format!("{}-soak", bed.name()))?;
    let place = started.place();
    let seconds = seconds.unwrap_or(SHORT_S);
    Soak {
        started,
        seed,
        seconds,
        dumps: 0,
        crashes: 0,
        stopped: BTreeSet::new(),
        open: BTreeSet::new(),
    }
    .run()
    .with_context(|| format!("TIDEPOOL_SEED={seed}; {place}"))
}

fn cmdline(seed: u64, index: usize) -> String {
    format!("key={} seed={} pages={PAGES} writes={WRITES}", key(index), seed_of(seed, index))
}

fn key(index: usize) -> u64 {
    0x1000 + index as u64
}

fn seed_of(seed: u64, index: usize) -> u64 {
    seed.wrapping_mul(31).wrapping_add(index as u64)
}

/// The state of a run.
struct Soak {
    started: StartedScenario,
    seed: u64,
    /// Length of the run, by the hypervisor's clock.
    seconds: u64,
    dumps: u64,
    crashes: u64,
    /// Partitions that have stopped for good.
    stopped: BTreeSet<String>,
    /// Dumps begun and not yet released: partition and incarnation.
    open: BTreeSet<(String, u64)>,
}

impl Soak {
    fn run(mut self) -> Result<()> {
        // Before this event the line is the firmware's.
        self.until(|_, event| Ok(event.name() == "start"))?;
        let before = self.pool()?;
        ensure!(before.number("tags")? == PARTITIONS as u64, "{}", before.0);
        self.until(|soak, event| {
            Ok(event.number("t")? >= soak.seconds * 1_000_000_000
                && soak.dumps >= PARTITIONS as u64)
        })?;
        for index in 0..PARTITIONS {
            self.started
                .running
                .events
                .send(json!({"command": "kill", "partition": name(index)}))?;
        }
        self.until(|soak, _| Ok(soak.stopped.len() == PARTITIONS && soak.open.is_empty()))?;
        let (dumps, crashes) = (self.dumps, self.crashes);
        println!("{crashes} crashes, {dumps} dumps checked, in {} s", self.seconds);
        ensure!(
            dumps == crashes && dumps >= PARTITIONS as u64,
            "{dumps} dumps of {crashes} crashes"
        );
        self.nothing_is_lost(&before)?;
        self.started.running.events.send(json!({"command": "poweroff"}))?;
        expect_success(self.started.running, LIMIT)
    }

    /// Reads events until `end` accepts one; returns that.
    fn until(&mut self, end: impl Fn(&Self, &Event) -> Result<bool>) -> Result<Event> {
        loop {
            let event = self
                .started
                .running
                .events
                .next(Instant::now() + LIMIT)?
                .context("the machine stopped")?;
            self.take(&event)?;
            if end(self, &event)? {
                return Ok(event);
            }
        }
    }

    fn take(&mut self, event: &Event) -> Result<()> {
        let word = |member: &str| event.0[member].as_str().unwrap_or("").to_owned();
        match event.name() {
            "crash" => {
                ensure!(word("reason") == "triple fault", "{}", event.0);
                self.crashes += 1;
                self.open.insert((word("partition"), event.number("incarnation")?));
            }
            "restart" if word("gate") == "threshold" => {
                let number = |member| event.number(member);
                ensure!(number("freed_from_image")? >= number("boot_memory")?, "{}", event.0);
                ensure!(
                    number("reserved")? >= number("boot_memory")?,
                    "neighbours had what was promised: {}",
                    event.0
                );
            }
            "dump_complete" => self.check(event)?,
            // This event also comes for a space without a dump, whose partition has stopped.
            "released" => {
                self.open.remove(&(word("partition"), event.number("incarnation")?));
            }
            "stopped" => {
                self.stopped.insert(word("partition"));
            }
            "guest" if word("kind") == "fail" || word("text").contains("wrong:") => {
                bail!("{}", event.0)
            }
            "error" | "dump_failed" | "panic" | "lost" => bail!("{}", event.0),
            "reply" => ensure!(
                event.0["ok"] == true || word("error").contains("stopped already"),
                "{}",
                event.0
            ),
            _ => {}
        }
        Ok(())
    }

    /// Checks a dump against the expected writes of the run, and releases it.
    fn check(&mut self, complete: &Event) -> Result<()> {
        let (partition, incarnation) =
            (complete.text("partition")?, complete.number("incarnation")?);
        let disk = usize::try_from(complete.number("disk")?)?;
        let index = partition[1..].parse()?;
        check_dump(&self.started.disks[disk], self.seed, index, incarnation).with_context(
            || format!("dump of {partition}, incarnation {incarnation}, on disk {disk}"),
        )?;
        self.dumps += 1;
        self.started
            .running
            .events
            .send(json!({"command": "release", "partition": partition, "count": incarnation}))?;
        Ok(())
    }

    fn pool(&mut self) -> Result<Event> {
        self.started.running.events.send(json!({"command": "stats"}))?;
        self.until(|_, event| Ok(event.name() == "pool"))
    }

    /// Returns a space that is not free, if there is one.
    fn space_in_use(&self) -> Result<Option<(String, SpaceState)>> {
        for disk in &self.started.disks {
            let state = boot::volume::SpaceImage::open(disk, VolumeAccess::Read)?.record()?.state;
            if state != SpaceState::Free {
                return Ok(Some((disk.display().to_string(), state)));
            }
        }
        Ok(None)
    }

    /// Checks that the counters are as before the partitions ran: all frames free, no object, no
    /// table, no tag but those of the vCPUs.
    fn nothing_is_lost(&mut self, before: &Event) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        let pool = loop {
            let pool = self.pool()?;
            if pool.number("free")? == pool.number("pages")? && pool.number("objects")? == 0 {
                break pool;
            }
            ensure!(Instant::now() < deadline, "something is left: {}", pool.0);
        };
        ensure!(pool.number("tables")? == 0, "{}", pool.0);
        ensure!(
            pool.number("tags")? == before.number("tags")?,
            "{} before, {} now",
            before.0,
            pool.0
        );
        // Spaces of stopped partitions are still being scrubbed.
        while let Some((disk, state)) = self.space_in_use()? {
            ensure!(Instant::now() < deadline, "{disk}: {state:?}");
            self.pool()?;
        }
        Ok(())
    }
}

/// Checks that every page that the incarnation filled is there once, with its last content.
fn check_dump(image: &Path, seed: u64, index: usize, incarnation: u64) -> Result<()> {
    let verdict = Dump::open(image, VolumeAccess::Read)?.verify()?;
    ensure!(verdict.wrong == 0 && verdict.missing == 0 && verdict.header_current, "{verdict:?}");
    let mut generations: BTreeMap<u64, u64> = (0..PAGES).map(|page| (page, 0)).collect();
    for page in Turmoil::new(seed_of(seed, index), incarnation, PAGES, WRITES) {
        *generations.entry(page).or_default() += 1;
    }
    let found = keyed_pages(&std::fs::read(image)?, key(index))?;
    ensure!(found.wrong == 0, "{} pages are wrong", found.wrong);
    let differs = |page: &u64| found.generations.get(page) != generations.get(page);
    let different: Vec<_> = (0..PAGES).filter(differs).collect();
    ensure!(different.is_empty(), "pages {different:?} are not what was last written");
    Ok(())
}
