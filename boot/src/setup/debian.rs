//! Debian's cloud kernel, with modules and debug symbols of the same version, unpacked and never
//! installed.
//!
//! The version is the newest that the archive offers at the first call. It is kept until its
//! folder, `target/tidepool/debian`, is removed, so that dumps and symbols match.

use super::download::{self, apt_cache};
use super::{Permission, packages, refuse};
use crate::{atomic, paths};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// The package that always depends on the newest cloud kernel.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// The file with the kernel's package and version, and the modules that were looked for.
const VERSION: &str = "version";
/// The bzImage's name in our folder.
const VMLINUZ: &str = "vmlinuz";
/// Modules that the guest may need, by file name.
const MODULES: &[&str] =
    &["pvpanic.ko", "pvpanic-mmio.ko", "qemu_fw_cfg.ko", "button.ko", "evdev.ko"];

/// Modules for a kernel that runs machines itself: its disks and KVM, in their load order.
const HOST_MODULES: &[&str] = &[
    "scsi_common.ko",
    "scsi_mod.ko",
    "sd_mod.ko",
    "libata.ko",
    "ata_piix.ko",
    "cdrom.ko",
    "sr_mod.ko",
    "isofs.ko",
    "irqbypass.ko",
    "kvm.ko",
    "kvm-intel.ko",
];

/// The kernel on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DebianKernel {
    /// The name of its package.
    pub package: String,
    /// The package's version.
    pub version: String,
    folder: PathBuf,
}

impl DebianKernel {
    /// Returns the bzImage.
    pub fn vmlinuz(&self) -> PathBuf {
        self.folder.join(VMLINUZ)
    }

    /// Returns the modules in their load order.
    pub fn modules(&self) -> Vec<PathBuf> {
        MODULES.iter().map(|name| self.folder.join(name)).filter(|path| path.exists()).collect()
    }

    fn host_modules(&self) -> Vec<PathBuf> {
        HOST_MODULES.iter().map(|name| self.folder.join(name)).collect()
    }

    /// Returns the path of the debug symbols; the file exists once they were fetched.
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }
}

/// Returns whether the kernel and its debug symbols were fetched.
pub fn is_there() -> bool {
    let folder = folder();
    cached(&folder).is_some_and(|kernel| has_modules(&folder) && kernel.vmlinux().exists())
}

fn folder() -> PathBuf {
    paths::tidepool().join("debian")
}

/// Returns the kernel; fetches it if necessary.
///
/// # Errors
/// Where it cannot or may not be fetched.
pub fn kernel(permission: Permission) -> Result<DebianKernel> {
    let folder = folder();
    if let Some(kernel) = cached(&folder) {
        if !has_modules(&folder) {
            // The folder was filled by an earlier version that did not need all of the modules.
            if permission == Permission::Refuse {
                refuse(&format!("the modules of {}", kernel.package))?;
            }
            bring(&kernel)?;
        }
        return Ok(kernel);
    }
    if permission == Permission::Refuse {
        refuse(&format!("the kernel of Debian's {META_PACKAGE}"))?;
    }
    let (package, version) = resolve()?;
    let kernel = DebianKernel { package, version, folder };
    eprintln!(
        "tidepool: fetching {} {} (unpacked into {}, not installed)",
        kernel.package,
        kernel.version,
        kernel.folder.display()
    );
    bring(&kernel)?;
    Ok(kernel)
}

/// Fetches the kernel, and notes that it is there.
fn bring(kernel: &DebianKernel) -> Result<()> {
    fetch(kernel)?;
    // Written last: the file's presence means that the rest is complete.
    atomic::write(&kernel.folder.join(VERSION), |file| {
        writeln!(file, "{} {}", kernel.package, kernel.version)?;
        Ok(writeln!(file, "{}", MODULES.join(" "))?)
    })
}

/// Returns whether the kernel and the modules to run machines were fetched.
pub fn hosts() -> bool {
    cached(&folder()).is_some_and(|kernel| kernel.host_modules().iter().all(|path| path.exists()))
}

/// Returns the modules with which `kernel` runs machines itself, in their load order.
///
/// # Errors
/// Where they cannot or may not be fetched.
pub fn host_modules(kernel: &DebianKernel, permission: Permission) -> Result<Vec<PathBuf>> {
    let modules = kernel.host_modules();
    if !modules.iter().all(|path| path.exists()) {
        // The folder was filled by an earlier version that did not need these modules.
        if permission == Permission::Refuse {
            refuse(&format!("the modules of {}", kernel.package))?;
        }
        fetch(kernel)?;
    }
    Ok(modules)
}

/// Makes sure that the debug symbols of `kernel` exist; returns their file.
///
/// # Errors
/// Where they cannot or may not be fetched.
pub fn debug_symbols(kernel: &DebianKernel, permission: Permission) -> Result<PathBuf> {
    let vmlinux = kernel.vmlinux();
    if vmlinux.exists() {
        return Ok(vmlinux);
    }
    let name = format!("{}-dbg", kernel.package);
    if permission == Permission::Refuse {
        refuse(&format!("Debian's {name}"))?;
    }
    let file = download::package(&name, &kernel.version, &kernel.folder.join("downloads"))?;
    eprintln!("tidepool: unpacking the debug symbols");
    let wanted =
        |path: &str| path.contains("/usr/lib/debug/boot/vmlinux-").then(|| vmlinux.clone());
    if download::unpack(&file, wanted)? != 1 {
        bail!("{name} holds no vmlinux where it should be");
    }
    fs::remove_file(&file)?;
    Ok(vmlinux)
}

/// Returns whether the modules in the folder are those of [`MODULES`] that the package has.
fn has_modules(folder: &std::path::Path) -> bool {
    let text = fs::read_to_string(folder.join(VERSION)).unwrap_or_default();
    text.lines().nth(1).is_some_and(|names| names == MODULES.join(" "))
}

fn cached(folder: &std::path::Path) -> Option<DebianKernel> {
    let text = fs::read_to_string(folder.join(VERSION)).ok()?;
    let (package, version) = text.lines().next()?.split_once(' ')?;
    Some(DebianKernel {
        package: package.to_owned(),
        version: version.to_owned(),
        folder: folder.to_owned(),
    })
}

/// Returns the package of the newest cloud kernel, and the newest version that is offered together
/// with its symbols.
fn resolve() -> Result<(String, String)> {
    let dependencies = match apt_cache(&["depends", META_PACKAGE]) {
        Ok(text) => text,
        // A fresh container has no package lists yet.
        Err(_) if packages::is_root()? => {
            packages::apt_get(&["update"])?;
            apt_cache(&["depends", META_PACKAGE])?
        }
        Err(error) => return Err(error.context("run `sudo apt-get update` first")),
    };
    let mut lines = dependencies.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let package = lines
        .find(|name| name.starts_with("linux-image-"))
        .context("no kernel behind the meta-package")?;
    let symbols = versions(&format!("{package}-dbg"))?;
    let version = versions(package)?.into_iter().find(|version| symbols.contains(version));
    let version = version
        .with_context(|| format!("{package} and its debug symbols have no version in common"))?;
    Ok((package.to_owned(), version))
}

/// Returns the available versions of a package, newest first.
fn versions(package: &str) -> Result<Vec<String>> {
    let table = apt_cache(&["madison", package])?;
    Ok(table
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| version.trim().to_owned())
        .collect())
}

fn fetch(kernel: &DebianKernel) -> Result<()> {
    let file =
        download::package(&kernel.package, &kernel.version, &kernel.folder.join("downloads"))?;
    unpack_kernel(kernel, &file)?;
    Ok(fs::remove_file(&file)?)
}

/// Unpacks another kernel's package files `packages` into `folder`: its bzImage, and the modules
/// that a guest may need, compressed or not.
///
/// # Errors
/// Where they contain no kernel.
pub fn unpack_other(
    packages: &[PathBuf],
    folder: &std::path::Path,
) -> Result<(PathBuf, Vec<PathBuf>)> {
    for package in packages {
        download::unpack(package, |path| name_of_other(path).map(|name| folder.join(name)))?;
    }
    let vmlinuz = folder.join(VMLINUZ);
    if !vmlinuz.exists() {
        let names: Vec<_> = packages.iter().map(|package| package.display().to_string()).collect();
        bail!("no kernel in {}", names.join(" and "));
    }
    let named = |name: &str| {
        [folder.join(name), folder.join(format!("{name}.xz"))]
            .into_iter()
            .find(|path| path.exists())
    };
    Ok((vmlinuz, MODULES.iter().filter_map(|name| named(name)).collect()))
}

/// Returns the name under which a file of another kernel's package is kept. Linux 7.3's bzImage
/// lies beside its modules, in a package of its own.
fn name_of_other(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    if name == VMLINUZ || path.contains("/boot/vmlinuz-") {
        return Some(VMLINUZ);
    }
    MODULES
        .iter()
        .any(|module| name.strip_prefix(module).is_some_and(|rest| matches!(rest, "" | ".xz")))
        .then_some(name)
}

fn unpack_kernel(kernel: &DebianKernel, file: &std::path::Path) -> Result<()> {
    let place = |path: &str| {
        let name = path.rsplit('/').next()?;
        let module = MODULES
            .iter()
            .chain(HOST_MODULES)
            .any(|module| *module == name)
            .then(|| kernel.folder.join(name));
        if path.contains("/boot/vmlinuz-") { Some(kernel.vmlinuz()) } else { module }
    };
    download::unpack(file, place)?;
    for path in [&[kernel.vmlinuz()], kernel.host_modules().as_slice()].concat() {
        if !path.exists() {
            bail!("{} holds nothing for {}", kernel.package, path.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_and_modules_are_found_where_each_debian_has_them() {
        let paths = [
            "./boot/vmlinuz-5.10.0-46-cloud-amd64",
            "./usr/lib/modules/7.3.4+deb13-cloud-amd64/vmlinuz",
            "./lib/modules/5.10.0-46-cloud-amd64/kernel/drivers/misc/pvpanic.ko",
            "./usr/lib/modules/7.3.4/kernel/drivers/firmware/qemu_fw_cfg.ko.xz",
            "./usr/lib/modules/7.3.4/kernel/drivers/misc/pvpanic/pvpanic-pci.ko.xz",
            "./usr/share/doc/vmlinuz/copyright",
        ];
        let names = paths.map(name_of_other);
        assert_eq!(
            names,
            [
                Some(VMLINUZ),
                Some(VMLINUZ),
                Some("pvpanic.ko"),
                Some("qemu_fw_cfg.ko.xz"),
                None,
                None
            ]
        );
    }
}
