//! The boot medium of machines without `-kernel`: a GRUB ISO (BIOS) with the hypervisor and the boot archive.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes a bootable ISO at `iso`, using the empty folder `work` on the way.
///
/// # Errors
/// Names what `grub-mkrescue` lacks, or the file that cannot be written.
pub fn make(iso: &Path, work: &Path, hypervisor: &Path, archive: &Path, append: &str) -> Result<()> {
    let boot = work.join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    copy(hypervisor, &boot.join("tidepool"))?;
    copy(archive, &boot.join("archive"))?;
    fs::write(boot.join("grub/grub.cfg"), grub_cfg(append))?;
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

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("{}", from.display()))?;
    Ok(())
}

fn grub_cfg(append: &str) -> String {
    format!("set timeout=0\nterminal_output console\nmultiboot2 /boot/tidepool {append}\nmodule2 /boot/archive archive\nboot\n")
}
