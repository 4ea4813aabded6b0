//! A partition with the test kernel `states` on QEMU, its paging devices, and access to all three.
//!
//! ```text
//!   Scene (a folder: configuration, images) ── start ──> Play (a machine that runs) ── cut or end ──> the images again
//! ```

use crate::{plan_machine, test_kernel};
use anyhow::{Context, Result, bail, ensure};
use boot::bed::{Bed, BedMachine, RunningMachine};
use boot::events::Event;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time limit for the machine's next step.
pub const LIMIT: Duration = Duration::from_secs(120);
/// The partition's name.
pub const PARTITION: &str = "p";

/// The parts of a scene.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The partition's memory in MiB.
    pub memory_mib: u64,
    /// The pool in MiB.
    pub pool_mib: u64,
    /// The sizes of the paging devices in MiB.
    pub devices_mib: &'static [u64],
    /// The test kernel's command line.
    pub cmdline: &'static str,
    /// Further lines of the partition's section.
    pub partition: &'static str,
}

/// A folder with images, and the machine to run on them.
pub struct Scene {
    folder: TempDir,
    name: &'static str,
    bed: Bed,
    setting: Setting,
}

impl Scene {
    /// Creates the folder, empty.
    ///
    /// # Errors
    /// Where it cannot be created.
    pub fn new(bed: Bed, name: &'static str, setting: Setting) -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, name, bed, setting })
    }

    /// Returns the image of a paging device.
    pub fn image(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("disk{number}.img"))
    }

    /// Creates the missing images, and describes the machine.
    ///
    /// # Errors
    /// Where something does not build, or the configuration is refused.
    pub fn machine(&self) -> Result<BedMachine> {
        let Setting { memory_mib, pool_mib, devices_mib, cmdline, partition } = self.setting;
        let device = |(n, mib)| {
            format!("[[paging_device]]\nimage = \"disk{n}.img\"\nsize = \"{mib} MiB\"\n")
        };
        let devices: String = devices_mib.iter().enumerate().map(device).collect();
        let kernel = test_kernel("states")?;
        let text = format!(
            "[pool]\nmemory = \"{pool_mib} MiB\"\n{devices}[[partition]]\nname = \
             \"{PARTITION}\"\nmemory = \"{memory_mib} MiB\"\nkernel = \"{}\"\ncmdline = \
             \"{cmdline}\"\n{partition}\n",
            kernel.display()
        );
        plan_machine(self.bed, self.name, &text, self.folder.path())
    }

    /// Starts the machine.
    ///
    /// # Errors
    /// As [`Scene::machine`], or where the emulator does not start.
    pub fn start(&self) -> Result<Play> {
        Play::of(&self.machine()?)
    }
}

/// A machine that runs a scene.
pub struct Play {
    /// The machine.
    pub running: RunningMachine,
}

impl Play {
    /// Starts `machine`.
    ///
    /// # Errors
    /// Where the emulator does not start.
    pub fn of(machine: &BedMachine) -> Result<Self> {
        Ok(Self { running: machine.start()? })
    }

    /// Waits for an event by name.
    ///
    /// # Errors
    /// Where it does not come in time; names the transcript.
    pub fn event(&mut self, name: &str) -> Result<Event> {
        self.running
            .events
            .wait_named(LIMIT, name)
            .with_context(|| format!("{}", self.running.folder().display()))
    }

    /// Waits for an event of this name that `wanted` accepts.
    ///
    /// # Errors
    /// As [`Play::event`].
    pub fn event_with(&mut self, name: &str, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
        let found = self
            .running
            .events
            .wait_for(LIMIT, &format!("event “{name}”"), |e| e.name() == name && wanted(e));
        found.with_context(|| format!("{}", self.running.folder().display()))
    }

    /// Waits until disk `number` is in this state.
    ///
    /// # Errors
    /// As [`Play::event`].
    pub fn space(&mut self, number: usize, state: &str) -> Result<Event> {
        self.event_with("space", |e| e.0["disk"] == number && e.0["state"] == state)
    }

    /// Waits until the guest logs a line that begins with `start`; returns the rest.
    ///
    /// # Errors
    /// As [`Play::event`].
    pub fn line(&mut self, start: &str) -> Result<String> {
        let says = |e: &Event| {
            e.0["kind"] == "log" && e.0["text"].as_str().is_some_and(|text| text.starts_with(start))
        };
        let event =
            self.event_with("guest", says).with_context(|| format!("waiting for “{start}”"))?;
        Ok(event.text("text")?[start.len()..].to_owned())
    }

    /// Presses a key at the guest's console.
    ///
    /// # Errors
    /// Where the machine has ended.
    pub fn key(&mut self, key: u8) -> Result<()> {
        self.running.console.send(&[key])
    }

    /// Brings the guest to “ready”, with all pages that it filled first paged out; returns the
    /// address of its first page.
    ///
    /// # Errors
    /// Where the guest does not get that far.
    pub fn get_ready(&mut self) -> Result<u64> {
        let start = self.line("first page at 0x")?;
        self.line("filled ")?;
        self.evict_all()?;
        self.key(b'.')?;
        self.line("ready")?;
        Ok(u64::from_str_radix(&start, 16)?)
    }

    /// Evicts pages until hardly any is resident and no write is in flight.
    ///
    /// # Errors
    /// Where the machine refuses the command.
    pub fn evict_all(&mut self) -> Result<()> {
        // The guest's working set (code, stack, tables) is faulted in again at once.
        const WORKING_SET: u64 = 32;
        for _ in 0..10_000 {
            if self.stats()?.number("resident")? <= WORKING_SET {
                // The last request may not be complete yet; a new one replaces it.
                self.command("evict", Some(0))?;
                return Ok(());
            }
            self.command("evict", Some(1 << 20))?;
        }
        bail!("eviction does not end: {}", self.stats()?.0)
    }

    /// Returns the partition's counters.
    ///
    /// # Errors
    /// Where the machine does not answer.
    pub fn stats(&mut self) -> Result<Event> {
        self.running.events.send(json!({"command": "stats"}))?;
        self.event("stats")
    }

    /// Polls the partition's counters until `holds` accepts them.
    ///
    /// # Errors
    /// Where that takes longer than [`LIMIT`], or as [`Play::stats`].
    pub fn until(&mut self, what: &str, holds: impl Fn(&Event) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let stats = self.stats()?;
            if holds(&stats)? {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{what} did not come within {} s: {}",
                LIMIT.as_secs(),
                stats.0
            );
        }
    }

    /// Sends a command about the partition, with a number where the command takes one.
    ///
    /// # Errors
    /// Where the command is refused.
    pub fn command(&mut self, word: &str, count: Option<u64>) -> Result<()> {
        let reply = self.ask(word, count)?;
        ensure!(reply.0["ok"] == true, "{word} was refused: {}", reply.0);
        Ok(())
    }

    /// Crashes the partition as an operator would; returns the event, which may come before the
    /// command's reply.
    ///
    /// # Errors
    /// As [`Play::event`].
    pub fn crash(&mut self) -> Result<Event> {
        self.running.events.send(json!({"command": "crash", "partition": PARTITION}))?;
        self.event("crash")
    }

    /// Sends a command about the partition that must be refused; returns the reason.
    ///
    /// # Errors
    /// Where the command is carried out.
    pub fn refused(&mut self, word: &str) -> Result<String> {
        let reply = self.ask(word, None)?;
        ensure!(reply.0["ok"] == false, "{word} was not refused");
        Ok(reply.text("error")?.to_owned())
    }

    /// Sends a command of any form; returns the reason where it was refused, or `None` where it was
    /// carried out.
    ///
    /// # Errors
    /// Where the machine does not answer.
    pub fn asked(&mut self, command: serde_json::Value) -> Result<Option<String>> {
        let reply = self.running.events.command(LIMIT, command)?;
        Ok(if reply.0["ok"] == true { None } else { Some(reply.text("error")?.to_owned()) })
    }

    fn ask(&mut self, word: &str, count: Option<u64>) -> Result<Event> {
        let mut command = json!({"command": word, "partition": PARTITION});
        if let Some(count) = count {
            command["count"] = count.into();
        }
        self.running.events.command(LIMIT, command)
    }

    /// Cuts the power: writes that reached the host's kernel survive, the machine's memory does
    /// not.
    pub fn cut_power(mut self) {
        self.running.cut_power();
        self.running.passed();
    }

    /// Switches the machine off in an orderly way.
    ///
    /// # Errors
    /// Where it does not end, or ends without success.
    pub fn power_off(mut self) -> Result<()> {
        self.running.events.send(json!({"command": "poweroff"}))?;
        crate::expect_success(self.running, LIMIT)
    }
}
