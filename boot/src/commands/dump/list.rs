//! `tidepool dump list`: a line for every space of every image, whatever its contents.

use crate::report::TextTable;
use crate::size;
use crate::volume::{SpaceImage, SpaceSlot, VolumeAccess, VolumeDisk};
use anyhow::Result;
use kernel::addr::PAGE_SIZE;
use kernel::console::utc::UtcTime;
use kernel::space::{DeviceContent, RecordedCrash, SpaceRecord, SpaceState};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HEAD: [&str; 10] = [
    "image",
    "space",
    "holds",
    "partition",
    "incarnation",
    "memory",
    "crash",
    "time",
    "name",
    "selected",
];

/// Prints the table. An image that cannot be read is reported below it, and the status is then a
/// failure.
///
/// # Errors
/// None: faults are reported for each image separately.
pub(super) fn run(files: &[PathBuf]) -> Result<ExitCode> {
    let (mut table, mut code) = (TextTable::new(&HEAD), ExitCode::SUCCESS);
    for file in files {
        if let Err(error) = rows(file, &mut table) {
            eprintln!("tidepool: {error:#}");
            code = ExitCode::FAILURE;
        }
    }
    print!("{table}");
    Ok(code)
}

fn rows(file: &Path, table: &mut TextTable) -> Result<()> {
    let disk = VolumeDisk::open(file, VolumeAccess::Read)?;
    let selected = disk.selected()?;
    let slots = disk.slots()?;
    if slots.is_empty() {
        table.row(&without_dump(file, 0, "a partition table without a paging space".to_owned()));
    }
    for SpaceSlot { number, space } in slots {
        let row = match space {
            Ok(image) => row(file, &image, selected == Some(number))?,
            Err(fault) => {
                without_dump(file, number, format!("unusable: GPT entry {number} {fault}"))
            }
        };
        table.row(&row);
    }
    Ok(())
}

fn row(file: &Path, image: &SpaceImage, is_selected: bool) -> Result<Vec<String>> {
    match image.class()? {
        DeviceContent::Space(record) if record.state.is_kept() => {
            Ok(of_dump(file, image.number(), &record, is_selected))
        }
        _ => Ok(without_dump(file, image.number(), image.describe()?)),
    }
}

fn without_dump(file: &Path, number: u32, holds: String) -> Vec<String> {
    let mut cells =
        vec![file.display().to_string(), crate::commands::volume::number(number), holds];
    cells.resize(HEAD.len(), "-".to_owned());
    cells
}

fn of_dump(file: &Path, number: u32, record: &SpaceRecord, is_selected: bool) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let (owner, crash) = (record.owner.as_ref(), record.crash.as_ref());
    let pages = record.contents.as_ref().map(|contents| u64::from(contents.layout.pages()));
    vec![
        file.display().to_string(),
        crate::commands::volume::number(number),
        state(record.state).to_owned(),
        or_none(owner.map(|owner| owner.name.to_string())),
        or_none(owner.map(|owner| owner.epoch.to_string())),
        or_none(pages.map(|pages| size::readable(pages * PAGE_SIZE))),
        or_none(crash.map(words)),
        or_none(crash.map(|crash| UtcTime(crash.time_ns).to_string())),
        or_none(crash.map(|crash| crash.name.to_string())),
        if is_selected { "yes" } else { "-" }.to_owned(),
    ]
}

/// Returns the name of a state, with its meaning for opening the dump.
fn state(state: SpaceState) -> &'static str {
    match state {
        SpaceState::Draining => "draining, or cut off: `dump header` makes it a partial dump",
        SpaceState::Crashed => "crashed: only the crash's record, no pages",
        other => other.name(),
    }
}

pub(super) fn words(crash: &RecordedCrash) -> String {
    match (crash.reason.name(), &*crash.text) {
        (reason, "") => reason.to_owned(),
        (reason, text) => format!("{reason}: {text}"),
    }
}
