//! Requests and completions of a disk.

use crate::addr::Hpa;
use crate::arch::heap::HeapError;
use crate::time::Ns;

/// Bytes of a sector, the unit of addresses on a disk (VIRTIO 1.2 §5.2 "Block Device").
pub const SECTOR_SIZE: u64 = 512;

/// Most sectors in a discard or write-zeroes, 32 MiB. A disk with a lower limit does not offer
/// these operations.
pub const MAX_RANGE_SECTORS: u64 = 1 << 16;

/// The submitter's identifier of a request, returned in its completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cookie(pub u64);

/// A physically contiguous piece of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaSegment {
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
    /// Number of sectors.
    pub count: u64,
}

/// The operation of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskOperation {
    /// Disk to memory.
    Read,
    /// Memory to disk; durable after a later flush.
    Write,
    /// Makes all writes completed before it durable.
    Flush,
    /// The content of the range is no longer needed.
    Discard,
    /// The range reads as zeros afterwards.
    WriteZeroes,
}

/// The part of a disk's queue that a request may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum QueueLane {
    /// All slots except the reserved one.
    #[default]
    Common,
    /// The reserved slot too: a full queue does not delay the request. For the beat of a claim, one
    /// at a time.
    Beat,
    /// As `Common`, for an image store: all nodes that see the disk may use it at the same time, by
    /// rules of its own, so that it needs no lease.
    Store,
}

/// One request. For a read or a write the lengths of the segments add up to the range; otherwise
/// there are no segments.
#[derive(Clone, Copy, Debug)]
pub struct DiskRequest<'a> {
    /// The operation.
    pub operation: DiskOperation,
    /// The sectors; ignored by flush.
    pub sectors: SectorRange,
    /// The buffer.
    pub segments: &'a [DmaSegment],
    /// The slots it may use.
    pub lane: QueueLane,
    /// Returned in the completion.
    pub cookie: Cookie,
}

/// The end of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// Cookie of the request.
    pub cookie: Cookie,
    /// Success or error.
    pub result: Result<(), DiskError>,
}

/// Why a request failed. The cause lies outside the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskError {
    /// The device reported an I/O error.
    Io,
    /// The device does not support the operation.
    Unsupported,
    /// The disk did not answer in time. It still has the buffers. They return to the submitter with
    /// a second completion with the same cookie, the late answer, which may never come.
    TimedOut,
    /// The device is gone or broken.
    Dead,
    /// The hypervisor has no memory for the request; the device was not involved.
    NoMemory,
}

impl From<HeapError> for DiskError {
    fn from(HeapError: HeapError) -> Self {
        Self::NoMemory
    }
}

impl core::fmt::Display for DiskError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Io => f.write_str("the disk reports an I/O error"),
            Self::Unsupported => f.write_str("the disk does not support the operation"),
            Self::TimedOut => f.write_str("the disk did not answer in time"),
            Self::Dead => f.write_str("the disk takes no requests any more"),
            Self::NoMemory => f.write_str("the hypervisor has no memory left for it"),
        }
    }
}

/// An event at a disk that belongs to no request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskIncident {
    /// A request timed out: the disk accepts none until all in flight are answered.
    WrittenOff {
        /// Requests in flight.
        unanswered: u16,
    },
    /// All answers have come: the disk accepts requests again.
    Back {
        /// Time since it was written off.
        away_ns: Ns,
    },
    /// The device broke its protocol or asked for a reset: it is reset when nothing is in flight.
    Broken,
    /// The capacity in sectors has changed. The content of the disk stays in place.
    Resized {
        /// Before.
        from: u64,
        /// Now.
        to: u64,
    },
    /// The device does not complete a reset, or is another one after it: it is no longer used.
    Dead,
}

/// Why a request was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubmitError {
    /// The queue is full: poll, then try again.
    Full,
    /// Out of range or beyond the limits.
    Invalid,
    /// The device is dead.
    Failed,
}

/// Properties of a disk.
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
    /// Requests of [`QueueLane::Common`] that fit in flight.
    pub depth: usize,
    /// Writes are volatile until flushed.
    pub write_cache: bool,
    /// The disk supports [`DiskOperation::Discard`].
    pub discard: bool,
    /// The disk supports [`DiskOperation::WriteZeroes`].
    pub write_zeroes: bool,
    /// The host's name for the disk (virtio serial), zero-padded.
    pub serial: [u8; 20],
}

impl DiskRequest<'_> {
    /// Checks the request against the limits of a disk.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] if the range or the segments do not fit.
    #[inline]
    pub fn check(&self, info: &DiskInfo) -> Result<(), SubmitError> {
        let sound = match self.operation {
            DiskOperation::Flush => self.segments.is_empty(),
            DiskOperation::Discard | DiskOperation::WriteZeroes => {
                self.segments.is_empty()
                    && self.in_range(info)
                    && self.sectors.count <= MAX_RANGE_SECTORS
            }
            DiskOperation::Read | DiskOperation::Write => {
                self.in_range(info) && self.segments_fit(info)
            }
        };
        if sound { Ok(()) } else { Err(SubmitError::Invalid) }
    }

    fn in_range(&self, info: &DiskInfo) -> bool {
        let end = self.sectors.first.checked_add(self.sectors.count);
        self.sectors.count > 0 && end.is_some_and(|end| end <= info.capacity)
    }

    fn segments_fit(&self, info: &DiskInfo) -> bool {
        let whole = |s: &DmaSegment| {
            s.len > 0
                && s.len <= info.max_segment_len
                && u64::from(s.len).is_multiple_of(SECTOR_SIZE)
                && s.base.checked_add(u64::from(s.len)).is_some()
        };
        // One pass: the sum cannot overflow, because no disk takes that many segments of 32-bit
        // lengths.
        let add = |sum: u64, s: &DmaSegment| whole(s).then(|| sum + u64::from(s.len));
        let sum = || self.segments.iter().try_fold(0, add);
        self.segments.len() <= info.max_segments
            && self.sectors.count.checked_mul(SECTOR_SIZE).is_some_and(|bytes| sum() == Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const INFO: DiskInfo = DiskInfo {
        index: 0,
        capacity: 100,
        max_segments: 2,
        max_segment_len: 4096,
        depth: 1,
        write_cache: true,
        discard: false,
        write_zeroes: false,
        serial: [0; 20],
    };

    fn check(
        operation: DiskOperation,
        first: u64,
        count: u64,
        lens: &[u32],
    ) -> Result<(), SubmitError> {
        let segments: Vec<_> =
            lens.iter().map(|len| DmaSegment { base: Hpa::new(0x1000), len: *len }).collect();
        DiskRequest {
            operation,
            sectors: SectorRange { first, count },
            segments: &segments,
            lane: QueueLane::Common,
            cookie: Cookie(0),
        }
        .check(&INFO)
    }

    #[test]
    fn a_request_up_to_the_last_sector_fits_and_one_beyond_does_not() {
        assert_eq!(check(DiskOperation::Read, 92, 8, &[4096]), Ok(()));
        assert_eq!(check(DiskOperation::Read, 93, 8, &[4096]), Err(SubmitError::Invalid));
        assert_eq!(check(DiskOperation::Write, u64::MAX, 8, &[4096]), Err(SubmitError::Invalid));
        assert_eq!(check(DiskOperation::Discard, 99, 1, &[]), Ok(()));
        assert_eq!(check(DiskOperation::WriteZeroes, 99, 2, &[]), Err(SubmitError::Invalid));
    }

    #[test]
    fn segments_must_add_up_and_be_within_the_limits() {
        assert_eq!(check(DiskOperation::Write, 0, 9, &[4096, 512]), Ok(()));
        for lens in [&[4096][..], &[4096, 512, 0], &[4608], &[2048, 2048, 512], &[]] {
            assert_eq!(
                check(DiskOperation::Write, 0, 9, lens),
                Err(SubmitError::Invalid),
                "{lens:?}"
            );
        }
        assert_eq!(check(DiskOperation::Read, 0, 1, &[100]), Err(SubmitError::Invalid));
        assert_eq!(check(DiskOperation::Read, 0, u64::MAX / 4, &[4096]), Err(SubmitError::Invalid));
        assert_eq!(check(DiskOperation::Read, 0, 0, &[]), Err(SubmitError::Invalid));
    }

    #[test]
    fn flush_has_no_range_and_no_segments() {
        assert_eq!(check(DiskOperation::Flush, u64::MAX, u64::MAX, &[]), Ok(()));
        assert_eq!(check(DiskOperation::Flush, 0, 0, &[512]), Err(SubmitError::Invalid));
    }
}
