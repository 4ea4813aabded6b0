//! Bochs: VMX on any machine. It boots the GRUB ISO. It has no virtio, so paging devices are
//! memory-backed.
//!
//! Debian's Bochs is built with its debugger, which reads commands from standard input. The first
//! command, `c`, starts the machine. Later an interrupt stops the machine for a moment, and a
//! debugger command writes memory to a file: this is how a memory-backed paging space is copied out
//! ([`RunningMachine::bring_out`]).

use super::bochsrc::{IPS, PROGRAM, bochsrc};
use super::running::{self, EmulatorInput, MachineLines, RunningMachine};
use super::transcript::RunFolder;
use super::{BedMachine, ClockBase};
use crate::iso;
use anyhow::{Context, Result, bail};
use kernel::arch::direct_map;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The model without A/D bits in EPT; otherwise as the default model.
pub const CPU_WITHOUT_AD: &str = "corei7_ivy_bridge_3770k";

pub(super) fn start(machine: &BedMachine, folder: RunFolder) -> Result<RunningMachine> {
    if !machine.disks.is_empty() {
        bail!("Bochs has no virtio disks: use memory-backed paging devices there");
    }
    let lines = MachineLines::new()?;
    let run = folder.path();
    let iso = run.join("boot.iso");
    iso::make(
        &iso,
        &run.join("iso"),
        &machine.hypervisor,
        &run.join(super::ARCHIVE),
        &machine.append,
    )?;
    let ports = [lines.console.port()?, lines.events.port()?];
    let settings = bochsrc(
        machine.cpu.as_deref(),
        machine.cpus,
        ips(machine.clock),
        machine.memory_mib,
        &ports,
    );
    fs::write(run.join("bochsrc"), settings)?;
    fs::write(run.join("debugger"), "c\n")?;
    let mut command = Command::new(PROGRAM);
    // Names are relative to the run's folder: Bochs overflows a buffer where an image path exceeds
    // some sixty bytes.
    command.current_dir(run).args(["-q", "-f", "bochsrc", "-rc", "debugger"]);
    running::start(command, EmulatorInput::Debugger, lines, folder, &machine.echo)
}

/// Returns the emulated instructions in a second of the machine's time.
const fn ips(clock: ClockBase) -> u32 {
    match clock {
        ClockBase::Host => IPS,
        ClockBase::Instructions(shift) | ClockBase::Paced(shift) => 1_000_000_000 >> shift,
    }
}

impl RunningMachine {
    /// Writes memory-backed disk `index` of a Bochs machine to `file`; the machine is stopped
    /// meanwhile.
    ///
    /// No partition may run. Bochs reads through the current page tables, and only the hypervisor's
    /// own contain the direct map.
    ///
    /// # Errors
    /// Where the machine runs in another bed or has not reported the disk, or the file is not
    /// complete within `limit`.
    pub fn bring_out(&mut self, index: u64, file: &Path, limit: Duration) -> Result<()> {
        let told = self
            .events
            .all()
            .iter()
            .find(|event| event.name() == "disk" && event.0["index"] == index);
        let told = told.with_context(|| format!("disk {index} was never reported"))?;
        let (base, bytes) = (told.number("base")?, told.number("bytes")?);
        self.bring_out_memory(base, u32::try_from(bytes)?, file, limit)
    }

    fn bring_out_memory(
        &mut self,
        physical: u64,
        length: u32,
        file: &Path,
        limit: Duration,
    ) -> Result<()> {
        let linear = direct_map::BASE + physical;
        let part = crate::atomic::beside(file);
        self.debug(&format!("writemem \"{}\" {linear:#x} {length}", part.display()))?;
        let deadline = Instant::now() + limit;
        while fs::metadata(&part).map_or(0, |m| m.len()) < u64::from(length) {
            if Instant::now() >= deadline {
                bail!(
                    "Bochs did not write {length} bytes from {physical:#x} on within {} s",
                    limit.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::rename(&part, file).with_context(|| format!("{}", file.display()))
    }
}
