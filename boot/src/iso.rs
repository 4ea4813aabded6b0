//! The boot medium of machines without `-kernel`: a GRUB ISO (BIOS) with the hypervisor and the boot archive, or with a Linux.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes a bootable ISO of the hypervisor at `iso`, using the empty folder `work` on the way.
///
/// # Errors
/// Names what `grub-mkrescue` lacks, or the file that cannot be written.
pub fn make(iso: &Path, work: &Path, hypervisor: &Path, archive: &Path, append: &str) -> Result<()> {
    let script = format!("multiboot2 /boot/tidepool {append}\nmodule2 /boot/archive archive\n");
    make_with(iso, work, &[(hypervisor, "tidepool"), (archive, "archive")], &script)
}

/// Makes one of a Linux and its initramfs, beside what `work` holds already.
///
/// # Errors
/// As [`make`].
pub fn make_linux(iso: &Path, work: &Path, kernel: &Path, initramfs: &Path, append: &str) -> Result<()> {
    let script = format!("linux /boot/vmlinuz {append}\ninitrd /boot/initramfs\n");
    make_with(iso, work, &[(kernel, "vmlinuz"), (initramfs, "initramfs")], &script)
}

fn make_with(iso: &Path, work: &Path, files: &[(&Path, &str)], script: &str) -> Result<()> {
    let boot = work.join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    for (from, name) in files {
        fs::copy(from, boot.join(name)).with_context(|| format!("{}", from.display()))?;
    }
    fs::write(boot.join("grub/grub.cfg"), format!("set timeout=0\nterminal_output console\n{script}boot\n"))?;
    let output = Command::new("grub-mkrescue")
        // No fonts, locales or themes: a tenth of the size, and a quicker start in a slow machine.
        .args(["--directory=/usr/lib/grub/i386-pc", "--fonts=", "--locales=", "--themes=", "--compress=no", "-o"])
        .arg(iso)
        .arg(work)
        .stdin(Stdio::null())
        .output()
        .context("grub-mkrescue cannot be started (Debian: grub-common, xorriso, mtools)")?;
    if !output.status.success() {
        bail!("grub-mkrescue failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::remove_dir_all(work)?;
    Ok(())
}
