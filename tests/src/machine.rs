//! Machines for tests: images that are built once, and the usual ways to start and to end a
//! machine.

use anyhow::{Context, Result, bail};
use boot::bed::{Bed, BedMachine, MachineEnd, RunningMachine};
use boot::config;
use boot::kernel_build::{self, Variant};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Describes a machine for a test of this name, with the hypervisor built from this tree.
///
/// # Errors
/// Where the hypervisor does not build.
pub fn machine(bed: Bed, name: &str) -> Result<BedMachine> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        kernel_build::hypervisor(Variant::Ordinary).map_err(|error| format!("{error:#}"))
    });
    let hypervisor = built.clone().map_err(anyhow::Error::msg)?;
    Ok(BedMachine::new(bed, &format!("{}-{name}", bed.name()), hypervisor))
}

/// Describes a machine that runs the configuration `toml`; its file names are relative to `folder`.
///
/// # Errors
/// Where the configuration has a mistake.
pub fn plan_machine(bed: Bed, name: &str, toml: &str, folder: &Path) -> Result<BedMachine> {
    let plan = config::read(name, toml, folder, bed)?;
    let mut machine = machine(bed, name)?;
    machine.apply(plan);
    Ok(machine)
}

/// Returns the file of a test kernel, by the name of its source in `tests/guests/src/bin`.
///
/// # Errors
/// Where the test kernels do not build.
pub fn test_kernel(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built =
        BUILT.get_or_init(|| kernel_build::test_kernels().map_err(|error| format!("{error:#}")));
    let file = built.clone().map_err(anyhow::Error::msg)?.join(name);
    if !file.exists() {
        bail!("there is no test kernel “{name}”");
    }
    Ok(file)
}

/// Waits until the machine has stopped with success; its transcript is then removed.
///
/// # Errors
/// Where it does not stop within `limit`, or without success; names the transcript.
pub fn expect_success(mut running: RunningMachine, limit: Duration) -> Result<()> {
    let folder = running.folder().display().to_string();
    match running.wait_for_end(limit).with_context(|| folder.clone())? {
        MachineEnd::Success => running.passed(),
        MachineEnd::Failure => bail!("the hypervisor reports failure; transcript in {folder}"),
        MachineEnd::Not => {
            bail!("it still ran after {} s; transcript in {folder}", limit.as_secs())
        }
    }
    Ok(())
}
