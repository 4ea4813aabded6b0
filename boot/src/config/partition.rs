//! `[[partition]]`: what runs.

use super::devices::PagingDevice;
use super::document::{ConfigError, Section};
use super::{image, size};
use crate::archive::{Archive, Source};
use kernel::config::{DumpPolicy, Kernel, Partition, Restart};
use std::path::{Path, PathBuf};

const KEYS: &[&str] = &["name", "memory", "kernel", "initrd", "cmdline", "vcpus", "dump", "restart", "boot_memory"];

/// Module of an image that cannot be used: no archive has it.
const ABSENT: &str = "absent";

/// What `[[partition]]` ask for.
#[derive(Debug)]
pub(super) struct Partitions {
    pub all: Vec<Partition>,
    /// What keeps some of them, not all, from starting.
    pub warnings: Vec<ConfigError>,
}

/// Reads all `[[partition]]`, and puts their images into `archive`.
///
/// A kernel or initrd that is missing, or is none, keeps its own partition from starting and no other: the hypervisor reports that
/// partition and runs the rest. Where nothing could run it is an error.
pub(super) fn read(
    root: &Section<'_>,
    base: &Path,
    devices: &[PagingDevice],
    archive: &mut Archive,
) -> Result<Partitions, ConfigError> {
    let (mut partitions, mut warnings) = (Vec::<Partition>::new(), Vec::new());
    let sections = root.sections("partition")?;
    for section in &sections {
        section.only(KEYS)?;
        let partition = one(section, base, archive, &mut warnings)?;
        if partitions.iter().any(|p| p.name == partition.name) {
            return Err(section.error("name", &format!("“{}” is another partition already", partition.name)));
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
    Ok(Partitions { all: partitions, warnings })
}

/// Every partition needs a space of its own while it runs. The largest first: if each fits the space that is as far down the list,
/// they fit together.
fn fit_together(sections: &[Section<'_>], partitions: &[Partition], devices: &[PagingDevice]) -> Result<(), ConfigError> {
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
                return Err(
                    section.error("name", &format!("{count} partitions, but only {spaces} paging spaces: each needs one"))
                );
            }
            Some(&space) if partition.memory_bytes > space => {
                return Err(section.error("memory", "the paging spaces that are large enough are needed by other partitions"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn one(
    section: &Section<'_>,
    base: &Path,
    archive: &mut Archive,
    warnings: &mut Vec<ConfigError>,
) -> Result<Partition, ConfigError> {
    let kernel = base.join(section.required_text("kernel")?);
    let initrd = section.text("initrd")?.map(|name| base.join(name));
    let checked = image::check_kernel(&kernel).map_err(|message| section.error("kernel", &message)).and_then(|()| {
        let initrd = initrd.as_deref().map_or(Ok(()), image::check_initrd);
        initrd.map_err(|message| section.error("initrd", &message))
    });
    let mut add = |path: PathBuf| if checked.is_ok() { module(archive, path) } else { ABSENT.to_owned() };
    let kernel = Kernel { image: add(kernel), initrd: initrd.map(add) };
    warnings.extend(checked.err());
    if section.number("vcpus")?.unwrap_or(1) != 1 {
        return Err(section.error("vcpus", "only one vCPU a partition: more are not supported yet"));
    }
    let dump = section.choice("dump", &[("aided", DumpPolicy::Aided), ("off", DumpPolicy::Off)])?;
    let restarts = [("threshold", Restart::Threshold), ("immediate", Restart::Immediate), ("never", Restart::Never)];
    Ok(Partition {
        name: name(section)?,
        memory_bytes: section.required_pages("memory")?,
        kernel,
        cmdline: section.text("cmdline")?.unwrap_or("").to_owned(),
        dump: dump.unwrap_or(DumpPolicy::Aided),
        restart: section.choice("restart", &restarts)?.unwrap_or(Restart::Threshold),
        boot_memory_bytes: section.pages("boot_memory")?,
    })
}

/// The name is typed on the console and stands in events and records.
fn name(section: &Section<'_>) -> Result<String, ConfigError> {
    let name = section.required_text("name")?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if plain && name.len() <= 31 {
        return Ok(name.to_owned());
    }
    Err(section.error("name", "must be at most 31 letters, digits, - and _"))
}

fn fits(section: &Section<'_>, partition: &Partition, devices: &[PagingDevice]) -> Result<(), ConfigError> {
    let memory = partition.memory_bytes;
    let largest = devices.iter().map(PagingDevice::largest_partition).max().unwrap_or(memory);
    if memory > largest {
        let (memory, largest) = (size::format(memory), size::format(largest));
        return Err(section.error("memory", &format!("{memory} is larger than every paging space (largest: {largest})")));
    }
    match partition.boot_memory_bytes {
        Some(bytes) if bytes > memory => {
            Err(section.error("boot_memory", &format!("{} is more than the partition has", size::format(bytes))))
        }
        _ => Ok(()),
    }
}

/// Adds the file to the archive under a name that says where it came from; one file is one module.
fn module(archive: &mut Archive, path: PathBuf) -> String {
    // An archive has no way up, so `..` has to go; the file was just read, so it has a canonical name.
    let path = path.canonicalize().unwrap_or(path);
    let name: String = path.display().to_string().chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    let tail = name.len().saturating_sub(80);
    let name = name[tail..].trim_start_matches('/').to_owned();
    archive.add(&name, Source::File(path));
    name
}
