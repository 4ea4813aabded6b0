//! The paging spaces of a node: whole disks or GPT partitions of disks, from discovery at start to
//! release.
//!
//! ```text
//!   open ──> Unusable (foreign, damaged, dead)      acquire            crash             end of the drain
//!        ├─> Dump (of an earlier start) ──┐   Free ────────> Active ────────> Draining ────────> Dump
//!        └─> Free <───────────────────────┴─── release: scrub, then free <──────────────────────┘
//! ```
//!
//! A space can be released only while no task works on it: a dump that is still draining cannot.
//!
//! Tasks write the records. A space has one task at a time: every task begins with a change of
//! phase that only one task can make. The data that a record claims is durable before the record is
//! written. Nothing is written to a space before it is claimed.

mod activate;
mod beats;
mod bounds;
mod claims;
mod closed;
mod discover;
mod drop;
mod founding;
mod hand_over;
mod inherit;
mod kept;
mod late;
mod mend;
mod open;
mod part;
mod record_io;
mod release;
mod remains;
mod reserve;
mod retry;
mod sealed;
mod selected;
mod shared;
mod suspended;

use super::cluster_disks::ClusterDisks;
use super::disk::NodeDisk;
use super::log_desk::LogDesk;
use crate::addr::PAGE_SIZE;
use crate::block::DiskError;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::log::history::{self, HistoryKind};
use crate::paging::PageStore;
use crate::paging::blocks::BlockMap;
use crate::pool::needs::SPACE_BUFFER;
use crate::space::classify::HEAD_LEN;
use crate::space::holding::SpaceHolding;
use crate::space::layout::RECORD_SIZE;
use crate::space::record::SpaceContents;
use crate::space::succession::Succession;
use crate::space::{SpaceLayout, SpaceRecord, Uuid};
use crate::sync::{Once, RankedLock, rank};
use crate::task::Tasks;
use crate::task::io::AsyncIo;
use crate::time::{AtomicNs, Ns};
use alloc::format;
use alloc::vec::Vec;
use arrayvec::ArrayString;
pub use claims::sleep;
pub use discover::{AreaPlace, LocalPlace, PagingDevice, SpaceLocation};
pub use hand_over::{GiveError, LeftSuspension};
pub use kept::{DumpReleaseError, KeptDump};
use remains::SpaceRemains;
pub use reserve::SpaceTenant;
use reserve::SpaceTenants;
pub use shared::{SharedStanding, number_of};
pub use suspended::Suspension;

/// Bytes of the buffer that the tasks of a device's spaces use.
pub const BUFFER: usize = SPACE_BUFFER;
/// Bytes of the buffer for the beat of a disk's claims: claims and both records. The beat has its
/// own buffer so that it waits for no task.
pub const BEAT_BUFFER: usize = 12 << 10;

/// A space, by its number in the order of disks and, on a disk, of GPT entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceId(pub usize);

/// State of a space in this node, which is more detailed than its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SpacePhase {
    Unusable,
    Free,
    Activating,
    Active,
    Failed(DiskError),
    Draining,
    /// A child's dump of an earlier start, which lacks pages of its base.
    Inheriting,
    Dump,
    /// Holds a suspended partition.
    Suspended,
    /// Holds a base, which does not change.
    Sealed,
    /// Its suspended partition is about to go on.
    Resuming,
    /// Its suspended partition is being given to another member.
    Departing,
    Releasing,
    /// On a cluster's disk, and not this node's.
    Shared,
    /// The same, while a task looks at it, or gives it back.
    Looking,
}

struct SpaceInner {
    phase: SpacePhase,
    record: Option<SpaceRecord>,
    /// The partition that acquired it last.
    user: Option<Uuid>,
    /// Its dump was the selected one of its disk when the space was opened. A selected dump is not
    /// dropped, and the limit on the number of dumps takes that into account.
    is_selected: bool,
    /// This node's claim on it, if any.
    holding: Option<SpaceHolding>,
    /// How this node got it.
    succession: Succession,
    /// This start made it a partial dump, from the remains of an interrupted drain.
    was_cut_off: bool,
    /// A task writes the record, or compares the record on the disk.
    is_record_busy: bool,
    /// Another node has it.
    is_refused: bool,
    /// How often in a row it has been put out of use.
    failures: u32,
    /// Bitmap and header on the disk are those of a suspension that is over: a crash must not rely
    /// on zeros there.
    has_old_tables: bool,
    /// When to look for late writes of an earlier owner again.
    late_ns: Ns,
    /// When to try it again, if it is out of use.
    again_ns: Ns,
    /// Of a shared space: the epoch in the log at the last look, and whether it was free then.
    looked: Option<(u64, bool)>,
    /// What a fenced owner has left.
    remains: SpaceRemains,
}

/// One space.
struct Space {
    place: SpaceLocation,
    /// Name of its GPT partition; nil if it is a whole disk.
    guid: Uuid,
    /// Its name in the record, once it is known to be a cluster's.
    name: Once<Uuid>,
    inner: RankedLock<SpaceInner, { rank::SPACE }>,
}

/// All spaces of a node.
pub struct Spaces {
    devices: Vec<PagingDevice>,
    /// Image stores on the same disks.
    stores: Vec<SpaceLocation>,
    /// A disk is not for image stores and cluster areas alone.
    has_devices: bool,
    spaces: Vec<Space>,
    areas: Vec<AreaPlace>,
    locals: Vec<LocalPlace>,
    io: &'static AsyncIo,
    tasks: &'static Tasks,
    node: Uuid,
    tenants: RankedLock<SpaceTenants, { rank::SPACE }>,
    /// Held while a free space is chosen, so that two partitions cannot take the same one.
    choosing: RankedLock<(), { rank::OBJECT }>,
    beats: beats::Beats,
    /// The log of the cluster whose disks are among the devices.
    log: Once<&'static LogDesk>,
    /// The disks of that cluster.
    cluster: Once<&'static ClusterDisks>,
    /// When to look at the next space: to reopen it, or to check it for late writes.
    mend_due_ns: AtomicNs,
}

/// A line about a space for people to read.
#[derive(Clone, Debug)]
pub struct SpaceSummary {
    /// Location of the space.
    pub place: SpaceLocation,
    /// State in words.
    pub state: &'static str,
    /// Its owner's name, and the incarnation.
    pub owner: Option<(ArrayString<64>, u64)>,
    /// Slot of the fenced member whose writes may still land there.
    pub waits_for: Option<u16>,
}

impl Spaces {
    /// Finds the spaces of `devices`; [`Self::open`] reads their contents.
    pub fn new(
        devices: Vec<PagingDevice>,
        io: &'static AsyncIo,
        tasks: &'static Tasks,
        node: Uuid,
    ) -> Self {
        let found = discover::places(&devices);
        let has_devices = (0..devices.len()).any(|disk| !found.is_for_others(disk));
        let space = |(place, guid)| Space {
            place,
            guid,
            name: Once::new(),
            inner: RankedLock::new(SpaceInner {
                phase: SpacePhase::Unusable,
                record: None,
                user: None,
                is_selected: false,
                holding: None,
                succession: Succession::Orderly,
                was_cut_off: false,
                has_old_tables: false,
                late_ns: Ns::ZERO,
                is_record_busy: false,
                is_refused: false,
                failures: 0,
                again_ns: Ns::ZERO,
                looked: None,
                remains: SpaceRemains::default(),
            }),
        };
        Self {
            spaces: found.spaces.into_iter().zip(found.guids).map(space).collect(),
            stores: found.stores,
            has_devices,
            areas: found.areas,
            locals: found.locals,
            devices,
            io,
            tasks,
            node,
            tenants: RankedLock::default(),
            choosing: RankedLock::new(()),
            beats: beats::Beats::new(),
            log: Once::new(),
            cluster: Once::new(),
            mend_due_ns: AtomicNs::new(Ns::MAX),
        }
    }

    fn space(&self, id: SpaceId) -> &Space {
        &self.spaces[id.0]
    }

    /// Returns the number of pages that the largest usable space can hold; 0 if there is none.
    pub fn largest(&self) -> u32 {
        let usable = self.spaces.iter().filter(|s| s.inner.lock().phase != SpacePhase::Unusable);
        usable.map(|s| s.place.area.most_pages()).max().unwrap_or(0)
    }

    /// Returns the memory size in bytes that each space has room for, whatever it holds now.
    pub fn rooms(&self) -> Vec<u64> {
        self.spaces.iter().map(|s| u64::from(s.place.area.most_pages()) * PAGE_SIZE).collect()
    }

    /// Returns the number of pages that each usable space can hold.
    pub fn sizes(&self) -> Vec<u32> {
        let usable = self.spaces.iter().filter(|s| s.inner.lock().phase != SpacePhase::Unusable);
        usable.map(|s| s.place.area.most_pages()).collect()
    }

    /// Returns where the pages of an active space are stored.
    pub fn store(&self, id: SpaceId) -> Option<PageStore> {
        let (place, layout) = (self.place(id), self.layout(id)?);
        let blocks = place.area.locate_extent(layout.blocks())?;
        Some(PageStore {
            disk: place.disk,
            blocks: BlockMap { data_start: blocks.first, pages: layout.pages() },
        })
    }

    /// Returns the layout of a space that has contents.
    pub fn layout(&self, id: SpaceId) -> Option<SpaceLayout> {
        self.space(id)
            .inner
            .lock()
            .record
            .as_ref()?
            .contents
            .as_ref()
            .map(|contents| contents.layout)
    }

    /// Returns the disk of a space.
    pub fn disk(&self, id: SpaceId) -> &'static NodeDisk {
        self.device(id).disk()
    }

    /// Returns the location of a space.
    pub fn place(&self, id: SpaceId) -> SpaceLocation {
        self.space(id).place
    }

    fn device(&self, id: SpaceId) -> &PagingDevice {
        &self.devices[self.place(id).disk]
    }

    /// Returns the contents that the record of a space describes.
    pub fn contents(&self, id: SpaceId) -> Option<SpaceContents> {
        self.space(id).inner.lock().record.as_ref()?.contents.clone()
    }

    /// Makes the name of the dump of a crash at `time_ns`. A sequence number of a space is never
    /// used twice, and a copy of the space on another node differs by node and time.
    pub fn name_dump(&self, id: SpaceId, time_ns: u64) -> Uuid {
        let inner = self.space(id).inner.lock();
        let (space, sequence) =
            inner.record.as_ref().map_or((Uuid::NIL, 0), |r| (r.space, r.sequence));
        let (high, low) = self.node.halves();
        Uuid::of_dump(space, [sequence, time_ns, high, low])
    }

    /// Hands an active space to the drain of a dump, which is its only user until [`Self::keep`].
    pub fn begin_drain(&self, id: SpaceId) {
        self.space(id).inner.lock().phase = SpacePhase::Draining;
    }

    /// Records that the drain into a space has ended: it holds a dump until that is released.
    pub fn keep(&self, id: SpaceId) {
        self.space(id).inner.lock().phase = SpacePhase::Dump;
    }

    /// Returns whether a space can be acquired.
    pub fn is_free(&self, id: SpaceId) -> bool {
        let inner = self.space(id).inner.lock();
        inner.phase == SpacePhase::Free
            || inner.phase == SpacePhase::Shared && inner.looked.is_some_and(|(_, free)| free)
    }

    /// Returns the places for cluster areas on the disks.
    pub fn areas(&self) -> &[AreaPlace] {
        &self.areas
    }

    /// Returns the disks for local copies of a cluster's state.
    pub fn locals(&self) -> &[LocalPlace] {
        &self.locals
    }

    /// Returns the number of spaces that can be acquired.
    pub fn free_count(&self) -> usize {
        (0..self.spaces.len()).filter(|id| self.is_free(SpaceId(*id))).count()
    }

    /// Returns the number of spaces, usable or not.
    pub const fn count(&self) -> usize {
        self.spaces.len()
    }

    /// Returns whether there is a paging device, whatever it holds; a disk that has nothing but
    /// image stores is none.
    pub const fn has_devices(&self) -> bool {
        self.has_devices
    }

    /// Returns the image stores that were found beside the spaces, with their disks.
    pub fn stores(&self) -> impl Iterator<Item = (SpaceLocation, &'static NodeDisk)> {
        self.stores.iter().map(|place| (*place, self.devices[place.disk].disk()))
    }

    /// Describes every space, for `list`.
    pub fn summaries(&self) -> Vec<SpaceSummary> {
        let summary = |(n, space): (usize, &Space)| {
            let word = shared::word_of(space, self.standing(SpaceId(n)));
            let waits_for = self.quarantined_of(SpaceId(n));
            let inner = space.inner.lock();
            let record = inner.record.as_ref();
            let state = if inner.phase == SpacePhase::Unusable {
                "unusable"
            } else {
                record.map_or("?", |r| r.state.name())
            };
            SpaceSummary {
                place: space.place,
                state: word.unwrap_or(state),
                owner: record
                    .filter(|_| word.is_none())
                    .and_then(|r| r.owner.as_ref())
                    .map(|o| (o.name, o.epoch)),
                waits_for,
            }
        };
        self.spaces.iter().enumerate().map(summary).collect()
    }

    fn tell(&self, id: SpaceId, record: &SpaceRecord) {
        let (partition, epoch) = record.owner.as_ref().map_or(("", 0), |o| (&*o.name, o.epoch));
        let SpaceLocation { disk, number, .. } = self.place(id);
        history::record_machine(
            HistoryKind::SpaceChanged,
            record.state as u32,
            [disk as u64, number.into()],
        );
        report(&ConsoleEvent::Space {
            disk: disk as u8,
            space: number,
            state: record.state.name(),
            partition,
            epoch,
            waits_for: None,
        });
    }

    fn trouble(&self, id: SpaceId, message: &str) {
        report(&ConsoleEvent::Error { place: &format!("{}", self.place(id)), message });
    }
}

/// Returns the next version of a record.
fn next(record: SpaceRecord, change: impl FnOnce(&mut SpaceRecord)) -> SpaceRecord {
    let mut next = record;
    next.sequence += 1;
    change(&mut next);
    next
}

const _: () = assert!(BUFFER >= HEAD_LEN && BUFFER >= RECORD_SIZE as usize);
