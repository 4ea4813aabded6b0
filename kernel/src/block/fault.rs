//! A wrapper around a disk that fails, delays and drops requests on command, and counts them.
//!
//! ```text
//!   submit ──> rule matches? ── no ──────────────────────> inner disk ──> completion
//!                 │ Fail   ─> not passed on ───────────────> completion with that error, at the next poll
//!                 │ Drop   ─> not passed on ─ time-out ────> completion TimedOut, as a driver would
//!                 └ Delay  ─> inner disk ─> held ─ time ───> completion
//! ```

use alloc::vec::Vec;

use super::request::DiskError;
use super::stats::{DiskCounters, DiskStats};
use super::{
    Completion, Cookie, Disk, DiskInfo, DiskOperation, DiskRequest, SectorRange, SubmitError,
};
use crate::sync::{RankedLock, rank};
use crate::time::Ns;

/// The effect on a request that a rule matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FaultEffect {
    /// The request never reaches the disk and ends in this error.
    Fail(DiskError),
    /// The request never reaches the disk and times out.
    Drop,
    /// The request is carried out, and its completion is delayed.
    Delay {
        /// Time after the poll that found it complete.
        ns: Ns,
    },
}

/// An effect, and the requests it applies to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FaultRule {
    /// The operation; `None` for any.
    pub operation: Option<DiskOperation>,
    /// Requests that touch these sectors; `None` for all.
    pub sectors: Option<SectorRange>,
    /// The effect.
    pub effect: FaultEffect,
    /// Number of matches, after which the rule is removed.
    pub times: u32,
}

impl FaultRule {
    fn matches(&self, request: &DiskRequest<'_>) -> bool {
        self.operation.is_none_or(|o| o == request.operation)
            && self.sectors.is_none_or(|s| {
                request.operation != DiskOperation::Flush && overlap(s, request.sectors)
            })
    }
}

fn overlap(a: SectorRange, b: SectorRange) -> bool {
    a.first < b.first.saturating_add(b.count) && b.first < a.first.saturating_add(a.count)
}

/// A completion that is held back.
struct HeldCompletion {
    completion: Completion,
    /// When to deliver it; set by the first poll, which brings the time.
    due_ns: Option<Ns>,
    wait_ns: Ns,
}

#[derive(Default)]
struct Faults {
    rules: Vec<FaultRule>,
    held: Vec<HeldCompletion>,
    delayed: Vec<(Cookie, Ns)>,
}

impl Faults {
    /// Uses up one match of the first rule that matches this request.
    fn effect_for(&mut self, request: &DiskRequest<'_>) -> Option<FaultEffect> {
        let n = self.rules.iter().position(|rule| rule.matches(request))?;
        let effect = self.rules[n].effect;
        self.rules[n].times -= 1;
        if self.rules[n].times == 0 {
            self.rules.remove(n);
        }
        Some(effect)
    }

    /// Takes one held completion whose time has come.
    fn take_due(&mut self, now_ns: Ns) -> Option<Completion> {
        for held in &mut self.held {
            held.due_ns.get_or_insert(now_ns.saturating_add(held.wait_ns));
        }
        let n = self.held.iter().position(|held| held.due_ns.is_some_and(|due| due <= now_ns))?;
        Some(self.held.remove(n).completion)
    }

    /// Holds a completion back if its request was delayed.
    fn hold_back(&mut self, completion: Completion, now_ns: Ns) -> Option<Completion> {
        let Some(n) = self.delayed.iter().position(|(cookie, _)| *cookie == completion.cookie)
        else {
            return Some(completion);
        };
        let (_, ns) = self.delayed.remove(n);
        self.held.push(HeldCompletion {
            completion,
            due_ns: Some(now_ns.saturating_add(ns)),
            wait_ns: ns,
        });
        None
    }
}

/// The wrapper. All cookies in flight must differ.
pub(super) struct FaultDisk<D> {
    inner: D,
    timeout_ns: Ns,
    stats: DiskStats,
    faults: RankedLock<Faults, { rank::DISK }>,
}

impl<D: Disk> FaultDisk<D> {
    /// Wraps `inner`; dropped requests time out after `timeout_ns`.
    pub(super) fn new(inner: D, timeout_ns: Ns) -> Self {
        Self { inner, timeout_ns, stats: DiskStats::default(), faults: RankedLock::default() }
    }

    /// Adds a rule; earlier rules take precedence.
    pub(super) fn inject(&self, rule: FaultRule) {
        if rule.times > 0 {
            self.faults.lock().rules.push(rule);
        }
    }

    /// Returns the disk inside.
    pub(super) fn inner(&self) -> &D {
        &self.inner
    }

    fn hold(&self, cookie: Cookie, error: DiskError, wait_ns: Ns) {
        let completion = Completion { cookie, result: Err(error) };
        self.faults.lock().held.push(HeldCompletion { completion, due_ns: None, wait_ns });
    }
}

impl<D: Disk> Disk for FaultDisk<D> {
    fn info(&self) -> DiskInfo {
        self.inner.info()
    }

    fn submit(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        request.check(&self.info())?;
        let effect = self.faults.lock().effect_for(request);
        match effect {
            Some(FaultEffect::Fail(error)) => self.hold(request.cookie, error, Ns::ZERO),
            Some(FaultEffect::Drop) => {
                self.hold(request.cookie, DiskError::TimedOut, self.timeout_ns)
            }
            Some(FaultEffect::Delay { ns }) => {
                self.inner.submit(request)?;
                self.faults.lock().delayed.push((request.cookie, ns));
            }
            None => self.inner.submit(request)?,
        }
        self.stats.taken(request);
        Ok(())
    }

    fn is_dead(&self) -> bool {
        self.inner.is_dead()
    }

    fn poll(&self, now_ns: Ns, out: &mut [Completion]) -> usize {
        let found = self.inner.poll(now_ns, out);
        let mut faults = self.faults.lock();
        let mut kept = 0;
        for n in 0..found {
            if let Some(completion) = faults.hold_back(out[n], now_ns) {
                out[kept] = completion;
                kept += 1;
            }
        }
        while let Some(slot) = out.get_mut(kept) {
            let Some(completion) = faults.take_due(now_ns) else { break };
            *slot = completion;
            kept += 1;
        }
        let failed = out[..kept].iter().filter(|c| c.result.is_err());
        failed.for_each(|_| self.stats.failed());
        kept
    }

    fn counters(&self) -> DiskCounters {
        self.stats.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::super::dma::fake::FakeDmaMemory;
    use super::super::memory::MemoryDisk;
    use super::super::{DmaSegment, QueueLane};
    use super::*;
    use crate::addr::Hpa;

    const SEGMENTS: [DmaSegment; 1] = [DmaSegment { base: Hpa::new(0x1000), len: 512 }];

    fn write(first: u64) -> DiskRequest<'static> {
        let sectors = SectorRange { first, count: 1 };
        DiskRequest {
            operation: DiskOperation::Write,
            sectors,
            segments: &SEGMENTS,
            lane: QueueLane::Common,
            cookie: Cookie(first),
        }
    }

    fn poll(disk: &impl Disk, now_ns: Ns) -> Vec<(u64, Result<(), DiskError>)> {
        let mut out = [Completion { cookie: Cookie(0), result: Ok(()) }; 8];
        let n = disk.poll(now_ns, &mut out);
        out[..n].iter().map(|c| (c.cookie.0, c.result)).collect()
    }

    fn with_disk(test: impl FnOnce(&FaultDisk<MemoryDisk<&FakeDmaMemory>>, &FakeDmaMemory)) {
        let memory = FakeDmaMemory::new(0x20000);
        memory.write(Hpa::new(0x1000), &[9; 512]);
        let disk =
            FaultDisk::new(MemoryDisk::new(0, &memory, Hpa::new(0x10000), 0x10000), Ns::from_us(1));
        test(&disk, &memory);
    }

    #[test]
    fn a_failed_write_ends_in_the_error_and_does_not_reach_the_disk() {
        with_disk(|disk, memory| {
            let sectors = Some(SectorRange { first: 2, count: 1 });
            let effect = FaultEffect::Fail(DiskError::Io);
            disk.inject(FaultRule {
                operation: Some(DiskOperation::Write),
                sectors,
                effect,
                times: 1,
            });
            disk.submit(&write(1)).unwrap();
            disk.submit(&write(2)).unwrap();
            assert_eq!(poll(disk, Ns::ZERO), [(1, Ok(())), (2, Err(DiskError::Io))]);
            assert_eq!(memory.read(Hpa::new(0x10400), 1), [0]);
            disk.submit(&write(2)).unwrap();
            assert_eq!(poll(disk, Ns::ZERO), [(2, Ok(()))], "the rule was for one request");
            assert_eq!((disk.counters().requests.write, disk.counters().errors), (3, 1));
            assert_eq!(disk.inner().counters().requests.write, 2);
        });
    }

    #[test]
    fn a_dropped_write_times_out() {
        with_disk(|disk, _| {
            disk.inject(FaultRule {
                operation: None,
                sectors: None,
                effect: FaultEffect::Drop,
                times: 1,
            });
            disk.submit(&write(1)).unwrap();
            assert_eq!(poll(disk, Ns::new(5)), []);
            assert_eq!(poll(disk, Ns::new(1_004)), []);
            assert_eq!(poll(disk, Ns::new(1_005)), [(1, Err(DiskError::TimedOut))]);
        });
    }

    #[test]
    fn a_delayed_write_is_done_and_told_later() {
        with_disk(|disk, memory| {
            disk.inject(FaultRule {
                operation: None,
                sectors: None,
                effect: FaultEffect::Delay { ns: Ns::new(50) },
                times: 1,
            });
            disk.submit(&write(1)).unwrap();
            disk.submit(&write(2)).unwrap();
            assert_eq!(poll(disk, Ns::new(100)), [(2, Ok(()))]);
            assert_eq!(memory.read(Hpa::new(0x10200), 1), [9]);
            assert_eq!(poll(disk, Ns::new(149)), []);
            assert_eq!(poll(disk, Ns::new(150)), [(1, Ok(()))]);
        });
    }
}
