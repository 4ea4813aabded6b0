//! `tidepool dump report`: what a dump knows of its crash without the guest's own memory.

use crate::dump::{Dump, history};
use anyhow::Result;
use kernel::console::utc::UtcTime;

/// Prints the crash and the history before it.
///
/// # Errors
/// Where the image cannot be read, or its notes are cut off or of a later version.
pub(super) fn run(dump: &Dump) -> Result<()> {
    let record = dump.record();
    println!("{}: {}", dump.name(), record.state.name());
    if let Some(owner) = &record.owner {
        println!("  partition \"{}\", incarnation {}", owner.name, owner.epoch);
    }
    if let Some(crash) = &record.crash {
        println!("  crashed at {}: {}", UtcTime(crash.time_ns), super::list::words(crash));
        println!("  dump {}", crash.name);
    }
    if !record.state.describes_pages() {
        println!("  no history: a power cut came before the notes were written");
        return Ok(());
    }
    let notes = dump.notes()?;
    match history::find(&notes)? {
        Some(found) => print!("{}", history::lines(&found)),
        None => println!("  no history: the dump has no such note"),
    }
    Ok(())
}
