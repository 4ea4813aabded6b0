//! `tidepool dump`: dumps on paging devices, with no hypervisor running.

use crate::config::format_size;
use crate::dump::Dump;
use crate::report::Table;
use crate::volume::{Access, Image};
use anyhow::{Result, bail};
use clap::Subcommand;
use kernel::addr::PAGE_SIZE;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to do with dumps.
#[derive(Subcommand)]
pub enum Action {
    /// List the dumps on images
    List {
        /// The images
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Check every block against its checksum, and the ELF header against what is there; the status says so too
    Verify {
        /// The image
        file: PathBuf,
    },
    /// Bring the ELF header up to date where a power cut ended the drain
    Header {
        /// The image
        file: PathBuf,
    },
    /// Give a dump back; the space is scrubbed at the hypervisor's next start
    Release {
        /// The image
        file: PathBuf,
    },
}

/// Does it.
///
/// # Errors
/// Names the image.
pub fn run(action: &Action) -> Result<ExitCode> {
    match action {
        Action::List { files } => list(files)?,
        Action::Verify { file } => verify(file)?,
        Action::Header { file } => {
            let state = Dump::open(file, Access::Write)?.finish()?;
            println!("{}: {}", file.display(), state.name());
        }
        Action::Release { file } => {
            let dump = Dump::open(file, Access::Write)?;
            dump.release()?;
            println!("{}: released", file.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(files: &[PathBuf]) -> Result<()> {
    let mut table = Table::new(&["image", "dump", "partition", "incarnation", "memory", "crash"]);
    for file in files {
        let record = Image::open(file, Access::Read)?.record()?;
        if !record.state.holds_dump() {
            continue;
        }
        let dump = Dump::open(file, Access::Read)?;
        let owner = record.owner.as_ref();
        let crash = record.crash.as_ref().map_or("-", |crash| crash.reason.name());
        table.row(&[
            file.display().to_string(),
            record.state.name().to_owned(),
            owner.map_or_else(|| "-".to_owned(), |owner| owner.name.to_string()),
            owner.map_or_else(|| "-".to_owned(), |owner| owner.epoch.to_string()),
            format_size(u64::from(dump.page_count()) * PAGE_SIZE),
            crash.to_owned(),
        ]);
    }
    print!("{table}");
    Ok(())
}

fn verify(file: &Path) -> Result<()> {
    let dump = Dump::open(file, Access::Read)?;
    let verdict = dump.verify()?;
    println!("{}: {}", file.display(), dump.record().state.name());
    println!("  {} pages from their blocks, {} zero, {} missing", verdict.right, verdict.zero, verdict.missing);
    if let Some(first) = verdict.first_wrong {
        bail!("{} blocks have a wrong checksum, first that of page {first}", verdict.wrong);
    }
    if !verdict.header_current {
        bail!("the ELF header is not up to date: `tidepool dump header {}` makes it so", file.display());
    }
    Ok(())
}
