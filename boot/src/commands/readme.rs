//! `tidepool readme`: puts the last demonstration's figures and picture into the tree's README, so
//! that both come from the same run.

use crate::demo::record;
use crate::{atomic, paths};
use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::process::ExitCode;

/// Writes `README.md` and `docs/pool.svg`.
///
/// # Errors
/// Where no demonstration has run, or a file cannot be written.
pub fn run() -> Result<ExitCode> {
    let (folder, tree) = (paths::tidepool().join("demo"), paths::workspace());
    let text = |file: std::path::PathBuf| {
        fs::read_to_string(&file).with_context(|| format!("{}", file.display()))
    };
    let excerpt =
        text(folder.join(record::FILE)).context("run the demonstration first: `cargo run`")?;
    let picture = text(folder.join("pool.svg"))?;
    let readme = tree.join("README.md");
    let new = record::replace(&text(readme.clone())?, &excerpt)?;
    for (file, text) in [(readme, new), (tree.join("docs/pool.svg"), picture)] {
        atomic::write(&file, |out| Ok(out.write_all(text.as_bytes())?))?;
        println!("{}: written", file.display());
    }
    Ok(ExitCode::SUCCESS)
}
