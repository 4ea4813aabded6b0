//! What a disk is asked and what it answers.

use crate::addr::Hpa;

/// Bytes of a sector, the unit of addresses on a disk (VIRTIO 1.2 §5.2 "Block Device").
pub const SECTOR_SIZE: u64 = 512;

/// The submitter's word for a request, handed back in its completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cookie(pub u64);

/// A physically contiguous piece of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First byte.
    pub base: Hpa,
    /// Bytes; a multiple of the sector size.
    pub len: u32,
}

/// A range of sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectorRange {
    /// First sector.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Disk to memory.
    Read,
    /// Memory to disk; durable after a later flush.
    Write,
    /// Everything completed before is durable when this completes.
    Flush,
    /// The range's content is not needed any more.
    Discard,
    /// The range reads as zeros afterwards.
    WriteZeroes,
}

/// One request. For read and write the segments' lengths sum up to the range; else there are none.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What to do.
    pub operation: Operation,
    /// Where on the disk; ignored by flush.
    pub sectors: SectorRange,
    /// Where in memory.
    pub segments: &'a [Segment],
    /// Comes back in the completion.
    pub cookie: Cookie,
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// The request's.
    pub cookie: Cookie,
    /// Well or not.
    pub result: Result<(), DiskError>,
}

/// Why a request failed. The environment's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskError {
    /// The device reported an I/O error.
    Io,
    /// The device does not support the operation.
    Unsupported,
    /// No answer in time; the device has been reset and no longer owns the buffers.
    TimedOut,
    /// The device is gone or broken.
    Dead,
}

/// Why a request was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubmitError {
    /// The queue is full: poll, then try again.
    Full,
    /// Out of range or beyond the limits.
    Invalid,
    /// The device is dead.
    Failed,
}

/// What a disk is and can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskInfo {
    /// Number of the disk, in the order of discovery.
    pub index: u8,
    /// Sectors of 512 bytes.
    pub capacity: u64,
    /// Most segments in a request.
    pub max_segments: usize,
    /// Most bytes in a segment.
    pub max_segment_len: u32,
    /// Requests that fit in flight.
    pub depth: usize,
    /// Writes are volatile until flushed.
    pub write_cache: bool,
    /// Takes [`Operation::Discard`].
    pub discard: bool,
    /// Takes [`Operation::WriteZeroes`].
    pub write_zeroes: bool,
    /// The host's name for it (virtio serial), zero-padded.
    pub serial: [u8; 20],
}
