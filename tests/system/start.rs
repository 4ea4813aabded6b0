//! From power-on to the first lines, and starts that fail.

use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, MachineEnd, qemu};
use boot::bounded;
use boot::config;
use boot::setup::{Permission, SetupJob, debian, program};
use boot::{initramfs, paths};
use std::process::Command;
use std::time::Duration;
use tests::{Case, expect_success, machine};

const LIMIT: Duration = Duration::from_secs(90);
/// Time limit of a whole run of the command, on a busy machine.
const COPY: Duration = Duration::from_secs(300);

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "two_cpus_for_guests_come_up",
        beds: &[Bed::Qemu, Bed::Bochs, Bed::Kvm],
        needs: &[],
        run: two_cpus_come_up,
    },
    Case {
        name: "a_copy_of_the_command_runs_without_a_compiler",
        beds: &[Bed::Qemu],
        needs: &[],
        run: copied,
    },
    Case {
        name: "the_examples_are_right",
        beds: &[Bed::Qemu],
        needs: &[SetupJob::Guest],
        run: examples,
    },
    Case {
        name: "a_panic_shows_a_symbolised_backtrace",
        beds: &[Bed::Qemu, Bed::Bochs],
        needs: &[],
        run: panic_backtrace,
    },
];

fn two_cpus_come_up(bed: Bed) -> Result<()> {
    let mut machine = machine(bed, "two-cpus")?;
    machine.apply(config::nothing(bed)?);
    let mut running = machine.start()?;
    running.console.wait_for(LIMIT, "INFO  Tidepool ")?;
    // One more CPU where the boot CPU runs no guests.
    running.console.wait_for(LIMIT, if bed == Bed::Qemu { "3 CPUs" } else { "2 CPUs" })?;
    expect_success(running, LIMIT)
}

/// Runs the command in a folder of its own, with no program in the search path but the emulator.
fn copied(bed: Bed) -> Result<()> {
    // This builds the hypervisor, unless it is built already.
    machine(bed, "copied")?;
    let temporary = tempfile::tempdir()?;
    let folder = temporary.path();
    let search = folder.join("bin");
    std::fs::create_dir_all(&search)?;
    let (emulator, command) =
        (program(qemu::PROGRAM).context("the emulator")?, folder.join("tidepool"));
    std::os::unix::fs::symlink(emulator, search.join(qemu::PROGRAM))?;
    std::fs::copy(std::env::current_exe()?, &command)?;
    let cargos = std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("CARGO"));
    let mut copy = Command::new(&command);
    cargos.for_each(|name| _ = copy.env_remove(name));
    copy.env("PATH", &search).env("RUSTC", folder.join("none")).current_dir(folder);
    copy.args([crate::interrupt::AS_TIDEPOOL, "boot", "--bed", bed.name(), "--no-install"]);
    let output = bounded::output(&mut copy, COPY);
    let output = output.map(|output| {
        (
            output.status,
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    });
    let (status, said) = output?;
    ensure!(status.success(), "it ended with {status}: {said}");
    ensure!(said.contains("no cargo here, so "), "it was built all the same: {said}");
    Ok(())
}

/// Checks each example with the files that the set-up installs; no machine is started.
fn examples(bed: Bed) -> Result<()> {
    initramfs::prepare(&debian::kernel(Permission::Refuse)?)?;
    let folder = paths::workspace().join("examples");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder)? {
        let file = entry?.path();
        if file.extension().is_some_and(|ending| ending == "toml") {
            let plan = config::check(&file, bed).with_context(|| format!("{}", file.display()))?;
            ensure!(plan.warnings.is_empty(), "{}: {:?}", file.display(), plan.warnings);
            count += 1;
        }
    }
    ensure!(count >= 2, "{count} examples");
    Ok(())
}

fn panic_backtrace(bed: Bed) -> Result<()> {
    let mut machine = machine(bed, "panic")?;
    machine.append = "selftest=panic".to_owned();
    let mut running = machine.start()?;
    running.console.wait_for(LIMIT, "TIDEPOOL PANIC")?;
    running.console.wait_for(LIMIT, "backtrace:")?;
    running.console.wait_for(LIMIT, " kernel::")?;
    running.console.wait_for(LIMIT, "history, oldest first (0 older")?;
    running.console.wait_for(LIMIT, " s  machine       CPU 0  hypervisor started   cpus=")?;
    running.console.wait_for(LIMIT, " self-test asked      test=\"panic\"")?;
    running.console.wait_for(LIMIT, "=== end ===")?;
    ensure!(
        running.wait_for_end(LIMIT)? == MachineEnd::Failure,
        "a panic must not look like success"
    );
    running.passed();
    Ok(())
}
