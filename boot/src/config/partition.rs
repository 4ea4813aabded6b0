//! `[[partition]]`: what runs.

use super::devices::PagingDevice;
use super::document::{ConfigError, Section};
use super::{image, size};
use crate::archive::{Archive, Source};
use kernel::config::{DumpPolicy, Kernel, Partition, Restart};
use std::path::{Path, PathBuf};

const KEYS: &[&str] = &["name", "memory", "kernel", "initrd", "cmdline", "vcpus", "dump", "restart", "boot_memory"];

/// Reads all `[[partition]]`, and puts their images into `archive`.
pub(super) fn read(
    root: &Section<'_>,
    base: &Path,
    devices: &[PagingDevice],
    archive: &mut Archive,
) -> Result<Vec<Partition>, ConfigError> {
    let mut partitions: Vec<Partition> = Vec::new();
    for section in root.sections("partition")? {
        section.only(KEYS)?;
        let partition = one(&section, base, archive)?;
        if partitions.iter().any(|p| p.name == partition.name) {
            return Err(section.error("name", &format!("“{}” is another partition already", partition.name)));
        }
        fits(&section, &partition, devices)?;
        partitions.push(partition);
    }
    Ok(partitions)
}

fn one(section: &Section<'_>, base: &Path, archive: &mut Archive) -> Result<Partition, ConfigError> {
    let file = |key| section.required_text(key).map(|name| base.join(name));
    let kernel = file("kernel")?;
    image::check_kernel(&kernel).map_err(|message| section.error("kernel", &message))?;
    let initrd = section.text("initrd")?.map(|name| base.join(name));
    if let Some(initrd) = &initrd {
        image::check_initrd(initrd).map_err(|message| section.error("initrd", &message))?;
    }
    if section.number("vcpus")?.unwrap_or(1) != 1 {
        return Err(section.error("vcpus", "only one vCPU a partition: more are not supported yet"));
    }
    let dump = section.choice("dump", &[("aided", DumpPolicy::Aided), ("off", DumpPolicy::Off)])?;
    let restarts = [("threshold", Restart::Threshold), ("immediate", Restart::Immediate), ("never", Restart::Never)];
    Ok(Partition {
        name: name(section)?,
        memory_bytes: section.required_pages("memory")?,
        kernel: Kernel { image: module(archive, kernel), initrd: initrd.map(|path| module(archive, path)) },
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
