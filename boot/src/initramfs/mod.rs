//! The initramfs of the demonstration's Debian: busybox, an init script, the worker, the kernel's
//! own modules. (Bed C has its own initramfs, [`level1`].)

mod cpio;
pub mod leave;
pub mod level1;
mod libraries;
pub mod server;

use crate::kernel_build;
use crate::setup::debian;
use anyhow::{Context, Result, bail};
use cpio::CpioArchive;
use object::elf::PT_INTERP;
use object::read::elf::{ElfFile64, ProgramHeader};
use std::path::{Path, PathBuf};

/// The init script, the first process.
const INIT: &[u8] = include_bytes!("init.sh");
const BUSYBOX: &[&str] = &["/bin/busybox", "/usr/bin/busybox"];
/// Its name in an archive.
const BUSYBOX_PLACE: &str = "bin/busybox";

/// Makes the initramfs for `kernel` at its usual path; returns the path.
///
/// # Errors
/// As [`make`].
pub fn prepare(kernel: &debian::DebianKernel) -> Result<PathBuf> {
    let path = crate::paths::tidepool().join("initramfs.cpio");
    make(kernel, &path)?;
    Ok(path)
}

/// Writes the initramfs for `kernel` to `path`, whole or not at all.
///
/// # Errors
/// Names the missing file or program.
pub fn make(kernel: &debian::DebianKernel, path: &Path) -> Result<()> {
    let worker = std::fs::read(kernel_build::worker()?)?;
    let busybox = busybox()?;
    let mut modules = Vec::new();
    for module in kernel.modules() {
        let name =
            module.file_name().context("a module has a name")?.to_string_lossy().into_owned();
        modules.push((name, std::fs::read(&module)?));
    }
    crate::atomic::write(path, |file| {
        let mut archive = CpioArchive::new(std::io::BufWriter::new(file));
        ["bin", "dev", "proc", "sys", "lib"].iter().try_for_each(|name| archive.folder(name))?;
        // The kernel opens the first process's standard streams here, before that process can mount
        // anything.
        archive.character_device("dev/console", 5, 1)?;
        archive.program(BUSYBOX_PLACE, &busybox)?;
        archive.program("bin/worker", &worker)?;
        archive.program("init", INIT)?;
        // Numbered, because the script loads them in the order of their names.
        for (index, (name, bytes)) in modules.iter().enumerate() {
            archive.file(&format!("lib/{index:02}-{name}"), bytes)?;
        }
        archive.finish()?;
        Ok(())
    })
}

fn busybox() -> Result<Vec<u8>> {
    let path = BUSYBOX
        .iter()
        .map(Path::new)
        .find(|path| path.exists())
        .context("busybox is missing (Debian: busybox-static)")?;
    let bytes = std::fs::read(path)?;
    let elf = ElfFile64::<object::Endianness>::parse(bytes.as_slice())
        .with_context(|| format!("{}", path.display()))?;
    if elf.elf_program_headers().iter().any(|segment| segment.p_type(elf.endian()) == PT_INTERP) {
        bail!("{} needs shared libraries: install Debian's busybox-static instead", path.display());
    }
    Ok(bytes)
}
