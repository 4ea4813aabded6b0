//! Opens the spaces at a start.

use super::{BUFFER, SpaceId, SpacePhase, Spaces, next};
use crate::arch::heap;
use crate::block::DiskError;
use crate::space::classify::HEAD_LEN;
use crate::space::copies::TAIL_LEN;
use crate::space::layout::usable;
use crate::space::places::{first_foreign, places};
use crate::space::recovery::{RecoveryAction, recovery};
use crate::space::{DeviceContent, ForeignData, PartialCause, SpaceRecord, SpaceState, classify};
use crate::storage::describe::{self, PutMode, RecoveredPages};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

impl Spaces {
    /// Opens every space: claims it, and finishes or resumes interrupted work. Runs as a task of
    /// its own, before the first partition.
    pub async fn open(&'static self) {
        let is_shared = |id: &SpaceId| self.log_of(*id).is_some();
        (0..self.spaces.len()).map(SpaceId).filter(is_shared).for_each(|id| self.share(id));
        let all = || (0..self.spaces.len()).map(SpaceId).filter(|id| !is_shared(id));
        let (mut ours, mut closed) = (Vec::new(), Vec::new());
        for id in all().filter(|&id| self.disk(id).base().is_none()) {
            match self.class(id).await {
                Ok(Some(DeviceContent::Closed(space))) => closed.push((id, space)),
                Ok(class) if may_be_ours(class.as_ref()) => ours.push(id),
                Ok(_) => {}
                Err(error) => self.cannot_read(id, error),
            }
        }
        self.leave_or_join(&closed);
        ours.retain(|id| !is_shared(id) && !self.is_refused(*id));
        self.claim_all(ours).await;
        for id in all() {
            // A space that could not be read or claimed is tried again later.
            if self.is_refused(id) || self.has_failed(id) {
                continue;
            }
            // The class is read again: another node may have used the space until it was claimed.
            if let Err(error) = self.open_one(id).await {
                self.cannot_read(id, error);
            }
        }
    }

    fn cannot_read(&self, id: SpaceId, error: DiskError) {
        self.trouble(id, &format!("cannot be read: {error}; it is tried again later"));
        self.set_aside(id, error);
    }

    fn has_failed(&self, id: SpaceId) -> bool {
        matches!(self.space(id).inner.lock().phase, SpacePhase::Failed(_))
    }

    /// Claims a space that could not be claimed earlier, and opens it.
    pub(super) async fn open_late(&'static self, id: SpaceId) -> Result<(), DiskError> {
        if self.log_of(id).is_some() && !self.is_claimed(id) {
            // The log may have given it to another member meanwhile.
            self.share(id);
            return Ok(());
        }
        if !self.is_claimed(id) && may_be_ours(self.class(id).await?.as_ref()) {
            self.claim_space(id).await?;
        }
        if self.is_refused(id) { Ok(()) } else { self.open_one(id).await }
    }

    /// Reads the class of a space; `None` if it is too small for one.
    pub(super) async fn class(&self, id: SpaceId) -> Result<Option<DeviceContent>, DiskError> {
        let bytes = self.place(id).area.bytes();
        let Some(tail) = usable(bytes).checked_sub(TAIL_LEN as u64) else { return Ok(None) };
        let head_len = (HEAD_LEN as u64).min(usable(bytes)) as usize;
        let mut head = heap::zeroed(head_len)?;
        self.read(id, 0, &mut head).await?;
        let mut tail_bytes = Box::new([0; TAIL_LEN]);
        self.read(id, tail, &mut tail_bytes[..]).await?;
        let class = classify(&head, &tail_bytes, bytes);
        if class != DeviceContent::Blank {
            return Ok(Some(self.closed_to_us(id, class)));
        }
        let foreign = self.foreign_byte(id).await?;
        Ok(Some(
            foreign.map_or(DeviceContent::Blank, |at| DeviceContent::Foreign(ForeignData::At(at))),
        ))
    }

    /// Looks for foreign data on a space whose head and tail are zeros.
    async fn foreign_byte(&self, id: SpaceId) -> Result<Option<u64>, DiskError> {
        let capacity = self.place(id).area.bytes();
        for place in places(capacity) {
            let end = place.start + place.len;
            for at in (place.start..end).step_by(BUFFER) {
                let len = (end - at).min(BUFFER as u64) as usize;
                if self.is_zero(id, at, len).await? {
                    continue;
                }
                let mut bytes = heap::zeroed(len)?;
                self.read(id, at, &mut bytes).await?;
                if let Some(byte) = first_foreign(at, &bytes, capacity) {
                    return Ok(Some(byte));
                }
            }
        }
        Ok(None)
    }

    /// Opens a space while holding its record, so that no beat takes a write of this task for
    /// another node's record.
    pub(super) async fn open_one(&self, id: SpaceId) -> Result<(), DiskError> {
        let _ = self.take_record(id).await;
        let result = self.open_with_record(id).await;
        self.give_record(id);
        result
    }

    async fn open_with_record(&self, id: SpaceId) -> Result<(), DiskError> {
        let space = self.space(id);
        let Some(class) = self.class(id).await? else {
            self.trouble(id, "too small for a paging space");
            return Ok(());
        };
        match &class {
            DeviceContent::Foreign(what) => self.trouble(
                id,
                &format!("holds {what}; `tidepool volume format` would make a paging space of it"),
            ),
            DeviceContent::Closed(closed) => self.tell_closed(id, closed),
            DeviceContent::Newer(error) => {
                self.trouble(
                    id,
                    &format!("is left alone, a newer version of the hypervisor uses it: {error}"),
                );
            }
            DeviceContent::Damaged(damage) => {
                self.trouble(id, &format!("damaged record: A: {}; B: {}", damage.a, damage.b))
            }
            _ => {}
        }
        let decided = recovery(&class);
        let was_cut_off = decided == RecoveryAction::Finish;
        let (phase, record) = match decided {
            RecoveryAction::Leave => return Ok(()),
            RecoveryAction::Format => {
                let record = self.blank_record(id);
                self.write_record(id, &record).await?;
                (SpacePhase::Free, record)
            }
            RecoveryAction::Reclaim(record) => {
                self.write_record(id, &record).await?;
                (SpacePhase::Free, record)
            }
            RecoveryAction::Use => (SpacePhase::Free, known(class)),
            RecoveryAction::Keep => (SpacePhase::Dump, known(class)),
            RecoveryAction::KeepSuspended => {
                let record = known(class);
                self.describe_suspended(id, &record).await?;
                (SpacePhase::Suspended, record)
            }
            RecoveryAction::KeepSealed => {
                let record = known(class);
                self.describe_suspended(id, &record).await?;
                (SpacePhase::Sealed, record)
            }
            // Its base may be in a space that is not open yet.
            RecoveryAction::Inherit => (SpacePhase::Inheriting, known(class)),
            RecoveryAction::Finish => (SpacePhase::Dump, self.finish(id, known(class)).await?),
            RecoveryAction::Scrub => (SpacePhase::Releasing, known(class)),
        };
        // Only the host selects a dump, and only while no hypervisor has the disk: the selection
        // stays valid until the space is reused.
        let is_selected = phase == SpacePhase::Dump && self.is_selected(id).await?;
        self.tell(id, &record);
        let mut inner = space.inner.lock();
        (inner.phase, inner.record, inner.failures) = (phase, Some(record), 0);
        inner.is_selected = is_selected;
        inner.was_cut_off = was_cut_off;
        Ok(())
    }

    /// Makes a partial dump of an interrupted drain: brings the header up to date, then the record.
    pub(super) async fn finish(
        &self,
        id: SpaceId,
        cut: SpaceRecord,
    ) -> Result<SpaceRecord, DiskError> {
        let mut record = next(cut, |r| {
            r.state = SpaceState::Partial;
            if r.partial_cause == PartialCause::NONE {
                r.partial_cause = PartialCause::CUT_OFF;
            }
            r.base = None;
        });
        if let Some(contents) = record.contents.clone() {
            let (progress, missing) = (record.drain.progress, &record.missing);
            let mut pages = RecoveredPages::new(self, id, &contents, progress, missing)?;
            record.drain.program_headers =
                describe::headers(&mut pages, record.drain.notes_len, PutMode::Write).await?.0;
            self.flush(id).await?;
        }
        self.write_record(id, &record).await?;
        Ok(record)
    }
}

fn may_be_ours(class: Option<&DeviceContent>) -> bool {
    matches!(class, Some(DeviceContent::Blank | DeviceContent::Space(_)))
}

fn known(class: DeviceContent) -> SpaceRecord {
    match class {
        DeviceContent::Space(record) => record,
        _ => unreachable!("only a space with a valid record is kept"),
    }
}
