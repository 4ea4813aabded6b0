//! Debian's cloud kernel, with modules and debug symbols of the same version, unpacked and never installed.
//!
//! The version is whatever the archive offers at that moment. It is kept until its folder, `target/tidepool/debian`, is
//! removed, so that dumps and symbols go together.

use super::download::{self, apt_cache};
use super::{Permission, packages, refuse};
use crate::{atomic, paths};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// The package that always depends on the newest cloud kernel.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// Modules that the guest may need, by file name.
const MODULES: &[&str] = &["pvpanic.ko", "pvpanic-mmio.ko", "qemu_fw_cfg.ko"];

/// The kernel on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// The name of its package.
    pub package: String,
    /// The package's version.
    pub version: String,
    folder: PathBuf,
}

impl Kernel {
    /// Returns the bzImage.
    pub fn vmlinuz(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// Returns the modules, in the order in which they have to be loaded.
    pub fn modules(&self) -> Vec<PathBuf> {
        MODULES.iter().map(|name| self.folder.join(name)).filter(|path| path.exists()).collect()
    }

    /// Returns where the debug symbols are, once they were fetched.
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }
}

/// Returns whether kernel and debug symbols were fetched.
pub fn is_there() -> bool {
    cached(&folder()).is_some_and(|kernel| kernel.vmlinux().exists())
}

fn folder() -> PathBuf {
    paths::tidepool().join("debian")
}

/// Returns the kernel, fetching it if need be.
///
/// # Errors
/// Where it cannot or may not be fetched.
pub fn kernel(permission: Permission) -> Result<Kernel> {
    let folder = folder();
    if let Some(kernel) = cached(&folder) {
        return Ok(kernel);
    }
    if permission == Permission::Refuse {
        refuse(&format!("the kernel of Debian's {META_PACKAGE}"))?;
    }
    let (package, version) = resolve()?;
    let kernel = Kernel { package, version, folder };
    eprintln!(
        "tidepool: fetching {} {} (unpacked into {}, not installed)",
        kernel.package,
        kernel.version,
        kernel.folder.display()
    );
    let file = download::package(&kernel.package, &kernel.version, &kernel.folder.join("downloads"))?;
    unpack_kernel(&kernel, &file)?;
    fs::remove_file(&file)?;
    // Last, so that its presence says that the rest is whole.
    atomic::write(&kernel.folder.join("version"), |file| Ok(writeln!(file, "{} {}", kernel.package, kernel.version)?))?;
    Ok(kernel)
}

/// Makes sure that the debug symbols of `kernel` are there.
///
/// # Errors
/// Where they cannot or may not be fetched.
pub fn debug_symbols(kernel: &Kernel, permission: Permission) -> Result<PathBuf> {
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
    let wanted = |path: &str| path.contains("/usr/lib/debug/boot/vmlinux-").then(|| vmlinux.clone());
    if download::unpack(&file, wanted)? != 1 {
        bail!("{name} holds no vmlinux where it should be");
    }
    fs::remove_file(&file)?;
    Ok(vmlinux)
}

fn cached(folder: &std::path::Path) -> Option<Kernel> {
    let line = fs::read_to_string(folder.join("version")).ok()?;
    let (package, version) = line.trim().split_once(' ')?;
    Some(Kernel { package: package.to_owned(), version: version.to_owned(), folder: folder.to_owned() })
}

/// Returns the package of the newest cloud kernel and the version in which it is there together with its symbols.
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
    let package = lines.find(|name| name.starts_with("linux-image-")).context("no kernel behind the meta-package")?;
    let symbols = versions(&format!("{package}-dbg"))?;
    let version = versions(package)?.into_iter().find(|version| symbols.contains(version));
    let version = version.with_context(|| format!("{package} and its debug symbols have no version in common"))?;
    Ok((package.to_owned(), version))
}

/// Returns the versions of a package that can be had, newest first.
fn versions(package: &str) -> Result<Vec<String>> {
    let table = apt_cache(&["madison", package])?;
    Ok(table.lines().filter_map(|line| line.split('|').nth(1)).map(|version| version.trim().to_owned()).collect())
}

fn unpack_kernel(kernel: &Kernel, file: &std::path::Path) -> Result<()> {
    let place = |path: &str| {
        let name = path.rsplit('/').next()?;
        let module = MODULES.contains(&name).then(|| kernel.folder.join(name));
        if path.contains("/boot/vmlinuz-") { Some(kernel.vmlinuz()) } else { module }
    };
    download::unpack(file, place)?;
    if !kernel.vmlinuz().exists() {
        bail!("{} holds no /boot/vmlinuz", kernel.package);
    }
    Ok(())
}
