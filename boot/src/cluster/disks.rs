//! Disks of a cluster: `add` closes their spaces to programs outside, `remove` opens them again.
//!
//! ```text
//!   record s ── first write, flush ──> s + 1 over the older copy ── second, flush ──> s + 2 over s
//! ```
//!
//! The newest whole copy counts, so a power cut between or during these writes leaves the space
//! whole: as it was, or as it is to be. A program of an earlier version leaves the space alone as
//! soon as one copy has the cluster's bit.
//!
//! All checks come before the first write. A space changes sides only while it is at rest: free, or
//! a dump. Everything else is work that the side which began it has to end.

use super::{AreaFile, ClusterImages, name_of};
use crate::volume::{SpaceImage, VolumeAccess, VolumeDisk};
use ::cluster::decree::Owner;
use ::cluster::state::{ClusterState, MemberStatus, Thing};
use anyhow::{Result, bail, ensure};
use kernel::space::{DeviceContent, Residue, SpaceRecord, SpaceState, Uuid};
use std::path::{Path, PathBuf};

/// A space of a disk, and its number in the log.
pub struct DiskSpace {
    /// The space.
    pub image: SpaceImage,
    /// Name of its GPT partition; `None` for a whole image.
    guid: Option<Uuid>,
}

impl DiskSpace {
    fn thing(&self, record: &SpaceRecord) -> Thing {
        Thing::Space(u128::from_be_bytes(self.guid.unwrap_or(record.space).0))
    }
}

/// The images of a cluster: its areas, and disks with spaces.
pub struct ClusterSite {
    /// The areas.
    pub images: ClusterImages,
    disks: Vec<VolumeDisk>,
}

/// What happens to a space.
struct PlannedChange<'a> {
    space: &'a DiskSpace,
    from: SpaceRecord,
    /// Whether the copies already are as they are to be.
    is_done: bool,
}

/// Returns whether the file at `path` is, or has a partition for, a cluster area.
pub fn has_area(path: &Path) -> bool {
    let is_area = |file: AreaFile| {
        let magic = |copy: &[u8; 4096]| copy.starts_with(::cluster::superblock::MAGIC);
        file.is_part() || file.superblocks().is_ok_and(|copies| copies.iter().any(magic))
    };
    AreaFile::open(path, VolumeAccess::Read).is_ok_and(is_area)
}

/// Returns the spaces of a disk.
///
/// # Errors
/// Where an entry of the partition table cannot be trusted, or the table is damaged.
pub(super) fn spaces_of(disk: &VolumeDisk) -> Result<Vec<DiskSpace>> {
    let guid_of = |number: u32| {
        let (table, _) = disk.table()?;
        let entry = table.entries.iter().find(|entry| entry.number == number)?;
        Some(Uuid(entry.guid.to_bytes()))
    };
    let space = |slot: crate::volume::SpaceSlot| match slot.space {
        Ok(image) => Ok(DiskSpace { image, guid: guid_of(slot.number) }),
        Err(fault) => bail!("{}: GPT entry {} {fault}", disk.path().display(), slot.number),
    };
    disk.slots()?.into_iter().map(space).collect()
}

/// Returns the spaces beside an area.
///
/// # Errors
/// As [`spaces_of`].
pub(super) fn spaces_beside(area: &AreaFile) -> Result<Vec<DiskSpace>> {
    // A whole image that is an area has no other places.
    if area.is_part() { spaces_of(&area.disk()?) } else { Ok(Vec::new()) }
}

impl ClusterSite {
    /// Opens all areas of a cluster, and disks with spaces, in any order.
    ///
    /// # Errors
    /// Where an image is in use although [`VolumeAccess::Write`] is asked for, or the areas are not
    /// those of one cluster.
    pub fn open(paths: &[PathBuf], access: VolumeAccess) -> Result<Self> {
        let (areas, others): (Vec<_>, Vec<_>) =
            paths.iter().cloned().partition(|path| has_area(path));
        ensure!(
            !areas.is_empty(),
            "give the images with the cluster's areas too: they say which cluster, and whose the \
             spaces are"
        );
        let images = ClusterImages::open(&areas, access)?;
        let disks = others.iter().map(|path| VolumeDisk::open(path, access));
        Ok(Self { images, disks: disks.collect::<Result<_>>()? })
    }

    /// Returns the cluster.
    pub fn cluster(&self) -> Uuid {
        name_of(self.images.superblock().cluster)
    }

    /// Returns the spaces of all images.
    ///
    /// # Errors
    /// As [`spaces_of`].
    pub fn spaces(&self) -> Result<Vec<DiskSpace>> {
        let mut all = Vec::new();
        for area in self.images.areas() {
            all.extend(spaces_beside(area)?);
        }
        for disk in &self.disks {
            all.extend(spaces_of(disk)?);
        }
        Ok(all)
    }

    /// Closes all spaces to programs outside the cluster; returns their number.
    ///
    /// # Errors
    /// Names each space that cannot be closed, with the reason; then nothing was written.
    pub fn add(&self) -> Result<usize> {
        close(&self.spaces()?, self.cluster(), &self.images.newest_state()?.0)
    }

    /// Opens the spaces of the disks without an area to all programs; returns their number.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn remove(&self) -> Result<usize> {
        ensure!(
            !self.disks.is_empty(),
            "give the disks to remove too; the spaces beside an area are the cluster's as long as \
             the area is there"
        );
        let (state, _) = self.images.newest_state()?;
        let mut spaces = Vec::new();
        for disk in &self.disks {
            spaces.extend(spaces_of(disk)?);
        }
        change(&spaces, None, |space| judge(space, self.cluster(), &state))
    }
}

/// Closes spaces to all but the members of a cluster; `state` is its state.
///
/// # Errors
/// As [`ClusterSite::add`].
pub(super) fn close(spaces: &[DiskSpace], cluster: Uuid, state: &ClusterState) -> Result<usize> {
    change(spaces, Some(cluster), |space| judge(space, cluster, state))
}

/// Checks that [`close`] refuses no space.
///
/// # Errors
/// As [`ClusterSite::add`].
pub(super) fn check(spaces: &[DiskSpace], cluster: Uuid, state: &ClusterState) -> Result<()> {
    plan(spaces, Some(cluster), |space| judge(space, cluster, state)).map(|_| ())
}

/// Decides about all spaces.
fn plan<'a>(
    spaces: &'a [DiskSpace],
    cluster: Option<Uuid>,
    judge: impl Fn(&DiskSpace) -> Result<SpaceRecord, String>,
) -> Result<Vec<PlannedChange<'a>>> {
    let (mut planned, mut refused) = (Vec::new(), Vec::new());
    for space in spaces {
        match judge(space) {
            Ok(from) => {
                let is_so = |copy: &Option<SpaceRecord>| match copy {
                    Some(record) => record.cluster == cluster,
                    // A copy that was never written says nothing about a cluster.
                    None => cluster.is_none() && from.cluster.is_none(),
                };
                let is_whole = space.image.damaged_copy()?.is_none();
                let is_done = is_whole && space.image.copies()?.iter().all(is_so);
                planned.push(PlannedChange { space, from, is_done });
            }
            Err(reason) => refused.push(format!("{}: {reason}", space.image.name())),
        }
    }
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(planned)
}

/// Changes the cluster in all records, if no space is refused.
fn change(
    spaces: &[DiskSpace],
    cluster: Option<Uuid>,
    judge: impl Fn(&DiskSpace) -> Result<SpaceRecord, String>,
) -> Result<usize> {
    let planned = plan(spaces, cluster, judge)?;
    for change in planned.iter().filter(|change| !change.is_done) {
        for next in next_records(&change.from, cluster) {
            change.space.image.put_record(&next)?;
        }
    }
    Ok(planned.len())
}

/// Returns the two records that take a space to another side, in the order of their writes.
pub(super) fn next_records(from: &SpaceRecord, cluster: Option<Uuid>) -> [SpaceRecord; 2] {
    [1, 2].map(|n| SpaceRecord { sequence: from.sequence + n, cluster, ..from.clone() })
}

/// Returns the record of a space that may change sides, or why it may not.
fn judge(space: &DiskSpace, cluster: Uuid, state: &ClusterState) -> Result<SpaceRecord, String> {
    let class = space.image.class().map_err(|error| format!("{error:#}"))?;
    let record = match class {
        DeviceContent::Space(record) => record,
        DeviceContent::Blank => {
            let name = crate::volume::new_uuid().map_err(|error| format!("{error:#}"))?;
            let free = SpaceRecord::free(space.image.capacity(), name, Residue::Clean);
            SpaceRecord { sequence: 0, ..free }
        }
        _ => return Err(space.image.describe().unwrap_or_else(|error| format!("{error:#}"))),
    };
    if let Some(other) = record.cluster.filter(|other| *other != cluster) {
        return Err(format!("belongs to cluster {other}, not to {cluster}"));
    }
    may_change(record.state).map_err(|why| format!("is {}: {why}", record.state.name()))?;
    if let Owner::Slot(slot) = state.row(space.thing(&record)).owner
        && let Some(row) = state.member(slot)
        && !matches!(row.status, MemberStatus::Quiet(_))
    {
        return Err(format!(
            "the log gives it to the member in slot {slot}: `tidepool cluster sweep` ends that \
             while no node runs"
        ));
    }
    Ok(record)
}

/// Says why a space in a state may not change sides.
fn may_change(state: SpaceState) -> Result<(), &'static str> {
    match state {
        SpaceState::Free | SpaceState::Crashed | SpaceState::Complete | SpaceState::Partial => {
            Ok(())
        }
        SpaceState::Active => Err("a node was cut off there; let it start once more, or format it"),
        SpaceState::Draining | SpaceState::Releasing => {
            Err("work was cut off there; let a node that uses it end that first")
        }
        SpaceState::Suspended => Err("its partition would lose it; resume or release it first"),
        SpaceState::Sealed => Err("it is a base, which its children name; release it first"),
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
