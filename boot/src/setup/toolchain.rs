//! The bare-metal standard library for the active toolchain.

use super::{Permission, refuse};
use crate::{kernel_build, paths};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// Makes sure that the target of `rust-toolchain.toml` is installed.
pub(super) fn prepare(permission: Permission) -> Result<()> {
    if kernel_build::builder().is_none() && kernel_build::is_built() {
        // A hypervisor that is already built needs no compiler.
        return Ok(());
    }
    if has_target()? {
        return Ok(());
    }
    if permission == Permission::Refuse {
        return refuse("the Rust target x86_64-unknown-none");
    }
    eprintln!("tidepool: adding the Rust target x86_64-unknown-none to the toolchain");
    // Without arguments rustup installs what rust-toolchain.toml lists; a plain build does not,
    // where automatic installation is off.
    let mut command = Command::new("rustup");
    command.current_dir(paths::workspace()).args(["toolchain", "install", "--no-self-update"]);
    // `cargo run` sets its own toolchain here, which would override the file.
    command.env_remove("RUSTUP_TOOLCHAIN");
    let status = command.status().context("rustup cannot be started: add the target by hand")?;
    if !status.success() || !has_target()? {
        bail!("rustup did not add the target x86_64-unknown-none");
    }
    Ok(())
}

fn has_target() -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output =
        Command::new(rustc).current_dir(paths::workspace()).args(["--print", "sysroot"]).output();
    let output = output.context("rustc cannot be started")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(sysroot.join("lib/rustlib/x86_64-unknown-none/lib").is_dir())
}
