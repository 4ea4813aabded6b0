//! Files that are written completely or not at all.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Writes `path`: `fill` writes a temporary file beside it, which is then renamed.
///
/// # Errors
/// Names `path`; its earlier content is then untouched.
pub fn write(path: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let parent = path.parent().context("a file path has a parent")?;
    fs::create_dir_all(parent)
        .with_context(|| format!("{}: cannot make the folder", parent.display()))?;
    let beside = beside(path);
    let result = fill_and_rename(&beside, path, fill);
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result.with_context(|| format!("{}: cannot be written", path.display()))
}

fn fill_and_rename(
    beside: &Path,
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    let mut file =
        File::options().read(true).write(true).create(true).truncate(true).open(beside)?;
    fill(&mut file)?;
    file.sync_data()?;
    fs::rename(beside, path)?;
    Ok(())
}

/// Returns a name beside `path` that no other writer uses.
pub fn beside(path: &Path) -> PathBuf {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.{serial}.part", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_remains() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("new");
        let path = dir.join("file");
        write(&path, |f| Ok(f.write_all(b"old")?)).unwrap();
        let failed = write(&path, |f| {
            f.write_all(b"new")?;
            anyhow::bail!("power cut")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }
}
