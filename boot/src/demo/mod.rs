//! The demonstration: Debians with twice as much memory promised as there is, from their first
//! page-out to a dump.
//!
//! ```text
//!  boot ──> workers fill memory and verify it, pass after pass ──> one panics
//!       ──> it restarts during its drain, the others work on
//!       ──> it works again ──> the dump is read ──> table, picture
//! ```
//!
//! [`scale`] defines the size in each bed, [`story`] follows the machine's output, [`readers`] open
//! the dump with the usual tools, [`verdict`] judges the claims, [`picture`] draws the pool over
//! time. The configuration is an ordinary file, which is kept so that people can read it.

pub mod clone;
pub mod cluster;
pub mod counters;
pub mod nested;
mod panel;
pub mod picture;
pub mod readers;
pub mod record;
pub mod scale;
pub mod story;
pub mod verdict;
pub mod worker;

use crate::bed::Bed;
use crate::size;
use anyhow::Result;
pub use scale::DemoScale;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes the configuration file and removes the last demonstration's images; returns the file.
///
/// # Errors
/// Where the folder cannot be written.
pub fn write_configuration(
    folder: &Path,
    bed: Bed,
    scale: &DemoScale,
    kernel: &Path,
    initrd: &Path,
) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut text =
        "# The demonstration's configuration; `tidepool boot` takes such a file.\n".to_owned();
    if bed != Bed::Bochs {
        // The speed of a memory-backed disk would be meaningless.
        text += "self_tests = [\"raw-disk\"]\n";
    }
    text += &format!("\n[pool]\nmemory = \"{}\"\n\n", size::format(scale.pool));
    text += &format!("[machine]\ncpus = {}\n", scale.cpus);
    if let Some(bandwidth) = scale.disk_bandwidth {
        text += &format!("disk_bandwidth = \"{}\"\n", size::format(bandwidth));
    }
    text += "\n";
    for index in 0..scale.devices() {
        text += &device(folder, bed, scale, index)?;
    }
    for index in 0..scale.partitions {
        text += &partition(scale, index, kernel, initrd);
    }
    let file = folder.join("demo.toml");
    crate::atomic::write(&file, |out| Ok(std::io::Write::write_all(out, text.as_bytes())?))?;
    Ok(file)
}

fn device(folder: &Path, bed: Bed, scale: &DemoScale, index: u64) -> Result<String> {
    let (name, size) = (format!("{index}.img"), size::format(scale.device()));
    match fs::remove_file(folder.join(&name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(match bed {
        Bed::Bochs => format!("[[paging_device]]\nmemory = \"{size}\"\n\n"),
        _ => format!("[[paging_device]]\nimage = \"{name}\"\nsize = \"{size}\"\n\n"),
    })
}

fn partition(scale: &DemoScale, index: u64, kernel: &Path, initrd: &Path) -> String {
    let mut cmdline = "console=ttyS0 quiet".to_owned();
    if let Some(mib) = scale.worker_mib {
        cmdline += &format!(" worker.mib={mib}");
    }
    if index == 0 {
        cmdline +=
            &format!(" worker.crash_after={} worker.dirty_mib={}", scale.passes, scale.dirty_mib);
    }
    format!(
        "[[partition]]\nname = \"{}\"\nmemory = \"{}\"\nkernel = \"{}\"\ninitrd = \"{}\"\ncmdline \
         = \"{cmdline}\"\ndump = \"aided\"\nrestart = \"threshold\"\n\n",
        DemoScale::name(index),
        size::format(scale.memory),
        kernel.display(),
        initrd.display(),
    )
}
