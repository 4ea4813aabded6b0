//! The files of bed C's Linux: an initramfs with busybox, an agent and kvm_intel. QEMU and the
//! programs that read dumps are on its boot medium.

use super::cpio::CpioArchive;
use super::libraries::Libraries;
use super::{BUSYBOX_PLACE, busybox};
use crate::bed::{nested, qemu};
use crate::kernel_build;
use crate::setup;
use anyhow::{Context, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Programs beside QEMU.
const PROGRAMS: &[&str] = &["makedumpfile"];
/// Files that QEMU loads for a machine without display and network: firmware, and the option ROM
/// that starts a PVH kernel.
const ROMS: &[&str] = &["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "pvh.bin"];
/// Folders in which Debian's packages install them.
const ROM_FOLDERS: &[&str] = &["/usr/share/qemu", "/usr/share/seabios"];

/// Writes the initramfs to `path`, with the kernel's `modules` in their load order.
///
/// # Errors
/// Names the missing file or program.
pub fn make(modules: &[PathBuf], path: &Path) -> Result<()> {
    let busybox = busybox()?;
    crate::atomic::write(path, |file| {
        let mut archive = CpioArchive::new(std::io::BufWriter::new(file));
        ["bin", "dev", "proc", "sys", "tmp", "lib", "lib/modules"]
            .iter()
            .try_for_each(|name| archive.folder(name))?;
        archive.character_device("dev/console", 5, 1)?;
        archive.program(BUSYBOX_PLACE, &busybox)?;
        archive.program("init", nested::AGENT)?;
        archive.file("exchange.sh", nested::EXCHANGE)?;
        for (index, module) in modules.iter().enumerate() {
            let name = module.file_name().context("a module has a name")?.to_string_lossy();
            // Numbered, because the agent loads them in the order of their names.
            archive.file(&format!("lib/modules/{index:02}-{name}"), &read(module)?)?;
        }
        archive.finish()?;
        Ok(())
    })
}

/// Copies QEMU, the dump readers and the libraries they need to their places below `root`, the boot
/// medium.
///
/// # Errors
/// Names the missing file or program.
pub fn fill(root: &Path) -> Result<()> {
    let mut libraries = Libraries::default();
    for name in PROGRAMS.iter().chain(&[qemu::PROGRAM]) {
        let bytes = read(&setup::program(name).with_context(|| format!("{name} is missing"))?)?;
        libraries.add_for(&bytes)?;
        put(root, &Path::new("/usr/bin").join(name), &bytes)?;
    }
    put(root, Path::new("/usr/bin/checker"), &read(&kernel_build::checker()?)?)?;
    for (path, bytes) in libraries.files() {
        put(root, path, bytes)?;
    }
    for rom in ROMS {
        let paths = ROM_FOLDERS.iter().map(|folder| Path::new(folder).join(rom));
        let path = paths
            .into_iter()
            .find(|path| path.exists())
            .with_context(|| format!("{rom} is missing"))?;
        put(root, &Path::new("/usr/share/qemu").join(rom), &read(&path)?)?;
    }
    Ok(())
}

/// Writes a program to its path below `root`.
fn put(root: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let path = root.join(path.strip_prefix("/")?);
    std::fs::create_dir_all(path.parent().context("a file has a folder")?)?;
    std::fs::write(&path, bytes)?;
    Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{}", path.display()))
}
