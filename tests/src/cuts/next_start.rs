//! A new start of the hypervisor on the disks after a power cut: claims, the earlier dumps, and
//! another guest that pages.

use super::cycle::{CycleDisks, LIMIT};
use super::survey::HeldDump;
use super::truth::GuestTruth;
use crate::expect_success;
use anyhow::{Context, Result, bail, ensure};
use boot::bed::RunningMachine;
use boot::events::Event;
use kernel::space::claim::{ClaimSectors, PAGE_LEN, SpaceClaim};
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

/// The guest's log line once it has read and written enough pages.
const ENOUGH: &str = "writes 1024 wrong 0";

/// The states of a space with a dump.
const DUMP_STATES: [&str; 4] = ["crashed", "draining", "complete", "partial"];

/// A start, and the expected contents of each disk.
pub struct NextStart<'d> {
    disks: &'d CycleDisks,
    expected: Vec<Option<HeldDump>>,
    /// The highest epoch of a claim on each disk before the start.
    epochs: Vec<u64>,
    has_started: bool,
}

impl<'d> NextStart<'d> {
    /// Expects the dumps `held` on `disks` to survive.
    ///
    /// # Errors
    /// Where a disk cannot be read.
    pub fn new(disks: &'d CycleDisks, held: Vec<Option<HeldDump>>) -> Result<Self> {
        let epochs =
            disks.images.iter().map(|image| Ok(claims(image)?.epoch())).collect::<Result<_>>()?;
        let expected = held.into_iter().map(|dump| dump.map(HeldDump::after_a_start)).collect();
        Ok(Self { disks, expected, epochs, has_started: false })
    }

    /// Starts the hypervisor with another guest until that guest has paged enough; then checks
    /// claims and dumps. `truth` and `first` are those of the guest before.
    ///
    /// # Errors
    /// Names the fault; the transcript and the images are kept.
    pub fn check(mut self, name: &str, truth: &GuestTruth, first: Option<u64>) -> Result<()> {
        let guest = GuestTruth { key: truth.key + 1, seed: truth.seed + 1, writes: 100_000 };
        let mut running = self.disks.machine(name, &guest, "")?.start()?;
        let transcript = running.folder().to_owned();
        let result = self.play(&mut running).and_then(|()| self.look_at_claims()).and_then(|()| {
            running.events.send(json!({"command": "poweroff"}))?;
            expect_success(running, LIMIT)?;
            self.look_at_disks(truth, first)
        });
        if result.is_err() {
            std::fs::create_dir_all(&transcript)?;
            self.disks.keep_in(&transcript)?;
        }
        result.with_context(|| {
            format!("the start behind the cut, images in {}", transcript.display())
        })
    }

    /// Runs until the guest has paged enough; releases a dump where both spaces hold one.
    fn play(&mut self, running: &mut RunningMachine) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let event = running.events.next(deadline)?.context("the machine stopped")?;
            let says = event.0["text"].as_str().unwrap_or("");
            match event.name() {
                "guest" if event.0["kind"] == "fail" || says.contains("wrong:") => {
                    bail!("{}", event.0)
                }
                "guest" if says == ENOUGH => return Ok(()),
                "start" => self.has_started = true,
                "waiting" if !self.has_started && self.expected.iter().all(Option::is_some) => {
                    self.release_one(running)?
                }
                "error" | "panic" | "dump_failed" | "crash" | "lost" => bail!("{}", event.0),
                "reply" => ensure!(event.0["ok"] == true, "{}", event.0),
                "space" => self.look_at_event(&event)?,
                _ => {}
            }
        }
    }

    /// Checks that a space with a dump is reported in the dump's state, and in no other.
    fn look_at_event(&self, event: &Event) -> Result<()> {
        let disk = usize::try_from(event.number("disk")?)?;
        match self.expected.get(disk).context("a disk of ours")? {
            Some(dump) => {
                ensure!(event.text("state")? == dump.state.name(), "{dump:?}: {}", event.0)
            }
            None => ensure!(!DUMP_STATES.contains(&event.text("state")?), "{}", event.0),
        }
        Ok(())
    }

    /// Releases a dump: where each space holds one, the partition waits for that. (It also waits
    /// for the scrub.)
    fn release_one(&mut self, running: &mut RunningMachine) -> Result<()> {
        let dump = self.expected[0].take().context("a dump on the first disk")?;
        running.events.send(json!({"command": "release", "dump": dump.name}))?;
        Ok(())
    }

    /// Checks that the new start owns every disk, in claim and record, by a higher epoch than any
    /// before.
    fn look_at_claims(&self) -> Result<()> {
        let owners: Vec<_> =
            self.disks.images.iter().map(|image| claims(image)).collect::<Result<_>>()?;
        for (disk, (claims, before)) in owners.iter().zip(&self.epochs).enumerate() {
            let owner = claims.owner().with_context(|| format!("disk {disk} has no owner"))?;
            ensure!(owner.epoch > *before, "disk {disk}: epoch {} behind {before}", owner.epoch);
        }
        let nodes: Vec<_> =
            owners.iter().filter_map(ClaimSectors::owner).map(|claim| claim.node).collect();
        ensure!(nodes.windows(2).all(|pair| pair[0] == pair[1]), "two nodes: {nodes:?}");
        Ok(())
    }

    fn look_at_disks(&self, truth: &GuestTruth, first: Option<u64>) -> Result<()> {
        for (image, expected) in self.disks.images.iter().zip(&self.expected) {
            let held = HeldDump::on(image)?;
            ensure!(held == *expected, "{}: {held:?} in place of {expected:?}", image.display());
            ensure!(
                claims(image)?.owner().is_none(),
                "{}: the claim is not given back",
                image.display()
            );
            if let Some(dump) = held {
                dump.check(image, truth, first.context("a dump of a guest that has not begun")?)?;
            }
        }
        Ok(())
    }
}

/// Reads the claims of a disk.
fn claims(image: &Path) -> Result<ClaimSectors> {
    let mut page = [0; PAGE_LEN];
    let start = SpaceClaim::start(std::fs::metadata(image)?.len()).context("room for a claim")?;
    File::open(image)?.read_exact_at(&mut page, start)?;
    Ok(ClaimSectors::decode(&page))
}
