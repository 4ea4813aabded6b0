//! A configuration file: TOML in, a checked [`Plan`] out.
//!
//! ```text
//!  text ──document──> values with lines ──machine, devices, partition──> checked against each other ──> Plan
//! ```
//!
//! Every error names file, line and key, and comes before anything is started, made or overwritten. The format is
//! described in `docs/configuration.md`.

mod devices;
mod document;
mod image;
mod partition;
mod size;
#[cfg(test)]
mod tests;

pub use devices::{Device, PagingDevice};
pub use document::ConfigError;
pub use size::{format as format_size, parse as parse_size};

use crate::archive::{Archive, Source};
use crate::bed::Bed;
use anyhow::Result;
use document::{Document, Section};
use kernel::config::{AtEnd, Config, VERSION};
use std::path::{Path, PathBuf};

/// Least pool that is accepted: below it, the hypervisor's reserves leave nothing to share.
const LEAST_POOL: u64 = 4 << 20;
/// Memory of the machine beside pool, archive and memory-backed devices: the hypervisor, its heap and tables, firmware.
const MACHINE_RESERVE: u64 = 64 << 20;

/// What a configuration asks for, ready to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the hypervisor is told.
    pub config: Config,
    /// Everything that it is handed.
    pub archive: Archive,
    /// Image files of the paging devices, in order.
    pub disks: Vec<PathBuf>,
    /// MiB of memory of the machine.
    pub machine_mib: u64,
    /// CPUs of the machine.
    pub cpus: u32,
    /// The CPU model of the machine, where not the bed's usual one.
    pub cpu: Option<String>,
    /// Bytes a second that each disk of the machine can do, if it is to be held to that.
    pub disk_bandwidth: Option<u64>,
    /// What keeps some partitions from starting, though not all.
    pub warnings: Vec<String>,
}

/// Reads and checks the file at `path` for `bed`, and makes paging devices that it asks for and that are missing.
///
/// # Errors
/// [`ConfigError`], or why an image file cannot be made.
pub fn load(path: &Path, bed: Bed) -> Result<Plan> {
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::file(path, &format!("cannot be read: {e}")))?;
    let base = path.parent().unwrap_or(Path::new(""));
    read(&path.display().to_string(), &text, base, bed)
}

/// As [`load`], from text; `name` stands for the file in errors, file names are relative to `base`.
///
/// # Errors
/// As [`load`].
pub fn read(name: &str, text: &str, base: &Path, bed: Bed) -> Result<Plan> {
    let document = Document::parse(name, text)?;
    let root = document.root();
    root.only(&["pool", "machine", "paging_device", "partition", "at_end", "self_tests"])?;
    let devices = devices::read(&root, base, bed)?;
    let mut archive = Archive::default();
    let partition::Partitions { all: partitions, warnings } = partition::read(&root, base, &devices, &mut archive)?;
    if let Some(first) = partitions.first().filter(|_| devices.is_empty()) {
        return Err(root.error("paging_device", &format!("none, but partition “{}” needs one", first.name)).into());
    }
    let config = Config {
        version: VERSION,
        pool_bytes: pool(&root)?,
        memory_disks: devices.iter().filter_map(PagingDevice::memory).collect(),
        partitions,
        at_end: root.choice("at_end", &[("stay", AtEnd::Stay), ("power-off", AtEnd::PowerOff)])?.unwrap_or(AtEnd::Stay),
        self_tests: root.texts("self_tests")?,
    };
    let (machine_mib, cpus) = machine(&root, &config, archive.size()?)?;
    let disk_bandwidth = root.section("machine")?.map(|machine| machine.pages("disk_bandwidth")).transpose()?.flatten();
    let cpu = cpu(&root)?;
    for device in &devices {
        device.make_if_missing()?;
    }
    archive.add(kernel::config::MODULE, Source::Bytes(config.to_module()));
    let disks = devices.iter().filter_map(PagingDevice::image).collect();
    let warnings = warnings.iter().map(ToString::to_string).collect();
    Ok(Plan { config, archive, disks, machine_mib, cpus, cpu, disk_bandwidth, warnings })
}

/// Returns the plan of a machine that has nothing to run and so stops at once.
///
/// # Errors
/// None that is not a mistake here.
pub fn nothing(bed: Bed) -> Result<Plan> {
    read("nothing", "at_end = \"power-off\"\npool.memory = \"16 MiB\"", Path::new(""), bed)
}

fn pool(root: &Section<'_>) -> Result<u64, ConfigError> {
    let pool = root.section("pool")?.ok_or_else(|| root.error("pool", "missing: say how much memory all partitions share"))?;
    pool.only(&["memory"])?;
    let bytes = pool.required_pages("memory")?;
    if bytes < LEAST_POOL {
        return Err(pool.error("memory", &format!("{} is too small (least: {})", size::format(bytes), size::format(LEAST_POOL))));
    }
    Ok(bytes)
}

/// Returns the machine's MiB and CPUs: as told, if it can hold the rest, or just enough.
fn machine(root: &Section<'_>, config: &Config, archive: u64) -> Result<(u64, u32), ConfigError> {
    let beside = MACHINE_RESERVE + archive + config.memory_disks.iter().sum::<u64>();
    let least = (config.pool_bytes + beside).next_multiple_of(1 << 20);
    let Some(machine) = root.section("machine")? else { return Ok((least >> 20, 2)) };
    machine.only(&["memory", "cpus", "cpu", "disk_bandwidth"])?;
    let bytes = machine.pages("memory")?.unwrap_or(least);
    if bytes < least {
        let (pool, beside, bytes) = (size::format(config.pool_bytes), size::format(beside), size::format(bytes));
        let message = format!("{pool} does not fit into a machine of {bytes} (the rest needs {beside})");
        return Err(root.section("pool")?.map_or_else(|| root.error("pool", &message), |p| p.error("memory", &message)));
    }
    let cpus = machine.number("cpus")?.unwrap_or(2);
    let cpus = u32::try_from(cpus).ok().filter(|n| (1..=8).contains(n));
    Ok((bytes >> 20, cpus.ok_or_else(|| machine.error("cpus", "must be 1 to 8"))?))
}

/// Returns the CPU model that the emulator shall show. Which there are is the emulator's business; a name has no blanks, which could be more
/// than a name in its settings.
fn cpu(root: &Section<'_>) -> Result<Option<String>, ConfigError> {
    let Some(machine) = root.section("machine")? else { return Ok(None) };
    let Some(model) = machine.text("cpu")? else { return Ok(None) };
    if model.is_empty() || !model.chars().all(|c| c.is_ascii_graphic()) {
        return Err(machine.error("cpu", "must be the emulator's name of a CPU model"));
    }
    Ok(Some(model.to_owned()))
}
