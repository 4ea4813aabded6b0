//! `tidepool image [CONFIGURATION] FILE`: a USB stick that starts the hypervisor with its
//! configuration, kernels and initrds.
//!
//! The configuration's paging devices are the virtio-blk disks of the machine that boots the stick.
//! None is created here.

use crate::bed::{Bed, BedMachine};
use crate::cli::Common;
use crate::config;
use crate::iso;
use crate::kernel_build::{self, Variant};
use crate::setup::{self, SetupJob};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to write, and where.
#[derive(Args)]
pub struct ImageArguments {
    /// The configuration (a .toml file) and the image. The default image has the configuration's
    /// name with .img; without a configuration the stick starts no partition
    #[arg(required = true, num_args = 1..=2, value_name = "CONFIGURATION or IMAGE")]
    pub files: Vec<PathBuf>,
    /// Text for the hypervisor's own command line
    #[arg(long, default_value = "")]
    pub append: String,
    /// An ELF file to boot instead of the hypervisor built from this tree
    #[arg(long)]
    pub hypervisor: Option<PathBuf>,
}

/// Writes the image.
///
/// # Errors
/// Names the mistake in the configuration, or the program missing on this machine.
pub fn run(common: &Common, arguments: &ImageArguments) -> Result<ExitCode> {
    setup::prepare(&[SetupJob::Stick], common.permission())?;
    let (configuration, image) = files(&arguments.files)?;
    let plan = match configuration {
        Some(file) => config::check(file, Bed::Qemu)?,
        None => config::nothing(Bed::Qemu)?,
    };
    plan.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let hypervisor = match &arguments.hypervisor {
        Some(file) => file.clone(),
        None => kernel_build::hypervisor(Variant::Ordinary)?,
    };
    write(&image, plan, hypervisor, &arguments.append)?;
    println!("{}: starts on BIOS and UEFI machines; to write it to a stick:", image.display());
    println!("    dd if={} of=/dev/sdX bs=4M conv=fsync", image.display());
    Ok(ExitCode::SUCCESS)
}

/// Splits the arguments into configuration and image.
fn files(given: &[PathBuf]) -> Result<(Option<&Path>, PathBuf)> {
    let is_configuration = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "toml");
    match given {
        [only] if is_configuration(only) => {
            let name = only.with_extension("img");
            Ok((Some(only), name.file_name().map_or(name.clone(), PathBuf::from)))
        }
        [only] => Ok((None, only.clone())),
        [first, second] if is_configuration(first) && !is_configuration(second) => {
            Ok((Some(first), second.clone()))
        }
        [first, second] if is_configuration(second) && !is_configuration(first) => {
            Ok((Some(second), first.clone()))
        }
        _ => bail!("one of the two files is the configuration, and ends in .toml"),
    }
}

/// Writes the image under a temporary name, and renames it when it is complete.
fn write(image: &Path, plan: config::BootPlan, hypervisor: PathBuf, append: &str) -> Result<()> {
    let mut name =
        image.file_name().with_context(|| format!("{}: no file name", image.display()))?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let folder = image.with_file_name(&name);
    std::fs::create_dir(&folder)
        .with_context(|| format!("{}: cannot be made", folder.display()))?;
    let result = write_in(&folder, image, plan, hypervisor, append);
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn write_in(
    folder: &Path,
    image: &Path,
    plan: config::BootPlan,
    hypervisor: PathBuf,
    append: &str,
) -> Result<()> {
    let mut machine = BedMachine::new(Bed::Qemu, "image", hypervisor.clone());
    machine.apply(plan);
    machine.write_archive(folder)?;
    let part = folder.join("image");
    iso::make_stick(
        &part,
        &folder.join("work"),
        &hypervisor,
        &folder.join(crate::bed::ARCHIVE),
        append,
    )?;
    std::fs::rename(&part, image).with_context(|| format!("{}: cannot be written", image.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(given: &[&str]) -> Option<(Option<PathBuf>, PathBuf)> {
        let given: Vec<_> = given.iter().map(PathBuf::from).collect();
        files(&given).ok().map(|(configuration, image)| (configuration.map(Path::to_owned), image))
    }

    #[test]
    fn configuration_and_image_are_told_apart_by_the_ending() {
        let both = Some((Some("c.toml".into()), "s.img".into()));
        assert_eq!(told(&["c.toml", "s.img"]), both);
        assert_eq!(told(&["s.img", "c.toml"]), both);
        assert_eq!(told(&["x/c.toml"]), Some((Some("x/c.toml".into()), "c.img".into())));
        assert_eq!(told(&["s.img"]), Some((None, "s.img".into())));
        assert_eq!(told(&["c.toml", "d.toml"]), None);
        assert_eq!(told(&["a", "b"]), None);
    }
}
