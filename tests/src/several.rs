//! A configuration with several partitions of test kernels, for any bed.

use crate::scenario::{StartedScenario, scenario_folder};
use crate::{plan_machine, test_kernel};
use anyhow::Result;
use boot::bed::{Bed, ClockBase};

/// One partition of the configuration.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The test kernel.
    pub kernel: &'static str,
    /// Its command line.
    pub cmdline: String,
    /// MiB of its memory.
    pub memory_mib: u64,
    /// Further lines of its section.
    pub lines: &'static str,
}

/// The machine and its partitions.
#[derive(Clone, Debug)]
pub struct Several {
    /// MiB of the pool.
    pub pool_mib: u64,
    /// CPUs of the machine.
    pub cpus: u32,
    /// Paging devices, MiB each.
    pub devices_mib: Vec<u64>,
    /// The partitions that share them.
    pub members: Vec<Member>,
}

impl Member {
    /// Makes a partition without further lines.
    pub fn new(name: &str, kernel: &'static str, memory_mib: u64, cmdline: &str) -> Self {
        Self { name: name.to_owned(), kernel, cmdline: cmdline.to_owned(), memory_mib, lines: "" }
    }
}

impl Several {
    /// Starts the machine in a folder of its own. It stays on when no partition runs any more.
    ///
    /// # Errors
    /// Where the configuration has a mistake, or something is missing.
    pub fn start(&self, bed: Bed, name: &str) -> Result<StartedScenario> {
        self.start_by(ClockBase::Host, bed, name)
    }

    /// Starts the machine as [`Several::start`] does, with a clock that follows `clock`.
    ///
    /// # Errors
    /// As [`Several::start`].
    pub fn start_by(&self, clock: ClockBase, bed: Bed, name: &str) -> Result<StartedScenario> {
        let folder = scenario_folder(name)?;
        let mut machine = plan_machine(bed, name, &self.toml(bed)?, folder.path())?;
        machine.clock = clock;
        let disks = machine.disks.clone();
        Ok(StartedScenario::new(machine.start()?, disks, folder))
    }

    /// Returns the configuration as text.
    ///
    /// # Errors
    /// Where a test kernel is missing.
    pub fn toml(&self, bed: Bed) -> Result<String> {
        let mut text = format!(
            "[pool]\nmemory = \"{} MiB\"\n[machine]\ncpus = {}\n",
            self.pool_mib, self.cpus
        );
        for (index, mib) in self.devices_mib.iter().enumerate() {
            text += &match bed {
                Bed::Bochs => format!("[[paging_device]]\nmemory = \"{mib} MiB\"\n"),
                _ => format!("[[paging_device]]\nimage = \"{index}.img\"\nsize = \"{mib} MiB\"\n"),
            };
        }
        for Member { name, kernel, cmdline, memory_mib, lines } in &self.members {
            let kernel = test_kernel(kernel)?;
            text += &format!(
                "[[partition]]\nname = \"{name}\"\nmemory = \"{memory_mib} MiB\"\nkernel = \
                 \"{}\"\n",
                kernel.display()
            );
            text += &format!("cmdline = \"{cmdline}\"\n{lines}\n");
        }
        Ok(text)
    }
}
