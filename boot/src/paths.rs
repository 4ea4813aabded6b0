//! Where things lie: the workspace and the folder `target/tidepool` under it, which alone is written to.

use std::path::{Path, PathBuf};

/// Returns the root of the workspace.
pub fn workspace() -> PathBuf {
    // Cargo sets the variable at run time too; the compiled-in value serves a binary started by hand.
    let package = std::env::var("CARGO_MANIFEST_DIR").map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), Path::to_path_buf)
}

/// Returns the folder for everything that is built, downloaded or run: `target/tidepool`.
pub fn tidepool() -> PathBuf {
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| PathBuf::from("target"), PathBuf::from);
    workspace().join(target).join("tidepool")
}

/// Returns the folder for one run's console, events and emulator output.
pub fn transcripts() -> PathBuf {
    tidepool().join("transcripts")
}
