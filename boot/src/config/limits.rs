//! Limits of the hypervisor that a configuration can exceed. Each is an error with line and key,
//! before anything starts.
//!
//! The limits are the hypervisor's own constants, and kernels are loaded on trial by the
//! hypervisor's own loaders.

use super::document::{ConfigError, Section};
use crate::bed::kind::Bed;
use crate::size;
use kernel::arch::{direct_map, percpu};
use kernel::config::{DeviceSwitch, GuestDevices, KernelModules, SELF_TESTS};
use kernel::mm::layout::RamLayout;
use kernel::mm::object::ObjectTable;
use kernel::partition::acpi::AcpiTables;
use kernel::partition::command_line::{self, Added};
use kernel::partition::loaders::{self, ImageSource, LoadError, LoadRequest};
use std::fs;
use std::path::Path;

/// Maximum bandwidth of a disk in QEMU, bytes a second (QEMU `include/qemu/throttle.h`,
/// `THROTTLE_VALUE_MAX`).
const MOST_BANDWIDTH: u64 = 1_000_000_000_000_000;
/// Maximum size of a boot archive: firmware and QEMU put it below 2 GiB, beside the hypervisor.
const MOST_ARCHIVE: u64 = 1 << 30;

/// Checks the number of partitions: each needs a memory object while it runs.
pub(super) fn partitions(sections: &[Section<'_>]) -> Result<(), ConfigError> {
    const MOST: usize = ObjectTable::CAPACITY;
    match sections.get(MOST) {
        Some(section) => Err(section.error(
            "name",
            &format!("{} partitions, but the hypervisor runs {MOST} at most", sections.len()),
        )),
        None => Ok(()),
    }
}

/// Reads the command line for a kernel.
pub(super) fn command_line<'d>(section: &Section<'d>) -> Result<&'d str, ConfigError> {
    let cmdline = section.text("cmdline")?.unwrap_or("");
    match cmdline.chars().find(|c| c.is_control()) {
        Some(odd) => Err(section
            .error("cmdline", &format!("holds a control character ({})", odd.escape_default()))),
        None => Ok(cmdline),
    }
}

/// Reads the devices on a partition's bus.
pub(super) fn devices(section: &Section<'_>) -> Result<GuestDevices, ConfigError> {
    let switches = [("on", DeviceSwitch::On), ("off", DeviceSwitch::Off)];
    Ok(GuestDevices { rng: section.choice("rng", &switches)?.unwrap_or_default() })
}

/// Plans the start of a partition as the hypervisor will do it.
pub(super) fn start(
    section: &Section<'_>,
    kernel: &Path,
    initrd: Option<&Path>,
    cmdline: &str,
) -> Result<(), ConfigError> {
    let bytes = section.required_pages("memory")?;
    let layout = RamLayout::new(bytes).ok_or_else(|| {
        section.error("memory", &format!("{} is not between 4 KiB and 16 TiB", size::format(bytes)))
    })?;
    let wrong = |path: &Path, error: std::io::Error| {
        section.error("kernel", &format!("{}: {error}", path.display()))
    };
    let images = PartitionImages {
        kernel: fs::read(kernel).map_err(|error| wrong(kernel, error))?,
        // Only the initrd's length matters, and zeros that are never touched take no memory.
        initrd: initrd
            .map(|path| fs::metadata(path).map(|data| vec![0; data.len() as usize]))
            .transpose()
            .unwrap_or(None),
    };
    let names = KernelModules {
        image: PartitionImages::KERNEL.to_owned(),
        initrd: images.initrd.is_some().then(|| PartitionImages::INITRD.to_owned()),
    };
    // The longest command line that any incarnation gets.
    let cmdline = command_line::with_added(cmdline, Added::LONGEST);
    let request = LoadRequest {
        kernel: &names,
        cmdline: &cmdline,
        layout: &layout,
        acpi: &AcpiTables::new(devices(section)?.bus()),
    };
    let Err(error) = loaders::plan(&images, &request) else { return Ok(()) };
    Err(match error {
        LoadError::MemoryTooSmall(least) => {
            let message = format!(
                "{} is too small: kernel and initrd need {}",
                size::format(bytes),
                mib(least)
            );
            section.error("memory", &message)
        }
        LoadError::CommandLineTooLong(most) => {
            let longest = u64::from(most)
                .saturating_sub(command_line::with_added("", Added::LONGEST).len() as u64 + 1);
            section.error(
                "cmdline",
                &format!(
                    "is too long: this kernel takes {longest} bytes beside the hypervisor's own \
                     parameters"
                ),
            )
        }
        error => section.error("kernel", &format!("{}: {error}", kernel.display())),
    })
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// The two images of a partition.
struct PartitionImages {
    kernel: Vec<u8>,
    initrd: Option<Vec<u8>>,
}

impl PartitionImages {
    const KERNEL: &str = "kernel";
    const INITRD: &str = "initrd";
}

impl ImageSource for PartitionImages {
    fn module(&self, name: &str) -> Option<&[u8]> {
        if name == Self::KERNEL { Some(&self.kernel) } else { self.initrd.as_deref() }
    }
}

/// Checks the machine as a whole: its memory, its CPUs, the archive.
pub(super) fn machine(
    root: &Section<'_>,
    bed: Bed,
    bytes: u64,
    cpus: u32,
    archive: u64,
) -> Result<(), ConfigError> {
    let machine = root.section("machine")?;
    let said = |section: &Option<Section<'_>>, key: &str, message: &str| {
        section
            .as_ref()
            .map_or_else(|| root.error(key, message), |section| section.error(key, message))
    };
    if bytes > direct_map::LIMIT {
        let message = format!(
            "a machine of {}, but the hypervisor reaches {}",
            size::readable(bytes),
            size::format(direct_map::LIMIT)
        );
        return Err(said(&root.section("pool")?, "memory", &message));
    }
    // Under QEMU's own emulation the boot CPU runs no guests.
    let most = if bed == Bed::Qemu { percpu::MAX_CPUS as u32 - 1 } else { percpu::MAX_CPUS as u32 };
    if cpus > most {
        return Err(said(
            &machine,
            "cpus",
            &format!("must be 1 to {most} in the bed {}", bed.name()),
        ));
    }
    if archive > MOST_ARCHIVE {
        let message = format!(
            "all kernels and initrds together have {}, more than {}",
            mib(archive),
            mib(MOST_ARCHIVE)
        );
        return Err(root.error("partition", &message));
    }
    let bandwidth =
        machine.as_ref().map(|machine| machine.pages("disk_bandwidth")).transpose()?.flatten();
    match bandwidth {
        Some(bytes) if bytes > MOST_BANDWIDTH => {
            Err(said(&machine, "disk_bandwidth", "is more than QEMU's largest limit for a disk"))
        }
        _ => Ok(()),
    }
}

/// Checks the names of self-tests.
pub(super) fn self_tests(root: &Section<'_>, names: &[String]) -> Result<(), ConfigError> {
    match names.iter().find(|name| !SELF_TESTS.contains(&name.as_str())) {
        Some(name) => Err(root
            .error("self_tests", &format!("unknown: “{name}” (known: {})", SELF_TESTS.join(", ")))),
        None => Ok(()),
    }
}
