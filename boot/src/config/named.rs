//! `[[image]]`: kernels and initrds in the boot archive that no partition of the file names, for
//! partitions that are defined while the machine runs.

use super::document::{ConfigError, Section};
use crate::archive::{ModuleArchive, ModuleSource};
use kernel::archive::BootArchive;
use kernel::config;
use kernel::log::symbols;
use std::collections::BTreeSet;
use std::path::Path;

/// Longest name: a tar header has room for 100 bytes.
const LONGEST: usize = 63;
/// Names of the archive's own modules.
const OWN: &[&str] = &[config::MODULE, symbols::MODULE, BootArchive::WORD];

/// Reads all sections, and adds their files to `archive` under their names.
pub(super) fn read(
    root: &Section<'_>,
    base: &Path,
    archive: &mut ModuleArchive,
) -> Result<(), ConfigError> {
    let mut names = BTreeSet::new();
    for section in root.sections("image")? {
        section.only(&["name", "file"])?;
        let name = section.required_text("name")?;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if !(1..=LONGEST).contains(&name.len()) || !name.bytes().all(is_plain) {
            let message = format!("must be 1 to {LONGEST} letters, digits, -, _ and .");
            return Err(section.error("name", &message));
        }
        if OWN.contains(&name) {
            return Err(section.error("name", &format!("“{name}” is a module of the hypervisor")));
        }
        if !names.insert(name) {
            return Err(section.error("name", &format!("“{name}” is another image already")));
        }
        let file = base.join(section.required_text("file")?);
        crate::regular::check(&file)
            .map_err(|error| section.error("file", &format!("{error:#}")))?;
        archive.add(name, ModuleSource::File(file));
    }
    Ok(())
}
