//! `tidepool volume`: image files of paging devices.

use crate::dump;
use crate::report::TextTable;
use crate::size;
use crate::volume::{self, BlankParts, SpaceImage, SpaceSlot, VolumeAccess, VolumeDisk};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use kernel::addr::PAGE_SIZE;
use kernel::space::DeviceContent;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to do with image files.
#[derive(Subcommand)]
pub enum VolumeAction {
    /// Make a new image that is one free paging space, or has a partition table with several
    Create {
        /// The image; it must not exist
        file: PathBuf,
        /// Its size, like "288 MiB"; the default is the size that the spaces need
        #[arg(long, value_parser = crate::size::parse)]
        size: Option<u64>,
        /// Size of a space; each makes a GPT partition
        #[arg(long = "space", value_parser = crate::size::parse, num_args = 1..)]
        spaces: Vec<u64>,
        /// Size of a GPT partition for an image store, which `tidepool store create` then makes
        #[arg(long, value_parser = crate::size::parse)]
        store: Option<u64>,
        /// Size of a GPT partition for a cluster area, which `tidepool cluster create` then makes:
        /// 35 MiB for 1024 slots
        #[arg(long, value_parser = crate::size::parse)]
        cluster: Option<u64>,
    },
    /// Make a free paging space of an image or of one of its spaces, whatever it holds
    Format {
        /// The image
        file: PathBuf,
        /// Number of the space, where the image has a partition table
        space: Option<u32>,
        /// Also if it holds a dump or foreign data
        #[arg(long)]
        force: bool,
    },
    /// List the spaces of images, with their states and owners
    List {
        /// The images
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Check the partition tables and paging spaces of images; the status is 0 only if all are
    /// sound
    Check {
        /// The images
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Runs the command.
///
/// # Errors
/// Names the image.
pub fn run(action: &VolumeAction) -> Result<ExitCode> {
    match action {
        VolumeAction::Create { file, size, spaces, store, cluster } => {
            let blank = BlankParts { store: *store, cluster: *cluster };
            create(file, *size, spaces, blank)?;
        }
        VolumeAction::Format { file, space, force } => format(file, *space, *force)?,
        VolumeAction::List { files } => list(files)?,
        VolumeAction::Check { files } => return check(files),
    }
    Ok(ExitCode::SUCCESS)
}

fn create(file: &Path, size: Option<u64>, spaces: &[u64], blank: BlankParts) -> Result<()> {
    if spaces.is_empty() && blank.sizes().is_empty() {
        return volume::create(
            file,
            size.context("say how large the image is to be: --size SIZE")?,
        );
    }
    let all = [spaces, &blank.sizes()].concat();
    let size = size.map_or_else(|| volume::least_size(&all), Ok)?;
    volume::create_parts(file, size, spaces, blank)
}

fn format(file: &Path, space: Option<u32>, force: bool) -> Result<()> {
    let disk = VolumeDisk::open(file, VolumeAccess::Write)?;
    disk.check_alone()?;
    let image = disk.space(space)?;
    let class = image.class()?;
    let resized = image.resized(&class)?;
    let harmless = resized.is_none()
        && match &class {
            DeviceContent::Blank => true,
            DeviceContent::Space(record) => !record.state.is_kept(),
            DeviceContent::Foreign(_)
            | DeviceContent::Damaged(_)
            | DeviceContent::Newer(_)
            | DeviceContent::Closed(_) => false,
        };
    if !harmless && !force {
        bail!("{}: {}; --force overwrites it", image.name(), image.describe()?);
    }
    dump::deselect(&disk, image.number())?;
    println!("{}: space {}", image.name(), image.format()?);
    Ok(())
}

fn list(files: &[PathBuf]) -> Result<()> {
    let mut table = TextTable::new(&[
        "image",
        "space",
        "size",
        "holds at most",
        "state",
        "partition",
        "incarnation",
    ]);
    for file in files {
        let disk = VolumeDisk::open(file, VolumeAccess::Read)?;
        for slot in disk.slots()? {
            table.row(&row(file, &slot)?);
        }
    }
    print!("{table}");
    Ok(())
}

fn row(file: &Path, slot: &SpaceSlot) -> Result<Vec<String>> {
    let mut cells = vec![file.display().to_string(), number(slot.number)];
    let rest = match &slot.space {
        Ok(image) => about(image)?,
        Err(fault) => {
            ["-", "-", &format!("unusable: {fault}"), "-", "-"].map(str::to_owned).to_vec()
        }
    };
    cells.extend(rest);
    Ok(cells)
}

fn about(image: &SpaceImage) -> Result<Vec<String>> {
    let class = image.class()?;
    let owner =
        if let DeviceContent::Space(record) = &class { record.owner.as_ref() } else { None };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    Ok(vec![
        size::readable(image.capacity()),
        size::readable(u64::from(image.area().most_pages()) * PAGE_SIZE),
        image.describe()?,
        or_none(owner.map(|owner| owner.name.to_string())),
        or_none(owner.map(|owner| owner.epoch.to_string())),
    ])
}

/// Returns the number of a space as shown to people; `-` for a whole image.
pub(super) fn number(number: u32) -> String {
    if number == 0 { "-".to_owned() } else { number.to_string() }
}

fn check(files: &[PathBuf]) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        for complaint in complaints(file)? {
            eprintln!("{complaint}");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Prints the contents of each space; returns the faults.
fn complaints(file: &Path) -> Result<Vec<String>> {
    let disk = VolumeDisk::open(file, VolumeAccess::Read)?;
    let mut complaints = Vec::new();
    let slots = match disk.slots() {
        Ok(slots) => slots,
        Err(error) => return Ok(vec![format!("{error:#}")]),
    };
    if let Some((table, _)) = disk.table() {
        println!("{}: GPT {}, {} spaces", file.display(), table.disk, slots.len());
        let faults = disk.table_faults()?;
        complaints.extend(
            faults.iter().map(|(copy, fault)| format!("{}: {copy} GPT: {fault}", file.display())),
        );
        if slots.is_empty() {
            complaints.push(format!("{}: its partition table has no paging space", file.display()));
        }
    }
    let code = disk.boot_code()?;
    for slot in slots {
        match slot.space {
            Ok(image) => {
                let class = image.class()?;
                println!("{}: {}", image.name(), image.describe()?);
                if let Some((side, fault)) = image.damaged_copy()? {
                    println!(
                        "  copy {side} of its record is damaged ({fault}); the other counts, and \
                         the next change writes this one anew"
                    );
                }
                if let Some(claim) = image.claim()? {
                    println!("  claimed by node {}, which runs or was cut off", claim.node);
                }
                match class {
                    DeviceContent::Space(record) if record.state.is_kept() => {}
                    DeviceContent::Space(_) if image.number() > 0 && code.selects(image.area()) => {
                        complaints.push(format!(
                            "{}: the boot-code bytes hold the header of a dump that is gone",
                            image.name()
                        ))
                    }
                    DeviceContent::Space(_) => {}
                    _ => complaints.push(format!("{}: no sound paging space", image.name())),
                }
            }
            Err(fault) => {
                complaints.push(format!("{}: GPT entry {} {fault}", file.display(), slot.number))
            }
        }
    }
    Ok(complaints)
}
