//! One type for every kind of disk, for the pager. Every request passes the disk's gate.
//!
//! Writes in flight are limited, and write-outs of pages have the lowest priority. They are held
//! back in two cases:
//!
//! * A task's request was refused, by the limit or by a full queue. There is always a further page
//!   to write, so the task would starve.
//! * A crash is being described. On a slow disk each of the dump's tables would wait behind pages,
//!   and a power cut costs the dump until all tables are written.
//!
//! Both waits end: a refusal expires after `REFUSED_NS`, and each request of a description ends.
//!
//! Dynamic dispatch costs one indirect call per request, and a request carries many pages: an enum
//! of drivers would gain nothing.

use crate::addr::Hpa;
use crate::arch::time;
use crate::block::any::FoundDisk;
use crate::block::cookie::{CompletionOwner, CookieFields};
use crate::block::gate::SubmitGate;
use crate::block::pace::WritePace;
use crate::block::request::SECTOR_SIZE;
use crate::block::{
    Completion, Cookie, Disk, DiskError, DiskIncident, DiskInfo, DiskOperation, DiskRequest,
    QueueLane, SubmitError,
};
use crate::log::history::{self, HistoryKind};
use crate::sync::{RankedLock, rank};
use crate::time::{AtomicNs, Ns};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU32, Ordering};

/// Least time between two reports of failed requests.
const REPORT_NS: Ns = Ns::from_secs(1);
/// How long pages wait for a task's request that was refused. The task submits it again at its next
/// turn.
const REFUSED_NS: Ns = Ns::from_ms(50);
/// The end of a lease that does not go on.
const LEFT_NS: Ns = Ns::ZERO;
/// The end of a lease that has not begun.
const UNJOINED_NS: Ns = Ns::new(1);
/// The end of every lease where the rule is left out.
const ENDLESS_NS: Ns = Ns::new(u64::MAX / 2);
/// Limit on writes of tasks in flight that pass the pace.
const MOST_BESIDE: usize = 16;
/// Limit on writes in flight on a disk.
const MOST_WRITES: usize = 72;

/// A paging device.
pub struct NodeDisk {
    found: FoundDisk,
    info: DiskInfo,
    gate: SubmitGate,
    /// Requests that failed and have not been reported yet.
    failed: AtomicU32,
    /// Earliest time of the next report, so that a bad disk does not flood the event stream.
    report_at: AtomicNs,
    /// End of the cluster's lease on the disk; `Ns::MAX` if it belongs to none, [`LEFT_NS`] if this
    /// node is not a member any more.
    member_end: AtomicNs,
    writes: RankedLock<InFlightWrites, { rank::DISK }>,
}

/// Where a disk stands in the cluster that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskLease {
    /// It belongs to no cluster.
    Alone,
    /// This node has yet to register in its cluster.
    Awaited,
    /// The lease lasts until this time, if the cluster does not extend it.
    Until(Ns),
    /// This node is not a member any more: its partitions on the disk are another one's.
    Left,
}

/// Marks that a crash is being described on a disk, until the value is dropped.
pub struct DescribingGuard<'d>(&'d NodeDisk);

impl Drop for DescribingGuard<'_> {
    fn drop(&mut self) {
        self.0.writes.lock().describing -= 1;
    }
}

/// The writes in flight on a disk whose requests can wait behind them.
#[derive(Default)]
struct InFlightWrites {
    pace: WritePace,
    /// Cookie, bytes, time of submission.
    in_flight: ArrayVec<(Cookie, u64, Ns), MOST_WRITES>,
    /// Writes of tasks that pass the pace: claims, image stores.
    beside: ArrayVec<Cookie, MOST_BESIDE>,
    /// A task's request that was refused, and the time until which pages wait for it.
    refused: Option<(Cookie, Ns)>,
    /// Number of crashes that are being described on the disk.
    describing: u32,
}

impl InFlightWrites {
    fn admit(&mut self, cookie: Cookie, bytes: u64, now_ns: Ns) -> bool {
        if class_of(cookie) == Some(CompletionOwner::WriteOut)
            && (self.describing > 0 || self.refused.is_some_and(|(_, until_ns)| now_ns < until_ns))
        {
            return false;
        }
        let is_free = !self.in_flight.is_full() && self.pace.admit(bytes);
        if is_free {
            self.in_flight.push((cookie, bytes, now_ns));
        }
        is_free
    }

    /// Records that a task's request was submitted, or was refused for lack of room.
    fn note(&mut self, cookie: Cookie, result: Result<(), SubmitError>, now_ns: Ns) {
        if result == Err(SubmitError::Full) {
            self.refused = Some((cookie, now_ns.saturating_add(REFUSED_NS)));
        } else if self.refused.is_some_and(|(refused, _)| refused == cookie) {
            self.refused = None;
        }
    }

    fn take(&mut self, cookie: Cookie) -> Option<(u64, Ns)> {
        let n = self.in_flight.iter().position(|write| write.0 == cookie)?;
        let (_, bytes, submitted_ns) = self.in_flight.swap_remove(n);
        Some((bytes, submitted_ns))
    }

    /// Notes a write that passes the pace; returns whether there is room for it.
    fn admit_beside(&mut self, cookie: Cookie) -> bool {
        self.beside.try_push(cookie).is_ok()
    }

    fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.beside.is_empty()
    }

    fn answered(&mut self, cookie: Cookie, now_ns: Ns) {
        self.beside.retain(|other| *other != cookie);
        if let Some((bytes, submitted_ns)) = self.take(cookie) {
            self.pace.answered(bytes, now_ns.saturating_sub(submitted_ns));
        }
    }

    fn withdraw(&mut self, cookie: Cookie) {
        self.beside.retain(|other| *other != cookie);
        if let Some((bytes, _)) = self.take(cookie) {
            self.pace.withdraw(bytes);
        }
    }
}

fn class_of(cookie: Cookie) -> Option<CompletionOwner> {
    CookieFields::of(cookie).map(|tag| tag.class)
}

/// Returns whether a request is a bulk write, behind which other requests wait.
fn is_paced(request: &DiskRequest<'_>) -> bool {
    matches!(request.operation, DiskOperation::Write | DiskOperation::WriteZeroes)
        && request.lane == QueueLane::Common
}

/// Returns whether a task submitted the request: for records, claims or a dump's tables.
fn is_tasks(cookie: Cookie) -> bool {
    class_of(cookie) == Some(CompletionOwner::Task)
}

impl NodeDisk {
    /// Wraps a disk that discovery has found.
    pub fn new(found: FoundDisk) -> Self {
        let gate =
            if found.base.is_some() { SubmitGate::unshared() } else { SubmitGate::unclaimed() };
        Self {
            info: found.disk.info(),
            found,
            gate,
            failed: AtomicU32::new(0),
            report_at: AtomicNs::new(Ns::ZERO),
            member_end: AtomicNs::new(Ns::MAX),
            writes: RankedLock::default(),
        }
    }

    /// Holds back write-outs of pages while the returned value lives.
    pub fn describe_crash(&self) -> DescribingGuard<'_> {
        self.writes.lock().describing += 1;
        DescribingGuard(self)
    }

    /// Closes the gate for good: another node has taken the disk.
    pub fn give_up(&self) {
        history::record_machine(HistoryKind::DiskGivenUp, self.info.index.into(), [0, 0]);
        self.gate.give_up();
    }

    /// Opens the gate until the lease on the disk's claims ends, or the cluster's.
    pub fn open_until(&self, lease_end_ns: Ns) {
        if cfg!(feature = "without-freeze") {
            return self.gate.open_until(ENDLESS_NS);
        }
        self.gate.open_until(lease_end_ns.min(self.member_end.load(Ordering::Acquire)));
    }

    /// Sets the end of the cluster's lease on the disk. The gate opens at the next beat of a claim.
    pub fn lease_until(&self, end_ns: Ns) {
        self.member_end.store(end_ns, Ordering::Release);
    }

    /// Leaves the disk to a cluster that this node has yet to join, also once more after it was
    /// given up. Nothing that was submitted before may be in flight.
    pub fn await_lease(&self) {
        self.lease_until(UNJOINED_NS);
        self.gate.begin_anew();
    }

    /// Ends the cluster's lease now and for good: nothing but beats is submitted from now on.
    pub fn end_lease(&self) {
        self.lease_until(LEFT_NS);
        self.gate.open_until(Ns::ZERO);
    }

    /// Returns where the disk stands in its cluster.
    pub fn lease(&self) -> DiskLease {
        match self.member_end.load(Ordering::Acquire) {
            Ns::MAX => DiskLease::Alone,
            _ if self.gate.is_given_up() => DiskLease::Left,
            LEFT_NS => DiskLease::Left,
            UNJOINED_NS => DiskLease::Awaited,
            _ if cfg!(feature = "without-freeze") => DiskLease::Until(ENDLESS_NS),
            end => DiskLease::Until(end),
        }
    }

    /// Returns whether writes of paging spaces are in flight, those of their claims among them.
    pub fn has_writes(&self) -> bool {
        !self.writes.lock().is_empty()
    }

    /// Treats all writes as answered. For tests whose pager polls the disk under another name.
    #[cfg(test)]
    pub fn take_writes_for_answered(&self, now_ns: Ns) {
        let mut writes = self.writes.lock();
        while let Some((cookie, ..)) = writes.in_flight.last().copied() {
            writes.answered(cookie, now_ns);
        }
    }

    /// Returns the number of failed requests since the last such answer, at most once a second.
    pub fn take_failed(&self, now_ns: Ns) -> Option<u32> {
        if self.failed.load(Ordering::Relaxed) == 0
            || now_ns < self.report_at.load(Ordering::Relaxed)
        {
            return None;
        }
        self.report_at.store(now_ns.saturating_add(REPORT_NS), Ordering::Relaxed);
        Some(self.failed.swap(0, Ordering::Relaxed))
    }

    /// Returns the address of the disk's first byte if the disk is memory-backed.
    pub const fn base(&self) -> Option<Hpa> {
        self.found.base
    }
}

impl NodeDisk {
    fn submit_write(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        let bytes = request.sectors.count * SECTOR_SIZE;
        if !self.writes.lock().admit(request.cookie, bytes, time::now_ns()) {
            return Err(SubmitError::Full);
        }
        let result = self.found.disk.submit(request);
        if result.is_err() {
            self.writes.lock().withdraw(request.cookie);
        }
        result
    }

    /// Submits a write that passes the pace. A member that signs off waits for it too.
    fn submit_beside(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        if !self.writes.lock().admit_beside(request.cookie) {
            return Err(SubmitError::Full);
        }
        let result = self.found.disk.submit(request);
        if result.is_err() {
            self.writes.lock().withdraw(request.cookie);
        }
        result
    }

    /// Submits a task's request to a disk that can be slower than the CPU. If it is refused,
    /// pages wait for it.
    #[cold]
    fn submit_tasks(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        let result = if is_paced(request) {
            self.submit_write(request)
        } else if matches!(request.operation, DiskOperation::Read | DiskOperation::Flush) {
            self.found.disk.submit(request)
        } else {
            self.submit_beside(request)
        };
        self.writes.lock().note(request.cookie, result, time::now_ns());
        result
    }
}

impl Disk for NodeDisk {
    fn info(&self) -> DiskInfo {
        self.info
    }

    #[inline(always)]
    fn submit(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        match self.gate.check(request.lane, request.operation, time::now_ns) {
            // A memory-backed disk is never slower than the CPU.
            Ok(()) if self.gate.is_unshared() => self.found.disk.submit(request),
            Ok(()) if is_tasks(request.cookie) => self.submit_tasks(request),
            Ok(()) if is_paced(request) => self.submit_write(request),
            Ok(()) => self.found.disk.submit(request),
            // The lease of a dead disk is never renewed.
            Err(SubmitError::Full) if self.found.disk.is_dead() => Err(SubmitError::Failed),
            Err(error) => Err(error),
        }
    }

    #[inline(always)]
    fn poll(&self, now_ns: Ns, out: &mut [Completion]) -> usize {
        let count = self.found.disk.poll(now_ns, out);
        // A memory-backed disk neither fails nor is slower than the CPU.
        if self.gate.is_unshared() {
            return count;
        }
        // A late request is reported as an incident of its own.
        let is_error = |completion: &&Completion| {
            matches!(completion.result, Err(DiskError::Io | DiskError::Unsupported))
        };
        let failed = out[..count].iter().filter(is_error).count();
        if failed > 0 {
            self.failed.fetch_add(failed as u32, Ordering::Relaxed);
        }
        if count > 0 {
            let mut writes = self.writes.lock();
            out[..count].iter().for_each(|completion| writes.answered(completion.cookie, now_ns));
        }
        count
    }

    fn has_answers(&self) -> bool {
        self.found.disk.has_answers()
    }

    fn write_room(&self) -> u64 {
        if self.gate.is_unshared() { u64::MAX } else { self.writes.lock().pace.room() }
    }

    fn take_incident(&self) -> Option<DiskIncident> {
        self.found.disk.take_incident()
    }

    fn hurry(&self, request_ns: Ns) {
        self.found.disk.hurry(request_ns);
    }

    #[inline(always)]
    fn is_dead(&self) -> bool {
        !self.gate.is_unshared() && (self.gate.is_given_up() || self.found.disk.is_dead())
    }

    fn is_suspended(&self) -> bool {
        self.gate.is_suspended(time::now_ns) && !self.found.disk.is_dead()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = crate::block::pace::FIRST;

    fn cookie(class: CompletionOwner, slot: u32) -> Cookie {
        CookieFields { class, detail: 0, slot }.cookie()
    }

    #[test]
    fn pages_wait_for_a_tasks_request_that_was_refused_but_not_for_ever() {
        let mut writes = InFlightWrites::default();
        let full = Err(SubmitError::Full);
        assert!(writes.admit(cookie(CompletionOwner::WriteOut, 1), BYTES, Ns::ZERO));
        assert!(
            !writes.admit(cookie(CompletionOwner::Task, 1), BYTES, Ns::new(10)),
            "the bound is reached"
        );
        writes.note(cookie(CompletionOwner::Task, 1), full, Ns::new(10));
        writes.answered(cookie(CompletionOwner::WriteOut, 1), Ns::new(20));
        assert!(
            !writes.admit(cookie(CompletionOwner::WriteOut, 2), BYTES, Ns::new(30)),
            "it would go before the task's"
        );
        assert!(writes.admit(cookie(CompletionOwner::Task, 1), BYTES, Ns::new(40)));
        writes.note(cookie(CompletionOwner::Task, 1), Ok(()), Ns::new(40));
        writes.answered(cookie(CompletionOwner::Task, 1), Ns::new(50));
        assert!(writes.admit(cookie(CompletionOwner::WriteOut, 2), BYTES, Ns::new(60)));
        assert!(!writes.admit(cookie(CompletionOwner::Task, 2), 1 << 30, Ns::new(70)));
        writes.note(cookie(CompletionOwner::Task, 2), full, Ns::new(70));
        writes.answered(cookie(CompletionOwner::WriteOut, 2), Ns::new(80));
        assert!(
            writes.admit(cookie(CompletionOwner::WriteOut, 3), BYTES, Ns::new(70) + REFUSED_NS),
            "the task has gone"
        );
    }

    #[test]
    fn what_another_task_gets_does_not_end_the_wait() {
        let mut writes = InFlightWrites::default();
        writes.note(cookie(CompletionOwner::Task, 1), Err(SubmitError::Full), Ns::new(10));
        writes.note(cookie(CompletionOwner::Task, 2), Ok(()), Ns::new(11));
        assert!(!writes.admit(cookie(CompletionOwner::WriteOut, 1), 512, Ns::new(12)));
        writes.note(cookie(CompletionOwner::Task, 1), Ok(()), Ns::new(13));
        assert!(writes.admit(cookie(CompletionOwner::WriteOut, 1), 512, Ns::new(14)));
    }

    #[test]
    fn a_write_that_passes_the_pace_is_in_flight_until_its_answer() {
        let mut writes = InFlightWrites::default();
        let claim = |n| cookie(CompletionOwner::Task, n);
        assert!(
            writes.is_empty() && writes.admit_beside(claim(1)) && writes.admit_beside(claim(2))
        );
        writes.answered(claim(1), Ns::new(5));
        assert!(!writes.is_empty(), "the other one may still land");
        writes.withdraw(claim(2));
        assert!(writes.is_empty());
        let admitted = (0..).take_while(|n| writes.admit_beside(claim(*n))).count();
        assert_eq!(admitted, MOST_BESIDE);
    }

    #[test]
    fn pages_wait_while_a_crash_is_described_and_tables_do_not() {
        let mut writes = InFlightWrites { describing: 1, ..InFlightWrites::default() };
        assert!(
            !writes.admit(cookie(CompletionOwner::WriteOut, 1), 512, Ns::ZERO)
                && writes.admit(cookie(CompletionOwner::Task, 1), 512, Ns::ZERO)
        );
        writes.describing = 0;
        assert!(writes.admit(cookie(CompletionOwner::WriteOut, 1), 512, Ns::ZERO));
    }
}
