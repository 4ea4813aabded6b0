//! Blocking requests, one at a time and with a time-out, for start-up only: nothing else may use
//! the disk meanwhile.
//!
//! A completion of another request would be lost here, so blocking requests end before the first
//! partition runs. The driver's own time-out comes first; the time-out here only ends a wait for a
//! broken driver.

use super::request::SECTOR_SIZE;
use super::{
    Completion, Cookie, Disk, DiskError, DiskOperation, DiskRequest, DmaSegment, QueueLane,
    SectorRange, SubmitError,
};
use crate::addr::Hpa;
use crate::time::Ns;

/// The cookie of blocking requests.
const COOKIE: Cookie = Cookie(u64::MAX);

/// Why a blocking request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockingError {
    /// The disk did not accept it.
    Refused(SubmitError),
    /// The disk accepted it and failed.
    Failed(DiskError),
    /// The disk did not answer in time. The device may still own the buffer: it must never be used
    /// again.
    Stuck,
}

/// A disk, a clock and a time-out.
pub struct BlockingDisk<'a, C> {
    disk: &'a dyn Disk,
    clock: C,
    timeout_ns: Ns,
}

impl<'a, C: Fn() -> Ns> BlockingDisk<'a, C> {
    /// Uses `disk` with the time of `clock`, and waits at most `timeout_ns` per request.
    pub fn new(disk: &'a dyn Disk, clock: C, timeout_ns: Ns) -> Self {
        Self { disk, clock, timeout_ns }
    }

    /// Reads `bytes` (whole sectors) from byte `offset` of the disk to `buffer`.
    ///
    /// # Errors
    /// [`BlockingError`] says where it failed.
    pub fn read(&self, offset: u64, buffer: Hpa, bytes: u32) -> Result<(), BlockingError> {
        self.transfer(DiskOperation::Read, offset, buffer, bytes)
    }

    /// Writes `bytes` (whole sectors) from `buffer` to byte `offset` of the disk.
    ///
    /// # Errors
    /// [`BlockingError`] says where it failed.
    pub fn write(&self, offset: u64, buffer: Hpa, bytes: u32) -> Result<(), BlockingError> {
        self.transfer(DiskOperation::Write, offset, buffer, bytes)
    }

    /// Makes all earlier writes durable.
    ///
    /// # Errors
    /// [`BlockingError`] says where it failed.
    pub fn flush(&self) -> Result<(), BlockingError> {
        self.run(&DiskRequest {
            operation: DiskOperation::Flush,
            sectors: SectorRange { first: 0, count: 0 },
            segments: &[],
            lane: QueueLane::Common,
            cookie: COOKIE,
        })
    }

    fn transfer(
        &self,
        operation: DiskOperation,
        offset: u64,
        base: Hpa,
        len: u32,
    ) -> Result<(), BlockingError> {
        if !offset.is_multiple_of(SECTOR_SIZE) {
            return Err(BlockingError::Refused(SubmitError::Invalid));
        }
        let sectors =
            SectorRange { first: offset / SECTOR_SIZE, count: u64::from(len) / SECTOR_SIZE };
        self.run(&DiskRequest {
            operation,
            sectors,
            segments: &[DmaSegment { base, len }],
            lane: QueueLane::Common,
            cookie: COOKIE,
        })
    }

    /// Carries out one request.
    ///
    /// # Errors
    /// [`BlockingError`] says where it failed.
    pub fn run(&self, request: &DiskRequest<'_>) -> Result<(), BlockingError> {
        let request = DiskRequest { cookie: COOKIE, ..*request };
        self.disk.submit(&request).map_err(BlockingError::Refused)?;
        let end = (self.clock)().saturating_add(self.timeout_ns);
        let mut out = [Completion { cookie: Cookie(0), result: Ok(()) }];
        loop {
            let now = (self.clock)();
            if self.disk.poll(now, &mut out) == 1 && out[0].cookie == COOKIE {
                return match out[0].result {
                    Err(DiskError::TimedOut) => Err(BlockingError::Stuck),
                    result => result.map_err(BlockingError::Failed),
                };
            }
            if now >= end {
                return Err(BlockingError::Stuck);
            }
            crate::arch::interrupts::spin();
        }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::super::dma::fake::FakeDmaMemory;
    use super::super::fault::{FaultDisk, FaultEffect, FaultRule};
    use super::super::memory::MemoryDisk;
    use super::*;

    fn with(
        timeout_ns: Ns,
        test: impl FnOnce(&FakeDmaMemory, &FaultDisk<MemoryDisk<&FakeDmaMemory>>, &dyn Fn() -> Ns),
    ) {
        let memory = FakeDmaMemory::new(0x20000);
        let disk =
            FaultDisk::new(MemoryDisk::new(0, &memory, Hpa::new(0x10000), 0x10000), timeout_ns);
        let time = Cell::new(Ns::ZERO);
        test(&memory, &disk, &|| {
            time.set(time.get() + Ns::new(1));
            time.get()
        });
    }

    #[test]
    fn what_was_written_is_read_back() {
        with(Ns::new(10), |memory, disk, clock| {
            let blocking = BlockingDisk::new(disk, clock, Ns::new(100));
            memory.write(Hpa::new(0x1000), &[5; 1024]);
            assert_eq!(blocking.write(512, Hpa::new(0x1000), 1024), Ok(()));
            assert_eq!(blocking.flush(), Ok(()));
            assert_eq!(blocking.read(1024, Hpa::new(0x3000), 512), Ok(()));
            assert_eq!(memory.read(Hpa::new(0x3000), 512), [5; 512]);
        });
    }

    #[test]
    fn errors_come_through_and_a_silent_driver_is_given_up() {
        let rule = |effect| FaultRule { operation: None, sectors: None, effect, times: 1 };
        with(Ns::from_us(1), |_, disk, clock| {
            let blocking = BlockingDisk::new(disk, clock, Ns::new(100));
            disk.inject(rule(FaultEffect::Fail(DiskError::Io)));
            assert_eq!(blocking.flush(), Err(BlockingError::Failed(DiskError::Io)));
            disk.inject(rule(FaultEffect::Drop));
            assert_eq!(blocking.flush(), Err(BlockingError::Stuck));
            let unaligned = Err(BlockingError::Refused(SubmitError::Invalid));
            assert_eq!(blocking.read(1, Hpa::new(0x1000), 512), unaligned);
            assert_eq!(blocking.read(0x10000, Hpa::new(0x1000), 512), unaligned);
        });
        with(Ns::new(50), |_, disk, clock| {
            disk.inject(rule(FaultEffect::Drop));
            let stuck = Err(BlockingError::Stuck);
            assert_eq!(
                BlockingDisk::new(disk, clock, Ns::new(100)).flush(),
                stuck,
                "the disk still has the buffer"
            );
        });
    }
}
