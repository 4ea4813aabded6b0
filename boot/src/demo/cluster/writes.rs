//! Where the writes of a fenced node landed, according to its emulator's trace.
//!
//! QEMU takes a write from the disk's queue long before it carries it out where the disk is slow
//! or the emulator stands still. So the time that counts is that of its completion.

use super::story::ClusterStory;
use crate::volume::{VolumeAccess, VolumeDisk};
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// QEMU's trace events: a write with its range, and the end of a request.
pub const EVENTS: &[&str] = &["virtio_blk_handle_write", "virtio_blk_rw_complete"];
const SECTOR: u64 = 512;

/// A write that has landed.
#[derive(Clone, PartialEq, Debug)]
pub struct LandedWrite {
    /// Seconds since the demonstration's start.
    pub at: f64,
    /// Bytes of the disk.
    pub bytes: Range<u64>,
}

/// Writes of a node that landed after the other members had fenced it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LateWrites {
    /// All of them.
    pub all: u64,
    /// Those in a space that another node had by then.
    pub foreign: u64,
}

/// The paging spaces of a disk: number, and bytes.
pub type SpaceRanges = Vec<(u64, Range<u64>)>;

/// Reads where the spaces of the shared image lie.
///
/// # Errors
/// Where it cannot be read.
pub fn ranges(image: &Path) -> Result<SpaceRanges> {
    let spaces = VolumeDisk::open(image, VolumeAccess::Read)?.usable()?;
    let range = |start: u64, bytes: u64| start..start + bytes;
    let of = |space: &crate::volume::SpaceImage| {
        (u64::from(space.number()), range(space.area().start(), space.capacity()))
    };
    Ok(spaces.iter().map(of).collect())
}

/// Reads a trace, whose lines are `PID@SECONDS.MICROSECONDS:EVENT NAME VALUE …`. The last line may
/// be cut off.
///
/// # Errors
/// Names a line of another form.
pub fn landed(trace: &str, begun: SystemTime) -> Result<Vec<LandedWrite>> {
    let begun = begun.duration_since(SystemTime::UNIX_EPOCH)?;
    let (mut open, mut landed) = (HashMap::new(), Vec::new());
    let whole = trace.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.lines() {
        let wrong = || format!("no line of a trace: {line}");
        let (time, event) =
            line.split_once('@').and_then(|(_, rest)| rest.split_once(':')).with_context(wrong)?;
        let request = (word(event, "vdev"), word(event, "req"));
        if event.starts_with("virtio_blk_handle_write") {
            let number = |name| word(event, name)?.parse::<u64>().ok();
            let parts = number("sector").zip(number("nsectors"));
            let (sector, count) = parts.with_context(wrong)?;
            open.insert(request, sector * SECTOR..(sector + count) * SECTOR);
        } else if let Some(bytes) = open.remove(&request) {
            let at = clock(time).with_context(wrong)?;
            landed.push(LandedWrite { at: at.as_secs_f64() - begun.as_secs_f64(), bytes });
        }
    }
    Ok(landed)
}

fn word<'a>(event: &'a str, name: &str) -> Option<&'a str> {
    event.split(' ').skip_while(|word| *word != name).nth(1)
}

fn clock(text: &str) -> Option<Duration> {
    let (seconds, micros) = text.split_once('.')?;
    Some(Duration::new(seconds.parse().ok()?, 0) + Duration::from_micros(micros.parse().ok()?))
}

impl LateWrites {
    /// Judges the writes of a node by the owners that the story tells.
    pub fn of(
        node: usize,
        writes: &[LandedWrite],
        spaces: &SpaceRanges,
        story: &ClusterStory,
    ) -> Self {
        let Some(fenced) = story.nodes[node].fenced.first() else { return Self::default() };
        // As a new member it writes with right.
        let joined = story.nodes[node].joined.get(1).map_or(f64::INFINITY, |joined| joined.0);
        let late = writes.iter().filter(|write| (*fenced..joined).contains(&write.at));
        let is_foreign = |write: &&LandedWrite| {
            let inside =
                |range: &Range<u64>| write.bytes.start < range.end && range.start < write.bytes.end;
            let hit = spaces.iter().find(|(_, range)| inside(range));
            hit.and_then(|(number, _)| story.owner(*number, write.at))
                .is_some_and(|owner| owner != node)
        };
        let late: Vec<_> = late.collect();
        let foreign = late.iter().copied().filter(is_foreign).count();
        Self { all: late.len() as u64, foreign: foreign as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Event;
    use serde_json::json;

    const TRACE: &str = "\
74@1010.250000:virtio_blk_handle_write vdev 0x55 req 0x56 sector 8 nsectors 8
74@1010.500000:virtio_blk_rw_complete vdev 0x55 req 0x57 ret 0
74@1025.000000:virtio_blk_rw_complete vdev 0x55 req 0x56 ret 0
74@1026.000000:virtio_blk_handle_write vdev 0x55 req 0x56 sector 16 nsectors 8
74@1027.000000:virtio_blk_rw_comp";

    fn writes() -> Vec<LandedWrite> {
        landed(TRACE, SystemTime::UNIX_EPOCH + Duration::from_secs(1000)).unwrap()
    }

    #[test]
    fn a_write_lands_when_it_is_complete() {
        assert_eq!(writes(), [LandedWrite { at: 25.0, bytes: 4096..8192 }]);
        assert!(landed("no time\n", SystemTime::UNIX_EPOCH).is_err());
    }

    #[test]
    fn a_late_write_is_foreign_where_another_node_has_the_space() {
        let mut story = ClusterStory::default();
        let fenced = json!({
            "event": "member", "node": "node-a", "state": "fenced", "id": null
        });
        let spaces = vec![(1, 0..4096), (2, 4096..16384)];
        let late = |story: &ClusterStory| LateWrites::of(0, &writes(), &spaces, story);
        assert_eq!(late(&story), LateWrites::default());
        story.event(1, 20.0, &Event(fenced));
        assert_eq!(late(&story), LateWrites { all: 1, foreign: 0 });
        let mut active = |node, at, space: u64| {
            let start = json!({"event": "start", "partition": "debian-a", "incarnation": space});
            let space = json!({
                "event": "space", "space": space, "state": "active", "partition": "debian-a",
                "epoch": space
            });
            story.event(node, at, &Event(space));
            story.event(node, at, &Event(start));
            late(&story)
        };
        assert_eq!(active(0, 3.0, 2), LateWrites { all: 1, foreign: 0 });
        assert_eq!(active(1, 22.0, 1), LateWrites { all: 1, foreign: 0 });
        assert_eq!(active(1, 23.0, 2), LateWrites { all: 1, foreign: 1 });
        let joined = Event(json!({"event": "joined", "slot": 1, "members": 3}));
        story.event(0, 1.0, &joined);
        story.event(0, 24.0, &joined);
        assert_eq!(late(&story), LateWrites::default());
    }
}
