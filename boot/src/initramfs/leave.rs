//! The initramfs of a Linux that leaves in a different way in each incarnation: among others into
//! another kernel, and into a crash kernel.
//!
//! It contains the kernel a second time, for kexec, and a smaller initramfs of the same kind.

use super::cpio::CpioArchive;
use super::libraries::Libraries;
use super::{BUSYBOX_PLACE, busybox};
use crate::setup;
use anyhow::{Context, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The init script, the first process.
const INIT: &[u8] = include_bytes!("leave.sh");
const KEXEC: &str = "kexec";

/// Writes the initramfs for the kernel `vmlinuz`, which loads `modules` in this order, to `path`.
///
/// # Errors
/// Names the missing file or program.
pub fn make(vmlinuz: &Path, modules: &[PathBuf], path: &Path) -> Result<()> {
    let kexec = setup::program(KEXEC).context("kexec is missing (Debian: kexec-tools)")?;
    let mut files = Libraries::default();
    let kexec = read(&kexec)?;
    files.add_for(&kexec)?;
    let mut second = CpioArchive::new(Vec::new());
    system(&mut second, modules)?;
    let second = second.finish()?;
    crate::atomic::write(path, |file| {
        let mut archive = CpioArchive::new(std::io::BufWriter::new(file));
        system(&mut archive, modules)?;
        archive.program("bin/kexec", &kexec)?;
        files.put(&mut archive)?;
        archive.file("vmlinuz", &read(vmlinuz)?)?;
        archive.file("second.cpio", &second)?;
        archive.finish()?;
        Ok(())
    })
}

/// Adds the files that are needed to boot.
fn system<W: Write>(archive: &mut CpioArchive<W>, modules: &[PathBuf]) -> Result<()> {
    ["bin", "dev", "proc", "sys", "tmp", "lib", "lib/modules"]
        .iter()
        .try_for_each(|name| archive.folder(name))?;
    archive.character_device("dev/console", 5, 1)?;
    archive.program(BUSYBOX_PLACE, &busybox()?)?;
    archive.program("init", INIT)?;
    for (index, module) in modules.iter().enumerate() {
        let name = module.file_name().context("a module has a name")?.to_string_lossy();
        archive.file(&format!("lib/modules/{index:02}-{name}"), &read(module)?)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{}", path.display()))
}
