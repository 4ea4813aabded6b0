//! Late writes of an earlier owner that did not stop in order: looked for in what surrounds the blocks, by the rules of
//! [`crate::paging::space::succession`].
//!
//! A look holds the record, so that the space keeps its state meanwhile: a crash, an activation and a release begin with a change
//! of the record. The dumps that this node drains are looked after by their own tasks ([`crate::node::dumps`]).

use super::{Phase, SpaceId, Spaces};
use crate::addr::PAGE_SIZE;
use crate::arch::time;
use crate::block::{Disk, DiskError};
use crate::node::describe::{self, PutMode, Recovered};
use crate::paging::space::Record;
use crate::paging::space::succession::{Succession, Surroundings, pause_after};
use core::sync::atomic::Ordering;

impl Spaces {
    /// Notes how this node came by a space.
    pub(super) fn succeed(&self, id: SpaceId, succession: Succession) {
        self.space(id).inner.lock().succession = succession;
        if succession.compares() {
            self.look_again(id, 0);
        }
    }

    /// Returns how this node came by a space.
    pub fn succession(&self, id: SpaceId) -> Succession {
        self.space(id).inner.lock().succession
    }

    /// Tells that a late write was found and written over.
    pub fn tell_repaired(&self, id: SpaceId, what: &str) {
        self.trouble(id, &alloc::format!("{what} was overwritten by a late write of an earlier owner, and is written again"));
    }

    /// Looks at a space again after the pause that follows a look of this length.
    fn look_again(&self, id: SpaceId, took_ns: u64) {
        let at_ns = time::now_ns().saturating_add(pause_after(took_ns));
        self.space(id).inner.lock().late_ns = at_ns;
        self.mend_due_ns.fetch_min(at_ns, Ordering::AcqRel);
    }

    /// Begins a look where it is time for one; says when the next one is due, if there is to be one.
    pub(super) fn look_for_late_writes(&'static self, id: SpaceId, now_ns: u64) -> Option<u64> {
        let mut inner = self.space(id).inner.lock();
        if !inner.succession.is_watched(now_ns) || matches!(inner.phase, Phase::Failed(_)) {
            return None;
        }
        if now_ns >= inner.late_ns && self.disk(id).is_dead() {
            inner.late_ns = now_ns.saturating_add(pause_after(0));
        }
        if now_ns < inner.late_ns {
            return Some(inner.late_ns);
        }
        // The end of the look sets it anew.
        inner.late_ns = u64::MAX;
        drop(inner);
        self.tasks.start(async move {
            let start_ns = time::now_ns();
            // What fails is tried again at the next look.
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
            Some((Surroundings::NoHeader, _)) if matches!(phase, Phase::Free | Phase::Active) => self.repair_head(id).await,
            Some((Surroundings::Header, record)) if phase == Phase::Dump && was_cut_off => self.repair_header(id, &record).await,
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

    /// Makes the header of a dump say again what bitmap and record say.
    async fn repair_header(&self, id: SpaceId, record: &Record) -> Result<(), DiskError> {
        let Some(contents) = &record.contents else { return Ok(()) };
        let mut pages = Recovered::new(self, id, contents, record.drain.progress, &record.missing)?;
        let (_, written) = describe::headers(&mut pages, record.drain.notes_len, PutMode::Repair).await?;
        if written > 0 {
            self.flush(id).await?;
            self.tell_repaired(id, "the header of its dump");
        }
        Ok(())
    }
}
