//! The beat of the claims: one task per disk, with its own requests, so that it waits for no other
//! disk and no other work.
//!
//! A beat writes the claims of the disk's spaces and reads them back. The disk accepts requests
//! until two seconds after the *submission* of the last confirmed beat. The records are read with
//! the claims: if a late write of an earlier owner has overwritten the newest record, the record is
//! written again.

use super::{SpaceId, Spaces};
use crate::arch::time;
use crate::block::MAX_DISKS;
use crate::block::{DiskError, QueueLane};
use crate::space::claim::BEAT_NS;
use crate::space::holding::{BeatVerdict, SpaceHolding};
use crate::space::{RecordSide, SpaceRecord, Uuid};
use crate::storage::DiskLease;
use crate::task::until;
use crate::time::{AtomicNs, Ns};
use alloc::format;
use core::sync::atomic::{AtomicBool, Ordering};

/// Most consecutive beats that late writes may overwrite before the task waits for the next beat.
const MOST_BURIED: usize = 8;

/// How long the beats of a disk may fail before the disk is given up: as long as the time-out of a
/// request.
const PATIENCE_NS: Ns = Ns::from_secs(30);

/// When to renew the claims of each disk.
#[derive(Debug)]
pub(super) struct Beats {
    disks: [DiskBeat; MAX_DISKS],
}

#[derive(Debug)]
struct DiskBeat {
    /// Time of the next beat; `Ns::MAX` before there is anything to renew, and after the disk was
    /// given up.
    due_ns: AtomicNs,
    /// A task reads and writes claims of this disk.
    is_taken: AtomicBool,
    /// When beats began to fail; 0 while they succeed.
    failing_since_ns: AtomicNs,
}

/// The exclusive right to read and write the claims of a disk.
pub(super) struct BeatGuard<'a>(&'a AtomicBool);

impl Drop for BeatGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Beats {
    pub(super) const fn new() -> Self {
        const fn never() -> DiskBeat {
            let (due_ns, failing_since_ns) = (AtomicNs::new(Ns::MAX), AtomicNs::new(Ns::ZERO));
            DiskBeat { due_ns, is_taken: AtomicBool::new(false), failing_since_ns }
        }
        Self { disks: [const { never() }; MAX_DISKS] }
    }

    fn try_turn(&self, disk: usize) -> Option<BeatGuard<'_>> {
        let taken = &self.disks[disk].is_taken;
        // Lazily: a turn that is dropped would free the disk.
        (!taken.swap(true, Ordering::AcqRel)).then(|| BeatGuard(taken))
    }

    /// Waits for the turn at a disk's claims.
    pub(super) async fn turn(&self, disk: usize) -> BeatGuard<'_> {
        until(|| self.try_turn(disk)).await
    }

    /// Begins to renew the claims of a disk.
    pub(super) fn begin(&self, disk: usize) {
        self.disks[disk].due_ns.store(time::now_ns() + BEAT_NS, Ordering::Release);
    }

    /// Stops renewing the claims of a disk.
    pub(super) async fn stop(&self, disk: usize) -> BeatGuard<'_> {
        self.disks[disk].due_ns.store(Ns::MAX, Ordering::Release);
        self.turn(disk).await
    }

    /// Schedules the next beat, unless the claims were given up meanwhile.
    fn note_end(&self, disk: usize) {
        let next = |due: Ns| (due != Ns::MAX).then(|| time::now_ns() + BEAT_NS);
        let _ = self.disks[disk].due_ns.try_update(Ordering::AcqRel, Ordering::Acquire, next);
    }
}

impl Spaces {
    /// Renews the claims of each disk when the time has come; called at every turn.
    pub fn beat(&'static self, now_ns: Ns) {
        for disk in 0..self.devices.len() {
            if now_ns < self.beats.disks[disk].due_ns.load(Ordering::Acquire) {
                continue;
            }
            if let Some(turn) = self.beats.try_turn(disk) {
                self.tasks.start(async move {
                    self.beat_with_turn(disk, &turn).await;
                    self.beats.note_end(disk);
                });
            }
        }
    }

    /// Renews the claims of a disk now.
    pub(super) async fn beat_disk(&self, disk: usize) {
        let turn = self.beats.turn(disk).await;
        self.beat_with_turn(disk, &turn).await;
    }

    /// Renews the claims of all spaces on a disk, and with them the disk's lease. The lease follows
    /// the claim with the oldest beat.
    async fn beat_with_turn(&self, disk: usize, _turn: &BeatGuard<'_>) {
        let mut lease_end_ns = Ns::MAX;
        for id in (0..self.spaces.len()).map(SpaceId).filter(|&id| self.place(id).disk == disk) {
            let Some(mut holding) = self.space(id).inner.lock().holding else { continue };
            let held = self.renew_claim(id, &mut holding).await;
            if let Ok(BeatVerdict::Ended(node)) = held {
                return self.lose_disk(disk, id, node);
            }
            self.note_beat(disk, id, held.err());
            match &mut self.space(id).inner.lock().holding {
                Some(held) => *held = holding,
                // Given up meanwhile.
                None => return,
            }
            lease_end_ns = lease_end_ns.min(holding.lease_end_ns());
        }
        // Without a claim the cluster's lease alone counts, if the disk has one.
        let is_shared = self.devices[disk].disk().lease() != DiskLease::Alone;
        if lease_end_ns != Ns::MAX || is_shared {
            self.devices[disk].disk().open_until(lease_end_ns);
        }
    }

    /// Records whether a beat failed. A failed beat confirms nothing; the next one may succeed. A
    /// disk whose claims cannot be renewed for long is given up.
    fn note_beat(&self, disk: usize, id: SpaceId, error: Option<DiskError>) {
        let since = &self.beats.disks[disk].failing_since_ns;
        let Some(error) = error else { return since.store(Ns::ZERO, Ordering::Release) };
        let now_ns = time::now_ns();
        match since.load(Ordering::Acquire) {
            Ns::ZERO => {
                since.store(now_ns.max(Ns::new(1)), Ordering::Release);
                self.trouble(
                    id,
                    &format!(
                        "its claim cannot be renewed ({error}); its disk waits once the lease is \
                         over"
                    ),
                );
            }
            start if now_ns.saturating_sub(start) > PATIENCE_NS => {
                self.give_disk_up(disk);
                self.trouble(
                    id,
                    "its claim could not be renewed for 30 s; nothing is written to its disk any \
                     more",
                );
            }
            _ => {}
        }
    }

    /// Carries out a beat of one space, by the rules of [`SpaceHolding`].
    async fn renew_claim(
        &self,
        id: SpaceId,
        holding: &mut SpaceHolding,
    ) -> Result<BeatVerdict, DiskError> {
        while holding.looks_first(time::now_ns()) {
            let (look, _) = self.look(id).await?;
            if time::now_ns().saturating_sub(look.asked_ns) > BEAT_NS {
                continue;
            }
            if let BeatVerdict::Ended(node) = holding.looked_first(&look) {
                return Ok(BeatVerdict::Ended(node));
            }
            break;
        }
        let mut held = BeatVerdict::Overwritten;
        for _ in 0..MOST_BURIED {
            held = self.beat_once(id, holding).await?;
            if held != BeatVerdict::Overwritten {
                break;
            }
        }
        Ok(held)
    }

    /// Writes the claim of the next beat and evaluates the disk's contents afterwards.
    pub(super) async fn beat_once(
        &self,
        id: SpaceId,
        holding: &mut SpaceHolding,
    ) -> Result<BeatVerdict, DiskError> {
        let claim = holding.beat();
        let written_ns = time::now_ns();
        self.write_claim(id, &claim).await?;
        let known = self.record_sequence(id);
        let (look, ending) = self.look(id).await?;
        let held = holding.looked(&look, written_ns);
        if let (BeatVerdict::Confirmed { lease_end_ns }, Some(known)) = (held, known) {
            self.repair_record(id, known, ending.tail(), lease_end_ns).await?;
        }
        Ok(held)
    }

    /// Writes the newest record again if it was overwritten. `known` is the sequence number of the
    /// newest record before `tail` was read: a record written meanwhile need not be in `tail`.
    async fn repair_record(
        &self,
        id: SpaceId,
        known: u64,
        tail: &[u8],
        lease_end_ns: Ns,
    ) -> Result<(), DiskError> {
        let Some(record) = self.try_take_record(id, known) else { return Ok(()) };
        let at = RecordSide::of(record.sequence).offset_in_tail();
        let mut result = Ok(());
        let is_spoiled = tail.get(at..at + 4096).is_some_and(|there| *there != record.encode());
        if is_spoiled && time::now_ns() <= lease_end_ns {
            self.trouble(id, "the record was overwritten by another node, and is written again");
            result = self.write_record_in(id, QueueLane::Beat, &record).await;
        }
        self.give_record(id);
        result
    }

    /// Returns the sequence number of the record written last.
    fn record_sequence(&self, id: SpaceId) -> Option<u64> {
        self.space(id).inner.lock().record.as_ref().map(|record| record.sequence)
    }

    /// Returns the record with this sequence number if it is the newest and no task is writing the
    /// next one.
    fn try_take_record(&self, id: SpaceId, known: u64) -> Option<SpaceRecord> {
        let mut inner = self.space(id).inner.lock();
        if inner.is_record_busy {
            return None;
        }
        let record = inner.record.clone().filter(|record| record.sequence == known)?;
        inner.is_record_busy = true;
        Some(record)
    }

    /// Waits until no other task uses the record, and returns it. The next task waits for
    /// [`Self::give_record`].
    pub async fn take_record(&self, id: SpaceId) -> Option<SpaceRecord> {
        until(|| {
            let mut inner = self.space(id).inner.lock();
            (!inner.is_record_busy).then(|| {
                inner.is_record_busy = true;
                inner.record.clone()
            })
        })
        .await
    }

    /// Lets the next task use the record.
    pub fn give_record(&self, id: SpaceId) {
        self.space(id).inner.lock().is_record_busy = false;
    }

    /// Gives up the disk of a space that another node has taken: no further request goes to the
    /// disk.
    fn lose_disk(&self, disk: usize, id: SpaceId, node: Uuid) {
        self.give_disk_up(disk);
        let taker = if node == Uuid::NIL { "another node".into() } else { format!("node {node}") };
        self.trouble(id, &format!("was taken by {taker}; nothing is written to its disk any more"));
    }

    fn give_disk_up(&self, disk: usize) {
        self.devices[disk].disk().give_up();
        self.forget_claims(disk);
    }

    /// Renews the claims of a disk no longer.
    pub(super) fn forget_claims(&self, disk: usize) {
        for held in self.held_on(disk) {
            self.space(held).inner.lock().holding = None;
        }
        let beat = &self.beats.disks[disk];
        beat.due_ns.store(Ns::MAX, Ordering::Release);
        beat.failing_since_ns.store(Ns::ZERO, Ordering::Release);
    }
}
