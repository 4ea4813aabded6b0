//! The paging spaces of a node: whole disks or GPT partitions of disks, from what a start finds to what a release leaves.
//!
//! ```text
//!   open ──> Unusable (foreign, damaged, dead)      acquire            crash             end of the drain
//!        ├─> Dump (of an earlier start) ──┐   Free ────────> Active ────────> Draining ────────> Dump
//!        └─> Free <───────────────────────┴─── release: scrub, then free <──────────────────────┘
//! ```
//!
//! Only what no task is at can be released: a dump that still drains is not.
//!
//! Records are written by tasks; a space has one task at a time, because every one of them begins with a change of phase
//! that only one can make. What a record claims is durable before the record is.
//! Nothing is written to a space before it is claimed.

mod activate;
mod claims;
mod discover;
mod open;
mod record_io;
mod release;
mod selected;

use super::disk::NodeDisk;
use super::io::AsyncIo;
use super::report;
use crate::block::DiskError;
use crate::console::event::Event;
use crate::paging::Store;
use crate::paging::blocks::BlockMap;
use crate::paging::space::classify::HEAD_LEN;
use crate::paging::space::layout::RECORD_SIZE;
use crate::paging::space::record::Contents;
use crate::paging::space::{Layout, Record, Uuid};
use crate::sync::{Ranked, rank};
use alloc::format;
use alloc::vec::Vec;
use arrayvec::ArrayString;
pub use discover::{Device, Place};

/// Bytes of the buffer that a space's task works with.
pub const BUFFER: usize = 80 << 10;

/// A space, by its number in the order of disks and, on a disk, of GPT entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceId(pub usize);

/// What a space is doing, beyond what its record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Unusable,
    Free,
    Activating,
    Active,
    Failed(DiskError),
    Draining,
    Dump,
    Releasing,
}

struct Inner {
    phase: Phase,
    record: Option<Record>,
    /// The claim on it is ours.
    is_claimed: bool,
    /// Another node is at it.
    is_refused: bool,
}

/// One space.
struct Space {
    place: Place,
    inner: Ranked<Inner, { rank::SPACE }>,
}

/// All spaces of a node.
pub struct Spaces {
    devices: Vec<Device>,
    spaces: Vec<Space>,
    io: &'static AsyncIo,
    tasks: &'static super::task::Tasks,
    node: Uuid,
    beats: claims::Beats,
}

/// A line about a space for people.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Where it lies.
    pub place: Place,
    /// State in words.
    pub state: &'static str,
    /// Its owner's name, and the incarnation.
    pub owner: Option<(ArrayString<64>, u64)>,
}

impl Spaces {
    /// Finds the spaces of `devices`; [`Self::open`] looks at what they hold.
    pub fn new(devices: Vec<Device>, io: &'static AsyncIo, tasks: &'static super::task::Tasks, node: Uuid) -> Self {
        let places = discover::places(&devices);
        let space = |place| Space {
            place,
            inner: Ranked::new(Inner { phase: Phase::Unusable, record: None, is_claimed: false, is_refused: false }),
        };
        Self { spaces: places.into_iter().map(space).collect(), devices, io, tasks, node, beats: claims::Beats::new() }
    }

    fn space(&self, id: SpaceId) -> &Space {
        &self.spaces[id.0]
    }

    /// Returns whether any space could ever hold `pages` pages, and the largest number that one can.
    pub fn largest(&self) -> u32 {
        let usable = self.spaces.iter().filter(|s| s.inner.lock().phase != Phase::Unusable);
        usable.map(|s| s.place.area.most_pages()).max().unwrap_or(0)
    }

    /// Returns how many pages each space can hold that is not out of use.
    pub fn sizes(&self) -> Vec<u32> {
        let usable = self.spaces.iter().filter(|s| s.inner.lock().phase != Phase::Unusable);
        usable.map(|s| s.place.area.most_pages()).collect()
    }

    /// Returns where the pages of an active space go.
    pub fn store(&self, id: SpaceId) -> Option<Store> {
        let (place, layout) = (self.place(id), self.layout(id)?);
        let blocks = place.area.locate_extent(layout.blocks())?;
        Some(Store { disk: place.disk, blocks: BlockMap { data_start: blocks.first, pages: layout.pages() } })
    }

    /// Returns the layout of a space that has contents.
    pub fn layout(&self, id: SpaceId) -> Option<Layout> {
        self.space(id).inner.lock().record.as_ref()?.contents.as_ref().map(|contents| contents.layout)
    }

    /// Returns the disk of a space.
    pub fn disk(&self, id: SpaceId) -> &'static NodeDisk {
        self.device(id).disk()
    }

    /// Returns where a space lies.
    pub fn place(&self, id: SpaceId) -> Place {
        self.space(id).place
    }

    fn device(&self, id: SpaceId) -> &Device {
        &self.devices[self.place(id).disk]
    }

    /// Returns where I/O of tasks goes through.
    pub const fn io(&self) -> &'static AsyncIo {
        self.io
    }

    /// Returns what the record of a space says of its contents.
    pub fn contents(&self, id: SpaceId) -> Option<Contents> {
        self.space(id).inner.lock().record.as_ref()?.contents.clone()
    }

    /// Hands an active space to the drain of a dump; nobody else touches it until [`Self::keep`].
    pub fn begin_drain(&self, id: SpaceId) {
        self.space(id).inner.lock().phase = Phase::Draining;
    }

    /// Notes that the drain into a space has ended: it holds a dump until that is released.
    pub fn keep(&self, id: SpaceId) {
        self.space(id).inner.lock().phase = Phase::Dump;
    }

    /// Returns whether a space can be acquired.
    pub fn is_free(&self, id: SpaceId) -> bool {
        self.space(id).inner.lock().phase == Phase::Free
    }

    /// Returns how many there are, usable or not.
    pub const fn count(&self) -> usize {
        self.spaces.len()
    }

    /// Returns whether there is a paging device, whatever it holds.
    pub const fn has_devices(&self) -> bool {
        !self.devices.is_empty()
    }

    /// Describes every space, for `list`.
    pub fn summaries(&self) -> Vec<Summary> {
        let summary = |space: &Space| {
            let inner = space.inner.lock();
            let record = inner.record.as_ref();
            let state = if inner.phase == Phase::Unusable { "unusable" } else { record.map_or("?", |r| r.state.name()) };
            Summary { place: space.place, state, owner: record.and_then(|r| r.owner.as_ref()).map(|o| (o.name, o.epoch)) }
        };
        self.spaces.iter().map(summary).collect()
    }

    fn tell(&self, id: SpaceId, record: &Record) {
        let (partition, epoch) = record.owner.as_ref().map_or(("", 0), |o| (&*o.name, o.epoch));
        let Place { disk, number, .. } = self.place(id);
        report(&Event::Space { disk: disk as u8, space: number, state: record.state.name(), partition, epoch });
    }

    fn trouble(&self, id: SpaceId, message: &str) {
        report(&Event::Error { place: &format!("{}", self.place(id)), message });
    }
}

/// Returns the next version of a record.
fn next(record: Record, change: impl FnOnce(&mut Record)) -> Record {
    let mut next = record;
    next.sequence += 1;
    change(&mut next);
    next
}

const _: () = assert!(BUFFER >= HEAD_LEN && BUFFER >= RECORD_SIZE as usize);
