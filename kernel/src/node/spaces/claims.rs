//! Claims on spaces: taken before anything is written, renewed while the node runs, taken away when it stops in order.
//!
//! Who finds at a beat that another node has taken the claim gives the disk up at once: from then on nothing is submitted to it. That
//! bounds what a node can spoil that was stopped for longer than others watch, and then goes on, to half a second; a disk without
//! compare-and-write cannot do better.
//!
//! A memory-backed disk is nobody else's and has no claims.

use super::{SpaceId, Spaces};
use crate::arch::time;
use crate::block::DiskError;
use crate::console::event::Event;
use crate::node::report;
use crate::node::task::until;
use crate::paging::space::Uuid;
use crate::paging::space::claim::{BEAT_NS, CLAIM_LEN, Claim, SETTLE_NS, Verdict, Watch};
use alloc::format;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// When claims are renewed.
#[derive(Debug)]
pub(super) struct Beats {
    /// The next one; never, before there is anything to renew and after it was given up.
    due_ns: AtomicU64,
    /// One is under way.
    beating: AtomicBool,
    /// How many there were.
    count: AtomicU64,
}

impl Beats {
    pub(super) const fn new() -> Self {
        Self { due_ns: AtomicU64::new(u64::MAX), beating: AtomicBool::new(false), count: AtomicU64::new(1) }
    }
}

impl Spaces {
    /// Claims these spaces; watches those that are claimed already, and refuses those that somebody else is at.
    pub(super) async fn claim_all(&self, ids: Vec<SpaceId>) {
        let free = self.watch(ids).await;
        let mut written = Vec::new();
        for id in free {
            match self.write_claim(id, Some(self.own_claim())).await {
                Ok(()) => written.push(id),
                Err(error) => self.refuse(id, &format!("cannot be claimed: {error:?}")),
            }
        }
        if !written.is_empty() {
            sleep(SETTLE_NS).await;
        }
        for id in written {
            match self.read_claim(id).await {
                Ok(Some(claim)) if claim.node == self.node => self.space(id).inner.lock().is_claimed = true,
                Ok(Some(claim)) => self.refuse_in_use(id, claim.node),
                other => self.refuse(id, &format!("lost its claim: {other:?}")),
            }
        }
        self.beats.due_ns.store(time::now_ns() + BEAT_NS, Ordering::Release);
    }

    /// Returns those that nobody is at, as soon as that is known of all.
    async fn watch(&self, ids: Vec<SpaceId>) -> Vec<SpaceId> {
        let (mut free, mut watched) = (Vec::new(), Vec::new());
        for id in ids {
            match self.read_claim(id).await {
                Ok(None) => free.push(id),
                Ok(Some(claim)) => {
                    self.tell_watching(id, claim.node);
                    watched.push((id, Watch::new(Some(claim), time::now_ns())));
                }
                Err(error) => self.refuse(id, &format!("cannot be read: {error:?}")),
            }
        }
        while !watched.is_empty() {
            sleep(BEAT_NS).await;
            let mut still = Vec::new();
            for (id, watch) in watched {
                let seen = self.read_claim(id).await;
                match seen.map(|seen| watch.look(seen, time::now_ns())) {
                    Ok(Verdict::Free) => free.push(id),
                    Ok(Verdict::Watch) => still.push((id, watch)),
                    Ok(Verdict::InUse(node)) => self.refuse_in_use(id, node),
                    Err(error) => self.refuse(id, &format!("cannot be read: {error:?}")),
                }
            }
            watched = still;
        }
        free
    }

    /// Renews the claims when it is time; called at every turn.
    pub fn beat(&'static self, now_ns: u64) {
        let beats = &self.beats;
        if now_ns < beats.due_ns.load(Ordering::Acquire) || beats.beating.swap(true, Ordering::AcqRel) {
            return;
        }
        self.tasks.start(async move {
            for id in (0..self.spaces.len()).map(SpaceId) {
                // One that could not be renewed is tried again at the next beat.
                let _ = self.renew_claim(id).await;
            }
            self.beats.count.fetch_add(1, Ordering::AcqRel);
            // Unless it was given up meanwhile.
            let _ = self
                .beats
                .due_ns
                .try_update(Ordering::AcqRel, Ordering::Acquire, |due| (due != u64::MAX).then(|| time::now_ns() + BEAT_NS));
            self.beats.beating.store(false, Ordering::Release);
        });
    }

    async fn renew_claim(&self, id: SpaceId) -> Result<(), DiskError> {
        if !self.is_claimed(id) {
            return Ok(());
        }
        match self.read_claim(id).await? {
            Some(claim) if claim.node == self.node => self.write_claim(id, Some(self.own_claim())).await,
            other => {
                self.space(id).inner.lock().is_claimed = false;
                self.disk(id).give_up();
                let name = other.map_or(Uuid::NIL, |claim| claim.node);
                self.trouble(id, &format!("was taken by node {name}; nothing is written to its disk any more"));
                Ok(())
            }
        }
    }

    /// Takes all claims away: the last that a node writes.
    pub async fn give_up_claims(&self) {
        self.beats.due_ns.store(u64::MAX, Ordering::Release);
        until(|| (!self.beats.beating.load(Ordering::Acquire)).then_some(())).await;
        for id in (0..self.spaces.len()).map(SpaceId).filter(|&id| self.is_claimed(id)) {
            // What the claim stood for is durable before it goes.
            if self.io.flush(self.disk(id)).await.is_ok() && self.write_claim(id, None).await.is_ok() {
                self.space(id).inner.lock().is_claimed = false;
                let _ = self.io.flush(self.disk(id)).await;
            }
        }
    }

    fn own_claim(&self) -> Claim {
        Claim { node: self.node, beat: self.beats.count.load(Ordering::Acquire) }
    }

    fn is_claimed(&self, id: SpaceId) -> bool {
        self.space(id).inner.lock().is_claimed
    }

    async fn read_claim(&self, id: SpaceId) -> Result<Option<Claim>, DiskError> {
        let mut bytes = [0; CLAIM_LEN];
        self.read(id, self.claim_start(id)?, &mut bytes).await?;
        Ok(Claim::decode(&bytes))
    }

    async fn write_claim(&self, id: SpaceId, claim: Option<Claim>) -> Result<(), DiskError> {
        let bytes = claim.map_or([0; CLAIM_LEN], |claim| claim.encode());
        self.write(id, self.claim_start(id)?, &bytes).await
    }

    fn claim_start(&self, id: SpaceId) -> Result<u64, DiskError> {
        Claim::start(self.place(id).area.bytes()).ok_or(DiskError::Unsupported)
    }

    fn refuse_in_use(&self, id: SpaceId, node: Uuid) {
        self.refuse(id, &format!("in use: node {node} runs on it; this one leaves it alone"));
    }

    fn refuse(&self, id: SpaceId, message: &str) {
        self.space(id).inner.lock().is_refused = true;
        self.trouble(id, message);
    }

    fn tell_watching(&self, id: SpaceId, node: Uuid) {
        let place = self.place(id);
        let mut name = ArrayString::<36>::new();
        let _ = write!(name, "{node}");
        report(&Event::Watching { disk: place.disk as u8, space: place.number, node: &name });
    }
}

/// Goes on after so long.
async fn sleep(ns: u64) {
    let end = time::now_ns().saturating_add(ns);
    until(|| (time::now_ns() >= end).then_some(())).await;
}
