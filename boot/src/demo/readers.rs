//! The dump, opened with the usual tools: makedumpfile, drgn, crash(8), gdb, readelf and elfutils.

use crate::bounded;
use crate::dump::Dump;
use crate::volume::{VolumeAccess, VolumeDisk};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Script that opens the dump with drgn and answers in JSON.
const READER: &str = "tests/readers/worker.py";

/// The dump of an image that gdb shall read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection {
    /// The only dump of the image.
    Whole,
    /// The dump in this space.
    Space(u32),
}

impl Selection {
    /// Returns the selection of a space by its number, 0 where the image is one space.
    pub const fn of(space: u32) -> Self {
        if space == 0 { Self::Whole } else { Self::Space(space) }
    }
}

/// The requirements for reading a dump of the demonstration.
#[derive(Clone, Debug)]
pub struct Readers {
    /// A Python interpreter with drgn.
    pub python: PathBuf,
    /// The crashed kernel's debug symbols.
    pub vmlinux: PathBuf,
}

impl Readers {
    /// Returns the commands that open the dump on `image`, to show to people.
    pub fn commands(&self, image: &Path) -> Vec<String> {
        let (image, vmlinux) = (image.display(), self.vmlinux.display());
        vec![
            format!("makedumpfile --dump-dmesg {image} dmesg.txt"),
            format!("crash {vmlinux} {image}"),
            format!("cargo run -- dump gdb {image} --symbols {vmlinux}"),
            format!("{} -m drgn -c {image} -s {vmlinux}", self.python.display()),
        ]
    }

    /// Returns the crashed kernel's log.
    ///
    /// # Errors
    /// With makedumpfile's output.
    pub fn kernel_log(&self, image: &Path) -> Result<String> {
        let out = scratch(image, "dmesg");
        let _ = std::fs::remove_file(&out);
        run(Command::new("makedumpfile").arg("--dump-dmesg").arg(image).arg(&out))?;
        let text = std::fs::read(&out).with_context(|| format!("{}", out.display()))?;
        let _ = std::fs::remove_file(&out);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Makes a compressed copy without free and zero pages, suitable to be kept; returns its size.
    ///
    /// # Errors
    /// With makedumpfile's output.
    pub fn compressed_size(&self, image: &Path) -> Result<u64> {
        let out = scratch(image, "kdump");
        let _ = std::fs::remove_file(&out);
        run(Command::new("makedumpfile").args(["-c", "-d", "31"]).arg(image).arg(&out))?;
        let size = std::fs::metadata(&out)?.len();
        std::fs::remove_file(&out)?;
        Ok(size)
    }

    /// Returns crash(8)'s output for `commands`, one a line.
    ///
    /// # Errors
    /// With crash's output.
    pub fn crash(&self, image: &Path, commands: &str) -> Result<String> {
        let script = scratch(image, "crash");
        std::fs::write(&script, format!("{commands}quit\n"))?;
        let output = run(Command::new("crash")
            .arg("-s")
            .arg("-i")
            .arg(&script)
            .arg(&self.vmlinux)
            .arg(image)
            .stdin(Stdio::null()));
        let _ = std::fs::remove_file(&script);
        Ok(text(&output?))
    }

    /// Returns gdb's output for `commands`. gdb reads memory by the guest's virtual addresses,
    /// through the host command `tidepool`.
    ///
    /// # Errors
    /// With gdb's output.
    pub fn gdb(
        &self,
        image: &Path,
        selection: Selection,
        tidepool: &str,
        commands: &[&str],
    ) -> Result<String> {
        let dump =
            Dump::of(VolumeDisk::open(image, VolumeAccess::Read)?.space(match selection {
                Selection::Whole => None,
                Selection::Space(number) => Some(number),
            })?)?;
        let mut gdb = crate::dump::gdb::command(&dump, Some(&self.vmlinux), tidepool)?;
        gdb.args(["-nx", "-batch"]);
        commands.iter().for_each(|command| _ = gdb.args(["-ex", command]));
        Ok(text(&run(&mut gdb)?))
    }

    /// Returns the headers and notes, as printed by binutils and elfutils.
    ///
    /// # Errors
    /// With the tools' output; a warning is an error too.
    pub fn elf(&self, image: &Path) -> Result<String> {
        let headers = run(Command::new("readelf").arg("-hlW").arg(image))?;
        let notes = run(Command::new("eu-readelf").arg("-n").arg(image))?;
        for output in [&headers, &notes] {
            ensure!(output.stderr.is_empty(), "{}", text(output));
        }
        Ok(text(&headers) + &text(&notes))
    }

    /// Returns drgn's results: tasks, the panicking task's backtrace, the worker's pages.
    ///
    /// # Errors
    /// With drgn's output.
    pub fn inspect(&self, image: &Path) -> Result<Value> {
        let script = crate::paths::workspace().join(READER);
        let output = run(Command::new(&self.python).arg(script).arg(image).arg(&self.vmlinux))?;
        serde_json::from_slice(&output.stdout).context("the reader's answer is no JSON")
    }
}

fn scratch(image: &Path, ending: &str) -> PathBuf {
    image.with_extension(format!("{}.{ending}", std::process::id()))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// Time limit for a reader.
const READ: Duration = Duration::from_secs(600);

fn run(command: &mut Command) -> Result<Output> {
    let program = command.get_program().display().to_string();
    let output = bounded::output(command, READ)?;
    if !output.status.success() {
        let words = [output.stdout, output.stderr].concat();
        bail!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&words).trim());
    }
    Ok(output)
}
