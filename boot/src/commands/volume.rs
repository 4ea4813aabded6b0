//! `tidepool volume`: image files of paging devices.

use crate::config::format_size;
use crate::report::Table;
use crate::volume::{self, Access, Image, describe};
use anyhow::{Result, bail};
use clap::Subcommand;
use kernel::addr::PAGE_SIZE;
use kernel::paging::space::{Class, Layout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to do with image files.
#[derive(Subcommand)]
pub enum Action {
    /// Make a new image with a free paging space
    Create {
        /// The image; it must not exist
        file: PathBuf,
        /// Its size, like "288 MiB"
        #[arg(value_parser = crate::config::parse_size)]
        size: u64,
    },
    /// Make a free paging space of an image, whatever it holds
    Format {
        /// The image
        file: PathBuf,
        /// Also where it holds a dump or somebody's data
        #[arg(long)]
        force: bool,
    },
    /// Say what images hold
    List {
        /// The images
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Check that images hold sound paging spaces; the status says so too
    Check {
        /// The images
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Does it.
///
/// # Errors
/// Names the image.
pub fn run(action: &Action) -> Result<ExitCode> {
    match action {
        Action::Create { file, size } => volume::create(file, *size)?,
        Action::Format { file, force } => format(file, *force)?,
        Action::List { files } => list(files)?,
        Action::Check { files } => return check(files),
    }
    Ok(ExitCode::SUCCESS)
}

fn format(file: &Path, force: bool) -> Result<()> {
    let image = Image::open(file, Access::Write)?;
    let class = image.class()?;
    let harmless = match &class {
        Class::Blank => true,
        Class::Space(record) => !record.state.holds_dump(),
        Class::Foreign(_) | Class::Damaged(_) => false,
    };
    if !harmless && !force {
        bail!("{}: {}; --force overwrites it", file.display(), describe(&class));
    }
    println!("{}: space {}", file.display(), image.format()?);
    Ok(())
}

fn list(files: &[PathBuf]) -> Result<()> {
    let mut table = Table::new(&["image", "size", "holds at most", "state", "partition", "incarnation"]);
    for file in files {
        let image = Image::open(file, Access::Read)?;
        let most = u64::from(Layout::most_pages(image.capacity())) * PAGE_SIZE;
        let class = image.class()?;
        let owner = if let Class::Space(record) = &class { record.owner.as_ref() } else { None };
        table.row(&[
            file.display().to_string(),
            format_size(image.capacity()),
            format_size(most),
            describe(&class),
            owner.map_or_else(|| "-".to_owned(), |owner| owner.name.to_string()),
            owner.map_or_else(|| "-".to_owned(), |owner| owner.epoch.to_string()),
        ]);
    }
    print!("{table}");
    Ok(())
}

fn check(files: &[PathBuf]) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let class = volume::look(file)?;
        println!("{}: {}", file.display(), describe(&class));
        if !matches!(class, Class::Space(_)) {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
