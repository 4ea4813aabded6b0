//! Boot media: a GRUB ISO (BIOS) with the hypervisor and the boot archive, or with a Linux, and an
//! image for a USB stick that starts on BIOS and on UEFI machines.

use crate::bounded;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Time limit for making the image.
const MAKE: Duration = Duration::from_secs(300);

/// Makes a bootable ISO of the hypervisor at `iso`; `work` is an empty folder for temporary files.
///
/// # Errors
/// Names the tool that `grub-mkrescue` lacks, or the file that cannot be written.
pub fn make(
    iso: &Path,
    work: &Path,
    hypervisor: &Path,
    archive: &Path,
    append: &str,
) -> Result<()> {
    make_with(
        iso,
        work,
        Platforms::Bios,
        &[(hypervisor, "tidepool"), (archive, "archive")],
        &script(append),
    )
}

fn script(append: &str) -> String {
    format!("multiboot2 /boot/tidepool {append}\nmodule2 /boot/archive archive\n")
}

/// The firmware that a medium supports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Platforms {
    /// BIOS only: a smaller image that starts faster on a slow machine.
    Bios,
    /// All platforms that GRUB is installed for: BIOS and UEFI.
    All,
}

/// Makes the image of a USB stick or a disk that starts the hypervisor on BIOS and on UEFI
/// machines; `work` is an empty folder. Needs write access to these two paths and no other rights.
///
/// # Errors
/// As [`make`].
pub fn make_stick(
    image: &Path,
    work: &Path,
    hypervisor: &Path,
    archive: &Path,
    append: &str,
) -> Result<()> {
    make_with(
        image,
        work,
        Platforms::All,
        &[(hypervisor, "tidepool"), (archive, "archive")],
        &script(append),
    )
}

/// Makes an ISO of a Linux and its initramfs. Files already in `work` go onto the ISO too.
///
/// # Errors
/// As [`make`].
pub fn make_linux(
    iso: &Path,
    work: &Path,
    kernel: &Path,
    initramfs: &Path,
    append: &str,
) -> Result<()> {
    let script = format!("linux /boot/vmlinuz {append}\ninitrd /boot/initramfs\n");
    make_with(iso, work, Platforms::Bios, &[(kernel, "vmlinuz"), (initramfs, "initramfs")], &script)
}

fn make_with(
    iso: &Path,
    work: &Path,
    platforms: Platforms,
    files: &[(&Path, &str)],
    script: &str,
) -> Result<()> {
    let boot = work.join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    for (from, name) in files {
        fs::copy(from, boot.join(name)).with_context(|| format!("{}", from.display()))?;
    }
    fs::write(
        boot.join("grub/grub.cfg"),
        format!("set timeout=0\nterminal_output console\n{script}boot\n"),
    )?;
    let mut command = Command::new("grub-mkrescue");
    if platforms == Platforms::Bios {
        command.arg("--directory=/usr/lib/grub/i386-pc");
    }
    // No fonts, locales or themes: a tenth of the size, and a faster start on a slow machine.
    command.args(["--fonts=", "--locales=", "--themes=", "--compress=no", "-o"]).arg(iso).arg(work);
    let output = bounded::output(&mut command, MAKE)
        .context("the boot medium (Debian: grub-common, xorriso, mtools)")?;
    if !output.status.success() {
        bail!("grub-mkrescue failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::remove_dir_all(work)?;
    Ok(())
}
