//! Looks for late writes of an earlier owner that did not stop cleanly, in the parts around the
//! blocks. The rules are in [`crate::space::succession`].
//!
//! A look holds the record, so that the space keeps its state meanwhile: a crash, an activation and
//! a release all begin with a change of the record. Dumps that this node drains are checked by
//! their own tasks ([`crate::crash::dumps`]).

use super::{SpaceId, SpacePhase, Spaces};
use crate::addr::PAGE_SIZE;
use crate::arch::time;
use crate::block::{Disk, DiskError};
use crate::space::SpaceRecord;
use crate::space::succession::{Succession, Surroundings, pause_after};
use crate::storage::describe::{self, PutMode, RecoveredPages};
use crate::time::Ns;
use core::sync::atomic::Ordering;

impl Spaces {
    /// Records how this node got a space.
    pub(super) fn succeed(&self, id: SpaceId, succession: Succession) {
        self.space(id).inner.lock().succession = succession;
        if succession.compares() {
            self.look_again(id, Ns::ZERO);
        }
    }

    /// Returns how this node got a space.
    pub fn succession(&self, id: SpaceId) -> Succession {
        self.space(id).inner.lock().succession
    }

    /// Reports that a late write was found and overwritten.
    pub fn tell_repaired(&self, id: SpaceId, what: &str) {
        self.trouble(
            id,
            &alloc::format!(
                "{what} was overwritten by a late write of an earlier owner, and is written again"
            ),
        );
    }

    /// Schedules the next look at a space, after a pause that depends on how long the last look
    /// took.
    fn look_again(&self, id: SpaceId, took_ns: Ns) {
        let at_ns = time::now_ns().saturating_add(pause_after(took_ns));
        self.space(id).inner.lock().late_ns = at_ns;
        self.mend_due_ns.lower(at_ns, Ordering::AcqRel);
    }

    /// Begins a look if it is due; returns when the next one is due, if there will be one.
    pub(super) fn look_for_late_writes(&'static self, id: SpaceId, now_ns: Ns) -> Option<Ns> {
        let mut inner = self.space(id).inner.lock();
        if !inner.succession.is_watched(now_ns) || matches!(inner.phase, SpacePhase::Failed(_)) {
            return None;
        }
        if now_ns >= inner.late_ns && self.disk(id).is_dead() {
            inner.late_ns = now_ns.saturating_add(pause_after(Ns::ZERO));
        }
        if now_ns < inner.late_ns {
            return Some(inner.late_ns);
        }
        // Set again when the look ends.
        inner.late_ns = Ns::MAX;
        drop(inner);
        self.tasks.start(async move {
            let start_ns = time::now_ns();
            // An error is ignored: the next look tries again.
            let _ = self.repair_surroundings(id).await;
            self.look_again(id, time::now_ns().saturating_sub(start_ns));
        });
        None
    }

    async fn repair_surroundings(&self, id: SpaceId) -> Result<(), DiskError> {
        let record = self.take_record(id).await;
        let (phase, was_cut_off) = {
            let inner = self.space(id).inner.lock();
            (inner.phase, inner.was_cut_off)
        };
        let result = match record.map(|record| (Surroundings::of(record.state), record)) {
            Some((Surroundings::NoHeader, _))
                if matches!(phase, SpacePhase::Free | SpacePhase::Active) =>
            {
                self.repair_head(id).await
            }
            Some((Surroundings::Header, record)) if phase == SpacePhase::Dump && was_cut_off => {
                self.repair_header(id, &record).await
            }
            _ => Ok(()),
        };
        self.give_record(id);
        result
    }

    /// Zeroes the first page again.
    async fn repair_head(&self, id: SpaceId) -> Result<(), DiskError> {
        if self.is_zero(id, 0, PAGE_SIZE as usize).await? {
            return Ok(());
        }
        self.write(id, 0, &[0; PAGE_SIZE as usize]).await?;
        self.flush(id).await?;
        self.tell_repaired(id, "its first page");
        Ok(())
    }

    /// Rewrites the header of a dump from its bitmap and record, if they differ.
    async fn repair_header(&self, id: SpaceId, record: &SpaceRecord) -> Result<(), DiskError> {
        let Some(contents) = &record.contents else { return Ok(()) };
        let mut pages =
            RecoveredPages::new(self, id, contents, record.drain.progress, &record.missing)?;
        let (_, written) =
            describe::headers(&mut pages, record.drain.notes_len, PutMode::Repair).await?;
        if written > 0 {
            self.flush(id).await?;
            self.tell_repaired(id, "the header of its dump");
        }
        Ok(())
    }
}
