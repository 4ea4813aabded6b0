//! `tidepool dump`: dumps on paging devices, with no hypervisor running.

use crate::config::format_size;
use crate::dump::{self, BootLoader, Dump};
use crate::report::Table;
use crate::volume::{Access, Disk};
use anyhow::{Result, bail};
use clap::Subcommand;
use kernel::addr::PAGE_SIZE;
use kernel::paging::space::Class;
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
        /// Number of the space, where the image has several
        space: Option<u32>,
    },
    /// Bring the ELF header up to date where a power cut ended the drain
    Header {
        /// The image
        file: PathBuf,
        /// Number of the space, where the image has several
        space: Option<u32>,
    },
    /// Put the header of one dump into the boot-code bytes of a disk with several spaces, so that tools open the raw image
    Select {
        /// The image
        file: PathBuf,
        /// Number of the space
        space: u32,
        /// Also where a boot loader lies there
        #[arg(long)]
        force: bool,
    },
    /// Give a dump back; the space is scrubbed at the hypervisor's next start
    Release {
        /// The image
        file: PathBuf,
        /// Number of the space, where the image has several
        space: Option<u32>,
    },
}

/// Does it.
///
/// # Errors
/// Names the image.
pub fn run(action: &Action) -> Result<ExitCode> {
    match action {
        Action::List { files } => list(files)?,
        Action::Verify { file, space } => verify(&open(file, *space, Access::Read)?)?,
        Action::Header { file, space } => {
            let dump = open(file, *space, Access::Write)?;
            println!("{}: {}", dump.name(), dump.finish()?.name());
        }
        Action::Select { file, space, force } => select(file, *space, *force)?,
        Action::Release { file, space } => release(file, *space)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn select(file: &Path, space: u32, force: bool) -> Result<()> {
    let loader = if force { BootLoader::Replace } else { BootLoader::Keep };
    let left_out = dump::select(&Disk::open(file, Access::Write)?, space, loader)?;
    println!("{}: opens as the dump in space {space}", file.display());
    if left_out > 0 {
        println!("  without {left_out} pages: the header has room for five runs only; the space itself has all");
    }
    Ok(())
}

fn release(file: &Path, space: Option<u32>) -> Result<()> {
    let disk = Disk::open(file, Access::Write)?;
    let image = disk.space(space)?;
    let number = image.number();
    let released = Dump::of(image)?;
    // First: no tool may take blocks that are about to be scrubbed for a dump.
    dump::deselect(&disk, number)?;
    released.release()?;
    println!("{}: released", released.name());
    Ok(())
}

fn open(file: &Path, space: Option<u32>, access: Access) -> Result<Dump> {
    Dump::of(Disk::open(file, access)?.space(space)?)
}

fn list(files: &[PathBuf]) -> Result<()> {
    let mut table = Table::new(&["image", "space", "dump", "partition", "incarnation", "memory", "crash", "selected"]);
    for file in files {
        let disk = Disk::open(file, Access::Read)?;
        let selected = disk.selected()?;
        for image in disk.usable()? {
            let number = image.number();
            if matches!(image.class()?, Class::Space(record) if record.state.holds_dump()) {
                let mut cells = row(file, number, &Dump::of(image)?).to_vec();
                cells.push(if selected == Some(number) { "yes" } else { "-" }.to_owned());
                table.row(&cells);
            }
        }
    }
    print!("{table}");
    Ok(())
}

fn row(file: &Path, number: u32, dump: &Dump) -> [String; 7] {
    let record = dump.record();
    let owner = record.owner.as_ref();
    [
        file.display().to_string(),
        super::volume::number(number),
        record.state.name().to_owned(),
        owner.map_or_else(|| "-".to_owned(), |owner| owner.name.to_string()),
        owner.map_or_else(|| "-".to_owned(), |owner| owner.epoch.to_string()),
        format_size(u64::from(dump.page_count()) * PAGE_SIZE),
        record.crash.as_ref().map_or("-", |crash| crash.reason.name()).to_owned(),
    ]
}

fn verify(dump: &Dump) -> Result<()> {
    let verdict = dump.verify()?;
    println!("{}: {}", dump.name(), dump.record().state.name());
    println!("  {} pages from their blocks, {} zero, {} missing", verdict.right, verdict.zero, verdict.missing);
    if let Some(first) = verdict.first_wrong {
        bail!("{} blocks have a wrong checksum, first that of page {first}", verdict.wrong);
    }
    if !verdict.header_current {
        bail!("{}: the ELF header is not up to date: `tidepool dump header` makes it so", dump.name());
    }
    Ok(())
}
