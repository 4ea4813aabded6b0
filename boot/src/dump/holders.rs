//! The clones that still need a base: spaces whose records name it.
//!
//! A running clone's pages, and those of a crashed one until its dump is sealed, are in part the
//! base's. The records say so, on whatever image they are; so this program sees those of the images
//! that it is given.

use crate::volume::VolumeDisk;
use anyhow::{Result, bail};
use kernel::space::{DeviceContent, SpaceRecord, SpaceState};

/// Refuses to give `base` back while a space on one of `disks` needs it.
///
/// # Errors
/// Names the clones and their spaces.
pub fn refuse_while_held(base: &SpaceRecord, disks: &[&VolumeDisk]) -> Result<()> {
    let mut holders = Vec::new();
    for disk in disks {
        for image in disk.usable()? {
            if let DeviceContent::Space(record) = image.class()?
                && needs(&record, base)
            {
                let owner = record.owner.map_or_else(String::new, |owner| owner.name.to_string());
                holders.push(format!("{owner} ({}, {})", image.name(), record.state.name()));
            }
        }
    }
    if holders.is_empty() {
        return Ok(());
    }
    bail!(
        "it is the base of {}: the next start of the hypervisor completes their dumps and frees \
         the spaces of those that ran",
        holders.join(", ")
    )
}

fn needs(child: &SpaceRecord, base: &SpaceRecord) -> bool {
    let (Some(of), Some(sealed)) = (child.base, base.crash.as_ref()) else { return false };
    let is_open = matches!(child.state, SpaceState::Active | SpaceState::Draining);
    is_open && base.state == SpaceState::Sealed && of.dump == sealed.name
}
