//! Spaces that a disk error has put out of use: they are tried again after some time, as at a
//! start.
//!
//! ```text
//!   Activating, Draining, Releasing ── error ──> Failed ── 10 s, then 20, 40 ... 320 ──> opened again ─┬─> Free, Dump, Releasing
//!                                                  ^                                                   │
//!                                                  └──────────────────── error ────────────────────────┘
//! ```
//!
//! So a space is not lost until the next start. A dump that could not be sealed is sealed once its
//! disk accepts writes again, and a space that could not be claimed is claimed.

use super::{SpaceId, SpacePhase, Spaces};
use crate::arch::time;
use crate::block::{Disk, DiskError};
use crate::storage::DiskLease;
use crate::time::Ns;
use alloc::format;
use core::sync::atomic::Ordering;

/// Time until the first retry.
const FIRST_NS: Ns = Ns::from_secs(10);
/// How often that time is doubled at most.
const DOUBLINGS: u32 = 5;

impl Spaces {
    /// Puts a space out of use after an error; it is tried again later.
    pub fn set_aside(&self, id: SpaceId, error: DiskError) {
        let mut inner = self.space(id).inner.lock();
        inner.phase = SpacePhase::Failed(error);
        let wait_ns = FIRST_NS.saturating_mul(1 << inner.failures.min(DOUBLINGS));
        inner.failures = inner.failures.saturating_add(1);
        inner.again_ns = time::now_ns().saturating_add(wait_ns);
        self.mend_due_ns.lower(inner.again_ns, Ordering::AcqRel);
    }

    /// Opens spaces again that have waited long enough, and checks others for late writes; called
    /// at every turn.
    pub fn mend(&'static self, now_ns: Ns) {
        if now_ns < self.mend_due_ns.load(Ordering::Acquire) {
            return;
        }
        self.mend_due_ns.store(Ns::MAX, Ordering::Release);
        for id in (0..self.spaces.len()).map(SpaceId) {
            if let Some(next_ns) = self.look_for_late_writes(id, now_ns) {
                self.mend_due_ns.lower(next_ns, Ordering::AcqRel);
            }
            self.follow(id);
            let mut inner = self.space(id).inner.lock();
            if !matches!(inner.phase, SpacePhase::Failed(_)) {
                continue;
            }
            // A dead disk is waited for, and so is a disk whose claim was lost: it accepts no
            // requests any more.
            let disk = self.disk(id);
            let is_away =
                disk.is_dead() || matches!(disk.lease(), DiskLease::Left | DiskLease::Awaited);
            if inner.again_ns > now_ns || is_away {
                inner.again_ns = inner.again_ns.max(now_ns.saturating_add(FIRST_NS));
                self.mend_due_ns.lower(inner.again_ns, Ordering::AcqRel);
                continue;
            }
            inner.phase = SpacePhase::Unusable;
            drop(inner);
            self.tasks.start(self.open_again(id));
        }
    }

    async fn open_again(&'static self, id: SpaceId) {
        if let Err(error) = self.open_late(id).await {
            self.trouble(id, &format!("still cannot be used ({error}); it is tried again later"));
            return self.set_aside(id, error);
        }
        self.settle_opened(id).await;
    }
}
