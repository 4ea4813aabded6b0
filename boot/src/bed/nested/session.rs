//! One machine in the Linux within Bochs: its QEMU, its paging devices, its end.

use super::exchange::{Extent, OUT_MIB, is_blank};
use super::level1::{Level1, Level1Turn};
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

/// Time limit for an emulator to end after a request, and for the marks behind its last output.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time limit for copying a file to or from the exchange disk.
const COPY: Duration = Duration::from_secs(120);

/// A machine in the Linux within Bochs.
pub struct Session {
    level1: Arc<Level1>,
    id: u32,
    status: Option<ExitStatus>,
    disks: Vec<SessionDisk>,
    /// Path of the file for the emulator's output.
    words: PathBuf,
    _turn: Level1Turn,
}

/// A paging device, which is a file of the Linux while the machine runs.
struct SessionDisk {
    image: PathBuf,
    bytes: u64,
}

/// The places of a machine's files on the exchange disk.
pub(super) struct Files {
    pub kernel: Extent,
    pub archive: Extent,
    /// Size and place of each paging device; no place for a blank one, which the Linux creates.
    pub disks: Vec<(u64, Option<Extent>)>,
}

/// A machine to start.
pub(super) struct SessionPlan<'p> {
    /// The hypervisor and its archive.
    pub files: [&'p Path; 2],
    /// The images of the paging devices.
    pub images: &'p [PathBuf],
    /// The host's ports of console, events and monitor.
    pub ports: [u16; 3],
    /// The file for the emulator's output.
    pub words: PathBuf,
    /// The emulator's command line, for a shell.
    pub command: &'p str,
}

impl Session {
    /// Puts the machine's files on the exchange disk and starts the machine.
    pub(super) fn start(
        level1: &Arc<Level1>,
        turn: Level1Turn,
        plan: SessionPlan<'_>,
    ) -> Result<Self> {
        let SessionPlan { files, images, ports, words, command } = plan;
        let placed = place(level1, files, images)?;
        let disks = images
            .iter()
            .zip(&placed.disks)
            .map(|(image, (bytes, _))| SessionDisk { image: image.clone(), bytes: *bytes });
        let id = level1.new_job();
        for (wire, port) in level1.wires.iter().zip(ports) {
            wire.attach(id, port)?;
        }
        let session = Self {
            level1: Arc::clone(level1),
            id,
            status: None,
            disks: disks.collect(),
            words,
            _turn: turn,
        };
        level1.run(id, &script(&placed, command), "1 2 3")?;
        Ok(session)
    }

    /// Waits for the machine's end, at most `limit`.
    pub(in crate::bed) fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        if self.status.is_some() {
            return Ok(self.status);
        }
        if let Some(job) = self.level1.wait_for_end(self.id, limit)? {
            self.level1.wires.iter().for_each(|wire| wire.detach(PATIENCE));
            // Where the test has passed, its folder is gone and the write fails.
            let _ = std::fs::write(&self.words, job.said);
            self.status = job.status.map(|status| ExitStatus::from_raw((status & 0xff) << 8));
        }
        Ok(self.status)
    }

    /// Ends the machine and brings its paging devices back.
    pub(in crate::bed) fn end(&mut self) {
        self.stop("TERM");
        self.kill();
    }

    /// Ends the machine without bringing its paging devices back.
    pub(in crate::bed) fn discard(&mut self) {
        self.disks.clear();
        self.end();
    }

    /// Kills the machine, and brings its paging devices back as they are.
    pub(in crate::bed) fn kill(&mut self) {
        self.stop("KILL");
        if let Err(error) = self.return_disks() {
            eprintln!("tidepool: {error:#}");
        }
    }

    fn stop(&mut self, signal: &str) {
        if !matches!(self.wait(Duration::ZERO), Ok(None)) {
            return;
        }
        let _ = self.level1.signal(self.id, signal);
        let _ = self.wait(PATIENCE);
    }

    /// Runs a shell script in the same Linux and returns its output. Paging device *n* is the file
    /// `/tmp/disk`*n*.
    ///
    /// # Errors
    /// Where the script fails (the error contains its output), or does not end within `limit`.
    pub fn beside(&self, script: &str, limit: Duration) -> Result<String> {
        let id = self.level1.new_job();
        self.level1.run(id, script, "")?;
        let job = self
            .level1
            .wait_for_end(id, limit)?
            .with_context(|| format!("“{script}” did not end in time"))?;
        let status =
            job.status.map_or_else(|| "no status".to_owned(), |status| format!("status {status}"));
        ensure!(job.status == Some(0), "“{script}” ended with {status}: {}", job.said);
        Ok(job.said)
    }

    /// Copies paging device `number` in its present state to `file`.
    ///
    /// # Errors
    /// Where there is no such device, or the file cannot be written.
    pub fn bring_out(&self, number: usize, file: &Path) -> Result<()> {
        let disk = self
            .disks
            .get(number)
            .with_context(|| format!("there is no paging device {number}"))?;
        self.beside(&format!(". /exchange.sh; give /tmp/disk{number} {OUT_MIB}"), COPY)?;
        self.level1.exchange.fetch(disk.bytes, file)
    }

    fn return_disks(&mut self) -> Result<()> {
        for number in 0..self.disks.len() {
            let image = &self.disks[number].image;
            // The image's folder may have been removed with its test.
            if image.exists() {
                self.bring_out(number, image)?;
            }
        }
        self.disks.clear();
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

fn place(level1: &Level1, files: [&Path; 2], images: &[PathBuf]) -> Result<Files> {
    let mut blank = Vec::new();
    for image in images {
        blank.push(is_blank(image)?);
    }
    let used =
        images.iter().zip(&blank).filter(|(_, blank)| !**blank).map(|(image, _)| image.as_path());
    let mut extents =
        level1.exchange.put(&files.into_iter().chain(used).collect::<Vec<_>>())?.into_iter();
    let mut next = || extents.next().context("each file has a place");
    let (kernel, archive) = (next()?, next()?);
    let mut disks = Vec::new();
    for (image, blank) in images.iter().zip(blank) {
        disks.push((image.metadata()?.len(), if blank { None } else { Some(next()?) }));
    }
    Ok(Files { kernel, archive, disks })
}

fn script(files: &Files, command: &str) -> String {
    let mut script = ". /exchange.sh\nrm -f /tmp/disk* /tmp/kernel /tmp/archive\n".to_owned();
    let mut take = |extent: Extent, file: &str| {
        let _ = writeln!(script, "take {} {} /tmp/{file}", extent.mib, extent.bytes);
    };
    take(files.kernel, "kernel");
    take(files.archive, "archive");
    for (number, disk) in files.disks.iter().enumerate() {
        if let (_, Some(extent)) = disk {
            take(*extent, &format!("disk{number}"));
        }
    }
    for (number, (bytes, _)) in files.disks.iter().enumerate() {
        let _ = writeln!(script, "truncate -s {bytes} /tmp/disk{number}");
    }
    script + "exec " + command + "\n"
}
