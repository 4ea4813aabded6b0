//! A configuration file: TOML in, a checked [`BootPlan`] out.
//!
//! ```text
//!  text ──document──> values with lines ──machine, devices, partition──> checked against each other ──> Plan
//! ```
//!
//! Every error names file, line and key, and comes before anything is started, made or overwritten.
//! The format is described in `docs/configuration.md`.

mod bounds;
mod cluster;
mod devices;
mod document;
pub(crate) mod duration;
mod image;
mod limits;
mod named;
mod partition;
mod spare;
mod stores;
#[cfg(test)]
pub(crate) mod tests;

pub use devices::{DeviceBacking, PagingDevice};
pub use document::ConfigError;

use crate::archive::{ModuleArchive, ModuleSource};
use crate::bed::kind::Bed;
use crate::size;
use anyhow::Result;
use document::{Document, Section};
use kernel::arch::heap;
use kernel::config::{Config, DISK_TIMEOUT_NS, EndAction, VERSION};
use kernel::images::ImageKind;
use kernel::pool::MemoryNeeds;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Smallest pool that is accepted: below it, the hypervisor's reserves leave nothing to share.
const LEAST_POOL: u64 = 4 << 20;
/// Range of `disk_timeout`. A shorter time would fail healthy disks under load; a longer time would
/// leave a partition hanging on a dead disk.
const DISK_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(600);
/// Memory of the machine besides the computed parts: the hypervisor, the least heap, disk buffers,
/// firmware.
const MACHINE_RESERVE: u64 = 64 << 20;

/// The result of a checked configuration, ready to start.
#[derive(Clone, Debug)]
pub struct BootPlan {
    /// The configuration for the hypervisor.
    pub config: Config,
    /// The boot archive for the hypervisor.
    pub archive: ModuleArchive,
    /// Image files of the paging devices, in order.
    pub disks: Vec<PathBuf>,
    /// Images with image stores, in order.
    pub stores: Vec<PathBuf>,
    /// Images with cluster areas, which other machines use too; their disks come after the others.
    pub areas: Vec<PathBuf>,
    /// The file with the node's local copy of its cluster's state; its disk follows the paging
    /// devices.
    pub local: Option<PathBuf>,
    /// MiB of memory of the machine.
    pub machine_mib: u64,
    /// CPUs of the machine.
    pub cpus: u32,
    /// The machine's CPU model, where it differs from the bed's default.
    pub cpu: Option<String>,
    /// Limit of each disk's bandwidth in bytes a second, if one is set.
    pub disk_bandwidth: Option<u64>,
    /// Reasons why some partitions, not all, cannot start.
    pub warnings: Vec<String>,
}

impl BootPlan {
    /// Routes the consoles of these partitions to programs as well.
    ///
    /// # Errors
    /// Names the unknown partition, and the known ones.
    pub fn route_consoles<'n>(&mut self, names: impl Iterator<Item = &'n str>) -> Result<()> {
        for name in names {
            let known: Vec<_> =
                self.config.partitions.iter().map(|partition| partition.name.clone()).collect();
            let found = self.config.partitions.iter_mut().find(|partition| partition.name == name);
            let Some(partition) = found else {
                anyhow::bail!(
                    "--console {name}: no such partition (there are: {})",
                    known.join(", ")
                );
            };
            partition.console = kernel::config::ConsoleRoute::Programs;
        }
        self.archive.replace(kernel::config::MODULE, ModuleSource::Bytes(self.config.to_module()));
        Ok(())
    }
}

/// Maximum size of a configuration in bytes, far more than a hand-written one needs.
const LARGEST_TEXT: u64 = 1 << 20;

/// Reads and checks the file at `path` for `bed`, and creates the paging devices that it names and
/// that are missing.
///
/// # Errors
/// [`ConfigError`], or why an image file cannot be made.
pub fn load(path: &Path, bed: Bed) -> Result<BootPlan> {
    let text = text_of(path)?;
    let base = path.parent().unwrap_or(Path::new(""));
    read(&path.display().to_string(), &text, base, bed)
}

/// Reads and checks the file at `path` as [`load`] does, for a machine whose disks are not on this
/// host: creates no paging device.
///
/// # Errors
/// [`ConfigError`].
pub fn check(path: &Path, bed: Bed) -> Result<BootPlan> {
    let text = text_of(path)?;
    let base = path.parent().unwrap_or(Path::new(""));
    check_text(&path.display().to_string(), &text, base, bed)
}

/// As [`check`], from text. `name` is the file's name in errors; file names are relative to `base`.
///
/// # Errors
/// As [`check`].
pub fn check_text(name: &str, text: &str, base: &Path, bed: Bed) -> Result<BootPlan> {
    Ok(plan(name, text, base, bed)?.0)
}

/// As [`load`], from text. `name` is the file's name in errors; file names are relative to `base`.
///
/// # Errors
/// As [`load`].
pub fn read(name: &str, text: &str, base: &Path, bed: Bed) -> Result<BootPlan> {
    let (plan, devices) = plan(name, text, base, bed)?;
    let document = Document::parse(name, text)?;
    for (device, section) in devices.iter().zip(document.root().sections("paging_device")?) {
        device.make_if_missing().map_err(|error| section.error("image", &format!("{error:#}")))?;
    }
    stores::check(&document.root(), &plan.stores)?;
    Ok(plan)
}

/// Recognises a file that a partition can start from: a kernel, or an initrd for Linux.
///
/// # Errors
/// Names the file, which is neither.
pub fn image_kind(path: &Path) -> Result<ImageKind> {
    crate::regular::check(path)?;
    image::kind(path).map_err(anyhow::Error::msg)
}

/// Reads the text of a configuration, which may come from a pipe, up to a size limit.
fn text_of(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |error| ConfigError::file(path, &format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_TEXT + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_TEXT {
        return Err(ConfigError::file(
            path,
            &format!("is no configuration: more than {}", size::format(LARGEST_TEXT)),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count();
        ConfigError::line(
            path,
            line,
            &format!("is no text: byte {:#04x} is not UTF-8", error.as_bytes()[good]),
        )
    })
}

fn plan(name: &str, text: &str, base: &Path, bed: Bed) -> Result<(BootPlan, Vec<PagingDevice>)> {
    let document = Document::parse(name, text)?;
    let root = document.root();
    root.only(&[
        "pool",
        "machine",
        "paging_device",
        "partition",
        "image",
        "image_store",
        "spare",
        "cluster",
        "at_end",
        "disk_timeout",
        "self_tests",
    ])?;
    let devices = devices::read(&root, base, bed)?;
    let stores = stores::read(&root, base, bed, &devices)?;
    let mut archive = ModuleArchive::default();
    let partition::Partitions { all: partitions, warnings } =
        partition::read(&root, base, &devices, &mut archive)?;
    named::read(&root, base, &mut archive)?;
    if let Some(first) = partitions.first().filter(|_| devices.is_empty()) {
        return Err(root
            .error("paging_device", &format!("none, but partition “{}” needs one", first.name))
            .into());
    }
    let pool_bytes = pool(&root)?;
    let cluster = cluster::read(&root, base, bed, &devices)?;
    let config = Config {
        version: VERSION,
        pool_bytes,
        memory_disks: devices.iter().filter_map(PagingDevice::memory).collect(),
        disk_timeout_ns: root.duration("disk_timeout", DISK_TIMEOUTS)?.unwrap_or(DISK_TIMEOUT_NS),
        spare: spare::read(&root, partitions.len(), pool_bytes)?,
        partitions,
        at_end: root
            .choice("at_end", &[("stay", EndAction::Stay), ("power-off", EndAction::PowerOff)])?
            .unwrap_or(EndAction::Stay),
        node_name: cluster.name.clone(),
        self_tests: root.texts("self_tests")?,
    };
    let archived = archive.size()?;
    let (machine_mib, cpus) = machine(&root, &config, &devices, archived)?;
    limits::machine(&root, bed, machine_mib << 20, cpus, archived)?;
    limits::self_tests(&root, &config.self_tests)?;
    let disk_bandwidth = root
        .section("machine")?
        .map(|machine| machine.pages("disk_bandwidth"))
        .transpose()?
        .flatten();
    let cpu = cpu(&root)?;
    archive.add(kernel::config::MODULE, ModuleSource::Bytes(config.to_module()));
    let disks = devices.iter().filter_map(PagingDevice::image).collect();
    let warnings = warnings.iter().map(ToString::to_string).collect();
    Ok((
        BootPlan {
            config,
            archive,
            disks,
            stores,
            areas: cluster.areas,
            local: cluster.local,
            machine_mib,
            cpus,
            cpu,
            disk_bandwidth,
            warnings,
        },
        devices,
    ))
}

/// Returns the plan of a machine without partitions, which stops at once.
///
/// # Errors
/// Only where this function itself has a mistake.
pub fn nothing(bed: Bed) -> Result<BootPlan> {
    read("nothing", "at_end = \"power-off\"\npool.memory = \"16 MiB\"", Path::new(""), bed)
}

fn pool(root: &Section<'_>) -> Result<u64, ConfigError> {
    let pool = root
        .section("pool")?
        .ok_or_else(|| root.error("pool", "missing: say how much memory all partitions share"))?;
    pool.only(&["memory"])?;
    let bytes = pool.required_pages("memory")?;
    if bytes < LEAST_POOL {
        return Err(pool.error(
            "memory",
            &format!("{} is too small (least: {})", size::format(bytes), size::format(LEAST_POOL)),
        ));
    }
    Ok(bytes)
}

/// Returns the machine's MiB and CPUs: as configured, if the memory holds everything, else just
/// enough.
fn machine(
    root: &Section<'_>,
    config: &Config,
    devices: &[PagingDevice],
    archive: u64,
) -> Result<(u64, u32), ConfigError> {
    let needs = needs(config, devices);
    let beside = beside(config, &needs, archive);
    let least = config
        .pool_bytes
        .saturating_add(beside)
        .checked_next_multiple_of(1 << 20)
        .unwrap_or(u64::MAX);
    let Some(machine) = root.section("machine")? else { return Ok((least >> 20, 2)) };
    machine.only(&["memory", "cpus", "cpu", "disk_bandwidth"])?;
    let bytes = machine.pages("memory")?.unwrap_or(least);
    if bytes < least {
        let [pool, beside, tables, bytes] =
            [config.pool_bytes, beside, needs.total(), bytes].map(size::in_mib);
        let message = format!(
            "{pool} does not fit into a machine of {bytes}: the rest needs {beside}, {tables} of \
             it for the tables of frames and of partitions' pages"
        );
        return Err(root
            .section("pool")?
            .map_or_else(|| root.error("pool", &message), |p| p.error("memory", &message)));
    }
    let cpus = machine.number("cpus")?.unwrap_or(2);
    let cpus = u32::try_from(cpus).ok().filter(|n| (1..=8).contains(n));
    Ok((bytes >> 20, cpus.ok_or_else(|| machine.error("cpus", "must be 1 to 8"))?))
}

/// Returns the memory that the hypervisor takes for tables at its start.
fn needs(config: &Config, devices: &[PagingDevice]) -> MemoryNeeds {
    let partitions: Vec<u64> = config.partitions.iter().map(|p| p.memory_bytes).collect();
    let spaces: Vec<u64> = devices.iter().flat_map(PagingDevice::partition_sizes).collect();
    MemoryNeeds::of(config.pool_bytes, &partitions, &spaces, config.spare)
}

/// Returns the machine's memory besides the pool. The heap is a fraction of the whole, so it grows
/// with the rest.
fn beside(config: &Config, needs: &MemoryNeeds, archive: u64) -> u64 {
    let disks = config.memory_disks.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let fixed =
        MACHINE_RESERVE.saturating_add(archive).saturating_add(disks).saturating_add(needs.total());
    let all = config.pool_bytes.saturating_add(fixed);
    fixed.saturating_add(heap::bytes_for(all.saturating_add(all / 16)) - heap::bytes_for(0))
}

/// Returns the CPU model that the emulator shall show. The emulator checks whether the model
/// exists. A name has no blanks: with blanks it could be several settings for the emulator.
fn cpu(root: &Section<'_>) -> Result<Option<String>, ConfigError> {
    let Some(machine) = root.section("machine")? else { return Ok(None) };
    let Some(model) = machine.text("cpu")? else { return Ok(None) };
    if model.is_empty() || !model.chars().all(|c| c.is_ascii_graphic()) {
        return Err(machine.error("cpu", "must be the emulator's name of a CPU model"));
    }
    Ok(Some(model.to_owned()))
}
