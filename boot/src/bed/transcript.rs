//! The folder of a run: its console, its events and the emulator's output.
//!
//! ```text
//!  run passes            the folder is removed
//!  run fails             the folder stays, without the archive (made of files that still exist)
//!  next run begins       of the folders whose command has ended, the newest KEPT stay
//! ```

use crate::interrupt::{OnSignal, Signalled};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// Folders of earlier runs that are kept.
pub const KEPT: usize = 20;
/// Large files in the folder that are not needed to repeat the run.
/// The stick's name in the run's folder.
pub(super) const STICK: &str = "stick.img";
const LARGE: [&str; 3] = [super::ARCHIVE, "boot.iso", STICK];

/// The folder of a run in progress.
pub(super) struct RunFolder {
    path: PathBuf,
    /// Removes the folder at a signal: an end by the operator is no failure.
    _on_signal: OnSignal,
}

impl RunFolder {
    /// Creates a folder for a machine of this name, and removes the oldest folders beyond [`KEPT`].
    ///
    /// # Errors
    /// Names the folder that cannot be created.
    pub(super) fn new(name: &str) -> Result<Self> {
        static RUN: AtomicU32 = AtomicU32::new(0);
        let run = RUN.fetch_add(1, Ordering::Relaxed);
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_', "-");
        let all = crate::paths::transcripts();
        prune(&all, KEPT);
        let path = all.join(format!("{name}.{}.{run}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("{}: cannot be made", path.display()))?;
        let theirs = path.clone();
        let on_signal = OnSignal::new(Signalled::End, move || drop(fs::remove_dir_all(&theirs)));
        Ok(Self { path, _on_signal: on_signal })
    }

    /// Returns the folder's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder with its contents.
    pub(super) fn discard(&self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        lighten(&self.path);
    }
}

fn lighten(folder: &Path) {
    LARGE.iter().for_each(|name| drop(fs::remove_file(folder.join(name))));
    let _ = fs::remove_dir_all(folder.join("iso"));
}

/// Removes the oldest folders in `all` whose commands have ended, so that `kept` stay. In these,
/// the large files are removed.
fn prune(all: &Path, kept: usize) {
    let entries = fs::read_dir(all).into_iter().flatten().flatten();
    let ended = entries.map(|entry| entry.path()).filter(|path| has_ended(path));
    let mut ended: Vec<_> = ended.map(|path| (changed(&path), path)).collect();
    ended.sort_by_key(|(changed, _)| std::cmp::Reverse(*changed));
    for (place, (_, path)) in ended.iter().enumerate() {
        if place < kept {
            lighten(path);
        } else {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn changed(path: &Path) -> SystemTime {
    path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns whether `path` is a run's folder, `NAME.PROCESS.RUN`, whose process has ended.
fn has_ended(path: &Path) -> bool {
    let mut parts = path.file_name().and_then(|name| name.to_str()).unwrap_or("").rsplit('.');
    let (run, process) = (parts.next(), parts.next());
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    let alive = process.is_some_and(|process| Path::new("/proc").join(process).exists());
    path.is_dir() && is_number(run) && is_number(process) && parts.next().is_some() && !alive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_without_their_archives_and_who_still_runs_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let all = temporary.path();
        let ended = u32::MAX - 1;
        let make = |name: String, age: u64| {
            let folder = all.join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(crate::bed::ARCHIVE), b"large").unwrap();
            fs::write(folder.join("console.txt"), b"said").unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 - age);
            fs::File::open(&folder).unwrap().set_modified(time).unwrap();
            folder
        };
        let old: Vec<_> = (0..4).map(|run| make(format!("boot.{ended}.{run}"), run)).collect();
        let running = make(format!("boot.{}.0", std::process::id()), 100);
        let foreign = make("notes".to_owned(), 200);
        prune(all, 2);
        let here = |folder: &PathBuf, file: &str| folder.join(file).exists();
        let said: Vec<_> = old.iter().map(|folder| here(folder, "console.txt")).collect();
        assert_eq!(said, [true, true, false, false]);
        assert!(
            !here(&old[0], crate::bed::ARCHIVE)
                && here(&running, crate::bed::ARCHIVE)
                && here(&foreign, crate::bed::ARCHIVE)
        );
    }
}
