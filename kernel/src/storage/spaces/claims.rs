//! Claims on spaces: taken before anything is written, released when the node stops cleanly.
//!
//! The rules are in `space::taking` and `holding`; this module carries them out on the
//! disks. Every space is claimed by its own task, so that a disk that hangs, or a claim that is
//! watched, delays no other space. [`super::beats`] renews the claims.
//!
//! A memory-backed disk belongs to no other node and has no claims.

use super::retry::patiently;
use super::{SpaceId, Spaces};
use crate::arch::time;
use crate::block::patience::SpaceAccess;
use crate::block::{DiskError, QueueLane};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::space::claim::{CLAIM_LEN, ClaimSector, ClaimSectors, PAGE_LEN, SpaceClaim};
use crate::space::copies::{RecordSequence, TAIL_LEN, newest};
use crate::space::holding::SpaceHolding;
use crate::space::succession::Succession;
use crate::space::taking::{ClaimLook, SpaceTaking, TakingStep};
use crate::space::{SpaceRecord, Uuid};
use crate::task::until;
use crate::time::Ns;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use core::fmt::Write;
use core::sync::atomic::{AtomicUsize, Ordering};

/// How long a clean stop waits for disks that do not answer; the next start watches a claim that
/// stays.
const LAST_PATIENCE_NS: Ns = Ns::from_secs(10);

/// The last 12 KiB of a space: claims and both records.
pub(super) struct SpaceEnding {
    claims: [u8; PAGE_LEN],
    tail: [u8; TAIL_LEN],
}

impl SpaceEnding {
    /// Returns the newest record, if one is valid.
    pub(super) fn record(&self, capacity: u64) -> Option<SpaceRecord> {
        newest(&self.tail, capacity).ok()
    }

    /// Returns the two copies of the record.
    pub(super) const fn tail(&self) -> &[u8; TAIL_LEN] {
        &self.tail
    }
}

impl Spaces {
    /// Claims these spaces. Watches those that are already claimed, and refuses those that another
    /// node uses.
    pub(super) async fn claim_all(&'static self, ids: Vec<SpaceId>) {
        let left = Arc::new(AtomicUsize::new(ids.len()));
        for id in ids {
            let left = left.clone();
            self.tasks.start(async move {
                if let Err(error) = self.claim_space(id).await {
                    self.trouble(
                        id,
                        &format!("cannot be claimed: {error}; it is tried again later"),
                    );
                    self.set_aside(id, error);
                }
                left.fetch_sub(1, Ordering::AcqRel);
            });
        }
        until(|| (left.load(Ordering::Acquire) == 0).then_some(())).await;
    }

    /// Claims a space, with retries if the disk refuses. The space is [refused](Self::is_refused)
    /// if another node has it.
    ///
    /// # Errors
    /// The disk's error, after some tries.
    pub(super) async fn claim_space(&'static self, id: SpaceId) -> Result<(), DiskError> {
        patiently!(self, id, SpaceAccess::Claim, self.claim_once(id).await)
    }

    async fn claim_once(&'static self, id: SpaceId) -> Result<(), DiskError> {
        while let Some((claim, look)) = self.take(id).await? {
            if self.found(id, SpaceHolding::new(claim, look.asked_ns)).await? {
                self.succeed(id, Succession::of(&look.claims, self.node, time::now_ns()));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes the claim, and returns the look that proves it; `None` if the space is refused.
    async fn take(&self, id: SpaceId) -> Result<Option<(SpaceClaim, ClaimLook)>, DiskError> {
        let mut taking = SpaceTaking::new(self.node);
        let (mut next_ns, mut is_told) = (Ns::ZERO, false);
        loop {
            sleep_until(next_ns).await;
            // No other request of this start comes between the look that finds a space free and the
            // write that claims it.
            let _turn = self.beats.turn(self.place(id).disk).await;
            let (look, _) = self.look(id).await?;
            let mut step = taking.looked(&look);
            if let TakingStep::Write(claim) = step {
                self.write_claim(id, &claim).await?;
                step = taking.wrote(time::now_ns());
            }
            match step {
                TakingStep::Look(at_ns) => next_ns = at_ns,
                TakingStep::Own(claim) => return Ok(Some((claim, look))),
                TakingStep::InUse(node) => {
                    self.refuse(
                        id,
                        &format!("in use: node {node} runs on it; this node leaves it alone"),
                    );
                    return Ok(None);
                }
                TakingStep::Exhausted => {
                    self.refuse(id, "its claims' epochs are used up: format it");
                    return Ok(None);
                }
                TakingStep::Write(_) => unreachable!("a write was carried out"),
            }
            if let Some(node) = taking.watched().filter(|&node| node != self.node && !is_told) {
                self.tell_watching(id, node);
                is_told = true;
            }
        }
    }

    /// Releases all claims: the last write of a node.
    pub async fn give_up_claims(&'static self) {
        let disks: Vec<usize> =
            (0..self.devices.len()).filter(|&disk| self.held_on(disk).next().is_some()).collect();
        let left = Arc::new(AtomicUsize::new(disks.len()));
        for disk in disks {
            let left = left.clone();
            self.tasks.start(async move {
                // The data that the claims protect is durable before they go; the next start
                // watches a claim that stays.
                let _ = self.release_claims(disk).await;
                left.fetch_sub(1, Ordering::AcqRel);
            });
        }
        let deadline = time::now_ns().saturating_add(LAST_PATIENCE_NS);
        until(|| (left.load(Ordering::Acquire) == 0 || time::now_ns() >= deadline).then_some(()))
            .await;
    }

    async fn release_claims(&self, disk: usize) -> Result<(), DiskError> {
        let held: Vec<SpaceId> = self.held_on(disk).collect();
        let Some(&first) = held.first() else { return Ok(()) };
        self.flush(first).await?;
        let _turn = self.beats.stop(disk).await;
        // Each claim is released once before any is tried again: a sector that cannot be written
        // uses up the time, and must not keep the other claims.
        let mut refused = Vec::with_capacity(held.len());
        for id in held {
            let Some(holding) = self.space(id).inner.lock().holding.take() else { continue };
            if self.end_claim_once(id, &holding.claim()).await.is_err() {
                refused.push((id, holding.claim()));
            }
        }
        let mut result = Ok(());
        for (id, claim) in refused {
            result = result.and(self.end_claim(id, &claim).await);
        }
        result
    }

    /// Releases a claim for good.
    pub(super) async fn end_claim(&self, id: SpaceId, claim: &SpaceClaim) -> Result<(), DiskError> {
        patiently!(self, id, SpaceAccess::ClaimsEnd, self.end_claim_once(id, claim).await)
    }

    async fn end_claim_once(&self, id: SpaceId, claim: &SpaceClaim) -> Result<(), DiskError> {
        self.write_mark(id, claim.epoch, &ClaimSector::released(claim)).await?;
        self.io.flush_in(self.disk(id), QueueLane::Beat).await
    }

    /// Returns the spaces of a disk that this node has claimed.
    pub(super) fn held_on(&self, disk: usize) -> impl Iterator<Item = SpaceId> {
        let all = (0..self.spaces.len()).map(SpaceId);
        all.filter(move |&id| {
            self.place(id).disk == disk && self.space(id).inner.lock().holding.is_some()
        })
    }

    /// Reads claims and records.
    pub(super) async fn look(
        &self,
        id: SpaceId,
    ) -> Result<(ClaimLook, Box<SpaceEnding>), DiskError> {
        let mut bytes = alloc::vec![0; PAGE_LEN + TAIL_LEN];
        let asked_ns = time::now_ns();
        self.read_in(id, QueueLane::Beat, self.claim_start(id)?, &mut bytes).await?;
        let seen_ns = time::now_ns();
        let mut ending = Box::new(SpaceEnding { claims: [0; PAGE_LEN], tail: [0; TAIL_LEN] });
        ending.claims.copy_from_slice(&bytes[..PAGE_LEN]);
        ending.tail.copy_from_slice(&bytes[PAGE_LEN..]);
        let record = ending.record(self.place(id).area.bytes());
        let record_epoch = record.map_or(0, |record| RecordSequence(record.sequence).epoch());
        Ok((
            ClaimLook {
                claims: ClaimSectors::decode(&ending.claims),
                record_epoch,
                asked_ns,
                seen_ns,
            },
            ending,
        ))
    }

    pub(super) async fn write_claim(
        &self,
        id: SpaceId,
        claim: &SpaceClaim,
    ) -> Result<(), DiskError> {
        self.write_mark(id, claim.epoch, &claim.encode()).await
    }

    async fn write_mark(
        &self,
        id: SpaceId,
        epoch: u64,
        bytes: &[u8; CLAIM_LEN],
    ) -> Result<(), DiskError> {
        self.write_in(
            id,
            QueueLane::Beat,
            self.claim_start(id)? + SpaceClaim::offset(epoch) as u64,
            bytes,
        )
        .await
    }

    fn claim_start(&self, id: SpaceId) -> Result<u64, DiskError> {
        SpaceClaim::start(self.place(id).area.bytes()).ok_or(DiskError::Unsupported)
    }

    /// Returns whether the space is left alone because another node has it.
    pub(super) fn is_refused(&self, id: SpaceId) -> bool {
        self.space(id).inner.lock().is_refused
    }

    /// Returns whether this node may write to a space: it has claimed the space, or no other node
    /// can see the disk.
    pub(super) fn is_claimed(&self, id: SpaceId) -> bool {
        self.disk(id).base().is_some() || self.space(id).inner.lock().holding.is_some()
    }

    fn refuse(&self, id: SpaceId, message: &str) {
        self.space(id).inner.lock().is_refused = true;
        self.trouble(id, message);
    }

    fn tell_watching(&self, id: SpaceId, node: Uuid) {
        let place = self.place(id);
        let mut name = ArrayString::<36>::new();
        let _ = write!(name, "{node}");
        report(&ConsoleEvent::Watching {
            disk: place.disk as u8,
            space: place.number,
            node: &name,
        });
    }
}

/// Waits until `end_ns`.
async fn sleep_until(end_ns: Ns) {
    until(|| (time::now_ns() >= end_ns).then_some(())).await;
}

/// Waits for `ns` nanoseconds.
pub async fn sleep(ns: Ns) {
    sleep_until(time::now_ns().saturating_add(ns)).await;
}
