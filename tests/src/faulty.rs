//! A partition whose disk is about to fail, and its neighbour on another disk.
//!
//! ```text
//!   p  crashes again and again   disk 0 (fails), disk 2
//!   q  writes and checks pages   disk 1
//! ```
//!
//! Each disk is served by a server of the test's.

use crate::cuts::GuestTruth;
use crate::nbd::{NbdDisk, Recording};
use crate::scenario::Folder;
use crate::{plan_machine, test_kernel};
use anyhow::{Context, Result, bail};
use boot::bed::{Bed, Clock, Running};
use boot::events::Event;
use boot::screen::{Notice, NoticeWriter};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// For whatever comes next.
pub const LIMIT: Duration = Duration::from_secs(120);
/// The partition whose disk fails.
pub const VICTIM: &str = "p";
/// The partition beside it.
pub const NEIGHBOUR: &str = "q";
/// What the victim writes.
pub const VICTIMS: GuestTruth = GuestTruth { key: 0x4000, seed: 1, writes: 300 };
/// MiB of the disks.
const DISKS_MIB: [u64; 3] = [8, 10, 8];
/// With those of the victim a little more than the pool has: the neighbour waits for its disk now and then, and would be late at
/// every step if the victim kept more than its share.
const NEIGHBOURS_PAGES: u64 = 950;
/// 16 ns an instruction.
const COUNTED: Clock = Clock::Paced(4);
/// Rewrites of the neighbour between two lines of its log.
pub const STEP: u64 = 32;

/// The machine.
pub struct FaultyMachine {
    /// It runs.
    pub running: Running,
    /// Servers of its disks.
    pub disks: Vec<NbdDisk>,
    /// Their images.
    pub images: Vec<PathBuf>,
    /// Lines for the screen, with the event of each.
    pub notices: Vec<(Event, Notice)>,
    /// When the neighbour has said that it got on, in nanoseconds of the machine's clock.
    pub steps: Vec<u64>,
    /// Where the victim's pages begin, once it has said so.
    pub first_page: Option<u64>,
    writer: NoticeWriter,
    _folder: Folder,
}

impl FaultyMachine {
    /// Starts it by this clock; `prepare` gives the disks their rules before the machine sees them.
    ///
    /// # Errors
    /// Where something does not build or start.
    pub fn start(name: &str, clock: TimeBase, prepare: impl FnOnce(&[NbdDisk])) -> Result<Self> {
        let folder = Folder::new(name)?;
        let mut machine = plan_machine(Bed::Qemu, name, &configuration()?, folder.path())?;
        let images = std::mem::take(&mut machine.disks);
        let disks = images.iter().map(|image| NbdDisk::new(image, Recording::Places)).collect::<Result<Vec<_>>>()?;
        machine.disks = disks.iter().map(|disk| disk.serve("node")).collect::<Result<_>>()?;
        machine.clock = if clock == TimeBase::Instructions { COUNTED } else { Clock::Host };
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

    /// Returns the next event; what is wrong with the neighbour, or in the hypervisor, is an error.
    ///
    /// # Errors
    /// Such, or where the machine says nothing more.
    pub fn next_event(&mut self) -> Result<Event> {
        let event = self.running.events.next(Instant::now() + LIMIT)?.context("the machine stopped")?;
        if let Some(notice) = self.writer.event(&event) {
            self.notices.push((event.clone(), notice));
        }
        let (is_neighbours, says) = (event.0["partition"] == NEIGHBOUR, event.0["text"].as_str().unwrap_or(""));
        match event.name() {
            "guest" if event.0["kind"] == "fail" || says.contains("wrong:") => bail!("{}", event.0),
            "guest" if is_neighbours && says.starts_with("writes ") => self.steps.push(event.number("t")?),
            "guest" if event.0["partition"] == VICTIM => {
                let address = says.strip_prefix("first page at 0x").map(|digits| u64::from_str_radix(digits, 16));
                self.first_page = address.transpose()?.or(self.first_page);
            }
            "crash" | "stopped" if is_neighbours => bail!("{}", event.0),
            "panic" | "lost" => bail!("{}", event.0),
            _ => {}
        }
        Ok(event)
    }

    /// Goes through events until one is wanted.
    ///
    /// # Errors
    /// As [`FaultyMachine::next_event`], or where it does not come within two minutes; names what was waited for.
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

/// What a machine's time follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeBase {
    /// Instructions: rates can be compared.
    Instructions,
    /// The host's time.
    Host,
}

fn configuration() -> Result<String> {
    let turmoil = test_kernel("turmoil")?.display().to_string();
    let victim =
        format!("restart = \"immediate\"\nmemory = \"6 MiB\"\nkernel = \"{turmoil}\"\ncmdline = \"{}\"", VICTIMS.cmdline());
    let neighbour = format!(
        "memory = \"8 MiB\"\nkernel = \"{turmoil}\"\ncmdline = \"key=1 seed=7 pages={NEIGHBOURS_PAGES} writes=1000000000 report={STEP}\""
    );
    let mut text = "disk_timeout = \"2 s\"\n[pool]\nmemory = \"8 MiB\"\n[machine]\ncpus = 1\n".to_owned();
    for (n, mib) in DISKS_MIB.iter().enumerate() {
        text += &format!("[[paging_device]]\nimage = \"{n}.img\"\nsize = \"{mib} MiB\"\n");
    }
    for (name, lines) in [(VICTIM, victim), (NEIGHBOUR, neighbour)] {
        text += &format!("[[partition]]\nname = \"{name}\"\n{lines}\n");
    }
    Ok(text)
}
