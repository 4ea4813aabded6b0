//! The beds: emulators that Tidepool runs on, with one description of a machine and one handle of a
//! running machine.
//!
//! ```text
//!  Machine ──start──> Running { console: Line, events: Events, the emulator } ──finish──> Ended
//! ```
//!
//! A run keeps its console, events and emulator output in a folder of its own ([`transcript`]). The
//! folder is removed when the run is [passed](RunningMachine::passed). Otherwise it is kept, as one
//! of the newest few.

pub mod bochs;
mod bochsrc;
pub mod features;
pub mod kind;
pub mod kvm;
pub mod nested;
pub mod process;
pub mod qemu;
mod runner;
mod running;
mod transcript;

pub use kind::Bed;
pub use running::{MachineEnd, RunningMachine};
pub use transcript::KEPT;
use transcript::RunFolder;

use crate::archive::{ModuleArchive, ModuleSource};
use crate::config::BootPlan;
use crate::serial::Echo;
use anyhow::{Context, Result};
use kernel::archive::BootArchive;
use kernel::log::symbols;
use std::path::{Path, PathBuf};

/// The boot archive's name in the run's folder.
pub(crate) const ARCHIVE: &str = "archive.tar";

/// The time base of the machine's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClockBase {
    /// The host's time.
    #[default]
    Host,
    /// Retired instructions, 2 to this power nanoseconds each: two runs without disks are
    /// identical. (Bochs always counts instructions: as `Host`, 20 ns each.)
    Instructions(u8),
    /// As [`ClockBase::Instructions`]; but while all CPUs are idle, time passes at the host's rate
    /// and does not leap to the next timer. So a disk's completion does not come too late for a CPU
    /// that only waits for it.
    Paced(u8),
}

/// The way in which the hypervisor gets into the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Medium {
    /// The bed's usual way: QEMU loads the hypervisor itself, Bochs boots a CD.
    #[default]
    Usual,
    /// From a USB stick's image, by this firmware (QEMU and KVM only).
    Stick(Firmware),
}

/// The firmware that starts a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Firmware {
    /// A PC's BIOS.
    Bios,
    /// UEFI: Debian's OVMF.
    Uefi,
}

/// A machine to start.
#[derive(Clone, Debug)]
pub struct BedMachine {
    /// The bed that it runs on.
    pub bed: Bed,
    /// Name for the folder of its transcript.
    pub name: String,
    /// CPUs of the host machine that run guests.
    pub cpus: u32,
    /// MiB of memory of the host machine.
    pub memory_mib: u64,
    /// The hypervisor's ELF file.
    pub hypervisor: PathBuf,
    /// The boot archive, written when the machine starts; the hypervisor's symbols are added then.
    pub archive: ModuleArchive,
    /// The hypervisor's command line.
    pub append: String,
    /// Images of virtio-blk disks, in order.
    pub disks: Vec<PathBuf>,
    /// The file with the local copy of a cluster's state, a further disk; made when the machine
    /// starts.
    pub local: Option<PathBuf>,
    /// Images of further virtio-blk disks, which other machines may have at the same time: image
    /// stores, then cluster areas.
    pub shared: Vec<PathBuf>,
    /// Limit of each disk's bandwidth in bytes a second, if one is set.
    pub disk_bandwidth: Option<u64>,
    /// How the hypervisor is started.
    pub medium: Medium,
    /// The clock's time base.
    pub clock: ClockBase,
    /// The CPU model, if not the bed's default.
    pub cpu: Option<String>,
    /// Destination of the console besides the transcript.
    pub echo: Echo,
    /// The only core of this machine that the emulator may run on (QEMU only).
    pub host_core: Option<u32>,
    /// A plugin that QEMU loads, with its arguments (QEMU's own emulation only).
    pub plugin: Option<String>,
    /// QEMU trace events to log to [`qemu::TRACE`] in the run's folder, a line each with its time
    /// (`qemu-system-x86_64 -trace help`).
    pub trace: &'static [&'static str],
}

impl BedMachine {
    /// Describes a machine with two CPUs, 512 MiB and nothing else; smaller where emulation is
    /// slow. (The Linux of [`Bed::Nested`] has one CPU, so a second CPU of the machine would only
    /// wait for the first.)
    pub fn new(bed: Bed, name: &str, hypervisor: PathBuf) -> Self {
        Self {
            bed,
            name: name.to_owned(),
            cpus: if bed == Bed::Nested { 1 } else { 2 },
            memory_mib: if matches!(bed, Bed::Bochs | Bed::Nested) { 256 } else { 512 },
            hypervisor,
            archive: ModuleArchive::default(),
            append: String::new(),
            disks: Vec::new(),
            local: None,
            shared: Vec::new(),
            disk_bandwidth: None,
            medium: Medium::Usual,
            clock: ClockBase::Host,
            cpu: None,
            echo: Echo::Silent,
            host_core: None,
            plugin: None,
            trace: &[],
        }
    }

    /// Applies a configuration's plan to the machine.
    pub fn apply(&mut self, plan: BootPlan) {
        self.archive = plan.archive;
        self.disks = plan.disks;
        self.local = plan.local;
        self.shared = [plan.stores, plan.areas].concat();
        if self.bed == Bed::Nested {
            // Its Linux has copies of all disks.
            self.disks.append(&mut self.shared);
        }
        self.disk_bandwidth = plan.disk_bandwidth;
        self.memory_mib = self.memory_mib.max(plan.machine_mib);
        self.cpu = plan.cpu.or(self.cpu.take());
        self.cpus = if self.bed == Bed::Nested { self.cpus } else { plan.cpus };
    }

    /// Starts the machine and waits until its serial lines are connected.
    ///
    /// # Errors
    /// Where the emulator is missing or fails; the error contains the emulator's output.
    pub fn start(&self) -> Result<RunningMachine> {
        let folder = RunFolder::new(&self.name)?;
        self.write_archive(folder.path())?;
        self.local.as_deref().map_or(Ok(()), crate::cluster::local::prepare)?;
        match self.bed {
            Bed::Qemu | Bed::Kvm => qemu::start(self, folder),
            Bed::Bochs => bochs::start(self, folder),
            Bed::Nested => nested::start(self, folder),
        }
    }

    pub(crate) fn write_archive(&self, folder: &Path) -> Result<()> {
        let elf = std::fs::read(&self.hypervisor)
            .with_context(|| format!("{}", self.hypervisor.display()))?;
        let mut archive = self.archive.clone();
        // Without symbols a backtrace has only addresses; that is no reason not to start.
        if let Some(symbols) = symbols::from_elf(&elf) {
            archive.add(symbols::MODULE, ModuleSource::Bytes(symbols));
        }
        archive.add(
            BootArchive::WORD,
            ModuleSource::Bytes(crate::volume::random_bytes::<32>()?.to_vec()),
        );
        archive.write(&folder.join(ARCHIVE))
    }
}
