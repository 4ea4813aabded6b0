//! `[[partition]]`: the guests to run.

use super::devices::PagingDevice;
use super::document::{ConfigError, Section};
use super::duration;
use super::{bounds, image, limits};
use crate::archive::ModuleArchive;
use crate::size;
use kernel::addr::PAGE_SIZE;
use kernel::config::{ConsoleRoute, DumpPolicy, KernelModules, PartitionConfig, RestartPolicy};
use kernel::space::reserve::{SpaceNeed, own_spaces, shortfall};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

const KEYS: &[&str] = &[
    "name",
    "memory",
    "kernel",
    "initrd",
    "cmdline",
    "vcpus",
    "dump",
    "dumps",
    "when_full",
    "restart",
    "boot_memory",
    "hang_timeout",
    "restart_limit",
    "rng",
];

/// Range of `hang_timeout`. A shorter time would fire within a guest's own long critical sections;
/// more than a day is no useful limit.
const HANG_TIMEOUT: RangeInclusive<Duration> = duration::range(kernel::config::TIMES_NS);

/// Module name of an unusable image; no archive contains it.
const ABSENT: &str = "absent";

/// The result of reading all `[[partition]]` sections.
#[derive(Debug)]
pub(super) struct Partitions {
    pub all: Vec<PartitionConfig>,
    /// Reasons why some partitions, not all, cannot start or cannot start again.
    pub warnings: Vec<ConfigError>,
}

/// Reads all `[[partition]]` sections, and adds their images to `archive`.
///
/// A missing or invalid kernel or initrd keeps only its own partition from starting: the hypervisor
/// reports that partition and runs the rest. It is an error where no partition could run.
pub(super) fn read(
    root: &Section<'_>,
    base: &Path,
    devices: &[PagingDevice],
    archive: &mut ModuleArchive,
) -> Result<Partitions, ConfigError> {
    let (mut partitions, mut warnings) = (Vec::<PartitionConfig>::new(), Vec::new());
    let sections = root.sections("partition")?;
    limits::partitions(&sections)?;
    for section in &sections {
        section.only(KEYS)?;
        let partition = one(section, base, archive, &mut warnings)?;
        if partitions.iter().any(|p| p.name == partition.name) {
            return Err(section
                .error("name", &format!("“{}” is another partition already", partition.name)));
        }
        fits(section, &partition, devices)?;
        partitions.push(partition);
    }
    if warnings.len() == partitions.len()
        && let Some(error) = warnings.first()
    {
        return Err(error.clone());
    }
    fit_together(&sections, &partitions, devices)?;
    warnings.extend(too_few_to_keep(&sections, &partitions, devices));
    Ok(Partitions { all: partitions, warnings })
}

/// Checks that every partition can have a space of its own while it runs. Both lists are sorted,
/// largest first: the partitions fit together if each fits the space at its own place in the list.
fn fit_together(
    sections: &[Section<'_>],
    partitions: &[PartitionConfig],
    devices: &[PagingDevice],
) -> Result<(), ConfigError> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut spaces: Vec<_> = devices.iter().flat_map(PagingDevice::partition_sizes).collect();
    spaces.sort_unstable_by_key(|&bytes| std::cmp::Reverse(bytes));
    let mut wanted: Vec<_> = partitions.iter().zip(sections).collect();
    wanted.sort_by_key(|(partition, _)| std::cmp::Reverse(partition.memory_bytes));
    for (place, (partition, section)) in wanted.iter().enumerate() {
        match spaces.get(place) {
            None => {
                let (count, spaces) = (partitions.len(), spaces.len());
                return Err(section.error(
                    "name",
                    &format!("{count} partitions, but only {spaces} paging spaces: each needs one"),
                ));
            }
            Some(&space) if partition.memory_bytes > space => {
                return Err(section.error(
                    "memory",
                    "the paging spaces that are large enough are needed by other partitions",
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Warns where no space can be kept for each partition's next incarnation.
fn too_few_to_keep(
    sections: &[Section<'_>],
    partitions: &[PartitionConfig],
    devices: &[PagingDevice],
) -> Option<ConfigError> {
    let pages = |bytes: u64| u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX);
    let spaces: Vec<_> =
        devices.iter().flat_map(PagingDevice::partition_sizes).map(pages).collect();
    let need = |partition: &PartitionConfig| SpaceNeed {
        pages: pages(partition.memory_bytes),
        count: own_spaces(partition.dump, partition.restart),
    };
    let needs: Vec<_> = partitions.iter().map(need).collect();
    let least = shortfall(&needs, &spaces)?;
    let (section, partition) = sections
        .iter()
        .zip(partitions)
        .find(|(_, partition)| pages(partition.memory_bytes) == least)?;
    let (wanted, there) = (needs.iter().map(|need| need.count).sum::<usize>(), spaces.len());
    let message = format!(
        "“{}” may have to wait after a crash: to keep one for each partition's next incarnation \
         takes {wanted} paging spaces that fit, and there are {there}",
        partition.name
    );
    Some(section.error("memory", &message))
}

fn one(
    section: &Section<'_>,
    base: &Path,
    archive: &mut ModuleArchive,
    warnings: &mut Vec<ConfigError>,
) -> Result<PartitionConfig, ConfigError> {
    let kernel = base.join(section.required_text("kernel")?);
    let initrd = section.text("initrd")?.map(|name| base.join(name));
    let checked = image::check_kernel(&kernel)
        .map_err(|message| section.error("kernel", &message))
        .and_then(|format| {
            let initrd = initrd.as_deref().map_or(Ok(()), |path| image::check_initrd(path, format));
            initrd.map_err(|message| section.error("initrd", &message))
        });
    let cmdline = limits::command_line(section)?;
    let checked =
        checked.and_then(|()| limits::start(section, &kernel, initrd.as_deref(), cmdline));
    let mut add =
        |path: PathBuf| if checked.is_ok() { module(archive, path) } else { ABSENT.to_owned() };
    let kernel = KernelModules { image: add(kernel), initrd: initrd.map(add) };
    warnings.extend(checked.err());
    if section.number("vcpus")?.unwrap_or(1) != 1 {
        return Err(section.error("vcpus", "only one vCPU a partition: more are not supported yet"));
    }
    let dump = section.choice("dump", &[("aided", DumpPolicy::Aided), ("off", DumpPolicy::Off)])?;
    let restarts = [
        ("threshold", RestartPolicy::Threshold),
        ("immediate", RestartPolicy::Immediate),
        ("never", RestartPolicy::Never),
    ];
    Ok(PartitionConfig {
        name: name(section)?,
        memory_bytes: section.required_pages("memory")?,
        kernel,
        cmdline: cmdline.to_owned(),
        dump: dump.unwrap_or(DumpPolicy::Aided),
        dump_bound: bounds::dumps(section)?,
        restart: section.choice("restart", &restarts)?.unwrap_or(RestartPolicy::Threshold),
        boot_memory_bytes: section.pages("boot_memory")?,
        hang_timeout_ns: section.duration("hang_timeout", HANG_TIMEOUT)?,
        restart_limit: bounds::restart_limit(section)?,
        console: ConsoleRoute::Screen,
        devices: limits::devices(section)?,
    })
}

/// Reads the name, which is typed on the console and appears in events and records.
fn name(section: &Section<'_>) -> Result<String, ConfigError> {
    let name = section.required_text("name")?;
    if kernel::config::is_valid_name(name) {
        return Ok(name.to_owned());
    }
    Err(section.error("name", "must be at most 31 letters, digits, - and _, and not empty"))
}

fn fits(
    section: &Section<'_>,
    partition: &PartitionConfig,
    devices: &[PagingDevice],
) -> Result<(), ConfigError> {
    let memory = partition.memory_bytes;
    let largest = devices.iter().map(PagingDevice::largest_partition).max().unwrap_or(memory);
    if memory > largest {
        let (memory, largest) = (size::format(memory), size::readable(largest));
        return Err(section.error(
            "memory",
            &format!("{memory} is larger than every paging space (largest: {largest})"),
        ));
    }
    match partition.boot_memory_bytes {
        Some(bytes) if bytes > memory => Err(section.error(
            "boot_memory",
            &format!("{} is more than the partition has", size::format(bytes)),
        )),
        _ => Ok(()),
    }
}

/// Adds the file to the archive. One file is one module, even if the configuration names it by
/// several paths.
fn module(archive: &mut ModuleArchive, path: PathBuf) -> String {
    archive.add_file(path.canonicalize().unwrap_or(path))
}
