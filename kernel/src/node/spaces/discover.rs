//! Which spaces there are: a disk with a GUID partition table has one for each entry of our type, any other disk is one.
//!
//! Read with nothing else running, before there is a pager. A disk whose table holds none of ours is somebody else's; an entry
//! that cannot be trusted is named and left alone, the others are used.

use crate::addr::Hpa;
use crate::arch::time;
use crate::block::blocking::{Blocking, BlockingError};
use crate::block::dma::DmaRegion;
use crate::block::gpt::{self, Fault, Found, Table};
use crate::block::request::SECTOR_SIZE;
use crate::block::{Disk, DiskError};
use crate::console::event::Event;
use crate::node::disk::NodeDisk;
use crate::node::report;
use crate::paging::space::Area;
use crate::sync::{Ranked, rank};
use alloc::format;
use alloc::vec::Vec;

/// Most spaces of a node; memory for them is set aside at start.
const MAX_SPACES: usize = 64;
/// Patience with a driver, which gives up earlier by itself.
const TIMEOUT_NS: u64 = 60_000_000_000;

/// Where a space lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its disk.
    pub disk: usize,
    /// Number of its GPT entry; 0 where it is the whole disk.
    pub number: u32,
    /// Its part of the disk.
    pub area: Area,
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.number {
            0 => write!(f, "paging device {}", self.disk),
            number => write!(f, "paging device {}, GPT entry {number}", self.disk),
        }
    }
}

/// A paging device: a disk, and the buffer that everything around the blocks of its spaces goes through.
pub struct Device {
    disk: &'static NodeDisk,
    buffer: Ranked<Option<DmaRegion>, { rank::SPACE }>,
}

impl Device {
    /// Gives a disk its buffer.
    pub const fn new(disk: &'static NodeDisk, buffer: DmaRegion) -> Self {
        Self { disk, buffer: Ranked::new(Some(buffer)) }
    }

    pub(super) const fn disk(&self) -> &'static NodeDisk {
        self.disk
    }

    pub(super) fn take_buffer(&self) -> Option<DmaRegion> {
        self.buffer.lock().take()
    }

    pub(super) fn give_buffer(&self, buffer: DmaRegion) {
        *self.buffer.lock() = Some(buffer);
    }

    /// Looks for a partition table.
    fn table(&self) -> Result<Found, DiskError> {
        let buffer = self.take_buffer().ok_or(DiskError::Dead)?;
        let disk = Blocking::new(self.disk, time::now_ns, TIMEOUT_NS);
        let found = gpt::read(self.disk.info().capacity, |sector, bytes| read(&disk, sector, &buffer, bytes));
        match found {
            // The device may still write to the buffer: nobody gets it any more.
            Err(BlockingError::Stuck) => return Err(DiskError::Dead),
            _ => self.give_buffer(buffer),
        }
        found.map_err(|_| DiskError::Io)
    }
}

fn read(disk: &Blocking<'_, impl Fn() -> u64>, sector: u64, buffer: &DmaRegion, bytes: &mut [u8]) -> Result<(), BlockingError> {
    let at: Hpa = buffer.hpa(0);
    disk.read(sector * SECTOR_SIZE, at, bytes.len() as u32)?;
    bytes.iter_mut().enumerate().for_each(|(n, byte)| *byte = buffer.read(n));
    Ok(())
}

/// Returns the places of all spaces, in the order of disks and of GPT entries.
pub(super) fn places(devices: &[Device]) -> Vec<Place> {
    let mut places = Vec::new();
    for (disk, device) in devices.iter().enumerate() {
        match device.table() {
            Ok(Found::None) => places.push(Place { disk, number: 0, area: Area::whole(device.disk.info().capacity) }),
            Ok(Found::Table(table, fault)) => from_table(disk, &table, fault, &mut places),
            Ok(Found::Damaged(primary, backup)) => {
                trouble(disk, &format!("damaged GPT, nothing touches it: primary: {primary}; backup: {backup}"));
            }
            Err(error) => trouble(disk, &format!("cannot be read: {error:?}")),
        }
    }
    if places.len() > MAX_SPACES {
        trouble(places[MAX_SPACES].disk, &format!("only the first {MAX_SPACES} paging spaces of this machine are used"));
        places.truncate(MAX_SPACES);
    }
    places
}

fn from_table(disk: usize, table: &Table, primary: Option<Fault>, places: &mut Vec<Place>) {
    if let Some(fault) = primary {
        trouble(disk, &format!("the primary GPT is damaged, the backup counts: {fault}"));
    }
    if !table.entries.iter().any(|entry| entry.is_space()) {
        trouble(disk, "holds a GPT without a paging space; it is somebody else's and left alone");
    }
    for entry in table.entries.iter().filter(|entry| entry.is_space()) {
        match entry.sectors().map(Area::part) {
            Ok(Some(area)) => places.push(Place { disk, number: entry.number, area }),
            Ok(None) => trouble(disk, &format!("GPT entry {} ends beyond all disks", entry.number)),
            Err(fault) => trouble(disk, &format!("GPT entry {} {fault}; nothing touches it", entry.number)),
        }
    }
}

fn trouble(disk: usize, message: &str) {
    report(&Event::Error { place: &format!("paging device {disk}"), message });
}
