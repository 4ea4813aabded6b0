//! A configuration with one partition that runs a test kernel, for any bed.

use crate::{plan_machine, test_kernel};
use anyhow::Result;
use boot::bed::{Bed, RunningMachine};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Name of the partition.
pub const PARTITION: &str = "guest";

/// The machine and its partition.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The test kernel.
    pub kernel: &'static str,
    /// Its command line.
    pub cmdline: String,
    /// MiB of the pool.
    pub pool_mib: u64,
    /// MiB of the partition.
    pub memory_mib: u64,
    /// Paging devices, MiB each.
    pub devices_mib: Vec<u64>,
    /// Further lines of the partition's section.
    pub partition: &'static str,
    /// What the hypervisor does when no partition runs any more.
    pub at_end: &'static str,
}

impl Scenario {
    /// Runs `kernel` in 16 MiB, with a pool of the same size and one device.
    pub fn new(kernel: &'static str, cmdline: &str) -> Self {
        Self {
            kernel,
            cmdline: cmdline.to_owned(),
            pool_mib: 16,
            memory_mib: 16,
            devices_mib: vec![32],
            partition: "",
            at_end: "power-off",
        }
    }

    /// Starts the machine in a folder of its own.
    ///
    /// # Errors
    /// Where the configuration has a mistake, or something is missing.
    pub fn start(&self, bed: Bed, name: &str) -> Result<StartedScenario> {
        let folder = scenario_folder(name)?;
        let machine = plan_machine(bed, name, &self.toml(bed)?, folder.path())?;
        let disks = machine.disks.clone();
        Ok(StartedScenario { running: machine.start()?, disks, folder })
    }

    fn toml(&self, bed: Bed) -> Result<String> {
        let mut text =
            format!("at_end = \"{}\"\n[pool]\nmemory = \"{} MiB\"\n", self.at_end, self.pool_mib);
        for (index, mib) in self.devices_mib.iter().enumerate() {
            text += &match bed {
                Bed::Bochs => format!("[[paging_device]]\nmemory = \"{mib} MiB\"\n"),
                _ => format!("[[paging_device]]\nimage = \"{index}.img\"\nsize = \"{mib} MiB\"\n"),
            };
        }
        let (memory, kernel) = (self.memory_mib, test_kernel(self.kernel)?);
        text += &format!(
            "[[partition]]\nname = \"{PARTITION}\"\nmemory = \"{memory} MiB\"\nkernel = \"{}\"\n",
            kernel.display()
        );
        Ok(text + &format!("cmdline = \"{}\"\n{}\n", self.cmdline, self.partition))
    }
}

/// A running scenario.
pub struct StartedScenario {
    /// The machine.
    pub running: RunningMachine,
    /// The images of its paging devices.
    pub disks: Vec<PathBuf>,
    folder: TempDir,
}

impl StartedScenario {
    pub(crate) fn new(running: RunningMachine, disks: Vec<PathBuf>, folder: TempDir) -> Self {
        Self { running, disks, folder }
    }

    /// Returns a path in the scenario's folder, which is removed with it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the transcript's place, for errors.
    pub fn place(&self) -> String {
        format!("transcript in {}", self.running.folder().display())
    }
}

/// Makes a folder that is removed with its owner, on the disk of the built files.
///
/// # Errors
/// Where it cannot be created.
pub fn scenario_folder(name: &str) -> Result<TempDir> {
    let all = boot::paths::tidepool().join("scenarios");
    std::fs::create_dir_all(&all)?;
    Ok(tempfile::Builder::new().prefix(&format!("{name}.")).tempdir_in(all)?)
}

impl AsRef<Path> for StartedScenario {
    fn as_ref(&self) -> &Path {
        self.folder.path()
    }
}
