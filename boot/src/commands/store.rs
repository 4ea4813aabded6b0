//! `tidepool store`: image stores, from which nodes that share a disk start partitions.

use crate::bed::Bed;
use crate::config;
use crate::report::TextTable;
use crate::size;
use crate::store::{self, DefineOutcome, ImageStore, NewImage, StoreReport};
use crate::volume::VolumeAccess;
use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use kernel::images::layout::CHUNK;
use kernel::images::{DefinitionSlot, ImageDigest, ImageKind, ImageState, StoredImage, extents};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Size of a new store.
const DEFAULT_SIZE: u64 = 1 << 30;
/// Fewest digits that stand for an image.
const LEAST_DIGITS: usize = 4;

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FileKind {
    /// A kernel
    Kernel,
    /// An initrd
    Initrd,
}

/// What to do with image stores.
#[derive(Subcommand)]
pub enum StoreAction {
    /// Make an empty store: a new image, or in an image with a GPT partition for a store
    Create {
        /// The image
        image: PathBuf,
        /// Its size, like "288 MiB" [default: 1 GiB; it takes room only as it is used]
        #[arg(long, value_parser = crate::size::parse)]
        size: Option<u64>,
    },
    /// Add kernels and initrds; nodes may run meanwhile
    Add {
        /// The image with the store
        image: PathBuf,
        /// The files, each with its own name or as NAME=FILE
        #[arg(required = true)]
        files: Vec<String>,
        /// What the files are for, where their content does not show it
        #[arg(long = "as")]
        kind: Option<FileKind>,
    },
    /// Define the partitions of a configuration, with their kernels and initrds; nodes may run
    /// meanwhile
    Define {
        /// The image with the store
        image: PathBuf,
        /// The configuration (a .toml file)
        file: PathBuf,
        /// Names of the partitions [default: all of the configuration]
        names: Vec<String>,
    },
    /// List the images and definitions of a store
    List {
        /// The image with the store
        image: PathBuf,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Check every structure and every byte of a store; the status is 0 only if all are sound
    Check {
        /// The image with the store
        image: PathBuf,
    },
    /// Remove a definition, or an image that no definition names; nodes may run meanwhile
    Remove {
        /// The image with the store
        image: PathBuf,
        /// A definition's name, else an image's name or the first digits of its digest
        name: String,
    },
}

/// Runs the command.
///
/// # Errors
/// Names the image, and the place in it.
pub fn run(action: &StoreAction) -> Result<ExitCode> {
    match action {
        StoreAction::Create { image, size } => {
            let uuid = store::create(image, size.unwrap_or(DEFAULT_SIZE))?;
            println!("{}: store {uuid}", image.display());
        }
        StoreAction::Add { image, files, kind } => add(image, files, *kind)?,
        StoreAction::Define { image, file, names } => define(image, file, names)?,
        StoreAction::List { image, json } => list(image, *json)?,
        StoreAction::Check { image } => return check(image),
        StoreAction::Remove { image, name } => remove(image, name)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Splits `NAME=FILE`; a file that exists has its own name.
fn named(text: &str) -> (String, PathBuf) {
    let path = PathBuf::from(text);
    match text.split_once('=') {
        Some((name, file)) if !path.exists() && !name.is_empty() => (name.to_owned(), file.into()),
        _ => (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path),
    }
}

fn add(image: &Path, files: &[String], kind: Option<FileKind>) -> Result<()> {
    let kind = |file: &Path| match kind {
        Some(FileKind::Kernel) => Ok(ImageKind::Kernel),
        Some(FileKind::Initrd) => Ok(ImageKind::Initrd),
        None => config::image_kind(file).context("say what it is for: --as kernel or --as initrd"),
    };
    let files = files.iter().map(|text| {
        let (label, file) = named(text);
        Ok((kind(&file)?, label, file))
    });
    // All are looked at before the first one is copied.
    let files = files.collect::<Result<Vec<_>>>()?;
    let mut store = ImageStore::open(image, VolumeAccess::Write)?;
    for (kind, label, file) in &files {
        let new = NewImage { file, label, kind: *kind, is_kept: true };
        let (digest, is_new) = store.add(new)?;
        let already = if is_new { "" } else { ", was there already" };
        println!("{}: {label}: {} {}{already}", image.display(), kind.name(), digest.short());
    }
    Ok(())
}

fn define(image: &Path, file: &Path, names: &[String]) -> Result<()> {
    let plan = config::check(file, Bed::Qemu)?;
    if plan.config.partitions.is_empty() {
        bail!("{}: has no partition", file.display());
    }
    let mut store = ImageStore::open(image, VolumeAccess::Write)?;
    store.define(&plan, names, |partition| {
        let outcome = match partition.outcome {
            DefineOutcome::Unchanged => "unchanged".to_owned(),
            DefineOutcome::Generation(number) => format!("defined, generation {number}"),
        };
        println!("{}: {}: {outcome}", image.display(), partition.name);
    })?;
    tell_unused(&mut store)
}

/// Removes images that no definition names any more, and says so.
fn tell_unused(store: &mut ImageStore) -> Result<()> {
    let before = store.directory().images.clone();
    for digest in store.remove_unused()? {
        let label = before.iter().find(|image| image.digest == digest).map(|image| image.label);
        let label = label.unwrap_or_default();
        println!("{}: {label} ({}): removed, unused", store.path().display(), digest.short());
    }
    Ok(())
}

/// Returns the digest of the only image that `name` stands for.
fn image_of(store: &ImageStore, name: &str) -> Result<ImageDigest> {
    let is_digits = name.len() >= LEAST_DIGITS;
    let stands = |image: &&StoredImage| {
        image.label.as_str() == name || is_digits && image.digest.text().starts_with(name)
    };
    let found: Vec<_> = store.directory().images.iter().filter(stands).collect();
    match found[..] {
        [image] => Ok(image.digest),
        [] => bail!("{}: no definition or image {name}", store.path().display()),
        _ => {
            let digests: Vec<_> = found.iter().map(|image| image.digest.short()).collect();
            bail!("{}: {name} stands for several: {}", store.path().display(), digests.join(", "))
        }
    }
}

fn remove(image: &Path, name: &str) -> Result<()> {
    let mut store = ImageStore::open(image, VolumeAccess::Write)?;
    if store.undefine(name)? {
        println!("{}: definition {name}: removed", image.display());
        return tell_unused(&mut store);
    }
    let digest = image_of(&store, name)?;
    let named = store.remove_images(&[digest])?;
    if let Some((_, slot)) = named.first() {
        let slots = store.slots()?;
        let user = slots.iter().find(|there| there.number == *slot);
        let user = user.and_then(|slot| slot.definition()).map(|user| user.name);
        bail!("{}: {name}: definition {} names it", image.display(), user.unwrap_or_default());
    }
    println!("{}: image {}: removed", image.display(), digest.short());
    Ok(())
}

fn list(image: &Path, as_json: bool) -> Result<()> {
    let mut store = ImageStore::open(image, VolumeAccess::Read)?;
    let slots = store.slots()?;
    let free = free_bytes(&store)?;
    if as_json {
        println!("{}", to_json(&store, &slots, free));
        return Ok(());
    }
    let mut images = TextTable::new(&["image", "digest", "kind", "bytes", "stays", "named by"]);
    for image in &store.directory().images {
        let stays = match image.state {
            ImageState::Leaving => "leaving",
            ImageState::Present if image.is_kept => "yes",
            ImageState::Present => "while named",
        };
        images.row(&[
            image.label.to_string(),
            image.digest.short().to_string(),
            image.kind.name().to_owned(),
            image.length.to_string(),
            stays.to_owned(),
            users(&slots, image.digest).join(" "),
        ]);
    }
    let mut definitions = TextTable::new(&["partition", "generation", "kernel", "initrd", "slot"]);
    for slot in &slots {
        let Some(definition) = slot.definition() else { continue };
        definitions.row(&[
            definition.name.to_string(),
            definition.generation.to_string(),
            definition.kernel.short().to_string(),
            definition.initrd.map_or("-".to_owned(), |initrd| initrd.short().to_string()),
            slot.number.to_string(),
        ]);
    }
    println!("{}: {} free", image.display(), size::readable(free));
    print!("{images}\n{definitions}");
    Ok(())
}

fn users(slots: &[DefinitionSlot], digest: ImageDigest) -> Vec<String> {
    let definitions = slots.iter().filter_map(DefinitionSlot::definition);
    let users = definitions.filter(|definition| definition.images().any(|image| image == digest));
    users.map(|definition| definition.name.to_string()).collect()
}

fn free_bytes(store: &ImageStore) -> Result<u64> {
    let runs = extents::free(store.directory(), &store.superblock().layout)
        .map_err(|fault| anyhow::anyhow!("{fault}"))?;
    Ok(runs.iter().map(|run| u64::from(run.count) * CHUNK as u64).sum())
}

fn to_json(store: &ImageStore, slots: &[DefinitionSlot], free: u64) -> Value {
    let superblock = store.superblock();
    let image = |image: &StoredImage| {
        json!({
            "name": image.label.as_str(),
            "digest": image.digest.text().as_str(),
            "kind": image.kind.name(),
            "bytes": image.length,
            "kept": image.is_kept,
            "leaving": image.state == ImageState::Leaving,
            "named_by": users(slots, image.digest),
        })
    };
    let definition = |slot: &DefinitionSlot| {
        let definition = slot.definition()?;
        Some(json!({
            "name": definition.name.as_str(),
            "partition": definition.partition.to_string(),
            "generation": definition.generation,
            "kernel": definition.kernel.text().as_str(),
            "initrd": definition.initrd.map(|initrd| initrd.text().to_string()),
            "slot": slot.number,
        }))
    };
    json!({
        "store": superblock.store.to_string(),
        "bytes": superblock.blocks * 4096,
        "free_bytes": free,
        "sequence": store.directory().sequence,
        "slots": superblock.layout.slots(),
        "images": store.directory().images.iter().map(image).collect::<Vec<_>>(),
        "definitions": slots.iter().filter_map(definition).collect::<Vec<_>>(),
    })
}

fn check(image: &Path) -> Result<ExitCode> {
    let report = StoreReport::of(image)?;
    report.notes.iter().for_each(|note| println!("{}: {note}", image.display()));
    println!(
        "{}: {} images and {} definitions are sound",
        image.display(),
        report.images,
        report.definitions
    );
    report.faults.iter().for_each(|fault| eprintln!("{}: {fault}", image.display()));
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
