//! The tree's own files, for the checks of the house rules.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the tree.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path from the root.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// Returns whether the file serves tests only.
    pub fn is_test(&self) -> bool {
        let file = self.path.rsplit('/').next().unwrap_or("");
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || ["tests.rs", "test_bed.rs", "fake.rs", "claim_sim.rs"].contains(&file)
            || file.ends_with("_tests.rs")
    }

    /// Returns the lines before the unit tests, numbered from 1.
    pub fn lines(&self) -> Vec<(usize, &str)> {
        let lines: Vec<_> = self.text.lines().collect();
        let tests = |pair: &[&str]| {
            pair[0] == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{')
        };
        let end = lines.windows(2).position(tests).unwrap_or(lines.len());
        lines[..end].iter().enumerate().map(|(index, line)| (index + 1, *line)).collect()
    }
}

/// Returns all files with one of these endings, except built and downloaded ones.
pub fn files(endings: &[&str]) -> Vec<Source> {
    let root = boot::paths::workspace();
    let mut found = Vec::new();
    collect(&root, &root, endings, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(root: &Path, folder: &Path, endings: &[&str], found: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).expect("the tree is readable");
    for path in entries.map(|entry| entry.expect("the tree is readable").path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != ".git" {
            collect(root, &path, endings, found);
        } else if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(read(root, &path));
        }
    }
}

fn read(root: &Path, path: &PathBuf) -> Source {
    let text = fs::read_to_string(path).unwrap_or_default();
    Source { path: path.strip_prefix(root).unwrap_or(path).display().to_string(), text }
}
