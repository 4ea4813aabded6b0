//! A partition on two slow disks that crashes, starts again while its dump drains, and whose dumps
//! are released: again and again.
//!
//! ```text
//!   activation ─> paging ─> crash ─> CRASHED, DRAINING ─> COMPLETE ─> release ─> scrub ─> FREE
//!        ^                    └─ restart on the other disk                          │
//!        └──────────────────────────────────────────────────────────────────────────┘
//! ```

use super::promises::DumpPromises;
use super::truth::GuestTruth;
use crate::scenario::scenario_folder;
use crate::seeds::Choices;
use crate::{plan_machine, test_kernel};
use anyhow::{Context, Result, bail, ensure};
use boot::bed::{Bed, BedMachine, RunningMachine};
use boot::events::Event;
use boot::volume;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The partition.
pub const PARTITION: &str = "p";
/// Bytes of a disk.
const DISK_BYTES: u64 = 8 << 20;
/// Further lines of the machine during a cycle: its disks are slow, so that each step takes time.
pub const SLOW_DISKS: &str = "disk_bandwidth = \"4 MiB\"";
/// Time limit for the next event.
pub const LIMIT: Duration = Duration::from_secs(120);

/// The folder and the two images of a cycle.
pub struct CycleDisks {
    folder: TempDir,
    /// The images.
    pub images: Vec<PathBuf>,
}

impl CycleDisks {
    /// Creates two free spaces in a folder of their own.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn new(name: &str) -> Result<Self> {
        let folder = scenario_folder(name)?;
        let images: Vec<_> = (0..2).map(|n| folder.path().join(format!("{n}.img"))).collect();
        images.iter().try_for_each(|image| volume::create(image, DISK_BYTES))?;
        Ok(Self { folder, images })
    }

    /// Describes a machine on these disks with one partition of 6 MiB and a pool of 4 MiB.
    ///
    /// # Errors
    /// Where something does not build.
    pub fn machine(&self, name: &str, truth: &GuestTruth, lines: &str) -> Result<BedMachine> {
        let kernel = test_kernel("turmoil")?;
        let text = format!(
            "[pool]\nmemory = \"4 MiB\"\n[machine]\ncpus = 1\n{lines}\n[[paging_device]]\nimage = \
             \"0.img\"\n[[paging_device]]\nimage = \"1.img\"\n[[partition]]\nname = \
             \"{PARTITION}\"\nmemory = \"6 MiB\"\nkernel = \"{}\"\ncmdline = \"{}\"\nrestart = \
             \"immediate\"\n",
            kernel.display(),
            truth.cmdline()
        );
        plan_machine(Bed::Qemu, name, &text, self.folder.path())
    }

    /// Copies the images to the folder of a failed run's transcript.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn keep_in(&self, transcript: &Path) -> Result<()> {
        for image in &self.images {
            std::fs::copy(
                image,
                transcript.join(image.file_name().context("an image has a name")?),
            )?;
        }
        Ok(())
    }
}

/// A running cycle.
pub struct CrashCycle {
    /// The machine.
    pub running: RunningMachine,
    /// The hypervisor's promises so far.
    pub promises: DumpPromises,
    /// Address of the guest's first page, once the guest has logged it.
    pub first_page: Option<u64>,
    dice: Choices,
}

impl CrashCycle {
    /// Takes over a machine of [`CycleDisks::machine`].
    pub fn new(running: RunningMachine, dice: Choices) -> Self {
        Self { running, promises: DumpPromises::default(), first_page: None, dice }
    }

    /// Takes an event without reacting to it.
    ///
    /// # Errors
    /// Where it reports a fault.
    pub fn note(&mut self, event: &Event) -> Result<()> {
        self.promises.take(event);
        let says = event.0["text"].as_str().unwrap_or("");
        match event.name() {
            "guest" if event.0["kind"] == "fail" || says.contains("wrong:") => bail!("{}", event.0),
            "guest" => {
                let address = says
                    .strip_prefix("first page at 0x")
                    .map(|digits| u64::from_str_radix(digits, 16));
                self.first_page = address.transpose()?.or(self.first_page);
            }
            "crash" => ensure!(event.0["reason"] == "triple fault", "{}", event.0),
            "error" | "panic" | "dump_failed" | "dump_skipped" | "lost" => bail!("{}", event.0),
            "reply" => ensure!(event.0["ok"] == true, "{}", event.0),
            _ => {}
        }
        Ok(())
    }

    /// Takes an event and releases dumps: most at once, the others when the partition waits for a
    /// space.
    ///
    /// # Errors
    /// As [`CrashCycle::note`], or where the machine has ended.
    pub fn play(&mut self, event: &Event) -> Result<()> {
        self.note(event)?;
        let is_due = match event.name() {
            "dump_complete" => !self.dice.one_in(4) || self.promises.whole().len() > 1,
            "waiting" => true,
            _ => false,
        };
        for incarnation in if is_due { self.promises.whole() } else { Vec::new() } {
            self.promises.release(incarnation);
            let command =
                json!({"command": "release", "partition": PARTITION, "count": incarnation});
            self.running.events.send(command)?;
        }
        Ok(())
    }
}
