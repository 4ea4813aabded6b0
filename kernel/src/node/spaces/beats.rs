//! The beat of the claims: one task a disk, on requests of its own, so that it waits for no other disk and no other work.
//!
//! A beat writes the claims of the disk's spaces and reads them back. The disk takes requests until two seconds after the
//! *submission* of the last beat that was confirmed. With the claims come the records: where a late write of an earlier owner
//! lies in place of the newest record, that is written again.

use super::{SpaceId, Spaces};
use crate::arch::time;
use crate::block::{DiskError, Lane};
use crate::node::task::until;
use crate::paging::MAX_DISKS;
use crate::paging::space::claim::BEAT_NS;
use crate::paging::space::holding::{Held, Holding};
use crate::paging::space::{Record, Side, Uuid};
use alloc::format;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Beats in a row that late writes may bury before the next one is waited for.
const MOST_BURIED: usize = 8;

/// How long the beats of a disk may fail before it is given up: as long as a request is waited for.
const PATIENCE_NS: u64 = 30_000_000_000;

/// When the claims of each disk are renewed.
#[derive(Debug)]
pub(super) struct Beats {
    disks: [DiskBeat; MAX_DISKS],
}

#[derive(Debug)]
struct DiskBeat {
    /// The next one; never, before there is anything to renew and after it was given up.
    due_ns: AtomicU64,
    /// A task reads and writes claims of this disk.
    is_taken: AtomicBool,
    /// Since when beats fail; 0 while they do not.
    failing_since_ns: AtomicU64,
}

/// The right to read and write the claims of a disk.
pub(super) struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Beats {
    pub(super) const fn new() -> Self {
        const fn never() -> DiskBeat {
            let (due_ns, failing_since_ns) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
            DiskBeat { due_ns, is_taken: AtomicBool::new(false), failing_since_ns }
        }
        Self { disks: [const { never() }; MAX_DISKS] }
    }

    fn try_turn(&self, disk: usize) -> Option<Turn<'_>> {
        let taken = &self.disks[disk].is_taken;
        // Lazily: a turn that is dropped gives the disk free.
        (!taken.swap(true, Ordering::AcqRel)).then(|| Turn(taken))
    }

    /// Waits for the turn at a disk's claims.
    pub(super) async fn turn(&self, disk: usize) -> Turn<'_> {
        until(|| self.try_turn(disk)).await
    }

    /// Begins to renew the claims of a disk.
    pub(super) fn begin(&self, disk: usize) {
        self.disks[disk].due_ns.store(time::now_ns() + BEAT_NS, Ordering::Release);
    }

    /// Renews the claims of a disk no more.
    pub(super) async fn stop(&self, disk: usize) -> Turn<'_> {
        self.disks[disk].due_ns.store(u64::MAX, Ordering::Release);
        self.turn(disk).await
    }

    /// Notes the end of a beat, unless the claims were given up meanwhile.
    fn note_end(&self, disk: usize) {
        let next = |due: u64| (due != u64::MAX).then(|| time::now_ns() + BEAT_NS);
        let _ = self.disks[disk].due_ns.try_update(Ordering::AcqRel, Ordering::Acquire, next);
    }
}

impl Spaces {
    /// Renews the claims of each disk when it is time; called at every turn.
    pub fn beat(&'static self, now_ns: u64) {
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

    /// Renews the claims of all spaces on a disk, and with them its lease: that of the claim whose beat is the oldest.
    async fn beat_with_turn(&self, disk: usize, _turn: &Turn<'_>) {
        let mut lease_end_ns = u64::MAX;
        for id in (0..self.spaces.len()).map(SpaceId).filter(|&id| self.place(id).disk == disk) {
            let Some(mut holding) = self.space(id).inner.lock().holding else { continue };
            let held = self.renew_claim(id, &mut holding).await;
            if let Ok(Held::Ended(node)) = held {
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
        if lease_end_ns != u64::MAX {
            self.devices[disk].disk().open_until(lease_end_ns);
        }
    }

    /// A beat that fails confirms nothing; the next one may. A disk whose claims cannot be renewed for long is no use to this node.
    fn note_beat(&self, disk: usize, id: SpaceId, error: Option<DiskError>) {
        let since = &self.beats.disks[disk].failing_since_ns;
        let Some(error) = error else { return since.store(0, Ordering::Release) };
        let now_ns = time::now_ns().max(1);
        match since.load(Ordering::Acquire) {
            0 => {
                since.store(now_ns, Ordering::Release);
                self.trouble(id, &format!("its claim cannot be renewed ({error}); its disk waits until it can"));
            }
            start if now_ns.saturating_sub(start) > PATIENCE_NS => {
                self.give_disk_up(disk);
                self.trouble(id, "its claim could not be renewed for 30 s; nothing is written to its disk any more");
            }
            _ => {}
        }
    }

    /// Carries out a beat of one space, by the rules of [`Holding`].
    async fn renew_claim(&self, id: SpaceId, holding: &mut Holding) -> Result<Held, DiskError> {
        while holding.looks_first(time::now_ns()) {
            let (look, _) = self.look(id).await?;
            if time::now_ns().saturating_sub(look.asked_ns) > BEAT_NS {
                continue;
            }
            if let Held::Ended(node) = holding.looked_first(&look) {
                return Ok(Held::Ended(node));
            }
            break;
        }
        let mut held = Held::Buried;
        for _ in 0..MOST_BURIED {
            held = self.beat_once(id, holding).await?;
            if held != Held::Buried {
                break;
            }
        }
        Ok(held)
    }

    /// Writes the claim one beat on and judges what lies there afterwards.
    pub(super) async fn beat_once(&self, id: SpaceId, holding: &mut Holding) -> Result<Held, DiskError> {
        let claim = holding.beat();
        let written_ns = time::now_ns();
        self.write_claim(id, &claim).await?;
        let known = self.record_sequence(id);
        let (look, ending) = self.look(id).await?;
        let held = holding.looked(&look, written_ns);
        if let (Held::Confirmed { lease_end_ns }, Some(known)) = (held, known) {
            self.repair_record(id, known, ending.tail(), lease_end_ns).await?;
        }
        Ok(held)
    }

    /// Writes the newest record again, where something else lies in its place. `known` is the number of the newest one from before
    /// `tail` was read: a record that was written meanwhile need not be in it.
    async fn repair_record(&self, id: SpaceId, known: u64, tail: &[u8], lease_end_ns: u64) -> Result<(), DiskError> {
        let Some(record) = self.try_take_record(id, known) else { return Ok(()) };
        let at = Side::of(record.sequence).offset_in_tail();
        let mut result = Ok(());
        let is_spoiled = tail.get(at..at + 4096).is_some_and(|there| *there != record.encode());
        if is_spoiled && time::now_ns() <= lease_end_ns {
            self.trouble(id, "the record was overwritten from elsewhere, and is written again");
            result = self.write_record_in(id, Lane::Beat, &record).await;
        }
        self.give_record(id);
        result
    }

    /// Returns the number of the record that was written last.
    fn record_sequence(&self, id: SpaceId) -> Option<u64> {
        self.space(id).inner.lock().record.as_ref().map(|record| record.sequence)
    }

    /// Returns the record of this number, if it is the newest and no task is about to write the next one.
    fn try_take_record(&self, id: SpaceId, known: u64) -> Option<Record> {
        let mut inner = self.space(id).inner.lock();
        if inner.is_record_busy {
            return None;
        }
        let record = inner.record.clone().filter(|record| record.sequence == known)?;
        inner.is_record_busy = true;
        Some(record)
    }

    /// Waits until no other task is at the record, and returns it; the next task waits for [`Self::give_record`].
    pub async fn take_record(&self, id: SpaceId) -> Option<Record> {
        until(|| {
            let mut inner = self.space(id).inner.lock();
            (!inner.is_record_busy).then(|| {
                inner.is_record_busy = true;
                inner.record.clone()
            })
        })
        .await
    }

    /// Lets the next task at the record.
    pub fn give_record(&self, id: SpaceId) {
        self.space(id).inner.lock().is_record_busy = false;
    }

    /// Another node has a space: nothing goes to its disk any more.
    fn lose_disk(&self, disk: usize, id: SpaceId, node: Uuid) {
        self.give_disk_up(disk);
        let taker = if node == Uuid::NIL { "another node".into() } else { format!("node {node}") };
        self.trouble(id, &format!("was taken by {taker}; nothing is written to its disk any more"));
    }

    fn give_disk_up(&self, disk: usize) {
        self.devices[disk].disk().give_up();
        for held in self.held_on(disk) {
            self.space(held).inner.lock().holding = None;
        }
        self.beats.disks[disk].due_ns.store(u64::MAX, Ordering::Release);
    }
}
