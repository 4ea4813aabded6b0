//! Paths: the workspace, and the folder `target/tidepool` under it. Only that folder is written to.
//!
//! A program that was copied away from its tree keeps its transcripts in the user's cache instead.

use std::path::{Path, PathBuf};

/// Returns the root of the workspace: that of the running cargo's package if it is ours, else the
/// workspace that this program was built in.
pub fn workspace() -> PathBuf {
    // Cargo sets the variable at run time too, for any package it runs. The compiled-in value
    // serves a binary that was started by hand.
    let running = std::env::var_os("CARGO_MANIFEST_DIR")
        .and_then(|package| Some(Path::new(&package).parent()?.to_owned()));
    let built =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf);
    running.filter(|root| is_ours(root)).unwrap_or(built)
}

/// Returns whether the source tree exists; without it nothing can be built.
pub fn has_tree() -> bool {
    is_ours(&workspace())
}

fn is_ours(root: &Path) -> bool {
    root.join("boot/stub/src/lib.rs").is_file() && root.join("kernel/src/lib.rs").is_file()
}

/// Returns the folder for everything that is built, downloaded or run: `target/tidepool`, or
/// `tidepool` in the user's cache where there is no tree.
pub fn tidepool() -> PathBuf {
    if !has_tree() {
        return cache(|name| std::env::var_os(name).map(PathBuf::from)).join("tidepool");
    }
    let target =
        std::env::var("CARGO_TARGET_DIR").map_or_else(|_| PathBuf::from("target"), PathBuf::from);
    workspace().join(target).join("tidepool")
}

/// Returns the user's cache folder according to the XDG base directory specification, from the
/// given environment.
fn cache(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let absolute = |path: &PathBuf| path.is_absolute();
    let home = || variable("HOME").filter(absolute).map(|home| home.join(".cache"));
    variable("XDG_CACHE_HOME").filter(absolute).or_else(home).unwrap_or_else(std::env::temp_dir)
}

/// Returns the folder for one run's console, events and emulator output.
pub fn transcripts() -> PathBuf {
    tidepool().join("transcripts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_package_is_not_taken_for_the_tree() {
        assert!(has_tree() && is_ours(&workspace()));
        assert!(!is_ours(&workspace().join("boot")) && !is_ours(&std::env::temp_dir()));
    }

    #[test]
    fn the_cache_is_the_users() {
        let given = |set: &'static [(&str, &str)]| {
            cache(|name| {
                set.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value))
            })
        };
        assert_eq!(given(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]), Path::new("/c"));
        assert_eq!(
            given(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]),
            Path::new("/h/.cache")
        );
        assert_eq!(given(&[]), std::env::temp_dir());
    }
}
