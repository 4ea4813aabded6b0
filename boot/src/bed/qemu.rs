//! QEMU: `q35` with the hypervisor as PVH kernel, the boot archive as its initrd, disks as modern
//! (non-legacy) virtio-blk.

use super::running::{self, EmulatorInput, MachineLines, RunningMachine};
use super::transcript::{RunFolder, STICK};
use super::{Bed, BedMachine, ClockBase, Firmware, Medium};
use crate::iso;
use crate::serial::Listener;
use crate::setup::packages::OVMF;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The program to start.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// Maximum number of CPUs that the hypervisor uses.
const MAX_CPUS: u32 = kernel::arch::percpu::MAX_CPUS as u32;
/// File of [`BedMachine::trace`], in the run's folder.
pub const TRACE: &str = "trace.log";
/// The exit device: a value written to its port stops the emulator.
pub(super) const EXIT_PORT: &str = "isa-debug-exit,iobase=0xf4,iosize=4";

pub(super) fn start(machine: &BedMachine, folder: RunFolder) -> Result<RunningMachine> {
    if machine.medium != Medium::Usual {
        let (work, archive) = (folder.path().join("stick"), folder.path().join(super::ARCHIVE));
        iso::make_stick(
            &folder.path().join(STICK),
            &work,
            &machine.hypervisor,
            &archive,
            &machine.append,
        )?;
    }
    let mut lines = MachineLines::new()?;
    let monitor = Listener::new()?;
    let mut command = program(machine.host_core);
    let line = format!("socket,id=monitor,host=127.0.0.1,port={},server=off", monitor.port()?);
    command.args(["-chardev", &line, "-mon", "chardev=monitor,mode=control"]);
    lines.monitor = Some(monitor);
    command.args(arguments(machine, folder.path(), [lines.console.port()?, lines.events.port()?]));
    running::start(command, EmulatorInput::None, lines, folder, &machine.echo)
}

/// Returns QEMU's command, bound to one core of this machine where `host_core` is given.
fn program(host_core: Option<u32>) -> Command {
    let Some(core) = host_core else { return Command::new(PROGRAM) };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string(), PROGRAM]);
    command
}

/// All that QEMU emulates, except features that the hypervisor hides from guests but cannot
/// intercept here: RDTSCP, and the registers of MPX and protection keys. QEMU's XSETBV enables the
/// latter for any guest, and the vCPU switch does not save them.
const EMULATED_CPU: &str = "max,-rdtscp,-mpx,-pku,-pks";

fn arguments(machine: &BedMachine, folder: &Path, ports: [u16; 2]) -> Vec<String> {
    let mut list = Vec::new();
    let mut add = |items: &[&str]| list.extend(items.iter().map(|&s| s.to_owned()));
    let (accelerator, usual_cpu) = match machine.bed {
        Bed::Kvm => ("kvm", "host"),
        // One thread for each CPU, so that the CPUs really run in parallel; instruction counting
        // allows only one thread.
        _ if machine.clock == ClockBase::Host => ("tcg,thread=multi", EMULATED_CPU),
        _ => ("tcg", EMULATED_CPU),
    };
    add(&[
        "-machine",
        "q35",
        "-accel",
        accelerator,
        "-cpu",
        machine.cpu.as_deref().unwrap_or(usual_cpu),
    ]);
    add(&["-smp", &emulated_cpus(machine).to_string(), "-m", &machine.memory_mib.to_string()]);
    add(&[
        "-display",
        "none",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-device",
        EXIT_PORT,
    ]);
    match machine.medium {
        Medium::Usual => {
            add(&["-kernel", &text(&machine.hypervisor), "-append", &machine.append]);
            add(&["-initrd", &text(&folder.join(super::ARCHIVE))]);
        }
        Medium::Stick(firmware) => {
            let drive = format!(
                "if=none,id=stick,format=raw,snapshot=on,file={}",
                escape(&folder.join(STICK))
            );
            add(&["-drive", &drive, "-device", "ide-hd,drive=stick,bootindex=0"]);
            if firmware == Firmware::Uefi {
                add(&["-bios", OVMF]);
            }
        }
    }
    for (name, port) in ["console", "events"].iter().zip(ports) {
        let line = format!("socket,id={name},host=127.0.0.1,port={port},server=off,nodelay=on");
        add(&["-chardev", &line, "-serial", &format!("chardev:{name}")]);
    }
    let shared = machine.shared.iter().map(|image| (image, ",share-rw=on"));
    let own = machine.disks.iter().chain(&machine.local).map(|image| (image, ""));
    let disks = own.chain(shared);
    for (index, (image, sharing)) in disks.enumerate() {
        // `cache=none` bypasses the host's page cache, so the speed is the real disk's, and a FLUSH
        // is a real fdatasync.
        let limit = machine
            .disk_bandwidth
            .map(|bytes| format!("throttling.bps-total={bytes},"))
            .unwrap_or_default();
        let drive = format!(
            "if=none,id=disk{index},format=raw,cache=none,discard=unmap,{limit}file={}",
            escape(image)
        );
        add(&["-drive", &drive, "-device", &(disk_device(index) + sharing)]);
    }
    if let Some(count) = instruction_count(machine.clock) {
        add(&["-icount", &count, "-seed", "1", "-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
    }
    if let Some(plugin) = &machine.plugin {
        add(&["-plugin", plugin]);
    }
    if !machine.trace.is_empty() {
        add(&["-msg", "timestamp=on", "-D", &text(&folder.join(TRACE))]);
        machine.trace.iter().for_each(|event| add(&["-trace", event]));
    }
    list
}

/// Returns the setting for a clock that counts instructions; `None` for the host's time.
fn instruction_count(clock: ClockBase) -> Option<String> {
    match clock {
        ClockBase::Host => None,
        ClockBase::Instructions(shift) => Some(format!("shift={shift},sleep=off")),
        ClockBase::Paced(shift) => Some(format!("shift={shift},sleep=on")),
    }
}

/// Returns the device argument of disk `index`.
///
/// A failed request is reported to the hypervisor. With QEMU's default a full host disk would stop
/// the whole machine, and the write would be repeated at any later time.
pub(super) fn disk_device(index: usize) -> String {
    format!(
        "virtio-blk-pci,drive=disk{index},serial=disk{index},disable-legacy=on,werror=report,\
         rerror=report"
    )
}

/// Returns the number of CPUs to emulate: one more than run guests where the boot CPU must not run
/// them (docs/testing.md, "Known of the emulators").
fn emulated_cpus(machine: &BedMachine) -> u32 {
    if machine.bed == Bed::Qemu && machine.cpus > 1 {
        (machine.cpus + 1).min(MAX_CPUS)
    } else {
        machine.cpus
    }
}

/// A disk's requests, counted by the emulator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskCounters {
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Flushes.
    pub flushes: u64,
}

impl RunningMachine {
    /// Returns the emulator's counters of each virtio-blk disk, in order.
    ///
    /// # Errors
    /// Where the machine runs in another bed, or the emulator does not answer.
    pub fn disk_counters(&mut self) -> Result<Vec<DiskCounters>> {
        let answer = self.monitor_command(&json!({"execute": "query-blockstats"}))?;
        let disks = answer.as_array().context("a list of disks")?.iter();
        let count = |disk: &Value, name: &str| {
            disk["stats"][name].as_u64().with_context(|| format!("no {name}"))
        };
        let counters = |disk: &Value| {
            let (bytes_written, bytes_read) = (count(disk, "wr_bytes")?, count(disk, "rd_bytes")?);
            Ok(DiskCounters {
                bytes_written,
                bytes_read,
                flushes: count(disk, "flush_operations")?,
            })
        };
        disks
            .filter(|disk| disk["device"].as_str().is_some_and(|name| name.starts_with("disk")))
            .map(counters)
            .collect()
    }

    /// Ends the emulator in an orderly way, so that its plugins write their results.
    ///
    /// # Errors
    /// As [`RunningMachine::disk_counters`], and where it does not end.
    pub fn quit(&mut self) -> Result<()> {
        self.greet_monitor()?;
        let monitor = self.monitor.as_mut().context("only QEMU has such a monitor")?;
        // The emulator may end before it answers.
        monitor.send(format!("{}\n", json!({"execute": "quit"})).as_bytes())?;
        let status = self.runner.wait(Duration::from_secs(30))?;
        status.map(|_| ()).context("the emulator does not quit")
    }

    /// Limits the write bandwidth of virtio-blk disk `number` from now on; 0 removes the limit.
    ///
    /// # Errors
    /// As [`RunningMachine::disk_counters`].
    pub fn limit_writes(&mut self, number: usize, bytes_per_second: u64) -> Result<()> {
        let mut arguments = json!({"device": format!("disk{number}"), "bps_wr": bytes_per_second});
        for other in ["bps", "bps_rd", "iops", "iops_rd", "iops_wr"] {
            arguments[other] = 0.into();
        }
        self.monitor_command(&json!({"execute": "block_set_io_throttle", "arguments": arguments}))
            .map(|_| ())
    }

    /// Returns the answer of the emulator's monitor to a command for people
    /// (`info registers`, for example).
    ///
    /// # Errors
    /// As [`RunningMachine::disk_counters`].
    pub fn emulator_says(&mut self, line: &str) -> Result<String> {
        let answer = self.monitor_command(
            &json!({"execute": "human-monitor-command", "arguments": {"command-line": line}}),
        )?;
        Ok(answer.as_str().context("text")?.to_owned())
    }

    fn greet_monitor(&mut self) -> Result<()> {
        if !core::mem::replace(&mut self.monitor_greeted, true) {
            self.monitor_command(&json!({"execute": "qmp_capabilities"}))?;
        }
        Ok(())
    }

    fn monitor_command(&mut self, command: &Value) -> Result<Value> {
        self.greet_monitor()?;
        let monitor = self.monitor.as_mut().context("only QEMU has such a monitor")?;
        monitor.send(format!("{command}\n").as_bytes())?;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let Ok(line) = monitor.next_line(deadline) else {
                bail!("the emulator does not answer {command}")
            };
            let mut answer: Value = serde_json::from_str(&line).unwrap_or_default();
            if answer.get("error").is_some() {
                bail!("{command}: {}", answer["error"]);
            }
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Escapes a path: QEMU ends a value at a comma unless the comma is doubled.
fn escape(path: &Path) -> String {
    text(path).replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> BedMachine {
        BedMachine {
            disks: vec!["a,b.img".into()],
            ..BedMachine::new(Bed::Qemu, "test", "tidepool-kernel".into())
        }
    }

    #[test]
    fn a_comma_in_an_image_name_is_no_option() {
        let list = arguments(&machine(), Path::new("run"), [1, 2]);
        assert!(list.iter().any(|a| a.ends_with("file=a,,b.img")), "{list:?}");
    }

    #[test]
    fn every_disk_reports_its_errors() {
        let list = arguments(
            &BedMachine { disks: vec!["a".into(), "b".into()], ..machine() },
            Path::new("run"),
            [1, 2],
        );
        let disks: Vec<_> = list.iter().filter(|a| a.starts_with("virtio-blk-pci")).collect();
        assert!(
            disks.len() == 2 && disks.iter().all(|a| a.ends_with(",werror=report,rerror=report")),
            "{disks:?}"
        );
    }

    #[test]
    fn every_disk_is_held_to_its_bandwidth() {
        let list = arguments(
            &BedMachine { disk_bandwidth: Some(1 << 20), ..machine() },
            Path::new("run"),
            [1, 2],
        );
        assert!(list.iter().any(|a| a.contains("throttling.bps-total=1048576,")), "{list:?}");
    }

    #[test]
    fn events_are_traced_only_where_asked() {
        let has_trace = |trace| {
            let list = arguments(&BedMachine { trace, ..machine() }, Path::new("run"), [1, 2]);
            list.windows(2)
                .filter(|pair| pair[0] == "-trace")
                .map(|pair| pair[1].clone())
                .collect::<Vec<_>>()
        };
        assert!(has_trace(&[]).is_empty());
        assert_eq!(has_trace(&["one", "two"]), ["one", "two"]);
    }

    #[test]
    fn several_cpus_get_one_more_that_runs_no_guests() {
        let smp = |bed, cpus| {
            let list = arguments(&BedMachine { cpus, bed, ..machine() }, Path::new("run"), [1, 2]);
            list[list.iter().position(|a| a == "-smp").expect("CPUs are told") + 1].clone()
        };
        assert_eq!([1, 2, 8].map(|cpus| smp(Bed::Qemu, cpus)), ["1", "3", "8"]);
        assert_eq!(smp(Bed::Kvm, 2), "2");
    }

    #[test]
    fn counting_instructions_excludes_threads() {
        let list = arguments(
            &BedMachine { clock: ClockBase::Instructions(3), ..machine() },
            Path::new("run"),
            [1, 2],
        );
        assert!(
            list.iter().any(|a| a == "tcg") && !list.iter().any(|a| a.contains("thread=multi"))
        );
        assert!(list.iter().any(|a| a == "shift=3,sleep=off"), "{list:?}");
        let list = arguments(
            &BedMachine { clock: ClockBase::Paced(5), ..machine() },
            Path::new("run"),
            [1, 2],
        );
        assert!(list.iter().any(|a| a == "shift=5,sleep=on"), "{list:?}");
    }
}
