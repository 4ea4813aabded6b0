//! Requirements of a job that are not in this tree: found, or listed and installed, or refused.
//!
//! | what | from | where to |
//! |---|---|---|
//! | emulators, GRUB, busybox, makedumpfile, crash, gdb, elfutils | Debian packages | the system, by `apt-get` |
//! | the bare machine's Rust target | rustup | the toolchain |
//! | Debian's cloud kernel, its debug symbols | Debian packages, unpacked, never installed | `target/tidepool/debian` |
//! | drgn | PyPI | a virtual environment, `target/tidepool/python` |
//!
//! Everything is resumable. Each piece is checked by a file that it provides, and gets its name
//! only when it is complete.

pub mod debian;
mod download;
pub(crate) mod packages;
pub(crate) mod progress;
pub mod python;
mod toolchain;

pub use packages::{Package, missing, program};

use crate::bed::Bed;
use anyhow::{Result, bail};
use packages::{BOCHS, DEBUGGERS, DUMP, GUEST, KEXEC, PYTHON, QEMU, SERVER, STICK, UEFI};

/// Whether missing things may be installed and downloaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permission {
    /// List them, then install them.
    Install,
    /// Name them and fail.
    Refuse,
}

/// A job that has requirements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetupJob {
    /// Start the hypervisor in a bed.
    Boot(Bed),
    /// Build Debian's initramfs.
    Guest,
    /// Build the initramfs of a Linux that starts other kernels.
    Kexec,
    /// Build the initramfs of a Linux server.
    Server,
    /// Read dumps with the usual tools.
    Readers,
    /// Write the image of a USB stick.
    Stick,
    /// Start a stick's image by UEFI.
    Uefi,
}

impl SetupJob {
    /// Returns the Debian packages that the job needs.
    pub fn packages(self) -> Vec<&'static Package> {
        match self {
            Self::Boot(Bed::Qemu | Bed::Kvm) => QEMU.iter().collect(),
            Self::Boot(Bed::Bochs) => BOCHS.iter().collect(),
            Self::Boot(Bed::Nested) => [BOCHS, QEMU, GUEST, DUMP].into_iter().flatten().collect(),
            Self::Guest => GUEST.iter().collect(),
            Self::Kexec => KEXEC.iter().collect(),
            Self::Server => SERVER.iter().collect(),
            Self::Stick => STICK.iter().collect(),
            Self::Uefi => STICK.iter().chain(UEFI).collect(),
            Self::Readers => DUMP.iter().chain(DEBUGGERS).chain(PYTHON).collect(),
        }
    }
}

/// Returns the names of everything that is missing for `jobs`.
pub fn lacking(jobs: &[SetupJob]) -> Vec<String> {
    let packages = missing(jobs.iter().flat_map(|job| job.packages()));
    let mut lacking: Vec<_> =
        packages.iter().map(|package| format!("Debian's {}", package.name)).collect();
    if jobs.contains(&SetupJob::Boot(Bed::Nested)) && !debian::hosts() {
        lacking.push("Debian's cloud kernel with KVM".to_owned());
    }
    if jobs.contains(&SetupJob::Guest) && !debian::is_there() {
        lacking.push("Debian's cloud kernel and its symbols".to_owned());
    }
    if jobs.contains(&SetupJob::Readers) && !python::is_there() {
        lacking.push("drgn".to_owned());
    }
    lacking
}

/// Makes sure that the packages and the Rust target for `jobs` are installed.
///
/// # Errors
/// Names the missing things and how to get them, where installing is refused or impossible.
pub fn prepare(jobs: &[SetupJob], permission: Permission) -> Result<()> {
    toolchain::prepare(permission)?;
    let needed = jobs.iter().flat_map(|job| job.packages());
    packages::install(&missing(needed), permission)?;
    if jobs.contains(&SetupJob::Boot(Bed::Nested)) {
        debian::host_modules(&debian::kernel(permission)?, permission)?;
    }
    Ok(())
}

/// Installs everything for `jobs`: packages, the Rust target, Debian's kernel with its symbols,
/// drgn.
///
/// # Errors
/// As [`prepare`].
pub fn bring(jobs: &[SetupJob], permission: Permission) -> Result<()> {
    prepare(jobs, permission)?;
    if jobs.contains(&SetupJob::Guest) {
        debian::debug_symbols(&debian::kernel(permission)?, permission)?;
    }
    if jobs.contains(&SetupJob::Readers) {
        python::drgn(permission)?;
    }
    Ok(())
}

/// Returns the error for a missing thing that must not be fetched.
fn refuse(what: &str) -> Result<()> {
    bail!("missing: {what}; --no-install forbids fetching it")
}
