//! Bed C: VMX, nested KVM and virtio disks on any machine.
//!
//! ```text
//!  here ── Bochs ── Linux with kvm_intel ── QEMU ── Tidepool ── its partitions
//!           one for all machines of a process    │
//!                                                └─ one at a time, on the same serial lines
//! ```
//!
//! [`level1`] is the Linux, [`session`] a machine in it, [`exchange`] transfers files, [`wire`] the
//! serial lines. This bed is slow: an exit of a partition costs a quarter of a millisecond, a
//! page-out and page-in together about five.

mod exchange;
mod level1;
pub(super) mod session;
mod wire;

pub use session::Session;
use session::SessionPlan;

use super::BedMachine;
use super::running::{self, COMMAND, EMULATOR, MachineLines, RunningMachine};
use super::transcript::RunFolder;
use crate::serial::Listener;
use anyhow::{Context, Result};
use level1::{Level1, Level1Turn};

/// The agent's script, the first process of the Linux.
pub(crate) const AGENT: &[u8] = include_bytes!("agent.sh");
/// The shell functions by which scripts access the exchange disk.
pub(crate) const EXCHANGE: &[u8] = include_bytes!("exchange.sh");

pub(super) fn start(machine: &BedMachine, folder: RunFolder) -> Result<RunningMachine> {
    let turn = Level1Turn::take();
    let level1 = Level1::of_this_process().context("the Linux within Bochs did not come up")?;
    let mut lines = MachineLines::new()?;
    let monitor = Listener::new()?;
    let ports = [lines.console.port()?, lines.events.port()?, monitor.port()?];
    lines.monitor = Some(monitor);
    let command = command(machine);
    std::fs::write(folder.path().join(COMMAND), format!("{command}\n"))?;
    let archive = folder.path().join(super::ARCHIVE);
    let plan = SessionPlan {
        files: [machine.hypervisor.as_path(), &archive],
        images: &machine.disks,
        ports,
        words: folder.path().join(EMULATOR),
        command: &command,
    };
    let session = Session::start(&level1, turn, plan)?;
    running::adopt(session, lines, folder, &machine.echo)
}

/// Returns the emulator's command line, quoted for a shell.
fn command(machine: &BedMachine) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut add = |items: &[&str]| words.extend(items.iter().map(|&item| quote(item)));
    add(&[super::qemu::PROGRAM, "-L", "/usr/share/qemu", "-machine", "q35", "-accel", "kvm"]);
    add(&["-cpu", machine.cpu.as_deref().unwrap_or("host"), "-smp", &machine.cpus.to_string()]);
    add(&[
        "-m",
        &machine.memory_mib.to_string(),
        "-display",
        "none",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
    ]);
    add(&[
        "-device",
        super::qemu::EXIT_PORT,
        "-kernel",
        "/tmp/kernel",
        "-initrd",
        "/tmp/archive",
        "-append",
        &machine.append,
    ]);
    for (number, name) in ["console", "events", "monitor"].iter().enumerate() {
        add(&["-chardev", &format!("serial,id={name},path=/dev/ttyS{}", number + 1)]);
    }
    add(&[
        "-serial",
        "chardev:console",
        "-serial",
        "chardev:events",
        "-mon",
        "chardev=monitor,mode=control",
    ]);
    for number in 0..machine.disks.len() {
        // The file is in memory: there is no page cache to bypass, and a FLUSH need not wait.
        add(&["-drive", &format!("if=none,id=disk{number},format=raw,file=/tmp/disk{number}")]);
        add(&["-device", &super::qemu::disk_device(number)]);
    }
    words.join(" ")
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bed::Bed;

    #[test]
    fn a_word_of_the_command_line_stays_one_word_for_the_shell() {
        let mut machine = BedMachine::new(Bed::Nested, "test", "tidepool-kernel".into());
        machine.append = "log=debug it's".to_owned();
        assert!(
            command(&machine).contains(r"'-append' 'log=debug it'\''s' "),
            "{}",
            command(&machine)
        );
    }
}
