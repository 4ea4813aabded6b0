//! Judges the cluster areas on the disks of a node: they belong to one cluster, and enough of them
//! are there.
//!
//! A disk with an area that cannot be joined is given up, and the operator is told: its paging
//! spaces may be other members'. A blank partition for an area closes nothing.

use super::area::{ClusterArea, buffer_sizes};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::space::Uuid;
use crate::storage::NodeDisk;
use crate::storage::spaces::{AreaPlace, SpaceLocation};
use alloc::format;
use alloc::vec::Vec;
use cluster::layout::{AreaLayout, SUPERBLOCK};
use cluster::superblock::{Superblock, SuperblockError};

/// An area that can be joined.
pub(super) struct FoundArea {
    pub superblock: Superblock,
    pub place: SpaceLocation,
    pub disk: &'static NodeDisk,
}

/// The areas of the only cluster on the disks.
pub(super) struct FoundCluster {
    pub layout: AreaLayout,
    pub areas: Vec<FoundArea>,
}

/// Returns a cluster's or an incarnation's name as people see it.
pub(super) const fn name_of(number: u128) -> Uuid {
    Uuid(number.to_be_bytes())
}

/// Reports a problem with an area.
pub(super) fn trouble(place: &SpaceLocation, message: &str) {
    report(&ConsoleEvent::Error { place: &format!("{place}"), message });
}

/// Reports a problem with a whole disk.
pub(super) fn trouble_of(disk: usize, message: &str) {
    report(&ConsoleEvent::Error { place: &format!("paging device {disk}"), message });
}

fn foreign(cluster: u128, reason: &str) {
    report(&ConsoleEvent::ClusterForeign { cluster: name_of(cluster), reason });
}

/// Returns the cluster on the disks; `None`, and an event, if it cannot be joined.
pub(super) fn cluster(places: &[AreaPlace]) -> Option<FoundCluster> {
    let areas: Vec<FoundArea> = places.iter().filter_map(area).collect();
    let layout = judge(&areas);
    if layout.is_none() {
        areas.iter().for_each(|area| area.disk.give_up());
    }
    Some(FoundCluster { layout: layout?, areas })
}

/// Returns the layout of all areas if they are those of one cluster.
fn judge(areas: &[FoundArea]) -> Option<AreaLayout> {
    let first = areas.first()?;
    let (superblock, layout) = (first.superblock, first.superblock.layout()?);
    if let Some(other) = areas.iter().find(|area| area.superblock.cluster != superblock.cluster) {
        for found in [first, other] {
            foreign(found.superblock.cluster, "two clusters");
            trouble(&found.place, "areas of two clusters are on the disks: none is joined");
        }
        return None;
    }
    for (n, one) in areas.iter().enumerate() {
        let same = |other: &&FoundArea| other.superblock.area == one.superblock.area;
        if let Some(twin) = areas[..n].iter().find(same) {
            foreign(superblock.cluster, "two copies");
            trouble(
                &one.place,
                &format!("is a copy of the area on {}: none is joined", twin.place),
            );
            return None;
        }
        if (Superblock { area: superblock.area, ..one.superblock }) != superblock {
            foreign(superblock.cluster, "other numbers");
            trouble(&one.place, &format!("has other numbers than the area on {}", first.place));
            return None;
        }
    }
    let needed = usize::from(superblock.areas / 2 + 1);
    if areas.len() < needed {
        let message =
            format!("{} of {} areas are there, {needed} are needed", areas.len(), superblock.areas);
        trouble(&first.place, &message);
        return None;
    }
    Some(layout)
}

fn area(found: &AreaPlace) -> Option<FoundArea> {
    let (copies, _) = found.head.as_chunks::<SUPERBLOCK>();
    let [a, b] = copies.first_chunk()?;
    let superblock = match Superblock::decode([a, b]) {
        Ok(superblock) => superblock,
        Err(SuperblockError::Foreign) => {
            trouble(&found.place, "has no cluster area; `tidepool cluster create` makes it");
            return None;
        }
        Err(error) => {
            trouble(&found.place, &format!("its cluster area is not joined: {error}"));
            found.disk.give_up();
            return None;
        }
    };
    let layout = superblock.layout()?;
    let [_, read] = buffer_sizes(&layout);
    if found.place.area.bytes() < layout.len() {
        trouble(&found.place, "is smaller than its cluster area: it is not joined");
        found.disk.give_up();
        return None;
    }
    if !ClusterArea::takes(found.disk, read) {
        trouble(&found.place, "takes no requests as long as its cluster area needs");
        found.disk.give_up();
        return None;
    }
    Some(FoundArea { superblock, place: found.place, disk: found.disk })
}
