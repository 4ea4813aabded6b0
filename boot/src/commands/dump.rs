//! `tidepool dump`: dumps on paging devices, with no hypervisor running.

mod list;
mod report;

use crate::dump::{self, BootLoader, Dump, DumpChoice};
use crate::volume::{VolumeAccess, VolumeDisk};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to do with dumps.
#[derive(Subcommand)]
pub enum DumpAction {
    /// List the dumps on images
    List {
        /// The images
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Check every block against its checksum, and the ELF header against the record; the status is
    /// 0 only if all is right
    Verify {
        /// The image
        file: PathBuf,
        /// The dump's name, or its first eight digits, or the number of its space; may be left out
        /// where there is one space
        dump: Option<DumpChoice>,
    },
    /// Print the crash, and the last events of the partition and of the machine before it
    Report {
        /// The image
        file: PathBuf,
        /// The dump's name, or its first eight digits, or the number of its space; may be left out
        /// where there is one space
        dump: Option<DumpChoice>,
    },
    /// Write the ELF header anew, for example after a power cut ended the drain
    Header {
        /// The image
        file: PathBuf,
        /// The dump's name, or its first eight digits, or the number of its space; may be left out
        /// where there is one space
        dump: Option<DumpChoice>,
    },
    /// Put the header of one dump into the boot-code bytes of a disk with several spaces, so that
    /// tools open the raw image
    Select {
        /// The image
        file: PathBuf,
        /// The dump's name, or its first eight digits, or the number of its space
        dump: DumpChoice,
        /// Also if a boot loader is there
        #[arg(long)]
        force: bool,
    },
    /// Look at a dump with gdb by the guest's virtual addresses
    Gdb {
        /// The image
        file: PathBuf,
        /// The dump's name, or its first eight digits, or the number of its space; may be left out
        /// where there is one space
        dump: Option<DumpChoice>,
        /// The crashed kernel with its symbols, which are moved by KASLR's offset
        #[arg(long)]
        symbols: Option<PathBuf>,
        /// Answer a gdb on standard input and output instead of starting one
        #[arg(long)]
        serve: bool,
        /// Further arguments for gdb
        #[arg(last = true)]
        gdb: Vec<String>,
    },
    /// Give a dump back; the space is scrubbed at the hypervisor's next start. The base of clones
    /// is refused while one of them needs it
    Release {
        /// The image
        file: PathBuf,
        /// The dump's name, or its first eight digits, or the number of its space; may be left out
        /// where there is one space
        dump: Option<DumpChoice>,
        /// Other images with spaces of clones, if the dump is the base of clones
        #[arg(long, value_name = "IMAGE", num_args = 1..)]
        clones: Vec<PathBuf>,
    },
}

/// Runs the command.
///
/// # Errors
/// Names the image.
pub fn run(action: &DumpAction) -> Result<ExitCode> {
    match action {
        DumpAction::List { files } => return list::run(files),
        DumpAction::Verify { file, dump } => verify(&open(file, *dump, VolumeAccess::Read)?)?,
        DumpAction::Report { file, dump } => report::run(&open(file, *dump, VolumeAccess::Read)?)?,
        DumpAction::Header { file, dump } => {
            let dump = open(file, *dump, VolumeAccess::Write)?;
            println!("{}: {}", dump.name(), dump.finish()?.name());
        }
        DumpAction::Select { file, dump, force } => select(file, *dump, *force)?,
        DumpAction::Gdb { file, dump, serve: true, .. } => {
            dump::gdb::serve(&open(file, *dump, VolumeAccess::Read)?)?
        }
        DumpAction::Gdb { file, dump, symbols, gdb, .. } => {
            dump::gdb::start(&open(file, *dump, VolumeAccess::Read)?, symbols.as_deref(), gdb)?;
        }
        DumpAction::Release { file, dump, clones } => release(file, *dump, clones)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn select(file: &Path, choice: DumpChoice, force: bool) -> Result<()> {
    let loader = if force { BootLoader::Replace } else { BootLoader::Keep };
    let disk = VolumeDisk::open(file, VolumeAccess::Write)?;
    disk.check_alone()?;
    let space = DumpChoice::find(Some(choice), &disk)?.number();
    let left_out = dump::select(&disk, space, loader)?;
    println!("{}: opens as the dump in space {space}", file.display());
    if left_out > 0 {
        println!(
            "  without {left_out} pages: the header has room for five runs only; the space's own \
             header has all"
        );
    }
    Ok(())
}

fn release(file: &Path, choice: Option<DumpChoice>, clones: &[PathBuf]) -> Result<()> {
    let disk = VolumeDisk::open(file, VolumeAccess::Write)?;
    disk.check_alone()?;
    let image = DumpChoice::find(choice, &disk)?;
    let number = image.number();
    let released = Dump::of(image)?;
    let others = clones.iter().map(|file| VolumeDisk::open(file, VolumeAccess::Read));
    let others = others.collect::<Result<Vec<_>>>()?;
    let all: Vec<_> = core::iter::once(&disk).chain(&others).collect();
    dump::refuse_while_held(released.record(), &all).with_context(|| released.name())?;
    // Deselect first: no tool may mistake blocks that are about to be scrubbed for a dump.
    dump::deselect(&disk, number)?;
    released.release()?;
    println!("{}: released", released.name());
    Ok(())
}

fn open(file: &Path, choice: Option<DumpChoice>, access: VolumeAccess) -> Result<Dump> {
    let disk = VolumeDisk::open(file, access)?;
    if access == VolumeAccess::Write {
        disk.check_alone()?;
    }
    Dump::of(DumpChoice::find(choice, &disk)?)
}

fn verify(dump: &Dump) -> Result<()> {
    if !dump.record().state.describes_pages() {
        bail!(
            "{}: a power cut came before any page was written; only the crash's record is left",
            dump.name()
        );
    }
    let verdict = dump.verify()?;
    dump.check_unchanged()?;
    println!("{}: {}", dump.name(), dump.record().state.name());
    println!(
        "  {} pages from their blocks, {} zero, {} missing",
        verdict.right, verdict.zero, verdict.missing
    );
    if let Some(first) = verdict.first_wrong {
        bail!("{} blocks have a wrong checksum, first that of page {first}", verdict.wrong);
    }
    if !verdict.header_current {
        bail!(
            "{}: the ELF header is not up to date: `tidepool dump header {}` updates it",
            dump.name(),
            dump.place()
        );
    }
    Ok(())
}
