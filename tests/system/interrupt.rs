//! However the command ends, no emulator outlives it.

use anyhow::{Context, Result, bail, ensure};
use boot::bed::Bed;
use boot::bounded;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tests::{Case, test_kernel};

/// First argument of this program to run as the command itself.
pub(crate) const AS_TIDEPOOL: &str = "as-tidepool";
const LIMIT: Duration = Duration::from_secs(60);
/// Time limit that includes building the hypervisor.
const BUILT_AND_STARTED: Duration = Duration::from_secs(600);

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "ctrl_c_ends_the_emulator",
        beds: &[Bed::Qemu, Bed::Bochs],
        needs: &[],
        run: |bed| ends_with(bed, "INT", Some(130)),
    },
    Case {
        name: "the_emulator_ends_when_its_command_is_killed",
        beds: &[Bed::Qemu],
        needs: &[],
        run: |bed| ends_with(bed, "KILL", None),
    },
];

fn ends_with(bed: Bed, signal: &str, status: Option<i32>) -> Result<()> {
    let mut command = start(bed)?;
    let emulator = child_of(command.id()).context("the command has no emulator")?;
    ensure!(
        Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(command.id().to_string())
            .status()?
            .success()
    );
    let ended = bounded::finish(&mut command, LIMIT)?;
    ensure!(ended.code() == status, "the command ended with {ended}");
    let deadline = Instant::now() + LIMIT;
    while is_running(emulator) {
        ensure!(Instant::now() < deadline, "emulator {emulator} still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Starts the command with a kernel that never ends, and waits until the kernel runs.
fn start(bed: Bed) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([AS_TIDEPOOL, "boot", "--bed", bed.name(), "--no-install"]);
    if bed == Bed::Qemu {
        // Bochs boots through GRUB, which starts only the hypervisor; its early console is enough
        // there.
        command.arg("--hypervisor").arg(test_kernel("idle")?);
    } else {
        command.args(["--append", "selftest=virt"]);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("the output is piped")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let is_there = |line: &String| line.contains("idle") || line.contains("Tidepool");
        // The end of the output closes the channel.
        if BufReader::new(output).lines().map_while(Result::ok).any(|line| is_there(&line)) {
            let _ = sender.send(());
        }
    });
    if receiver.recv_timeout(BUILT_AND_STARTED).is_ok() {
        return Ok(child);
    }
    child.kill()?;
    child.wait()?;
    bail!("the kernel did not say that it is there")
}

fn child_of(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().find_map(|child| child.parse().ok())
}

/// Returns whether a process runs. A zombie, which was not reaped yet, does not run.
fn is_running(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status
        .rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}
