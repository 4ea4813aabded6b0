//! The initramfs of bed C's Linux: busybox, an agent, kvm_intel, QEMU, and readers for dumps.

use super::busybox;
use super::cpio::Archive;
use super::libraries::Libraries;
use crate::bed::{nested, qemu};
use crate::kernel_build;
use crate::setup;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Programs beside QEMU.
const PROGRAMS: &[&str] = &["makedumpfile"];
/// What QEMU loads for a machine without display and network: firmware, and the code that starts a PVH kernel.
const ROMS: &[&str] = &["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "pvh.bin"];
/// Where Debian's packages have them.
const ROM_FOLDERS: &[&str] = &["/usr/share/qemu", "/usr/share/seabios"];

/// Writes it to `path`, with the kernel's `modules` in the order in which they are to be loaded.
///
/// # Errors
/// Names what is missing.
pub fn make(modules: &[PathBuf], path: &Path) -> Result<()> {
    let mut files = vec![File::program("bin/busybox", busybox()?), File::program("init", nested::AGENT.to_vec())];
    files.push(File::plain("exchange.sh", nested::EXCHANGE.to_vec()));
    files.push(File::program("bin/checker", read(&kernel_build::checker()?)?));
    let mut libraries = Libraries::default();
    for name in PROGRAMS.iter().chain(&[qemu::PROGRAM]) {
        let bytes = read(&setup::program(name).with_context(|| format!("{name} is missing"))?)?;
        libraries.add_for(&bytes)?;
        files.push(File::program(&format!("usr/bin/{name}"), bytes));
    }
    for (path, bytes) in libraries.files() {
        files.push(File::program(path.display().to_string().trim_start_matches('/'), bytes.to_vec()));
    }
    for rom in ROMS {
        let paths = ROM_FOLDERS.iter().map(|folder| Path::new(folder).join(rom));
        let path = paths.into_iter().find(|path| path.exists()).with_context(|| format!("{rom} is missing"))?;
        files.push(File::plain(&format!("usr/share/qemu/{rom}"), read(&path)?));
    }
    for (index, module) in modules.iter().enumerate() {
        let name = module.file_name().context("a module has a name")?.to_string_lossy();
        // Numbered, because the agent loads them in the order of their names.
        files.push(File::plain(&format!("lib/modules/{index:02}-{name}"), read(module)?));
    }
    crate::atomic::write(path, |file| write(&files, std::io::BufWriter::new(file)))
}

fn write(files: &[File], out: impl std::io::Write) -> Result<()> {
    let mut archive = Archive::new(out);
    let parents = files.iter().flat_map(|file| file.name.match_indices('/').map(|(end, _)| &file.name[..end]));
    // In order of their names, so that each comes behind the one it is in.
    let folders: BTreeSet<_> = parents.chain(["dev", "proc", "sys", "tmp"]).collect();
    folders.iter().try_for_each(|name| archive.folder(name))?;
    archive.character_device("dev/console", 5, 1)?;
    for file in files {
        if file.runs { archive.program(&file.name, &file.bytes)? } else { archive.file(&file.name, &file.bytes)? }
    }
    archive.finish()?;
    Ok(())
}

struct File {
    name: String,
    bytes: Vec<u8>,
    runs: bool,
}

impl File {
    fn program(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), bytes, runs: true }
    }

    fn plain(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), bytes, runs: false }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{}", path.display()))
}
