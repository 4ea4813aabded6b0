//! The initramfs of a Linux server: redis under the load of its own benchmark, with the worker
//! beside it.

use super::cpio::CpioArchive;
use super::libraries::Libraries;
use super::{BUSYBOX_PLACE, busybox};
use crate::setup::debian;
use crate::{kernel_build, setup};
use anyhow::{Context, Result};
use std::path::Path;

/// The init script, the first process.
const INIT: &[u8] = include_bytes!("server.sh");
/// Programs: the name in the initramfs and the name on the host. The server is the same binary as
/// its file checker.
const PROGRAMS: &[(&str, &str)] = &[
    ("redis-server", "redis-check-rdb"),
    ("redis-cli", "redis-cli"),
    ("redis-benchmark", "redis-benchmark"),
];

/// Writes the initramfs for `kernel` to `path`.
///
/// # Errors
/// Names the missing file or program.
pub fn make(kernel: &debian::DebianKernel, path: &Path) -> Result<()> {
    let mut libraries = Libraries::default();
    let mut programs = Vec::new();
    for (there, here) in PROGRAMS {
        let file = setup::program(here)
            .with_context(|| format!("{here} is missing (Debian: redis-tools)"))?;
        let bytes = read(&file)?;
        libraries.add_for(&bytes)?;
        programs.push((format!("bin/{there}"), bytes));
    }
    programs.push(("bin/worker".to_owned(), read(&kernel_build::worker()?)?));
    programs.push((BUSYBOX_PLACE.to_owned(), busybox()?));
    crate::atomic::write(path, |file| {
        let mut archive = CpioArchive::new(std::io::BufWriter::new(file));
        ["bin", "dev", "proc", "sys", "tmp", "lib", "lib/modules"]
            .iter()
            .try_for_each(|name| archive.folder(name))?;
        archive.character_device("dev/console", 5, 1)?;
        archive.program("init", INIT)?;
        programs.iter().try_for_each(|(name, bytes)| archive.program(name, bytes))?;
        libraries.put(&mut archive)?;
        for (index, module) in kernel.modules().iter().enumerate() {
            let name = module.file_name().context("a module has a name")?.to_string_lossy();
            archive.file(&format!("lib/modules/{index:02}-{name}"), &read(module)?)?;
        }
        archive.finish()?;
        Ok(())
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{}", path.display()))
}
