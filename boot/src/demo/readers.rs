//! The dump, opened by the tools that people use: makedumpfile and drgn.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Opens the dump with drgn and answers in JSON.
const READER: &str = "tests/readers/worker.py";

/// What it takes to read a dump of the demonstration.
#[derive(Clone, Debug)]
pub struct Readers {
    /// The Python interpreter that has drgn.
    pub python: PathBuf,
    /// The crashed kernel's debug symbols.
    pub vmlinux: PathBuf,
}

impl Readers {
    /// Returns the commands that open the dump on `image`, for people.
    pub fn commands(&self, image: &Path) -> Vec<String> {
        let (image, vmlinux) = (image.display(), self.vmlinux.display());
        vec![
            format!("makedumpfile --dump-dmesg {image} dmesg.txt"),
            format!("{} -m drgn -c {image} -s {vmlinux}", self.python.display()),
        ]
    }

    /// Returns the crashed kernel's log.
    ///
    /// # Errors
    /// What makedumpfile says.
    pub fn kernel_log(&self, image: &Path) -> Result<String> {
        let out = scratch(image, "dmesg");
        let _ = std::fs::remove_file(&out);
        run(Command::new("makedumpfile").arg("--dump-dmesg").arg(image).arg(&out))?;
        let text = std::fs::read(&out).with_context(|| format!("{}", out.display()))?;
        let _ = std::fs::remove_file(&out);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Makes a compressed copy without the pages that nobody looks at, as one would to keep it; returns its size.
    ///
    /// # Errors
    /// What makedumpfile says.
    pub fn compressed_size(&self, image: &Path) -> Result<u64> {
        let out = scratch(image, "kdump");
        let _ = std::fs::remove_file(&out);
        run(Command::new("makedumpfile").args(["-c", "-d", "31"]).arg(image).arg(&out))?;
        let size = std::fs::metadata(&out)?.len();
        std::fs::remove_file(&out)?;
        Ok(size)
    }

    /// Returns what drgn finds: tasks, the panicking task's backtrace, the worker's pages.
    ///
    /// # Errors
    /// What drgn says.
    pub fn inspect(&self, image: &Path) -> Result<Value> {
        let script = crate::paths::workspace().join(READER);
        let output = run(Command::new(&self.python).arg(script).arg(image).arg(&self.vmlinux))?;
        serde_json::from_slice(&output.stdout).context("the reader's answer is no JSON")
    }
}

fn scratch(image: &Path, ending: &str) -> PathBuf {
    image.with_extension(format!("{}.{ending}", std::process::id()))
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    if !output.status.success() {
        let words = [output.stdout, output.stderr].concat();
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&words).trim());
    }
    Ok(output)
}
