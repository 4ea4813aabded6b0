//! Folders of runs.

use crate::paths;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder for images that is removed with its owner.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Creates a folder in the folder for everything that is run.
    ///
    /// # Errors
    /// Where the system refuses it.
    pub(super) fn new(name: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = paths::tidepool().join("bench").join(format!(
            "{name}.{}.{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&path).with_context(|| format!("{}", path.display()))?;
        Ok(Self(path))
    }

    /// Returns the folder's path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
