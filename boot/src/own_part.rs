//! Finds the part of an image that holds the one structure of a kind: the whole image, or the one
//! GPT partition of its type.

use anyhow::{Context, Result, bail};
use kernel::block::SectorRange;
use kernel::block::gpt::{self, GptEntry, GptFinding};
use std::io;
use std::path::Path;

/// Returns the number and the sectors of the one partition for which `is_ours` holds; `None` if the
/// image of so many sectors has no partition table. `what` names the structure.
///
/// # Errors
/// If the table is damaged, has none or several of them, or the partition cannot be used.
pub(crate) fn only_part(
    path: &Path,
    sectors: u64,
    read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    is_ours: impl Fn(&GptEntry) -> bool,
    what: &str,
) -> Result<Option<(u32, SectorRange)>> {
    let found = gpt::read(sectors, read).with_context(|| path.display().to_string())?;
    let table = match found {
        GptFinding::None => return Ok(None),
        GptFinding::Table(table, _) => table,
        GptFinding::Damaged(primary, backup) => bail!(
            "{}: damaged partition table: primary: {primary}; backup: {backup}",
            path.display()
        ),
    };
    let mut parts = table.entries.iter().filter(|entry| is_ours(entry));
    let (Some(entry), None) = (parts.next(), parts.next()) else {
        bail!("{}: its partition table has not one partition for {what}", path.display());
    };
    let place = entry.sectors().map_err(|fault| {
        anyhow::anyhow!("{}: GPT entry {} {fault}", path.display(), entry.number)
    })?;
    Ok(Some((entry.number, place)))
}
