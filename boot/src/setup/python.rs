//! drgn, from PyPI, in a virtual environment of our own.

use super::{Permission, refuse};
use crate::paths;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns whether drgn was installed.
pub fn is_there() -> bool {
    imports_drgn(&folder().join("bin/python"))
}

fn folder() -> PathBuf {
    paths::tidepool().join("python")
}

/// Returns a Python interpreter with drgn.
///
/// # Errors
/// Where the environment cannot or must not be created.
pub fn drgn(permission: Permission) -> Result<PathBuf> {
    let folder = folder();
    let python = folder.join("bin/python");
    if imports_drgn(&python) {
        return Ok(python);
    }
    if permission == Permission::Refuse {
        refuse("drgn (PyPI)")?;
    }
    eprintln!("tidepool: installing drgn from PyPI into {}", folder.display());
    run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "drgn",
    ]))?;
    if !imports_drgn(&python) {
        bail!("drgn was installed but does not start");
    }
    Ok(python)
}

fn imports_drgn(python: &Path) -> bool {
    Command::new(python)
        .args(["-c", "import drgn"])
        .output()
        .is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("{program} cannot be started"))?;
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    Ok(())
}
