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
mod beats;
mod bounds;
mod claims;
mod discover;
mod drop;
mod founding;
mod kept;
mod late;
mod mend;
mod open;
mod record_io;
mod release;
mod reserve;
mod retry;
mod selected;

use super::disk::NodeDisk;
use super::io::AsyncIo;
use super::report;
use crate::addr::PAGE_SIZE;
use crate::block::DiskError;
use crate::console::event::Event;
use crate::paging::Store;
use crate::paging::blocks::BlockMap;
use crate::paging::space::classify::HEAD_LEN;
use crate::paging::space::holding::Holding;
use crate::paging::space::layout::RECORD_SIZE;
use crate::paging::space::record::Contents;
use crate::paging::space::succession::Succession;
use crate::paging::space::{Layout, Record, Uuid};
use crate::pool::needs::SPACE_BUFFER;
use crate::sync::{Once, Ranked, rank};
use alloc::format;
use alloc::vec::Vec;
use arrayvec::ArrayString;
pub use claims::sleep;
use core::sync::atomic::AtomicU64;
pub use discover::{Device, Place};
pub use kept::{DumpError, KeptDump};
pub use reserve::SpaceTenant;

/// Bytes of the buffer that a space's task works with.
pub const BUFFER: usize = SPACE_BUFFER;
/// Bytes of the buffer that the beat of a disk's claims works with, so that it waits for no task: claims and both records.
pub const BEAT_BUFFER: usize = 12 << 10;

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
    /// The partition that acquired it, last.
    user: Option<Uuid>,
    /// Its dump is the selected one of its disk, as seen when the space was opened: it is not dropped, and a bound of dumps counts on that.
    is_selected: bool,
    /// The claim on it, while it is this node's.
    holding: Option<Holding>,
    /// How this node came by it.
    succession: Succession,
    /// It was made a partial dump at this start, by what an earlier owner left.
    was_cut_off: bool,
    /// A task writes a record, or compares the one that is there.
    is_record_busy: bool,
    /// Another node is at it.
    is_refused: bool,
    /// Times in a row that it had to be put out of use.
    failures: u32,
    /// When late writes of an earlier owner are looked for again.
    late_ns: u64,
    /// When it is looked at again, where it is out of use.
    again_ns: u64,
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
    /// Whose spaces are kept for them, where that is done.
    tenants: Once<Vec<SpaceTenant>>,
    /// Held while a free space is chosen: two partitions do not take what only one may.
    choosing: Ranked<(), { rank::OBJECT }>,
    beats: beats::Beats,
    /// When the next space is looked at again: one that is out of use, or one that late writes may land on.
    mend_due_ns: AtomicU64,
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
            inner: Ranked::new(Inner {
                phase: Phase::Unusable,
                record: None,
                user: None,
                is_selected: false,
                holding: None,
                succession: Succession::Orderly,
                was_cut_off: false,
                late_ns: 0,
                is_record_busy: false,
                is_refused: false,
                failures: 0,
                again_ns: 0,
            }),
        };
        Self {
            spaces: places.into_iter().map(space).collect(),
            devices,
            io,
            tasks,
            node,
            tenants: Once::new(),
            choosing: Ranked::new(()),
            beats: beats::Beats::new(),
            mend_due_ns: AtomicU64::new(u64::MAX),
        }
    }

    fn space(&self, id: SpaceId) -> &Space {
        &self.spaces[id.0]
    }

    /// Returns whether any space could ever hold `pages` pages, and the largest number that one can.
    pub fn largest(&self) -> u32 {
        let usable = self.spaces.iter().filter(|s| s.inner.lock().phase != Phase::Unusable);
        usable.map(|s| s.place.area.most_pages()).max().unwrap_or(0)
    }

    /// Returns the bytes of the largest memory that each space could hold, whatever it holds now.
    pub fn rooms(&self) -> Vec<u64> {
        self.spaces.iter().map(|s| u64::from(s.place.area.most_pages()) * PAGE_SIZE).collect()
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

    /// Makes the name of the dump of a crash at `time_ns`: no sequence number of a space is ever used twice, and a copy of
    /// the space on another node differs by node and time.
    pub fn name_dump(&self, id: SpaceId, time_ns: u64) -> Uuid {
        let inner = self.space(id).inner.lock();
        let (space, sequence) = inner.record.as_ref().map_or((Uuid::NIL, 0), |r| (r.space, r.sequence));
        let (high, low) = self.node.halves();
        Uuid::of_dump(space, [sequence, time_ns, high, low])
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
