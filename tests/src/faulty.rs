//! A partition whose disk will fail, and its neighbour on another disk.
//!
//! ```text
//!   p  crashes again and again   disk 0 (fails), disk 2
//!   q  writes and checks pages   disk 1
//! ```
//!
//! Each disk is served by an NBD server of the test.

use crate::cuts::GuestTruth;
use crate::nbd::{NbdDisk, Recording};
use crate::scenario::scenario_folder;
use crate::{plan_machine, test_kernel};
use anyhow::{Context, Result, bail};
use boot::bed::{Bed, ClockBase, RunningMachine};
use boot::events::Event;
use boot::screen::{Notice, NoticeWriter};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time limit for the next step.
pub const LIMIT: Duration = Duration::from_secs(120);
/// The partition whose disk fails.
pub const VICTIM: &str = "p";
/// The other partition.
pub const NEIGHBOUR: &str = "q";
/// The victim's guest.
pub const VICTIMS: GuestTruth = GuestTruth { key: 0x4000, seed: 1, writes: 300 };
/// MiB of the disks.
const DISKS_MIB: [u64; 3] = [8, 10, 8];
/// With the victim's pages a little more than the pool holds. So the neighbour waits for its disk
/// now and then, and would be late at every step if the victim kept more than its share.
const NEIGHBOURS_PAGES: u64 = 950;
/// 16 ns an instruction.
const COUNTED: ClockBase = ClockBase::Paced(4);
/// Rewrites of the neighbour between two lines of its log.
pub const STEP: u64 = 32;

/// A machine with disks that can fail.
pub struct FaultyMachine {
    /// The running machine.
    pub running: RunningMachine,
    /// The NBD servers of its disks.
    pub disks: Vec<NbdDisk>,
    /// Their images.
    pub images: Vec<PathBuf>,
    /// Notices for the screen, each with its event.
    pub notices: Vec<(Event, Notice)>,
    /// Times of the neighbour's progress lines, in nanoseconds of the machine's clock.
    pub steps: Vec<u64>,
    /// Address of the victim's first page, once the guest has logged it.
    pub first_page: Option<u64>,
    writer: NoticeWriter,
    _folder: TempDir,
}

impl FaultyMachine {
    /// Starts the machine with this clock; `prepare` gives the disks their rules before the machine
    /// uses them.
    ///
    /// # Errors
    /// Where something does not build or start.
    pub fn start(name: &str, clock: TimeBase, prepare: impl FnOnce(&[NbdDisk])) -> Result<Self> {
        let folder = scenario_folder(name)?;
        let mut machine = plan_machine(Bed::Qemu, name, &configuration()?, folder.path())?;
        let images = std::mem::take(&mut machine.disks);
        let disks = images
            .iter()
            .map(|image| NbdDisk::new(image, Recording::Places))
            .collect::<Result<Vec<_>>>()?;
        machine.disks = disks.iter().map(|disk| disk.serve("node")).collect::<Result<_>>()?;
        machine.clock = if clock == TimeBase::Instructions { COUNTED } else { ClockBase::Host };
        prepare(&disks);
        let writer = NoticeWriter::new(&images, None);
        Ok(Self {
            running: machine.start()?,
            disks,
            images,
            notices: Vec::new(),
            steps: Vec::new(),
            first_page: None,
            writer,
            _folder: folder,
        })
    }

    /// Returns the next event. A fault of the neighbour or in the hypervisor is an error.
    ///
    /// # Errors
    /// At such a fault, or where no further event comes.
    pub fn next_event(&mut self) -> Result<Event> {
        let event =
            self.running.events.next(Instant::now() + LIMIT)?.context("the machine stopped")?;
        if let Some(notice) = self.writer.event(&event) {
            self.notices.push((event.clone(), notice));
        }
        let (is_neighbours, says) =
            (event.0["partition"] == NEIGHBOUR, event.0["text"].as_str().unwrap_or(""));
        match event.name() {
            "guest" if event.0["kind"] == "fail" || says.contains("wrong:") => bail!("{}", event.0),
            "guest" if is_neighbours && says.starts_with("writes ") => {
                self.steps.push(event.number("t")?)
            }
            "guest" if event.0["partition"] == VICTIM => {
                let address = says
                    .strip_prefix("first page at 0x")
                    .map(|digits| u64::from_str_radix(digits, 16));
                self.first_page = address.transpose()?.or(self.first_page);
            }
            "crash" | "stopped" if is_neighbours => bail!("{}", event.0),
            "panic" | "lost" => bail!("{}", event.0),
            _ => {}
        }
        Ok(event)
    }

    /// Reads events until `wanted` accepts one; returns that.
    ///
    /// # Errors
    /// As [`FaultyMachine::next_event`], or where it does not come within two minutes; the error
    /// contains `what`.
    pub fn until(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Result<Event> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let event = self.next_event().with_context(|| format!("waiting for {what}"))?;
            if wanted(&event) {
                return Ok(event);
            }
            if Instant::now() > deadline {
                bail!("{what} does not come; the last event was {}", event.0);
            }
        }
    }

    /// Returns the transcript's place.
    pub fn place(&self) -> String {
        format!("transcript in {}", self.running.folder().display())
    }
}

/// The time base of a machine's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeBase {
    /// Instructions: rates can be compared.
    Instructions,
    /// The host's time.
    Host,
}

fn configuration() -> Result<String> {
    let turmoil = test_kernel("turmoil")?.display().to_string();
    let victim = format!(
        "restart = \"immediate\"\nmemory = \"6 MiB\"\nkernel = \"{turmoil}\"\ncmdline = \"{}\"",
        VICTIMS.cmdline()
    );
    let neighbour = format!(
        "memory = \"8 MiB\"\nkernel = \"{turmoil}\"\ncmdline = \"key=1 seed=7 \
         pages={NEIGHBOURS_PAGES} writes=1000000000 report={STEP}\""
    );
    let mut text =
        "disk_timeout = \"2 s\"\n[pool]\nmemory = \"8 MiB\"\n[machine]\ncpus = 1\n".to_owned();
    for (n, mib) in DISKS_MIB.iter().enumerate() {
        text += &format!("[[paging_device]]\nimage = \"{n}.img\"\nsize = \"{mib} MiB\"\n");
    }
    for (name, lines) in [(VICTIM, victim), (NEIGHBOUR, neighbour)] {
        text += &format!("[[partition]]\nname = \"{name}\"\n{lines}\n");
    }
    Ok(text)
}
