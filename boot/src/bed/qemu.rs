//! QEMU: `q35` with the hypervisor as PVH kernel, the boot archive as its initrd, disks as modern virtio-blk.

use super::running::{self, Lines, Running};
use super::{Bed, Clock, Machine};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program to start.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// Where a value written stops the emulator.
const EXIT_PORT: &str = "isa-debug-exit,iobase=0xf4,iosize=4";

pub(super) fn start(machine: &Machine, folder: PathBuf) -> Result<Running> {
    let lines = Lines::new()?;
    let mut command = Command::new(PROGRAM);
    command.args(arguments(machine, &folder, [lines.console.port()?, lines.events.port()?]));
    running::start(command, lines, folder, machine.echo)
}

fn arguments(machine: &Machine, folder: &Path, ports: [u16; 2]) -> Vec<String> {
    let mut list = Vec::new();
    let mut add = |items: &[&str]| list.extend(items.iter().map(|&s| s.to_owned()));
    let (accelerator, usual_cpu) = match machine.bed {
        Bed::Kvm => ("kvm", "host"),
        // One thread a CPU, so that the CPUs really run side by side; instruction counting allows one thread only.
        _ if machine.clock == Clock::Host => ("tcg,thread=multi", "max"),
        _ => ("tcg", "max"),
    };
    add(&["-machine", "q35", "-accel", accelerator, "-cpu", machine.cpu.as_deref().unwrap_or(usual_cpu)]);
    add(&["-smp", &machine.cpus.to_string(), "-m", &machine.memory_mib.to_string()]);
    add(&["-display", "none", "-nodefaults", "-no-user-config", "-no-reboot", "-device", EXIT_PORT]);
    add(&["-kernel", &text(&machine.hypervisor), "-append", &machine.append]);
    add(&["-initrd", &text(&folder.join(super::ARCHIVE))]);
    for (name, port) in ["console", "events"].iter().zip(ports) {
        let line = format!("socket,id={name},host=127.0.0.1,port={port},server=off,nodelay=on");
        add(&["-chardev", &line, "-serial", &format!("chardev:{name}")]);
    }
    for (index, image) in machine.disks.iter().enumerate() {
        // `writeback`: writes may linger in the host's cache, but a FLUSH is a real fdatasync, as the space format needs.
        let drive = format!("if=none,id=disk{index},format=raw,cache=writeback,discard=unmap,file={}", escape(image));
        let device = format!("virtio-blk-pci,drive=disk{index},serial=disk{index},disable-legacy=on");
        add(&["-drive", &drive, "-device", &device]);
    }
    if machine.clock == Clock::Instructions {
        add(&["-icount", "shift=0,sleep=off", "-seed", "1", "-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
    }
    list
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// QEMU ends a value at a comma unless it is doubled.
fn escape(path: &Path) -> String {
    text(path).replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine { disks: vec!["a,b.img".into()], ..Machine::new(Bed::Qemu, "test", "tidepool-kernel".into()) }
    }

    #[test]
    fn a_comma_in_an_image_name_is_no_option() {
        let list = arguments(&machine(), Path::new("run"), [1, 2]);
        assert!(list.iter().any(|a| a.ends_with("file=a,,b.img")), "{list:?}");
    }

    #[test]
    fn counting_instructions_excludes_threads() {
        let list = arguments(&Machine { clock: Clock::Instructions, ..machine() }, Path::new("run"), [1, 2]);
        assert!(list.iter().any(|a| a == "tcg") && !list.iter().any(|a| a.contains("thread=multi")));
    }
}
