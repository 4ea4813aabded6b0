//! Builds the hypervisor and the test kernels for the bare machine.
//!
//! Cargo on stable knows no dependency on a binary of another target, so a nested cargo does it, in a target
//! folder of its own: the outer cargo may hold the lock of the ordinary one while it runs us.

use crate::paths;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-none";

/// Which hypervisor to build.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Variant {
    /// The hypervisor.
    #[default]
    Ordinary,
    /// Without the flush before a frame is reused: the test of the flush protocol must then fail.
    NoFlush,
}

impl Variant {
    fn folder(self) -> &'static str {
        match self {
            Self::Ordinary => "bare",
            Self::NoFlush => "bare-no-flush",
        }
    }

    fn features(self) -> Option<&'static str> {
        match self {
            Self::Ordinary => None,
            Self::NoFlush => Some("mutant-no-flush"),
        }
    }
}

/// Builds the hypervisor; returns its ELF file.
///
/// # Errors
/// Where cargo fails; its own output has said why.
pub fn hypervisor(variant: Variant) -> Result<PathBuf> {
    let folder = paths::tidepool().join(variant.folder());
    let mut arguments = vec!["-p", "kernel"];
    if let Some(features) = variant.features() {
        arguments.extend(["--features", features]);
    }
    Ok(build(&folder, &arguments).context("the hypervisor does not build")?.join("tidepool-kernel"))
}

/// Builds all test kernels; returns the folder of their ELF files, named like the binaries of the package `guests`.
///
/// # Errors
/// Where cargo fails; its own output has said why.
pub fn test_kernels() -> Result<PathBuf> {
    build(&paths::tidepool().join("guests"), &["-p", "guests"]).context("the test kernels do not build")
}

/// Builds the worker, a program for Linux that needs no shared library; returns its file.
///
/// # Errors
/// Where cargo fails; its own output has said why.
pub fn worker() -> Result<PathBuf> {
    Ok(programs()?.join("worker"))
}

/// Builds the checker, which reads the worker's pages in a dump, likewise.
///
/// # Errors
/// As [`worker`].
pub fn checker() -> Result<PathBuf> {
    Ok(programs()?.join("checker"))
}

fn programs() -> Result<PathBuf> {
    const LINUX: &str = "x86_64-unknown-linux-gnu";
    let flags = format!("target.{LINUX}.rustflags=['-C', 'target-feature=+crt-static', '-C', 'strip=symbols']");
    let folder = paths::tidepool().join("worker");
    let built = build_for(LINUX, &folder, &["-p", "worker", "--bins", "--config", &flags]);
    built.context("the worker does not build")
}

fn build(folder: &Path, arguments: &[&str]) -> Result<PathBuf> {
    build_for(TARGET, folder, arguments)
}

fn build_for(target: &str, folder: &Path, arguments: &[&str]) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(paths::workspace()).args(["build", "--release", "--quiet", "--target", target]);
    command.args(arguments).arg("--target-dir").arg(folder);
    // The host's flags would replace the target's in .cargo/config.toml, and with them the static relocation model.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        command.env_remove(variable);
    }
    let status = command.status().context("cargo cannot be started")?;
    if !status.success() {
        bail!("cargo build {} ended with {status}", arguments.join(" "));
    }
    Ok(folder.join(target).join("release"))
}
