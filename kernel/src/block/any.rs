//! The kinds of disk of a running machine behind one type, so that loops over requests call no `dyn`.

use super::dma::DirectMemory;
use super::memory::MemoryDisk;
use super::virtio::VirtioDisk;
use super::virtio::pci::PciPort;
use super::{Completion, Disk, DiskCounters, DiskInfo, Request, SubmitError};

/// A disk of this machine.
// Each lives for ever on the heap, one a disk.
#[allow(clippy::large_enum_variant)]
pub enum AnyDisk {
    /// virtio-blk on PCI.
    Virtio(VirtioDisk<PciPort>),
    /// In a region of the machine's memory.
    Memory(MemoryDisk<DirectMemory>),
}

impl Disk for AnyDisk {
    fn info(&self) -> DiskInfo {
        match self {
            Self::Virtio(disk) => disk.info(),
            Self::Memory(disk) => disk.info(),
        }
    }

    fn submit(&self, request: &Request<'_>) -> Result<(), SubmitError> {
        match self {
            Self::Virtio(disk) => disk.submit(request),
            Self::Memory(disk) => disk.submit(request),
        }
    }

    fn poll(&self, now_ns: u64, out: &mut [Completion]) -> usize {
        match self {
            Self::Virtio(disk) => disk.poll(now_ns, out),
            Self::Memory(disk) => disk.poll(now_ns, out),
        }
    }

    fn is_dead(&self) -> bool {
        match self {
            Self::Virtio(disk) => disk.is_dead(),
            Self::Memory(disk) => disk.is_dead(),
        }
    }

    fn counters(&self) -> DiskCounters {
        match self {
            Self::Virtio(disk) => disk.counters(),
            Self::Memory(disk) => disk.counters(),
        }
    }
}
