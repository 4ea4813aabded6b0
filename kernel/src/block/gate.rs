//! The only place that decides whether a request may go to a disk now: a node submits nothing to a
//! disk that may belong to another node.
//!
//! ```text
//!   Unclaimed ── first claim ──> Leased until t ── another node has it ──> GivenUp
//!     only reads                 now <= t: all; later: nothing, until a beat is confirmed
//!
//!   Unshared                     a memory-backed disk: all, always
//! ```
//!
//! Requests of [`QueueLane::Beat`] pass until the disk is given up: they renew the lease. So do
//! those of [`QueueLane::Store`]: an image store is for all nodes.

use super::{DiskOperation, QueueLane, SubmitError};
use crate::time::Ns;
use core::sync::atomic::{AtomicU64, Ordering};

const UNSHARED: u64 = u64::MAX;
const UNCLAIMED: u64 = 1;
const GIVEN_UP: u64 = 0;

/// The gate of one disk.
#[derive(Debug)]
pub struct SubmitGate(AtomicU64);

impl SubmitGate {
    /// Makes the gate of a disk that no other node can see.
    pub const fn unshared() -> Self {
        Self(AtomicU64::new(UNSHARED))
    }

    /// Makes the gate of a disk on which nothing is claimed yet.
    pub const fn unclaimed() -> Self {
        Self(AtomicU64::new(UNCLAIMED))
    }

    /// Opens the gate until `lease_end_ns`.
    pub fn open_until(&self, lease_end_ns: Ns) {
        let end = lease_end_ns.as_u64().clamp(UNCLAIMED + 1, UNSHARED - 1);
        let _ = self.0.try_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            (now != GIVEN_UP && now != UNSHARED).then_some(end)
        });
    }

    /// Closes the gate for good.
    pub fn give_up(&self) {
        self.0.store(GIVEN_UP, Ordering::Release);
    }

    /// Begins anew after [`Self::give_up`]: nothing is claimed. To be called when nothing that was
    /// submitted before is in flight.
    pub fn begin_anew(&self) {
        let _ = self.0.compare_exchange(GIVEN_UP, UNCLAIMED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Returns whether another node has the disk.
    pub fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Acquire) == GIVEN_UP
    }

    /// Returns whether no other node can see the disk.
    #[inline]
    pub fn is_unshared(&self) -> bool {
        self.0.load(Ordering::Acquire) == UNSHARED
    }

    /// Returns whether the lease has ended: the disk's content may then come from another node.
    pub fn is_suspended(&self, now_ns: impl FnOnce() -> Ns) -> bool {
        match self.0.load(Ordering::Acquire) {
            GIVEN_UP | UNCLAIMED | UNSHARED => false,
            end => now_ns().as_u64() > end,
        }
    }

    /// Decides whether a request may be submitted.
    ///
    /// # Errors
    /// [`SubmitError::Full`] while the lease has ended: try again. [`SubmitError::Failed`] if
    /// another node has the disk, and for a write before anything is claimed.
    #[inline]
    pub fn check(
        &self,
        lane: QueueLane,
        operation: DiskOperation,
        now_ns: impl FnOnce() -> Ns,
    ) -> Result<(), SubmitError> {
        match self.0.load(Ordering::Acquire) {
            UNSHARED => Ok(()),
            GIVEN_UP => Err(SubmitError::Failed),
            _ if lane != QueueLane::Common => Ok(()),
            UNCLAIMED if operation == DiskOperation::Read => Ok(()),
            UNCLAIMED => Err(SubmitError::Failed),
            end if now_ns().as_u64() <= end => Ok(()),
            _ => Err(SubmitError::Full),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [DiskOperation; 5] = [
        DiskOperation::Read,
        DiskOperation::Write,
        DiskOperation::Flush,
        DiskOperation::Discard,
        DiskOperation::WriteZeroes,
    ];

    #[test]
    fn before_a_claim_a_disk_is_only_read() {
        let gate = SubmitGate::unclaimed();
        for operation in ALL {
            let expected =
                if operation == DiskOperation::Read { Ok(()) } else { Err(SubmitError::Failed) };
            assert_eq!(gate.check(QueueLane::Common, operation, || Ns::ZERO), expected);
            for lane in [QueueLane::Beat, QueueLane::Store] {
                assert_eq!(gate.check(lane, operation, || Ns::ZERO), Ok(()));
            }
        }
    }

    #[test]
    fn a_lease_lets_all_through_until_its_end_and_nothing_but_beats_after() {
        let gate = SubmitGate::unclaimed();
        gate.open_until(Ns::new(100));
        for operation in ALL {
            assert_eq!(gate.check(QueueLane::Common, operation, || Ns::new(100)), Ok(()));
            assert_eq!(
                gate.check(QueueLane::Common, operation, || Ns::new(101)),
                Err(SubmitError::Full)
            );
            assert_eq!(gate.check(QueueLane::Beat, operation, || Ns::new(101)), Ok(()));
        }
        assert!(!gate.is_suspended(|| Ns::new(100)) && gate.is_suspended(|| Ns::new(101)));
        gate.open_until(Ns::new(200));
        assert_eq!(gate.check(QueueLane::Common, DiskOperation::Write, || Ns::new(200)), Ok(()));
    }

    #[test]
    fn a_disk_that_was_given_up_stays_so() {
        let gate = SubmitGate::unclaimed();
        gate.open_until(Ns::new(100));
        gate.give_up();
        gate.open_until(Ns::from_us(1));
        for lane in [QueueLane::Common, QueueLane::Beat, QueueLane::Store] {
            assert_eq!(
                gate.check(lane, DiskOperation::Read, || Ns::ZERO),
                Err(SubmitError::Failed)
            );
        }
        assert!(gate.is_given_up() && !gate.is_suspended(|| Ns::MAX));
    }

    #[test]
    fn a_disk_that_was_given_up_begins_anew_without_a_lease() {
        let gate = SubmitGate::unclaimed();
        gate.open_until(Ns::new(100));
        gate.begin_anew();
        assert_eq!(gate.check(QueueLane::Common, DiskOperation::Write, || Ns::new(9)), Ok(()));
        gate.give_up();
        gate.begin_anew();
        assert!(!gate.is_given_up());
        assert_eq!(
            gate.check(QueueLane::Common, DiskOperation::Write, || Ns::new(9)),
            Err(SubmitError::Failed)
        );
    }

    #[test]
    fn memory_of_the_machine_needs_no_lease() {
        let gate = SubmitGate::unshared();
        gate.open_until(Ns::new(5));
        assert_eq!(gate.check(QueueLane::Common, DiskOperation::Write, || Ns::MAX), Ok(()));
        assert!(gate.is_unshared() && !gate.is_suspended(|| Ns::MAX));
    }
}
