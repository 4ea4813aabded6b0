//! Debian packages. Each is checked by a file that it provides, so that manual installations count
//! too.

use super::{Permission, refuse};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Debian package and the proof that it is installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// A program in the search path, or a file where it begins with a slash.
    proof: &'static str,
}

const fn package(name: &'static str, proof: &'static str) -> Package {
    Package { name, proof }
}

pub(super) const QEMU: &[Package] = &[package("qemu-system-x86", "qemu-system-x86_64")];
pub(super) const BOCHS: &[Package] = &[
    package("bochs", "bochs-bin"),
    package("bochsbios", "/usr/share/bochs/BIOS-bochs-latest"),
    package("vgabios", "/usr/share/bochs/VGABIOS-lgpl-latest"),
    package("grub-common", "grub-mkrescue"),
    package("grub-pc-bin", "/usr/lib/grub/i386-pc/multiboot2.mod"),
    package("xorriso", "xorriso"),
    package("mtools", "mformat"),
];
/// Packages to make and start sticks for BIOS and UEFI.
pub(super) const STICK: &[Package] = &[
    package("grub-common", "grub-mkrescue"),
    package("grub-pc-bin", "/usr/lib/grub/i386-pc/multiboot2.mod"),
    package("grub-efi-amd64-bin", "/usr/lib/grub/x86_64-efi/multiboot2.mod"),
    package("xorriso", "xorriso"),
    package("mtools", "mformat"),
];
/// The UEFI firmware of Debian's package ovmf.
pub(crate) const OVMF: &str = "/usr/share/ovmf/OVMF.fd";
pub(super) const UEFI: &[Package] = &[package("ovmf", OVMF)];
pub(super) const GUEST: &[Package] =
    &[package("busybox-static", "busybox"), package("dpkg", "dpkg-deb")];
pub(super) const KEXEC: &[Package] = &[package("kexec-tools", "kexec")];
/// A server, its client and its load generator; the package starts no service.
pub(super) const SERVER: &[Package] = &[package("redis-tools", "redis-benchmark")];
pub(super) const DUMP: &[Package] = &[package("makedumpfile", "makedumpfile")];
/// Further readers of dumps.
pub(super) const DEBUGGERS: &[Package] = &[
    package("crash", "crash"),
    package("gdb", "gdb"),
    package("binutils", "readelf"),
    package("elfutils", "eu-readelf"),
];
pub(super) const PYTHON: &[Package] = &[
    package("python3", "/usr/bin/python3"),
    package("python3-venv", "/usr/share/doc/python3-venv"),
];

/// Returns those of `packages` that are not installed.
pub fn missing(packages: impl IntoIterator<Item = &'static Package>) -> Vec<&'static Package> {
    let mut missing: Vec<_> =
        packages.into_iter().filter(|package| !is_there(package.proof)).collect();
    // Several jobs may need the same package.
    let mut seen = std::collections::BTreeSet::new();
    missing.retain(|package| seen.insert(package.name));
    missing
}

fn is_there(proof: &str) -> bool {
    if proof.starts_with('/') { Path::new(proof).exists() } else { program(proof).is_some() }
}

/// Returns a program's path: from the search path, else from the system's own folders.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Lists and installs `packages`, where that is allowed and possible.
pub(super) fn install(packages: &[&Package], permission: Permission) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    let list = names.join(" ");
    if permission == Permission::Refuse {
        return refuse(&format!("the Debian packages {list}"));
    }
    if program("apt-get").is_none() {
        bail!("missing: what Debian packages as {list}; install it with your system's own tools");
    }
    if !is_root()? {
        bail!(
            "missing packages; install them with\n\n    sudo apt-get install --yes \
             --no-install-recommends {list}\n"
        );
    }
    eprintln!("tidepool: installing the Debian packages {list}");
    apt_get(&["update"])?;
    apt_get(&[&["install", "--yes", "--no-install-recommends"], names.as_slice()].concat())
}

pub(super) fn apt_get(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        // Another installation on the machine ends first: a new Debian updates itself.
        .args(["-q", "-o", "DPkg::Lock::Timeout=600"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status();
    let status = status.context("apt-get cannot be started")?;
    if !status.success() {
        bail!("apt-get {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

pub(super) fn is_root() -> Result<bool> {
    let output = Command::new("id").arg("-u").output().context("id cannot be started")?;
    Ok(output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_and_refused() {
        const NOWHERE: &[Package] = &[
            package("shell", "sh"),
            package("nothing", "no-such-program"),
            package("none", "/no/file"),
        ];
        let missing = missing(NOWHERE.iter().chain(NOWHERE));
        assert_eq!(missing.iter().map(|p| p.name).collect::<Vec<_>>(), ["nothing", "none"]);
        let error = install(&missing, Permission::Refuse).unwrap_err().to_string();
        assert_eq!(
            error,
            "missing: the Debian packages nothing none; --no-install forbids fetching it"
        );
    }
}
