//! A Debian package as a file: fetched and verified by apt, which has keys and mirrors, but never
//! installed.

use super::progress::ByteProgress;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Downloads exactly `version` of `name` into `folder`; returns the file.
pub(super) fn package(name: &str, version: &str, folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let exact = format!("{name}={version}");
    if let Some(file) = find(folder, name)? {
        // A file of an earlier, interrupted run: apt completes it, or finds it complete.
        eprintln!("tidepool: going on with {}", file.display());
    }
    let mut progress = ByteProgress::new(&format!("downloading {name}"), size(&exact)?);
    let mut command = Command::new("apt-get");
    command.current_dir(folder).args(["-q", "-o", "APT::Sandbox::User=root", "download", &exact]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("apt-get cannot be started")?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        progress
            .set(find(folder, name)?.and_then(|file| file.metadata().ok()).map_or(0, |m| m.len()));
        std::thread::sleep(Duration::from_millis(200));
    };
    if !status.success() {
        bail!("apt-get download {exact} ended with {status}");
    }
    find(folder, name)?.with_context(|| format!("apt-get left no file of {name}"))
}

fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let prefix = format!("{name}_");
    let files = fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    Ok(files
        .into_iter()
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix))))
}

fn size(exact: &str) -> Result<u64> {
    let text = apt_cache(&["show", exact])?;
    let size = text
        .lines()
        .find_map(|line| line.strip_prefix("Size: "))
        .context("apt-cache tells no size")?;
    Ok(size.trim().parse()?)
}

pub(super) fn apt_cache(arguments: &[&str]) -> Result<String> {
    let output = Command::new("apt-cache")
        .args(arguments)
        .output()
        .context("apt-cache cannot be started")?;
    if !output.status.success() {
        bail!(
            "apt-cache {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Unpacks the files of a package for which `place` returns a path; returns their number.
pub(super) fn unpack(package: &Path, place: impl Fn(&str) -> Option<PathBuf>) -> Result<usize> {
    let mut command = Command::new("dpkg-deb");
    command.arg("--fsys-tarfile").arg(package).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("dpkg-deb cannot be started")?;
    let output = child.stdout.take().context("the output is piped")?;
    let count = unpack_tar(output, place);
    let status = child.wait()?;
    if !status.success() {
        bail!("dpkg-deb {} ended with {status}", package.display());
    }
    count
}

fn unpack_tar(tar: impl std::io::Read, place: impl Fn(&str) -> Option<PathBuf>) -> Result<usize> {
    let mut count = 0;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if let Some(path) = place(&name).filter(|_| entry.header().entry_type().is_file()) {
            crate::atomic::write(&path, |file: &mut File| {
                std::io::copy(&mut entry, file)?;
                Ok(())
            })?;
            count += 1;
        }
    }
    // Read to the end: dpkg-deb fails on a closed pipe.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
    Ok(count)
}
