//! Finds the spaces: a disk with a GUID partition table has one for each entry of our type; any
//! other disk is one space.
//!
//! Runs alone, before there is a pager. A disk whose table has no entry of our type belongs to
//! another system. An entry that cannot be trusted is reported and left alone; the others are used.

use crate::addr::Hpa;
use crate::arch::{interrupts, time};
use crate::block::blocking::{BlockingDisk, BlockingError};
use crate::block::dma::DmaRegion;
use crate::block::gpt::{self, GptError, GptFinding, GptTable};
use crate::block::patience::{AfterRefusal, PAUSE_NS, RetryCount};
use crate::block::request::SECTOR_SIZE;
use crate::block::{Disk, DiskError, QueueLane};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::paging::MAX_SPACES;
use crate::space::SpaceArea;
use crate::storage::disk::NodeDisk;
use crate::sync::{RankedLock, rank};
use crate::time::Ns;
use alloc::format;
use alloc::vec::Vec;

/// Time-out for a driver; the driver itself gives up earlier.
const TIMEOUT_NS: Ns = Ns::from_secs(60);

/// Location of a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceLocation {
    /// Its disk.
    pub disk: usize,
    /// Number of its GPT entry; 0 if the space is the whole disk.
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
            QueueLane::Common => &mut self.common,
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

    /// Looks for a partition table, with retries if the disk refuses.
    fn table_at_last(&self, number: usize) -> Result<GptFinding, DiskError> {
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

    fn table(&self) -> Result<GptFinding, DiskError> {
        let buffer = self.take_buffer(QueueLane::Common).ok_or(DiskError::Dead)?;
        let disk = BlockingDisk::new(self.disk, time::now_ns, TIMEOUT_NS);
        let found = gpt::read(self.disk.info().capacity, |sector, bytes| {
            read(&disk, sector, &buffer, bytes)
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
    bytes.iter_mut().enumerate().for_each(|(n, byte)| *byte = buffer.read(n));
    Ok(())
}

/// Returns the locations of all spaces, in the order of disks and of GPT entries.
pub(super) fn places(devices: &[PagingDevice]) -> Vec<SpaceLocation> {
    let mut places = Vec::new();
    for (disk, device) in devices.iter().enumerate() {
        match device.table_at_last(disk) {
            Ok(GptFinding::None) => places.push(SpaceLocation {
                disk,
                number: 0,
                area: SpaceArea::whole(device.disk.info().capacity),
            }),
            Ok(GptFinding::Table(table, fault)) => from_table(disk, &table, fault, &mut places),
            Ok(GptFinding::Damaged(primary, backup)) => {
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
    if places.len() > MAX_SPACES {
        trouble(
            places[MAX_SPACES].disk,
            &format!("only the first {MAX_SPACES} paging spaces of this machine are used"),
        );
        places.truncate(MAX_SPACES);
    }
    places
}

fn from_table(
    disk: usize,
    table: &GptTable,
    primary: Option<GptError>,
    places: &mut Vec<SpaceLocation>,
) {
    if let Some(fault) = primary {
        trouble(disk, &format!("the primary GPT is damaged, the backup counts: {fault}"));
    }
    if !table.entries.iter().any(|entry| entry.is_space()) {
        trouble(
            disk,
            "holds a GPT without a paging space; it belongs to another program and is left alone",
        );
    }
    for entry in table.entries.iter().filter(|entry| entry.is_space()) {
        match entry.sectors().map(SpaceArea::part) {
            Ok(Some(area)) => places.push(SpaceLocation { disk, number: entry.number, area }),
            Ok(None) => trouble(disk, &format!("GPT entry {} ends beyond all disks", entry.number)),
            Err(fault) => {
                trouble(disk, &format!("GPT entry {} {fault}; nothing touches it", entry.number))
            }
        }
    }
}

fn trouble(disk: usize, message: &str) {
    report(&ConsoleEvent::Error { place: &format!("paging device {disk}"), message });
}
