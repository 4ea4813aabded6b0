//! All kinds of disk of a running machine as one type, so that loops over requests make no `dyn`
//! calls.

use super::{Completion, Disk, DiskCounters, DiskIncident, DiskInfo, DiskRequest, SubmitError};
#[cfg(target_os = "none")]
use super::{dma::DirectMemory, memory::MemoryDisk, virtio::VirtioDisk, virtio::pci::PciPort};
use crate::addr::Hpa;
use crate::time::Ns;

/// A disk of this machine.
#[cfg_attr(
    target_os = "none",
    expect(clippy::large_enum_variant, reason = "a disk is allocated once and never freed")
)]
pub enum AnyDisk {
    /// virtio-blk on PCI.
    #[cfg(target_os = "none")]
    Virtio(VirtioDisk<PciPort>),
    /// In a region of the machine's memory.
    #[cfg(target_os = "none")]
    Memory(MemoryDisk<DirectMemory>),
    /// A test's disk, on the host.
    #[cfg(not(target_os = "none"))]
    Host(&'static (dyn Disk + Send)),
}

/// A disk that was found.
#[derive(Clone, Copy)]
pub struct FoundDisk {
    /// The disk.
    pub disk: &'static AnyDisk,
    /// Its first byte, if it is memory-backed.
    pub base: Option<Hpa>,
}

impl Disk for AnyDisk {
    fn info(&self) -> DiskInfo {
        match self {
            #[cfg(target_os = "none")]
            Self::Virtio(disk) => disk.info(),
            #[cfg(target_os = "none")]
            Self::Memory(disk) => disk.info(),
            #[cfg(not(target_os = "none"))]
            Self::Host(disk) => disk.info(),
        }
    }

    #[inline(always)]
    fn submit(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        match self {
            #[cfg(target_os = "none")]
            Self::Virtio(disk) => disk.submit(request),
            #[cfg(target_os = "none")]
            Self::Memory(disk) => disk.submit(request),
            #[cfg(not(target_os = "none"))]
            Self::Host(disk) => disk.submit(request),
        }
    }

    #[inline(always)]
    fn poll(&self, now_ns: Ns, out: &mut [Completion]) -> usize {
        match self {
            #[cfg(target_os = "none")]
            Self::Virtio(disk) => disk.poll(now_ns, out),
            #[cfg(target_os = "none")]
            Self::Memory(disk) => disk.poll(now_ns, out),
            #[cfg(not(target_os = "none"))]
            Self::Host(disk) => disk.poll(now_ns, out),
        }
    }

    fn has_answers(&self) -> bool {
        match self {
            #[cfg(target_os = "none")]
            Self::Virtio(disk) => disk.has_answers(),
            #[cfg(target_os = "none")]
            Self::Memory(disk) => disk.has_answers(),
            #[cfg(not(target_os = "none"))]
            Self::Host(disk) => disk.has_answers(),
        }
    }

    #[inline(always)]
    fn is_dead(&self) -> bool {
        match self {
            #[cfg(target_os = "none")]
            Self::Virtio(disk) => disk.is_dead(),
            #[cfg(target_os = "none")]
            Self::Memory(disk) => disk.is_dead(),
            #[cfg(not(target_os = "none"))]
            Self::Host(disk) => disk.is_dead(),
        }
    }

    fn take_incident(&self) -> Option<DiskIncident> {
        match self {
            #[cfg(target_os = "none")]
            Self::Virtio(disk) => disk.take_incident(),
            #[cfg(target_os = "none")]
            Self::Memory(disk) => disk.take_incident(),
            #[cfg(not(target_os = "none"))]
            Self::Host(disk) => disk.take_incident(),
        }
    }

    fn hurry(&self, request_ns: Ns) {
        match self {
            #[cfg(target_os = "none")]
            Self::Virtio(disk) => disk.hurry(request_ns),
            #[cfg(target_os = "none")]
            Self::Memory(disk) => disk.hurry(request_ns),
            #[cfg(not(target_os = "none"))]
            Self::Host(disk) => disk.hurry(request_ns),
        }
    }

    fn counters(&self) -> DiskCounters {
        match self {
            #[cfg(target_os = "none")]
            Self::Virtio(disk) => disk.counters(),
            #[cfg(target_os = "none")]
            Self::Memory(disk) => disk.counters(),
            #[cfg(not(target_os = "none"))]
            Self::Host(disk) => disk.counters(),
        }
    }
}
