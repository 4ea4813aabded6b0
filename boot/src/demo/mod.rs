//! The demonstration: one Debian, promised twice the memory there is, from its first page-out to its dump.
//!
//! ```text
//!  boot ──> the worker fills memory, verifies it, pass after pass ──> panic
//!       ──> restart while the drain goes on ──> works again ──> dump complete ──> the dump is read ──> table
//! ```
//!
//! [`story`] follows what the machine says, [`readers`] open the dump with the usual tools, [`verdict`] says what of all
//! that held. The configuration is an ordinary file, which stays for people to look at.

pub mod nested;
pub mod readers;
pub mod story;
pub mod verdict;

use crate::bed::Bed;
use crate::config::format_size;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

/// Pool of the demonstration.
pub const POOL: u64 = 128 << 20;
/// What the partition is promised.
pub const MEMORY: u64 = 256 << 20;
/// Size of each paging device: the memory, what describes it, and the records.
const DEVICE: u64 = 272 << 20;
/// Passes of the worker before the panic.
pub const PASSES: u64 = 4;
/// MiB that the worker writes anew right before the panic: what the drain has to write.
pub const DIRTY_MIB: u64 = 80;
/// Bytes a second that each disk of an emulated machine can do.
///
/// Under TCG a CPU takes 20 to 50 times as long as a real one for its part of a page's way to the disk, while the disk's part costs
/// the emulator next to nothing. This disk is as much slower than an NVMe drive of 2 to 5 GB/s, so that the two stand to each other
/// as in a real machine, and the drain's share of the disk's speed says whether the disk or the hypervisor holds it up.
const EMULATED_BANDWIDTH: u64 = 100 << 20;
/// The partition's name.
pub const PARTITION: &str = "debian";

/// Writes the configuration file and removes the last demonstration's images; returns the file.
///
/// # Errors
/// Where the folder cannot be written.
pub fn write_configuration(folder: &Path, bed: Bed, kernel: &Path, initrd: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut devices = String::new();
    for name in ["a.img", "b.img"] {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let size = format_size(DEVICE);
        devices += &match bed {
            Bed::Bochs => format!("[[paging_device]]\nmemory = \"{size}\"\n\n"),
            _ => format!("[[paging_device]]\nimage = \"{name}\"\nsize = \"{size}\"\n\n"),
        };
    }
    let machine = match bed {
        Bed::Qemu => format!("[machine]\ndisk_bandwidth = \"{}\"\n\n", format_size(EMULATED_BANDWIDTH)),
        _ => String::new(),
    };
    let (pool, memory) = (format_size(POOL), format_size(MEMORY));
    let text = format!(
        "# The demonstration's configuration; `tidepool boot` takes such a file.\n\
         self_tests = [\"raw-disk\"]\n\n\
         [pool]\nmemory = \"{pool}\"\n\n{machine}\
         {devices}\
         [[partition]]\nname = \"{PARTITION}\"\nmemory = \"{memory}\"\nkernel = \"{}\"\ninitrd = \"{}\"\n\
         cmdline = \"console=ttyS0 quiet worker.crash_after={PASSES} worker.dirty_mib={DIRTY_MIB}\"\ndump = \"aided\"\nrestart = \"threshold\"\n",
        kernel.display(),
        initrd.display(),
    );
    let file = folder.join("demo.toml");
    crate::atomic::write(&file, |out| Ok(std::io::Write::write_all(out, text.as_bytes())?))?;
    Ok(file)
}
