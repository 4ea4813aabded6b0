//! Builds the hypervisor and the test kernels for the bare machine.
//!
//! Stable cargo has no dependencies on binaries of another target, so a nested cargo builds them.
//! It uses a target folder of its own: the outer cargo may hold the lock of the usual one while it
//! runs us.

use crate::paths;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-none";
/// The hypervisor's ELF file.
const HYPERVISOR: &str = "tidepool-kernel";

/// The hypervisor to build.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Variant {
    /// The normal hypervisor.
    #[default]
    Ordinary,
    /// Without the TLB flush before a frame is reused. The test of the flush protocol must fail
    /// with it.
    NoFlush,
    /// Without this rule, which a demonstration leaves out to show the damage.
    Without(&'static str),
}

impl Variant {
    fn folder(self) -> String {
        match self {
            Self::Ordinary => "bare".to_owned(),
            Self::NoFlush => "bare-no-flush".to_owned(),
            Self::Without(rule) => format!("bare-without-{rule}"),
        }
    }

    fn features(self) -> Option<String> {
        match self {
            Self::Ordinary => None,
            Self::NoFlush => Some("mutant-no-flush".to_owned()),
            Self::Without(rule) => Some(format!("without-{rule}")),
        }
    }
}

/// Builds the hypervisor; returns its ELF file.
///
/// # Errors
/// Where cargo fails; cargo itself has printed the reason.
pub fn hypervisor(variant: Variant) -> Result<PathBuf> {
    if builder().is_none()
        && let Some(built) = built(variant)
    {
        eprintln!("tidepool: no cargo here, so {} is taken as it is", built.display());
        return Ok(built);
    }
    let folder = paths::tidepool().join(variant.folder());
    let mut arguments = vec!["-p", "kernel"];
    let features = variant.features();
    if let Some(features) = &features {
        arguments.extend(["--features", features]);
    }
    Ok(build(&folder, &arguments).context("the hypervisor does not build")?.join(HYPERVISOR))
}

/// Returns the cargo that can build here: the source tree and the program must both exist.
pub fn builder() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let starts = |program: &Path| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    (paths::has_tree() && starts(&cargo) && starts(&rustc)).then_some(cargo)
}

/// Returns whether a built hypervisor exists already.
pub fn is_built() -> bool {
    built(Variant::Ordinary).is_some()
}

/// Returns a hypervisor that was built earlier: in the tree, or copied beside this program.
fn built(variant: Variant) -> Option<PathBuf> {
    let tree =
        paths::tidepool().join(variant.folder()).join(TARGET).join("release").join(HYPERVISOR);
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name(HYPERVISOR));
    let beside = beside.filter(|_| variant == Variant::Ordinary);
    [Some(tree), beside].into_iter().flatten().find(|file| file.is_file())
}

/// Builds all test kernels; returns the folder of their ELF files, named like the binaries of the
/// package `guests`.
///
/// # Errors
/// Where cargo fails; cargo itself has printed the reason.
pub fn test_kernels() -> Result<PathBuf> {
    let folder = paths::tidepool().join("guests");
    let built = folder.join(TARGET).join("release");
    if builder().is_none() && built.is_dir() {
        return Ok(built);
    }
    build(&folder, &["-p", "guests"]).context("the test kernels do not build")
}

/// Builds the worker, a statically linked Linux program; returns its file.
///
/// # Errors
/// Where cargo fails; cargo itself has printed the reason.
pub fn worker() -> Result<PathBuf> {
    Ok(programs()?.join("worker"))
}

/// Builds the checker, which reads the worker's pages in a dump; returns its file.
///
/// # Errors
/// As [`worker`](fn@worker).
pub fn checker() -> Result<PathBuf> {
    Ok(programs()?.join("checker"))
}

fn programs() -> Result<PathBuf> {
    const LINUX: &str = "x86_64-unknown-linux-gnu";
    let flags = format!(
        "target.{LINUX}.rustflags=['-C', 'target-feature=+crt-static', '-C', 'strip=symbols']"
    );
    let folder = paths::tidepool().join("worker");
    let built = build_for(LINUX, &folder, &["-p", "worker", "--bins", "--config", &flags]);
    built.context("the worker does not build")
}

fn build(folder: &Path, arguments: &[&str]) -> Result<PathBuf> {
    build_for(TARGET, folder, arguments)
}

fn build_for(target: &str, folder: &Path, arguments: &[&str]) -> Result<PathBuf> {
    let lacking = "nothing can be built here: that takes Rust (https://rustup.rs) and the tree \
                   that this program comes from";
    let mut command = Command::new(
        builder()
            .with_context(|| format!("{lacking}; beside the program, {HYPERVISOR} serves too"))?,
    );
    command.current_dir(paths::workspace()).args([
        "build",
        "--release",
        "--quiet",
        "--target",
        target,
    ]);
    command.args(arguments).arg("--target-dir").arg(folder);
    // The host's flags would replace the target's flags in .cargo/config.toml, and with them the
    // static relocation model.
    for variable in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"]
    {
        command.env_remove(variable);
    }
    let status = command.status().context("cargo cannot be started")?;
    if !status.success() {
        bail!("cargo build {} ended with {status}", arguments.join(" "));
    }
    Ok(folder.join(target).join("release"))
}
