//! Finds the spaces and the image stores: a disk with a GUID partition table has one for each entry
//! of our types; any other disk is one store if it begins like one, else one space.
//!
//! Runs alone, before there is a pager. A disk whose table has no entry of our type belongs to
//! another system. An entry that cannot be trusted is reported and left alone; the others are used.

use crate::addr::Hpa;
use crate::arch::{heap, interrupts, time};
use crate::block::blocking::{BlockingDisk, BlockingError};
use crate::block::dma::DmaRegion;
use crate::block::gpt::{self, GptEntry, GptError, GptFinding, GptTable};
use crate::block::patience::{AfterRefusal, PAUSE_NS, RetryCount};
use crate::block::request::SECTOR_SIZE;
use crate::block::{Disk, DiskError, QueueLane};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::images::superblock::{HEAD_LEN, is_store};
use crate::paging::MAX_SPACES;
use crate::space::SpaceArea;
use crate::space::Uuid;
use crate::storage::disk::NodeDisk;
use crate::sync::{RankedLock, rank};
use crate::time::Ns;
use alloc::format;
use alloc::vec::Vec;
use cluster::layout::SUPERBLOCK;
use cluster::local::{LOCAL_BYTES, LOCAL_MAGIC};
use cluster::superblock::MAGIC;

/// Time-out for a driver; the driver itself gives up earlier.
const TIMEOUT_NS: Ns = Ns::from_secs(60);
/// Bytes that are read at a time.
const PIECE: usize = 4096;

/// Location of a space, or of an image store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceLocation {
    /// Its disk.
    pub disk: usize,
    /// Number of its GPT entry; 0 if it is the whole disk.
    pub number: u32,
    /// Its part of the disk.
    pub area: SpaceArea,
}

impl core::fmt::Display for SpaceLocation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.number {
            0 => write!(f, "paging device {}", self.disk),
            number => write!(f, "paging device {}, GPT entry {number}", self.disk),
        }
    }
}

/// A place for a cluster area: a whole disk that has one, or a GPT partition of that type.
pub struct AreaPlace {
    /// The place.
    pub place: SpaceLocation,
    /// Its disk.
    pub disk: &'static NodeDisk,
    /// Both superblocks.
    pub head: Vec<u8>,
    /// The disk has paging spaces too.
    pub has_spaces: bool,
}

/// A disk for this node's local copy of its cluster's state.
pub struct LocalPlace {
    /// The disk's number.
    pub number: usize,
    /// The disk.
    pub disk: &'static NodeDisk,
    /// Its first [`LOCAL_BYTES`] bytes; empty if they cannot be read.
    pub bytes: Vec<u8>,
}

/// The contents of all disks, as far as they are ours.
#[derive(Default)]
pub(super) struct FoundPlaces {
    pub spaces: Vec<SpaceLocation>,
    /// The names of their GPT partitions; nil for a whole disk.
    pub guids: Vec<Uuid>,
    pub stores: Vec<SpaceLocation>,
    pub areas: Vec<AreaPlace>,
    pub locals: Vec<LocalPlace>,
}

impl FoundPlaces {
    /// Returns whether a disk has image stores, cluster areas or a local copy, and no space.
    pub(super) fn is_for_others(&self, disk: usize) -> bool {
        let is_on = |place: &SpaceLocation| place.disk == disk;
        let has_others =
            self.stores.iter().any(is_on) || self.areas.iter().any(|area| is_on(&area.place));
        let has_others = has_others || self.locals.iter().any(|local| local.number == disk);
        has_others && !self.spaces.iter().any(is_on)
    }
}

/// A paging device: a disk, and one buffer per lane for all I/O outside the blocks of its spaces.
pub struct PagingDevice {
    disk: &'static NodeDisk,
    buffers: RankedLock<LaneBuffers, { rank::SPACE }>,
}

/// The buffers of a device that no request holds now.
struct LaneBuffers {
    /// [`BUFFER`](super::BUFFER) bytes.
    common: Option<DmaRegion>,
    /// [`BEAT_BUFFER`](super::BEAT_BUFFER) bytes.
    beat: Option<DmaRegion>,
}

impl LaneBuffers {
    const fn of(&mut self, lane: QueueLane) -> &mut Option<DmaRegion> {
        match lane {
            // The stores have their own buffers.
            QueueLane::Common | QueueLane::Store => &mut self.common,
            QueueLane::Beat => &mut self.beat,
        }
    }
}

impl PagingDevice {
    /// Gives a disk its buffers: one for the tasks, one for the beat of its claims.
    pub const fn new(disk: &'static NodeDisk, common: DmaRegion, beat: DmaRegion) -> Self {
        Self {
            disk,
            buffers: RankedLock::new(LaneBuffers { common: Some(common), beat: Some(beat) }),
        }
    }

    pub(super) const fn disk(&self) -> &'static NodeDisk {
        self.disk
    }

    pub(super) fn take_buffer(&self, lane: QueueLane) -> Option<DmaRegion> {
        self.buffers.lock().of(lane).take()
    }

    pub(super) fn give_buffer(&self, lane: QueueLane, buffer: DmaRegion) {
        *self.buffers.lock().of(lane) = Some(buffer);
    }

    /// Looks for a partition table, with retries if the disk refuses. Returns also whether the disk
    /// begins like an image store.
    fn table_at_last(&self, number: usize) -> Result<(GptFinding, bool), DiskError> {
        let mut tries = RetryCount::default();
        loop {
            let result = self.table();
            let Err(error) = result else { return result };
            if tries.refused(error) != AfterRefusal::Again {
                return result;
            }
            if tries.is_first() {
                trouble(
                    number,
                    &format!("its partition table cannot be read ({error}): it is tried again"),
                );
            }
            let end = time::now_ns().saturating_add(PAUSE_NS);
            while time::now_ns() < end {
                interrupts::spin();
            }
        }
    }

    /// Reads both superblocks of a cluster area; empty if they cannot be read.
    fn area_head(&self, area: SpaceArea) -> Vec<u8> {
        self.first_bytes(area, 2 * SUPERBLOCK)
    }

    /// Reads the first bytes of an area; nothing if that fails.
    fn first_bytes(&self, area: SpaceArea, len: usize) -> Vec<u8> {
        let Some(sectors) = area.locate(0, len as u64) else { return Vec::new() };
        let Ok(mut bytes) = heap::zeroed(len) else { return Vec::new() };
        let Some(buffer) = self.take_buffer(QueueLane::Common) else { return Vec::new() };
        let disk = BlockingDisk::new(self.disk, time::now_ns, TIMEOUT_NS);
        let mut pieces = (sectors.first..).step_by(PIECE / SECTOR_SIZE as usize);
        let result = bytes.chunks_mut(PIECE).try_for_each(|piece| {
            let sector = pieces.next().unwrap_or(u64::MAX);
            read(&disk, sector, &buffer, piece)
        });
        if result != Err(BlockingError::Stuck) {
            self.give_buffer(QueueLane::Common, buffer);
        }
        if result.is_ok() { bytes } else { Vec::new() }
    }

    fn table(&self) -> Result<(GptFinding, bool), DiskError> {
        let buffer = self.take_buffer(QueueLane::Common).ok_or(DiskError::Dead)?;
        let disk = BlockingDisk::new(self.disk, time::now_ns, TIMEOUT_NS);
        let mut head = heap::zeroed(HEAD_LEN)?;
        let sectors = self.disk.info().capacity;
        let found = gpt::read(sectors, |sector, bytes| read(&disk, sector, &buffer, bytes));
        let found = found.and_then(|found| {
            if found == GptFinding::None && sectors * SECTOR_SIZE >= HEAD_LEN as u64 {
                read(&disk, 0, &buffer, &mut head)?;
            }
            Ok((found, is_store(&head)))
        });
        match found {
            // The device may still write to the buffer, so the buffer is never used again.
            Err(BlockingError::Stuck) => return Err(DiskError::Dead),
            _ => self.give_buffer(QueueLane::Common, buffer),
        }
        found.map_err(|_| DiskError::Io)
    }
}

fn read(
    disk: &BlockingDisk<'_, impl Fn() -> Ns>,
    sector: u64,
    buffer: &DmaRegion,
    bytes: &mut [u8],
) -> Result<(), BlockingError> {
    let at: Hpa = buffer.hpa(0);
    disk.read(sector * SECTOR_SIZE, at, bytes.len() as u32)?;
    buffer.window().copy_out(0, bytes);
    Ok(())
}

/// Returns all spaces, stores and cluster areas, in the order of disks and of GPT entries.
pub(super) fn places(devices: &[PagingDevice]) -> FoundPlaces {
    let mut found = FoundPlaces::default();
    for (disk, device) in devices.iter().enumerate() {
        match device.table_at_last(disk) {
            Ok((GptFinding::None, is_store)) => whole(disk, device, is_store, &mut found),
            Ok((GptFinding::Table(table, fault), _)) => {
                from_table(disk, device, &table, fault, &mut found);
            }
            Ok((GptFinding::Damaged(primary, backup), _)) => {
                trouble(
                    disk,
                    &format!(
                        "damaged GPT, nothing touches it: primary: {primary}; backup: {backup}"
                    ),
                );
            }
            Err(error) => trouble(disk, &format!("cannot be read: {error}")),
        }
    }
    let FoundPlaces { spaces, areas, .. } = &mut found;
    if let Some(beyond) = spaces.get(MAX_SPACES) {
        trouble(
            beyond.disk,
            &format!("only the first {MAX_SPACES} paging spaces of this machine are used"),
        );
        spaces.truncate(MAX_SPACES);
    }
    for area in areas {
        area.has_spaces = spaces.iter().any(|space| space.disk == area.place.disk);
    }
    found
}

/// Looks at a disk without a partition table: a store, a cluster area or a local copy if it begins
/// as one, else a space.
fn whole(disk: usize, device: &PagingDevice, is_store: bool, found: &mut FoundPlaces) {
    let area = SpaceArea::whole(device.disk.info().capacity);
    let place = SpaceLocation { disk, number: 0, area };
    if is_store {
        return found.stores.push(place);
    }
    let head = device.area_head(area);
    let is_area = head.chunks(SUPERBLOCK).any(|copy| copy.starts_with(MAGIC));
    if head.starts_with(LOCAL_MAGIC) {
        let bytes = device.first_bytes(area, LOCAL_BYTES as usize);
        found.locals.push(LocalPlace { number: disk, disk: device.disk, bytes });
    } else if is_area {
        found.areas.push(AreaPlace { place, disk: device.disk, head, has_spaces: false });
    } else {
        found.spaces.push(place);
        found.guids.push(Uuid::NIL);
    }
}

fn from_table(
    disk: usize,
    device: &PagingDevice,
    table: &GptTable,
    primary: Option<GptError>,
    found: &mut FoundPlaces,
) {
    if let Some(fault) = primary {
        trouble(disk, &format!("the primary GPT is damaged, the backup counts: {fault}"));
    }
    let is_ours = |entry: &&GptEntry| entry.is_space() || entry.is_store() || entry.is_cluster();
    if !table.entries.iter().any(|entry| is_ours(&entry)) {
        trouble(
            disk,
            "holds a GPT without a paging space; it belongs to another program and is left alone",
        );
    }
    for entry in table.entries.iter().filter(is_ours) {
        match entry.sectors().map(SpaceArea::part) {
            Ok(Some(area)) => {
                add(device, entry, SpaceLocation { disk, number: entry.number, area }, found);
            }
            Ok(None) => trouble(disk, &format!("GPT entry {} ends beyond all disks", entry.number)),
            Err(fault) => {
                trouble(disk, &format!("GPT entry {} {fault}; nothing touches it", entry.number))
            }
        }
    }
}

/// Adds a GPT partition of one of our types.
fn add(device: &PagingDevice, entry: &GptEntry, place: SpaceLocation, found: &mut FoundPlaces) {
    if entry.is_cluster() {
        let head = device.area_head(place.area);
        found.areas.push(AreaPlace { place, disk: device.disk, head, has_spaces: false });
    } else if entry.is_store() {
        found.stores.push(place);
    } else {
        found.spaces.push(place);
        found.guids.push(Uuid(entry.guid.to_bytes()));
    }
}

fn trouble(disk: usize, message: &str) {
    report(&ConsoleEvent::Error { place: &format!("paging device {disk}"), message });
}
